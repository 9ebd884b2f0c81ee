"""Execute a job of the store: drop duplicates, report progress, obey cancellation, record every end."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from operators.errors import Cancelled, Conflict, NotFound, ReconError, StorageFull
from operators.interrupt import interruptible
from recon.pipeline.prepare import JobProgress
from recon.pipeline.reconstruct import run
from recon.spec.job_states import Device
from workers import stopping
from workers.background import every
from workers.events import log_kept
from workers.lease import Lease
from workers.lost_jobs import MAX_ATTEMPTS, cancel_lost, fail_lost
from workers.store import JobStore, Record, new_id

REPORT_EVERY_S = 0.5
PREVIEW_EVERY_S = 5.0
PREVIEW_SHARE = 0.01
"""Most of the time that is spent on previews; where drawing takes long, they come more rarely."""
ASK_EVERY_S = 0.2
CANCEL_S = 1.2
"""Seconds after which a job is marked as cancelled although its computation has not reacted; its result is lost."""
DEAF_S = 60.0
"""Grace period after `CANCEL_S`; a computation still running then counts as hung and its process is killed."""
Invite = Callable[[str, str, int, Device], None]
"""Function that asks other workers for help, called with job, token of the attempt, number of free chunks, device."""
log = logging.getLogger("recon.worker")


def execute(store: JobStore, job_id: str, redis_url: str | None = None, invite: Invite | None = None) -> None:
    """Compute one job to a final state, unless the process dies or the worker is stopped.

    Delivered twice, the second finds the run lock or the lease taken, or the job finished, and does nothing.

    Parameters
    ----------
    redis_url
        Where the lease is kept; None goes without.
    invite
        Asks other workers to help with chunks, see `workers.tasks.invite`; None computes alone.

    Raises
    ------
    workers.stopping.GivenBack
        If the worker is stopping: the attempt does not count, and the job is to be queued again.
    """
    with store.running_lock(job_id) as mine:
        if not mine:
            log.info("job %s is being computed elsewhere, delivery dropped", job_id)
            return
        record = store.recover(job_id)
        if record.terminal:
            log.info("job %s is %s already, delivery dropped", job_id, record.state)
            return
        if record.state == "cancelling" or store.cancel_requested(job_id):
            cancel_lost(store, record)
            return
        if record.attempt >= MAX_ATTEMPTS:
            fail_lost(store, record)
            return
        lease = Lease(redis_url, job_id, new_id()) if redis_url else None
        if lease is not None and not lease.acquire():
            log.info("job %s has a live lease elsewhere, delivery dropped", job_id)
            return
        with lease.kept() if lease is not None else nullcontext():
            try:
                record = store.transition(job_id, "running", progress=0.0, stage="starting")
            except Conflict:
                log.info("job %s was cancelled before it started", job_id)
                return
            try:
                _attempt(store, record, invite)
            except NotFound:
                log.warning("job %s was removed while it was computed", job_id)


def _attempt(store: JobStore, record: Record, invite: Invite | None) -> None:
    token = str(record.token)
    store.clear(record.id, work=False)  # of attempts that died
    reporter = _Reporter(store, record.id, token)

    def ask_for_help(chunks: int) -> None:
        if invite is not None:
            invite(record.id, token, chunks, record.device)

    with log_kept(partial(store.log, record.id, token)):
        try:
            with every(ASK_EVERY_S, reporter.watch, "cancellation watch"), interruptible(reporter.ask):
                _compute(store, record, reporter, ask_for_help)
        except Conflict as error:  # another process has recorded the end, or begun another attempt
            log.info("%s", error)
    if store.record(record.id).token == token:
        store.clear(record.id)


def _compute(store: JobStore, record: Record, reporter: _Reporter, invite: Callable[[int], None]) -> None:
    job_id, end = record.id, partial(store.transition, record.id, token=record.token)
    try:
        spec, finished = store.spec(job_id), store.attempt(record)
        run(spec, store.job_files(spec), finished, reporter, store.work(job_id), invite)
        store.publish(job_id, str(record.token), finished)
    except Cancelled:
        end("cancelled")
    except stopping.GivenBack:
        back = {"attempt": record.attempt - 1, "stage": "given back", "started": None}
        store.report_progress(job_id, token=record.token, **back)
        raise
    except (Conflict, NotFound) as error:
        if store.record(job_id).token != record.token:
            raise
        log.warning("job %s failed: %s", job_id, error)
        end("failed", error=error.as_dict())
    except ReconError as error:
        log.warning("job %s failed: %s", job_id, error)
        end("failed", error=error.as_dict())
    except MemoryError:
        end("failed", error={"code": "out_of_memory", "message": "the job needs more memory"})
    except Exception as error:
        full = StorageFull.of(error)
        if full is not None:
            log.warning("job %s failed: %s", job_id, error)
            shutil.rmtree(store.attempt(record), ignore_errors=True)  # makes room for saying so
            end("failed", error=full.as_dict())
            return
        log.exception("job %s failed unexpectedly", job_id)
        message = f"unexpected {type(error).__name__}; the worker's log has the details"
        end("failed", error={"code": "internal", "message": message})


class _Reporter:
    """Progress reporter: writes at most twice per second, and each stage at once; stops a job that is to be cancelled.

    The fraction that is reported never falls, though a method may find that it needs more steps than it had announced.
    """

    def __init__(self, store: JobStore, job_id: str, token: str) -> None:
        self.store, self.job_id, self.token = store, job_id, token
        self.reported = self.asked = self.fraction = 0.0
        self.stage: str | None = None
        self.draw_at = time.monotonic() + PREVIEW_EVERY_S
        self.cancelled_at: float | None = None

    def __call__(self, progress: JobProgress) -> None:
        self.ask()
        now = time.monotonic()
        if now - self.reported >= REPORT_EVERY_S or progress.stage != self.stage:
            self.reported, self.stage = now, progress.stage
            self.fraction = max(self.fraction, progress.fraction)
            self.store.report_progress(
                self.job_id,
                token=self.token,
                progress=round(self.fraction, 4),
                stage=progress.stage,
                step=progress.step,
                steps=progress.steps,
                data_misfit=progress.data_misfit,
            )
        if progress.draw is not None and now >= self.draw_at:
            self._preview(progress.draw)

    def _preview(self, draw: Callable[[], bytes]) -> None:
        begun = time.monotonic()
        try:
            self.store.show(self.job_id, self.token, draw())
        except (Conflict, NotFound):
            raise
        except Exception:  # a result is worth more than its preview
            log.exception("there is no preview of job %s", self.job_id)
            self.draw_at = math.inf
            return
        now = time.monotonic()
        self.draw_at = now + max(PREVIEW_EVERY_S, (now - begun) / PREVIEW_SHARE)

    def ask(self) -> None:
        """Raise `Cancelled` if that was requested; called from inner loops, so it rarely reads the disk."""
        now = time.monotonic()
        if now - self.asked >= ASK_EVERY_S:
            self.asked = now
            if self.store.cancel_requested(self.job_id):
                raise Cancelled("cancelled by request")
            stopping.ask()

    def watch(self) -> None:
        """Cancel the job from a thread even if the computation does not react, as during a long read or write."""
        # Who was cancelled stays so, even if the job has been deleted since.
        if self.cancelled_at is None and not self.store.cancel_requested(self.job_id):
            return
        now = time.monotonic()
        self.cancelled_at = self.cancelled_at or now
        if now - self.cancelled_at < CANCEL_S:
            return
        if now - self.cancelled_at > CANCEL_S + DEAF_S:
            log.error("job %s was cancelled and its computation hangs, ending the process", self.job_id)
            os._exit(1)  # the worker starts another
        try:
            self.store.transition(self.job_id, "cancelled", token=self.token)
        except (Conflict, NotFound):
            return  # it has ended
