"""Ends of jobs that nobody computes any more."""

from __future__ import annotations

from workers.store import JobStore, Record

MAX_ATTEMPTS = 3


def fail_lost(store: JobStore, record: Record) -> None:
    """Give up on a job whose worker died each time."""
    message = f"the worker process died {record.attempt} times while computing this job"
    error = {"code": "worker_lost", "message": message, "field": None, "remedy": "it may need more memory"}
    store.move(record.id, "failed", holder=record.token, error=error)
    store.clear(record.id)


def cancel_lost(store: JobStore, record: Record) -> None:
    """End a job that was to be cancelled."""
    store.move(record.id, "cancelled", holder=record.token)
    store.clear(record.id)
