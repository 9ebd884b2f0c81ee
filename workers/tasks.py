"""The one task: compute a job. Everything heavy is imported inside, in the child process."""

from __future__ import annotations

import json
from typing import cast

from workers.app import QUEUE, app
from workers.settings import Settings
from workers.store import JobStore


@app.task(name="recon.reconstruct")  # type: ignore[untyped-decorator]
def reconstruct_job(job_id: str) -> None:
    """Compute one job of this deployment's store."""
    from workers.execute import execute

    execute(JobStore(Settings.from_environment().store), job_id)


def enqueue(job_id: str) -> None:
    """Put a job into the queue; raises `kombu.exceptions.OperationalError` when Redis is away."""
    reconstruct_job.apply_async(args=[job_id], task_id=job_id, retry=False)


def waiting(redis_url: str) -> set[str]:
    """Ids of the jobs waiting in Redis; raises `redis.exceptions.RedisError` when it is away."""
    import redis

    url = redis_url.replace("redis+socket://", "unix://")
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
        messages = cast(list[bytes], client.lrange(f"recon:{QUEUE}", 0, -1))
    return {str(json.loads(message)["headers"]["id"]) for message in messages}
