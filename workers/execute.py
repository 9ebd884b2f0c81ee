"""Computing a job of the store: duplicates dropped, progress reported, cancellation heard, every end recorded."""

from __future__ import annotations

import logging
import time

from operators.errors import Cancelled, Conflict, ReconError
from recon.reconstruct import JobProgress, run
from workers.store import JobStore

REPORT_EVERY_S = 0.5
MAX_ATTEMPTS = 3
log = logging.getLogger("recon.worker")


def execute(store: JobStore, job_id: str) -> None:
    """Compute one job. Whatever happens short of the process dying ends in a final state.

    Delivered twice, the second finds the run lock taken or the job finished and does nothing.
    """
    with store.running_lock(job_id) as mine:
        if not mine:
            log.info("job %s is being computed elsewhere, delivery dropped", job_id)
            return
        record = store.record(job_id)
        if record.terminal:
            log.info("job %s is %s already, delivery dropped", job_id, record.state)
            return
        if record.state == "cancelling" or store.cancel_requested(job_id):
            store.move(job_id, "cancelled")
            return
        if record.attempt >= MAX_ATTEMPTS:
            fail_lost(store, job_id, record.attempt)
            return
        try:
            store.move(job_id, "running", progress=0.0, stage="starting")
        except Conflict:
            log.info("job %s was cancelled before it started", job_id)
            return
        try:
            _compute(store, job_id)
        except Conflict as error:  # the end was already recorded by somebody else
            log.warning("%s", error)


def fail_lost(store: JobStore, job_id: str, attempts: int) -> None:
    """Give up on a job whose worker died each time."""
    message = f"the worker process died {attempts} times while computing this job"
    error = {"code": "worker_lost", "message": message, "field": None, "remedy": "it may need more memory"}
    store.move(job_id, "failed", error=error)


def _compute(store: JobStore, job_id: str) -> None:
    try:
        if not store.output(job_id).exists():  # else an earlier attempt died between publishing and saying so
            spec = store.spec(job_id)
            run(spec, store.job_files(spec), store.output(job_id), _Reporter(store, job_id))
    except Cancelled:
        store.move(job_id, "cancelled")
    except ReconError as error:
        log.warning("job %s failed: %s", job_id, error)
        store.move(job_id, "failed", error=error.as_dict())
    except MemoryError:
        store.move(job_id, "failed", error={"code": "out_of_memory", "message": "the job needs more memory"})
    except Exception as error:
        log.exception("job %s failed unexpectedly", job_id)
        message = f"unexpected {type(error).__name__}; the worker's log has the details"
        store.move(job_id, "failed", error={"code": "internal", "message": message})
    else:
        store.move(job_id, "succeeded", progress=1.0, stage="done")


class _Reporter:
    """Writes progress at most twice a second and stops the job when cancellation was asked for."""

    def __init__(self, store: JobStore, job_id: str) -> None:
        self.store, self.job_id = store, job_id
        self.last = 0.0

    def __call__(self, progress: JobProgress) -> None:
        if self.store.cancel_requested(self.job_id):
            raise Cancelled("cancelled by request")
        now = time.monotonic()
        if now - self.last >= REPORT_EVERY_S:
            self.last = now
            self.store.report_progress(
                self.job_id,
                progress=round(progress.fraction, 4),
                stage=progress.stage,
                step=progress.step,
                steps=progress.steps,
                data_misfit=progress.data_misfit,
            )
