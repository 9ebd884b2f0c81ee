"""Estimates say when a job would start and how long it would take, as ranges, and all that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api import queue_estimate
from recon.storage.atomic import write_json
from tests.service.serving import Server, job_body, refused, send, serving, until
from workers.presence import Presence


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "store") as found:
        yield found


def finish(server: Server, took_over_planned: float) -> None:
    """Run a job that took so many times what was planned."""
    job = server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"]
    server.store.transition(job, "running")
    record = server.store.transition(job, "succeeded")
    begun = datetime.fromisoformat(str(record.finished)) - timedelta(seconds=10 * took_over_planned)
    path = server.store.folder(job) / "state.json"
    write_json(path, {**asdict(record), "started": begun.isoformat(), "planned_s": 10.0})


def test_without_experience_the_range_is_wide(server: Server) -> None:
    found = server.http.post("/v1/estimates", json=job_body(send(server.http))).json()
    low, high = queue_estimate.UNKNOWN
    assert found["learned_from"] == 0
    assert found["duration_s"] == [round(low * found["seconds"], 1), round(high * found["seconds"], 1)]
    assert found["start_s"] is None  # no worker is there


def test_ranges_come_from_jobs_of_the_method(server: Server) -> None:
    for ratio in (2.0, 3.0, 4.0, 5.0, 6.0, 100.0):
        finish(server, ratio)
    upload = send(server.http)

    def asked() -> Any:
        server.service.index._seen.clear()  # finished jobs do not change elsewhere
        return server.http.post("/v1/estimates", json=job_body(upload)).json()

    until(lambda: asked()["learned_from"] == 6, 10)
    found = asked()
    assert found["duration_s"] == [round(2.5 * found["seconds"], 1), round(53.0 * found["seconds"], 1)]


def test_one_that_is_running_and_those_that_wait_come_first(server: Server) -> None:
    worker = Presence(server.service.settings.redis_url, "cpu")
    worker.begin()
    upload = send(server.http)

    def asked() -> Any:
        return server.http.post("/v1/estimates", json=job_body(upload)).json()["start_s"]

    until(lambda: asked() == [0.0, 0.0], 5)
    first = server.http.post("/v1/jobs", json=job_body(upload)).json()
    until(lambda: asked() != [0.0, 0.0], 5)
    low, high = queue_estimate.UNKNOWN
    planned = first["planned_s"]
    assert asked() == [round(low * planned, 1), round(high * planned, 1)]
    urgent = {**job_body(upload), "priority": "high"}
    assert server.http.post("/v1/estimates", json=urgent).json()["start_s"] == [0.0, 0.0]
    worker.end()


def test_all_that_is_wrong_is_said_at_once(server: Server) -> None:
    body = {**job_body("a" * 26), "device": "gpu"}
    problem = refused(server.http.post("/v1/estimates", json=body), 422, "device")
    assert [part["field"] for part in problem["problems"]] == ["device", "input.upload"]
    wrong = {**job_body("a" * 26), "seed": "x", "priority": "soon", "tags": 3}
    for path in ("/v1/estimates", "/v1/jobs"):
        problem = refused(server.http.post(path, json=wrong), 422)
        assert {part["field"] for part in problem["problems"]} == {"seed", "priority", "tags"}
        assert all(part["detail"] and part["remedy"] for part in problem["problems"])
        assert problem["field"] == problem["problems"][0]["field"]
    one = refused(server.http.post("/v1/estimates", json={**job_body("a" * 26), "seed": "x"}), 422, "seed")
    assert "problems" not in one
