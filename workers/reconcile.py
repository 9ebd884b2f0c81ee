"""Bringing queue and store together: what the store calls unfinished and nobody computes is queued again."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from workers import tasks
from workers.settings import Settings
from workers.store import JobStore, Record

EVERY_S = 10.0
PATIENCE_S = 60.0
"""A queued job that has not been in the queue for so long is lost."""

log = logging.getLogger("recon.reconcile")


def reconcile(store: JobStore, redis_url: str, *, starting: bool = False) -> list[str]:
    """Requeue lost jobs and return their ids; a duplicate is dropped by the worker that gets it.

    A running job whose run lock is free lost its worker. A queued job that is not in the queue was lost by
    Redis, or by a worker that died before it began: after a while, or at once when the service is `starting`.
    """
    requeued: list[str] = []
    waiting = tasks.waiting(redis_url)
    for record in store.records():
        if record.terminal or record.id in waiting:
            continue
        waited = (datetime.now(UTC) - datetime.fromisoformat(record.updated)).total_seconds()
        if record.state == "queued":
            lost = starting or waited > PATIENCE_S
        else:
            lost = waited > 1.0 and _abandoned(store, record)
        if lost:
            tasks.enqueue(record.id)
            requeued.append(record.id)
    if requeued:
        log.warning("requeued %d jobs that nobody was computing", len(requeued))
    return requeued


def _abandoned(store: JobStore, record: Record) -> bool:
    """Whether nobody computes a job that should be computed; one that was to be cancelled is, here."""
    with store.running_lock(record.id) as free:
        if free and record.state == "cancelling":
            store.move(record.id, "cancelled")
            return False
        return free


class Reconciler:
    """Runs `reconcile` in a background thread of the API until stopped."""

    def __init__(self, settings: Settings, store: JobStore) -> None:
        self.settings, self.store = settings, store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reconciler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join(timeout=15)

    def _loop(self) -> None:
        starting = True
        while not self._stop.is_set():
            try:
                reconcile(self.store, self.settings.redis_url, starting=starting)
                starting = False
            except (OperationalError, RedisError) as error:
                log.warning("Redis is away, trying again: %s", error)
            except Exception:
                log.exception("reconciling failed, trying again")
            self._stop.wait(EVERY_S)
