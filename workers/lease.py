"""Leases: a Redis key per running job, kept alive by the process that computes it.

A lease says that the computing process is alive, on whatever host. It decides nothing: the token in ``state.json``
does, so Redis may lose every lease at any moment. It is only read before a job is given to another worker.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

import redis
from redis.exceptions import RedisError

from workers.background import every

LEASE_S = 12.0
BEAT_S = 3.0
TIMEOUT_S = 2.0
PREFIX = "recon:lease:"
HERE = socket.gethostname()
log = logging.getLogger("recon.lease")

_RENEW = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, -#ARGV[3]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def connect(redis_url: str) -> redis.Redis:
    """Connect to the deployment's Redis with short timeouts."""
    url = redis_url.replace("redis+socket://", "unix://")
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)


class Lease:
    """Lease of one attempt at a job.

    Parameters
    ----------
    redis_url
        The deployment's Redis. When it is away nothing here raises: that is logged, and tried again.
    job_id
        What is computed.
    token
        Random; tells this attempt from others.
    """

    def __init__(self, redis_url: str, job_id: str, token: str) -> None:
        self._client = connect(redis_url)
        self.key, self._value = PREFIX + job_id, f"{token}@{HERE}"

    def acquire(self) -> bool:
        """Take the lease unless another host holds it; true as well when Redis cannot be asked.

        Who asks holds the job's run lock: a lease from this host is that of a process that died.
        """
        try:
            lasting = str(int(LEASE_S * 1000))
            return bool(self._client.eval(_ACQUIRE, 1, self.key, self._value, lasting, f"@{HERE}"))
        except RedisError as error:
            log.warning("computing without a lease until Redis is back: %s", error)
            return True

    def renew(self) -> None:
        """Prolong the lease, or make it again if Redis has lost it."""
        try:
            mine = self._client.eval(_RENEW, 1, self.key, self._value, str(int(LEASE_S * 1000)))
        except RedisError as error:
            log.warning("the lease could not be renewed, trying again: %s", error)
            return
        if not mine:
            log.warning("another worker has the lease %s", self.key)

    def release(self) -> None:
        """Release the lease."""
        try:
            self._client.eval(_RELEASE, 1, self.key, self._value)
        except RedisError as error:
            log.warning("the lease ends by itself in %.0f s: %s", LEASE_S, error)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease in a thread while the block runs, then release it."""
        try:
            with every(BEAT_S, self.renew, "heartbeat"):
                yield
        finally:
            self.release()
            self._client.close()


def last_beats(client: redis.Redis, job_ids: Iterable[str]) -> dict[str, datetime]:
    """Times at which the workers of running jobs were last heard of, for jobs with a live lease; raises `RedisError`.

    The time is told by how much is left of the lease, so that no two clocks are compared.
    """
    ids = list(job_ids)
    if not ids:
        return {}
    with client.pipeline(transaction=False) as asked:
        for job_id in ids:
            asked.pttl(PREFIX + job_id)
        left_ms = cast(list[int], asked.execute())
    now = datetime.now(UTC)
    return {
        job_id: now - timedelta(seconds=LEASE_S, milliseconds=-left)
        for job_id, left in zip(ids, left_ms, strict=True)
        if left > 0
    }


def holder(client: redis.Redis, job_id: str) -> str | None:
    """Host of the worker that has a live lease on a job; raises `redis.exceptions.RedisError`."""
    value = cast(bytes | None, client.get(PREFIX + job_id))
    return None if value is None else value.decode().partition("@")[2]
