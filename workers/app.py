"""Celery application. Importing it loads neither torch nor ASTRA: the forked child does, when it computes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import (
    celeryd_init,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_process_init,
    worker_ready,
    worker_shutdown,
)

from recon.waiting import wait_briefly
from workers import logs
from workers.presence import Presence, device_of
from workers.queues import queue
from workers.settings import Settings

wait_briefly()

log = logging.getLogger("recon.worker")
VISIBILITY_S = 24 * 3600
"""Visibility timeout: Redis hands an unacknowledged job to another worker after this; the run lock drops duplicates."""

GIVE_WAY = 10
"""Niceness of a computation."""
AUTOGROUP = Path("/proc/self/autogroup")


def make_app(settings: Settings) -> Celery:
    """Make the Celery application of a deployment."""
    app = Celery("recon", broker=settings.redis_url, include=["workers.tasks"])
    app.conf.update(
        task_default_queue=queue("cpu", "normal"),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,  # the job folder holds the result; Redis carries ids only
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # the reconciler requeues, and counts the attempts
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a Redis that is away for a day ends no worker
        broker_transport_options={
            "visibility_timeout": VISIBILITY_S,
            "global_keyprefix": "recon:",
            "queue_order_strategy": "priority",  # always the first queue that has something
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": not settings.redis_url.startswith("redis+socket"),
            "health_check_interval": 25,
            # A submission is refused soon when Redis is away; a worker's own loop has broker_connection_max_retries.
            "max_retries": 1,
            "interval_start": 0.2,
        },
    )
    return app


app = make_app(Settings())


@celeryd_init.connect  # type: ignore[untyped-decorator]
@setup_logging.connect  # type: ignore[untyped-decorator]
def log_as_the_api_does(**_: object) -> None:
    """Set up logging before Celery logs anything; it leaves logging alone if the second signal is handled."""
    logs.install()


@worker_ready.connect  # type: ignore[untyped-decorator]
def say_that_it_is_there(sender: Any, **_: object) -> None:
    """Tell the service that a worker is there, until it is told to stop."""
    device = device_of(sender.app.amqp.queues.consume_from)
    if device is not None:
        presence = Presence(Settings().redis_url, device)
        presence.begin()
        worker_shutdown.connect(lambda **_: presence.end(), weak=False)


@task_prerun.connect  # type: ignore[untyped-decorator]
def name_the_job(args: list[str], **_: object) -> None:
    """Add the job's id, the first argument of every task, to the log lines of its computation."""
    logs.job_id.set(args[0])


@task_postrun.connect  # type: ignore[untyped-decorator]
def forget_the_job(**_: object) -> None:
    """Remove the job's id from log lines when its task ends."""
    logs.job_id.set(None)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def give_way(**_: object) -> None:
    """Lower the priority of a computing process, so that the API on the same machine answers first."""
    os.nice(GIVE_WAY)
    # Linux may share the processor between sessions first; then theirs counts. Only a session that is the worker's own.
    if AUTOGROUP.exists() and os.getsid(0) == os.getppid():
        try:
            AUTOGROUP.write_text(str(GIVE_WAY))
        except OSError as error:
            log.info("the computation's session stays as it is: %s", error)
