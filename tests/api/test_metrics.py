"""What an operator watches: queues by device and priority, and counters that only grow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.durations import Durations
from tests.service.serving import Server, job_body, send, serving
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
    families = text_string_to_metric_families(answer.text)
    return {name(s.name, **s.labels): s.value for family in families for s in family.samples}


def name(metric: str, **labels: str) -> str:
    """A sample as Prometheus writes it, its labels in the order of the alphabet."""
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{metric}{{{inside}}}" if inside else metric


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
    count = 'recon_job_seconds_count{device="cpu",method="fbp"}'
    before = values(server).get(count, 0)
    kept, unseen = finished(server, upload), finished(server, upload)
    assert server.http.delete(f"/v1/jobs/{unseen}", params={"purge": 1}).status_code == 200  # before any metrics
    assert values(server)[count] == before + 2
    settings = server.service.settings.model_copy(update={"retention_days": 1})
    retention.sweep(server.service.index, settings, datetime.now(UTC) + timedelta(days=2))
    assert server.http.get(f"/v1/jobs/{kept}").status_code == 410
    found = values(server)
    assert found[count] == before + 2
    assert found['recon_job_seconds_bucket{device="cpu",le="+Inf",method="fbp"}'] == before + 2


def test_a_new_process_does_not_count_jobs_of_before_again(server: Server, upload: str) -> None:
    earlier = server.store.record(finished(server, upload))
    durations = Durations()
    later = server.store.record(finished(server, upload))
    durations.count([earlier, later])
    durations.count([earlier, later])
    (family,) = durations.histogram.collect()
    (count,) = (sample for sample in family.samples if sample.name == "recon_job_seconds_count")
    assert count.labels == {"method": "fbp", "device": "cpu"} and count.value == 1


def test_the_metrics_are_those_that_dashboards_ask_for(server: Server, upload: str) -> None:
    finished(server, upload)
    text = server.http.get("/metrics").text
    told = {line.removeprefix("# TYPE ") for line in text.splitlines() if line.startswith("# TYPE ")}
    assert told == {
        "recon_queue_length gauge",
        "recon_queue_oldest_seconds gauge",
        "recon_jobs gauge",
        "recon_job_seconds histogram",
        "recon_job_peak_memory_bytes gauge",
        "recon_uploads gauge",
        "recon_upload_bytes gauge",
        "recon_http_requests_total counter",
    }
