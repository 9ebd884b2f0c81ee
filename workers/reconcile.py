"""Reconciler: requeue jobs that are unfinished in the store but neither queued nor being computed."""

from __future__ import annotations

import logging
import time

import redis
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from operators.errors import ReconError
from recon.storage.locks import try_lock
from workers import lease, tasks
from workers.index import JobIndex
from workers.lost_jobs import MAX_ATTEMPTS, cancel_lost, fail_lost
from workers.settings import Settings
from workers.store import Record

EVERY_S = 5.0
PATIENCE_S = 10.0
"""Seconds out of the queue after which a queued job counts as lost, by Redis or by a worker that died early."""
GRACE_S = 2 * lease.BEAT_S
"""Seconds without a lease after which a running job counts as lost: a living worker would have renewed it."""
log = logging.getLogger("recon.reconcile")


class Reconciler:
    """Background task of every API process that requeues lost jobs; a lock file lets one process do so at a time.

    A job that is queued twice all the same is dropped by the worker that gets it second.
    """

    def __init__(self, settings: Settings, index: JobIndex) -> None:
        self.settings, self.index, self.store = settings, index, index.store
        self._missing: dict[str, float] = {}
        """Time at which each job was first seen without a worker."""
        self._starting = True

    def work(self) -> None:
        """Run one round; the first one after the service starts does not wait for jobs to appear in the queue."""
        try:
            self.reconcile(starting=self._starting)
        except (OperationalError, RedisError) as error:
            log.warning("Redis is away, trying again: %s", error)

    def reconcile(self, *, starting: bool = False) -> list[str]:
        """Requeue lost jobs and return their ids; queued ones without waiting when the service is `starting`.

        Raises `redis.exceptions.RedisError` or `kombu.exceptions.OperationalError` when Redis is away.
        """
        # Not a lock in Redis, which would outlive a process that was killed.
        with try_lock(self.store.root / "reconcile.lock") as mine:
            if not mine:
                return []  # another process is at it
            with lease.connect(self.settings.redis_url) as client:
                requeued = self._pass(client, starting=starting)
            self._starting = False
            return requeued

    def _pass(self, client: redis.Redis, *, starting: bool) -> list[str]:
        waiting = set(tasks.waiting(self.settings.redis_url))
        missing, self._missing = self._missing, {}
        requeued = []
        for record in self.index.records():
            if record.terminal or record.id in waiting:
                continue
            try:
                patience = self._patience(client, record, starting=starting)
                if patience is None:
                    continue
                since = missing.get(record.id, time.monotonic())
                if time.monotonic() - since < patience:
                    self._missing[record.id] = since
                elif self._requeue(record):
                    requeued.append(record.id)
            except (ReconError, OSError, ValueError, TypeError) as error:  # one that nobody can read stops no other
                log.warning("job %s cannot be requeued: %s", record.id, error)
        if requeued:
            log.warning("requeued %d jobs that no worker was computing", len(requeued))
        return requeued

    def _patience(self, client: redis.Redis, record: Record, *, starting: bool) -> float | None:
        """Seconds without a worker after which a job is lost; None if a worker computes it."""
        if record.state == "queued":
            return 0.0 if starting else PATIENCE_S
        with self.store.running_lock(record.id) as free:
            if not free:
                return None
        host = lease.holder(client, record.id)
        if host is None:
            return GRACE_S
        # The lock is free: a lease from here outlived its process. Elsewhere the lock may not reach.
        return 0.0 if host == lease.HERE else None

    def _requeue(self, record: Record) -> bool:
        """Requeue a lost job, or end one that is not to be computed again."""
        with self.store.running_lock(record.id) as free:
            if not free:
                return False
            # The look at the job is a while ago.
            record = self.store.recover(record.id)
            if record.terminal:
                return False
            if record.state == "cancelling":
                cancel_lost(self.store, record)
                return False
            if record.attempt >= MAX_ATTEMPTS:
                fail_lost(self.store, record)
                return False
        tasks.enqueue_again(record)
        return True
