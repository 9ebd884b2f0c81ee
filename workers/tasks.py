"""The one task: compute a job. Everything heavy is imported inside, in the child process."""

from __future__ import annotations

import json
from typing import cast

from workers.app import app, queue, queues
from workers.settings import Settings
from workers.store import JobStore


@app.task(name="recon.reconstruct")  # type: ignore[untyped-decorator]
def reconstruct_job(job_id: str) -> None:
    """Compute one job of this deployment's store."""
    from workers.execute import execute

    settings = Settings.from_environment()
    execute(JobStore(settings.store), job_id, settings.redis_url)


def enqueue(job_id: str, priority: str = "normal", device: str = "cpu") -> None:
    """Put a job into a queue; raises `kombu.exceptions.OperationalError` when Redis is away."""
    reconstruct_job.apply_async(args=[job_id], task_id=job_id, queue=queue(device, priority), retry=False)


def waiting(redis_url: str, device: str | None = None) -> list[str]:
    """Ids of the jobs waiting in Redis, the next one first, of one device or of all.

    Raises `redis.exceptions.RedisError` when Redis is away.
    """
    from workers.lease import connect

    names = queues(device) if device else [*queues("cpu"), *queues("gpu")]
    with connect(redis_url) as client:
        found = [cast(list[bytes], client.lrange(f"recon:{name}", 0, -1)) for name in names]
    # Workers take from the end of a list.
    ids = [str(json.loads(message)["headers"]["id"]) for messages in found for message in reversed(messages)]
    return list(dict.fromkeys(ids))


def positions(redis_url: str) -> dict[str, int]:
    """Place of every waiting job in its device's queues: 1 is the next. Raises like `waiting`."""
    return {job_id: n for device in ("cpu", "gpu") for n, job_id in enumerate(waiting(redis_url, device), 1)}
