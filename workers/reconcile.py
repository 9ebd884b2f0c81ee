"""Bringing queue and store together: what the store calls unfinished and nobody computes is queued again."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from workers import tasks
from workers.settings import Settings
from workers.store import JobStore

EVERY_S = 10.0
PATIENCE_S = 60.0
"""A job queued this long while the queue is empty has been lost by Redis."""

log = logging.getLogger("recon.reconcile")


def reconcile(
    store: JobStore, redis_url: str, *, starting: bool = False, recent: frozenset[str] = frozenset()
) -> list[str]:
    """Requeue lost jobs and return their ids.

    A running job whose run lock is free lost its worker. A queued job is lost if the queue is empty and
    it has waited long, or, when the service is `starting`, in any case; a duplicate is dropped later.
    Jobs of the `recent` call are waiting in the queue, unless it is empty.
    """
    requeued: list[str] = []
    empty = tasks.queue_length(redis_url) == 0
    for record in store.records():
        if record.terminal or (record.id in recent and not empty):
            continue
        with store.running_lock(record.id) as free:
            if not free:
                continue
            waited = (datetime.now(UTC) - datetime.fromisoformat(record.updated)).total_seconds()
            lost = record.state != "queued" or starting or (empty and waited > PATIENCE_S)
        if lost and (record.state == "queued" or waited > 1.0):
            tasks.enqueue(record.id)
            requeued.append(record.id)
    if requeued:
        log.warning("requeued %d jobs that nobody was computing", len(requeued))
    return requeued


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
        recent: frozenset[str] = frozenset()
        while not self._stop.is_set():
            try:
                url = self.settings.redis_url
                recent |= frozenset(reconcile(self.store, url, starting=starting, recent=recent))
                starting = False
            except (OperationalError, RedisError, OSError) as error:
                log.warning("Redis is away, trying again: %s", error)
            self._stop.wait(EVERY_S)
