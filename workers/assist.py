"""Helping with a job that another worker runs: an idle one computes slabs of its volume.

Everything lies in the job's folder: a helper that dies, comes too late or is never called costs nothing but time.
"""

from __future__ import annotations

import logging
import time

from operators.errors import Cancelled, NotFound, ReconError
from operators.interrupt import interruptible
from recon import prepare
from workers.store import JobStore

ASK_EVERY_S = 0.2
log = logging.getLogger("recon.assist")


def assist(store: JobStore, job_id: str, token: str) -> None:
    """Compute slabs of an attempt at a job until none is left, or the attempt is over.

    Parameters
    ----------
    token
        Of the attempt.
    """
    attempt = _Attempt(store, job_id, token)
    try:
        attempt.ask()
        log.info("helping with job %s", job_id)
        with interruptible(attempt.ask):
            spec = store.spec(job_id)
            for _ in prepare.assist(spec, store.job_files(spec), store.work(job_id)):
                attempt.ask()
    except (Cancelled, NotFound):
        log.info("job %s needs no help any more", job_id)
    except (ReconError, MemoryError) as error:
        # Whoever runs the job meets the same and records it, or gets along without help.
        log.warning("helping with job %s failed: %s", job_id, error)
    except FileNotFoundError:
        if attempt.lasts():
            raise
        log.info("job %s ended meanwhile", job_id)


class _Attempt:
    """An attempt at a job that somebody else makes."""

    def __init__(self, store: JobStore, job_id: str, token: str) -> None:
        self.store, self.job_id, self.token = store, job_id, token
        self._asked = 0.0

    def lasts(self) -> bool:
        """Whether the attempt goes on."""
        record = self.store.record(self.job_id)
        return record.state == "running" and record.token == self.token

    def ask(self) -> None:
        """Raise `Cancelled` once the attempt is over; called from inner loops, so it looks now and then only."""
        now = time.monotonic()
        if now - self._asked >= ASK_EVERY_S:
            self._asked = now
            if not self.lasts():
                raise Cancelled("the attempt is over")
