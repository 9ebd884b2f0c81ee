"""Presence of workers: a Redis key per worker, kept while it waits for jobs or computes.

It tells people that a worker is there, and decides nothing: jobs are accepted and wait without a worker, too.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from typing import cast

from redis.exceptions import RedisError

from recon.spec.job_states import DEVICES, Device
from workers.background import Background
from workers.lease import BEAT_S, HERE, LEASE_S, connect

PREFIX = "recon:worker:"
log = logging.getLogger("recon.worker")


class Presence:
    """Presence of this process as a worker.

    Parameters
    ----------
    redis_url
        The deployment's Redis. When it is away nothing here raises: that is logged, and tried again.
    device
        Whose jobs it takes.
    """

    def __init__(self, redis_url: str, device: Device) -> None:
        self._client = connect(redis_url)
        self._key = f"{PREFIX}{device}:{HERE}:{os.getpid()}"
        self._beating = Background("presence", self.beat, BEAT_S)

    def begin(self) -> None:
        """Say that the worker is there, again and again in a thread."""
        self._beating.start()

    def beat(self) -> None:
        """Say once that the worker is there."""
        try:
            self._client.set(self._key, "", px=int(LEASE_S * 1000))
        except RedisError as error:
            log.warning("this worker is not announced until Redis is back: %s", error)

    def end(self) -> None:
        """Say that the worker has gone."""
        self._beating.stop()
        try:
            self._client.delete(self._key)
        except RedisError as error:
            log.warning("the worker counts as there for another %.0f s: %s", LEASE_S, error)
        self._client.close()


def device_of(queues: Iterable[str]) -> Device | None:
    """Device whose jobs a worker takes, by the names of its queues."""
    first = {name.partition(".")[0] for name in queues}
    return next((device for device in DEVICES if device in first), None)


def count(redis_url: str) -> dict[Device, int]:
    """Number of workers that are there, by device; raises `redis.exceptions.RedisError`."""
    with connect(redis_url) as client:
        # A scan may tell a key twice.
        found = {cast(bytes, key).decode().removeprefix(PREFIX) for key in client.scan_iter(f"{PREFIX}*")}
    present = Counter(name.partition(":")[0] for name in found)
    return {device: present[device] for device in DEVICES}
