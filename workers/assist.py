"""Help with a job that another worker runs: an idle worker computes chunks of its volume.

Everything lies in the job's folder: a helper that dies, comes too late or is never called costs nothing but time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from operators.errors import Cancelled, NotFound, ReconError
from operators.interrupt import interruptible
from recon.pipeline import prepare
from recon.pipeline.chunk_cache import ChunkCache
from workers import stopping
from workers.store import JobStore

ASK_EVERY_S = 0.2
log = logging.getLogger("recon.assist")


def assist(store: JobStore, job_id: str, token: str, others_wait: Callable[[], bool] = lambda: False) -> bool:
    """Compute chunks of an attempt at a job until none is left, the attempt is over, or other jobs wait for a worker.

    Parameters
    ----------
    token
        Token of the attempt.
    others_wait
        Asked before each chunk.

    Returns
    -------
    bool
        Whether help would still be welcome.
    """
    attempt = _Attempt(store, job_id, token)
    try:
        cache = ChunkCache(store.work(job_id))
        attempt.ask()
        if not cache.wanted():
            return False
        if others_wait():
            return True
        log.info("helping with job %s", job_id)
        with interruptible(attempt.ask):
            spec = store.spec(job_id)
            steps = prepare.assist(spec, store.job_files(spec), store.work(job_id), others_wait)
            while True:
                next(steps)
                attempt.ask()
    except StopIteration as end:
        return bool(end.value)
    except (Cancelled, NotFound):
        log.info("job %s needs no help any more", job_id)
    except stopping.GivenBack:
        log.info("helping with job %s ends, this worker is stopping", job_id)
        return True
    except (ReconError, MemoryError) as error:
        # Whoever runs the job meets the same and records it, or gets along without help.
        log.warning("helping with job %s failed: %s", job_id, error)
    except FileNotFoundError:  # the cache, which may go before we have asked for the job's state
        log.info("job %s ended meanwhile", job_id)
    return False


class _Attempt:
    """Another worker's attempt at a job."""

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
            stopping.ask()
            if not self.lasts():
                raise Cancelled("the attempt is over")
