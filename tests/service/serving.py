"""The API in this process, over real HTTP and a real private Redis, without a worker: for tests of the API alone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from api import folder_view
from api.app import create_app
from api.service import Service
from workers.app import app as celery
from workers.embedded import private_redis
from workers.settings import Settings
from workers.store import JobStore


@dataclass
class Server:
    """A running API and its inside."""

    url: str
    store: JobStore
    service: Service
    http: httpx.Client


@contextmanager
def serving(store: Path, redis_url: str | None = None, *, port: int = 0, **more: Any) -> Iterator[Server]:
    """Serve on a free port unless one is given; settings as given, a Redis of its own unless its URL is."""
    if redis_url is None:
        with private_redis(store / "redis") as url, serving(store, url, port=port, **more) as found:
            yield found
        return
    settings = Settings(store=store, redis_url=redis_url, **{"max_upload_bytes": 10**8, "min_free_bytes": 0, **more})
    with celery_on(redis_url):
        app = create_app(settings)
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=1)
        )
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            try:
                until(lambda: server.started, 20)
                with httpx.Client(base_url=url, timeout=30) as http:
                    yield Server(url, app.state.store, app.state.service, http)
            finally:
                server.should_exit = True
                thread.join(20)


@contextmanager
def showing(folder: Path) -> Iterator[str]:
    """Show a folder of results as `recon view` does; yields its address."""
    server = uvicorn.Server(
        uvicorn.Config(folder_view.create_app(folder), log_level="warning", timeout_graceful_shutdown=1)
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def celery_on(url: str) -> Iterator[None]:
    """Celery reads its broker once, from the environment; here every server has its own."""
    before = celery.conf.broker_url
    _point(url)
    try:
        yield
    finally:
        _point(before)


def _point(url: str) -> None:
    celery.conf.broker_url = celery.conf.broker_read_url = celery.conf.broker_write_url = url
    celery._pool = None
    celery.amqp._producer_pool = None


def until(true: Any, seconds: float = 20) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def sinogram(seed: int = 0) -> bytes:
    """A small measurement that a server accepts."""
    from io import BytesIO

    stream = BytesIO()
    np.save(stream, np.random.default_rng(seed).random((6, 20), dtype=np.float32))
    return stream.getvalue()


def job_body(upload: str, **more: Any) -> dict[str, Any]:
    """A job that a server accepts."""
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 1.0}
    return {"input": {"upload": upload, "format": "numpy"}, "acquisition": acquisition, "method": "fbp", **more}


def send(http: httpx.Client, content: bytes | None = None, **headers: str) -> str:
    """Upload; returns the id."""
    answer = http.post("/v1/uploads", content=content or sinogram(), headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def refused(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    """A problem document that names the field and the request."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status and problem["request_id"] == answer.headers["X-Request-ID"]
    assert field is None or problem["field"] == field, problem
    assert problem["detail"] and "Traceback" not in answer.text and "/tmp" not in answer.text
    return problem
