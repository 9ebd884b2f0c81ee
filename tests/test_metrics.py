"""What an operator watches: queues by device and priority, and counters that only grow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from api.durations import Durations
from tests.serving import Server, job_body, send, serving
from workers import retention


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("metrics") / "store", devices=("cpu", "gpu")) as found:
        yield found


@pytest.fixture(scope="module")
def upload(server: Server) -> str:
    return send(server.http)


def submit(server: Server, upload: str, **more: str) -> str:
    answer = server.http.post("/v1/jobs", json=job_body(upload, **more))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def finished(server: Server, upload: str) -> str:
    job = submit(server, upload)
    server.store.transition(job, "running")
    server.store.output(job).mkdir()
    server.store.transition(job, "succeeded", progress=1.0)
    return job


def values(server: Server) -> dict[str, float]:
    answer = server.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_what_is_stored_is_told(server: Server, upload: str) -> None:
    finished(server, upload)
    found = values(server)
    assert found['recon_jobs{state="succeeded"}'] >= 1
    assert found["recon_uploads"] == 1 and found["recon_upload_bytes"] > 0


def test_queues_are_told_apart_by_device_and_priority(server: Server, upload: str) -> None:
    submit(server, upload, device="gpu", priority="high")
    submit(server, upload, device="gpu", priority="high")
    submit(server, upload, device="cpu", priority="low")
    found = values(server)
    assert found['recon_queue_length{device="gpu",priority="high"}'] == 2
    assert found['recon_queue_length{device="cpu",priority="low"}'] == 1
    assert found['recon_queue_length{device="cpu",priority="high"}'] == 0
    assert found['recon_queue_oldest_seconds{device="gpu",priority="high"}'] > 0
    assert found['recon_queue_oldest_seconds{device="cpu",priority="high"}'] == 0


def test_durations_count_each_job_once_and_never_fall(server: Server, upload: str) -> None:
    name = 'recon_job_seconds_count{method="fbp",device="cpu"}'
    before = values(server).get(name, 0)
    kept, unseen = finished(server, upload), finished(server, upload)
    assert server.http.delete(f"/v1/jobs/{unseen}", params={"purge": 1}).status_code == 200  # before any metrics
    assert values(server)[name] == before + 2
    settings = server.service.settings.model_copy(update={"retention_days": 1})
    retention.sweep(server.service.index, settings, datetime.now(UTC) + timedelta(days=2))
    assert server.http.get(f"/v1/jobs/{kept}").status_code == 410
    found = values(server)
    assert found[name] == before + 2
    assert found['recon_job_seconds_bucket{method="fbp",device="cpu",le="+Inf"}'] == before + 2


def test_a_new_process_does_not_count_jobs_of_before_again(server: Server, upload: str) -> None:
    earlier = server.store.record(finished(server, upload))
    durations = Durations()
    later = server.store.record(finished(server, upload))
    durations.count([earlier, later])
    durations.count([earlier, later])
    ((labels, tally),) = durations.tallies()
    assert labels == {"method": "fbp", "device": "cpu"} and tally.count == 1
