"""A whole service, with a real worker: jobs for it, waiting for them, and finding its processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from recon.client.client import Client
from recon.spec.job import JobSpec


def quick(path: Path, **more: Any) -> JobSpec:
    value = {"input": {"path": str(path), "format": "nifti"}, "acquisition": "ct-parallel", "method": "fbp", **more}
    return JobSpec.parse(value)


def slow(path: Path) -> JobSpec:
    """Some minutes of small steps, on a fast machine too: it is cancelled."""
    return quick(path, method={"name": "tv", "iterations": 5000, "cg_iterations": 200})


def wait_for(client: Client, job_id: str, *states: str, seconds: float = 240) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.job(job_id)
        if job["state"] in states:
            return job
        time.sleep(0.1)
    raise AssertionError(f"still {job['state']} after {seconds} s, expected {states}")


def processes(store: Path) -> dict[int, int]:
    """Process ids of the service on `store`, with their parents."""
    mine = f"RECON_STORE={store}\0".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mine in (folder / "environ").read_bytes() + b"\0":
                found[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has ended meanwhile, or is not ours to look at
    return found


def computing_child(store: Path) -> int:
    """The forked child of the worker: the process whose parent is a celery process of this service."""
    found = processes(store)
    celery = {p for p in found if b"workers.app" in Path(f"/proc/{p}/cmdline").read_bytes()}
    return next(p for p in celery if found[p] in celery)


@contextmanager
def api_alone(store: Path, **env: str) -> Iterator[httpx.Client]:
    """``recon serve`` with a Redis URL where nothing listens."""
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0", **env}
    log = store.with_name(f"{store.name}-api.log")
    for _ in range(3):  # another process can take the port before the server does
        port = _free_port()
        command = [sys.executable, "-m", "recon.cli.main", "serve", "--port", str(port), "--store", str(store)]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, env=environment, stderr=stream)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                if _answers(http, process):
                    yield http
                    return
        finally:
            process.terminate()
            process.wait(30)
    raise AssertionError(f"the API does not start: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(http: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    """Whether the server answers within five minutes; false once it has ended."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            http.get("/healthz")
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        return process.poll() is None  # else the answer was that of whoever has the port
    return False
