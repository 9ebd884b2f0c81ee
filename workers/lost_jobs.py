"""Lost jobs, whose workers died: end those that are not to be computed again."""

from __future__ import annotations

from workers.store import JobStore, Record

MAX_ATTEMPTS = 3


def fail_lost(store: JobStore, record: Record) -> None:
    """Give up on a job whose worker died each time."""
    message = f"the worker process died {record.attempt} times while computing this job"
    error = {"code": "worker_lost", "message": message, "field": None, "remedy": "it may need more memory"}
    store.transition(record.id, "failed", token=record.token, error=error)
    store.clear(record.id)


def cancel_lost(store: JobStore, record: Record) -> None:
    """Cancel a lost job for which that was requested."""
    store.transition(record.id, "cancelled", token=record.token)
    store.clear(record.id)
