"""Celery tasks: compute a job, or help with one. Heavy modules are imported inside, in the child process."""

from __future__ import annotations

import json
import logging
from typing import cast

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from recon.spec.job_states import DEVICES, Device, Priority
from workers.app import app
from workers.queues import queue, queues
from workers.settings import Settings
from workers.stopping import GivenBack
from workers.store import JobStore, Record

MAX_HELPERS = 16
INVITED_S = 24 * 3600
"""Seconds after which an unanswered invitation expires."""
log = logging.getLogger("recon.tasks")


# Names in the queue stay as they are: messages outlive an upgrade.
@app.task(name="recon.reconstruct")  # type: ignore[untyped-decorator]
def reconstruct_job(job_id: str) -> None:
    """Compute one job of this deployment's store."""
    from workers.execute import execute

    settings = Settings()
    store = JobStore(settings.store)
    try:
        execute(store, job_id, settings.redis_url, invite)
    except GivenBack:
        log.info("job %s is given back", job_id)
        try:
            enqueue_again(store.record(job_id))
        except OperationalError as error:
            log.warning("job %s waits for Redis: %s", job_id, error)  # the reconciler will find it


@app.task(name="recon.assist")  # type: ignore[untyped-decorator]
def assist_job(job_id: str, token: str) -> None:
    """Help with an attempt at a job that another worker makes."""
    from workers.assist import assist

    settings = Settings()
    store = JobStore(settings.store)

    def others_wait() -> bool:
        try:
            return bool(waiting(settings.redis_url, store.record(job_id).device))
        except RedisError as error:
            log.warning("helping on, the queue cannot be asked: %s", error)
            return False

    if assist(store, job_id, token, others_wait):
        invite(job_id, token, 1, store.record(job_id).device)  # after those that wait


def enqueue(job_id: str, priority: Priority = "normal", device: Device = "cpu") -> None:
    """Enqueue a job; raises `kombu.exceptions.OperationalError` when Redis is away."""
    reconstruct_job.apply_async(args=[job_id], task_id=job_id, queue=queue(device, priority), retry=False)


def enqueue_again(record: Record) -> None:
    """Requeue a job that lost its worker; one that had begun goes before those that have not."""
    enqueue(record.id, record.priority if record.state == "queued" else "high", record.device)


def invite(job_id: str, token: str, helpers: int, device: Device = "cpu") -> None:
    """Invite idle workers to help with an attempt; without Redis it goes on alone."""
    try:
        for _ in range(min(helpers, MAX_HELPERS)):
            assist_job.apply_async(args=[job_id, token], queue=queue(device, "low"), retry=False, expires=INVITED_S)
    except OperationalError as error:
        log.warning("no helpers for job %s: %s", job_id, error)


def waiting(redis_url: str, device: Device | None = None) -> list[str]:
    """List the ids of jobs waiting in Redis, the next one first, for one device or for all.

    Raises `redis.exceptions.RedisError` when Redis is away.
    """
    from workers.lease import connect

    names = [name for d in ([device] if device else DEVICES) for name in queues(d)]
    with connect(redis_url) as client:
        found = [cast(list[bytes], client.lrange(f"recon:{name}", 0, -1)) for name in names]
    # Workers take from the end of a list.
    headers = [json.loads(message)["headers"] for messages in found for message in reversed(messages)]
    return list(dict.fromkeys(str(h["id"]) for h in headers if h["task"] == reconstruct_job.name))
