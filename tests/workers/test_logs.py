"""Every line that a service logs is one JSON object that says when, how bad, who, and about which request and job."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.serving import job_body, send, until
from workers.embedded import private_redis
from workers.store import JobStore

Lines = list[dict[str, Any]]


@contextmanager
def started(log: Path, *arguments: str, **env: str) -> Iterator[None]:
    """A command of ours as a process of its own, whose standard output and error go to `log`."""
    command = [sys.executable, "-m", "recon.cli.main", *arguments]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=stream, stderr=stream)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def read(log: Path) -> Lines:
    """All lines, each of which has to be one JSON object with the fields that every line has."""
    # Celery says this past all logging, from within the handler of the signal.
    said = [line for line in log.read_text().splitlines() if line not in ("", "worker: Warm shutdown (MainProcess)")]
    lines: Lines = [json.loads(line) for line in said]
    for line in lines:
        assert {"time", "level", "logger", "message"} <= set(line), line
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0), line
        assert abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < timedelta(minutes=5), line
    return lines


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lines, Lines, str]:
    """What an API and a worker logged of a few requests, one of them damaged on the server, and one job."""
    folder = tmp_path_factory.mktemp("logs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store, api, worker = folder / "store", folder / "api.log", folder / "worker.log"
    with private_redis(folder / "redis") as url:
        env = {"REDIS_URL": url, "RECON_STORE": str(store)}
        with (
            started(api, "serve", "--port", str(port), **env),
            started(worker, "worker", **env),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
        ):
            until(lambda: _answers(http), 60)
            job = http.post("/v1/jobs", json=job_body(send(http)), headers={"X-Request-ID": "mine"}).json()["id"]
            until(lambda: JobStore(store).record(job).terminal, 60)
            (store / "jobs" / job / "job.json").write_text("{")
            assert http.get(f"/v1/jobs/{job}/spec", headers={"X-Request-ID": "unlucky"}).status_code == 500
            until(lambda: "succeeded in" in worker.read_text(), 20)
    return read(api), read(worker), job


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_requests_are_lines_that_name_request_and_job(logged: tuple[Lines, Lines, str]) -> None:
    lines, _, job = logged
    line = next(entry for entry in lines if entry.get("request_id") == "mine" and entry["logger"] == "recon.access")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/jobs", 202)
    assert line["job_id"] == job and line["ms"] > 0 and line["client"] == "127.0.0.1" and line["level"] == "info"


def test_a_failure_is_one_line_with_its_traceback(logged: tuple[Lines, Lines, str]) -> None:
    lines, _, job = logged
    line = next(entry for entry in lines if entry["level"] == "error")
    assert (line["logger"], line["request_id"], line["job_id"]) == ("recon.api", "unlucky", job)
    assert "Traceback" in line["traceback"] and "\n" in line["traceback"]


def test_the_servers_own_words_are_lines_too(logged: tuple[Lines, Lines, str]) -> None:
    lines, _, _ = logged
    assert any(entry["logger"].startswith("uvicorn") and "startup" in entry["message"] for entry in lines)


def test_a_worker_logs_the_same_way_and_names_its_job(logged: tuple[Lines, Lines, str]) -> None:
    _, lines, job = logged
    assert any(entry["logger"].startswith("celery") and " ready." in entry["message"] for entry in lines)
    ended = next(entry for entry in lines if "succeeded in" in entry["message"])
    assert ended["job_id"] == job
    assert all(entry.get("job_id") == job for entry in lines if entry["logger"].startswith("recon"))
