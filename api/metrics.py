"""Prometheus metrics of a service, at GET /metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.service import Service, service
from recon.spec.job_states import PRIORITIES, STATES
from workers.store import Record

router = APIRouter(tags=["service"])


@router.get("/metrics", response_class=PlainTextResponse)
@router.head("/metrics", include_in_schema=False, response_class=PlainTextResponse)
def metrics(request: Request) -> PlainTextResponse:
    """Queue, jobs, durations, memory, uploads and requests in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(service(request)))
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class ServiceCollector(Collector):
    """Collector that reads a service's metrics from its store whenever they are asked for.

    Parameters
    ----------
    service
        The deployment.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its samples."""
        found = self.service
        records, uploads = found.index.records(), found.usage.uploads()
        yield from self._queues(records)

        states = Counter(r.state for r in records)
        jobs = GaugeMetricFamily("recon_jobs", "Jobs in the store, by state.", labels=["state"])
        for state in STATES:
            jobs.add_metric([state], states[state])
        yield jobs

        found.durations.count(records)
        yield from found.durations.histogram.collect()

        peaks: defaultdict[str, int] = defaultdict(int)
        for record in records:
            peaks[record.method] = max(peaks[record.method], found.index.peak_bytes(record))
        memory = GaugeMetricFamily(
            "recon_job_peak_memory_bytes",
            "Largest peak memory of the succeeded jobs in the store, by method.",
            labels=["method"],
        )
        for method, peak_bytes in sorted(peaks.items()):
            if peak_bytes:
                memory.add_metric([method], peak_bytes)
        yield memory

        yield GaugeMetricFamily("recon_uploads", "Uploads in the store.", len(uploads))
        yield GaugeMetricFamily(
            "recon_upload_bytes", "Bytes of the uploads in the store.", sum(u["bytes"] for u in uploads)
        )

        requests = CounterMetricFamily("recon_http_requests", "Requests answered, by status.", labels=["status"])
        for status, count in sorted(found.answers.items()):
            requests.add_metric([str(status)], count)
        yield requests

    def _queues(self, records: list[Record]) -> Iterator[Metric]:
        queues: dict[tuple[str, str], list[Record]]
        queues = {(device, priority): [] for device in self.service.settings.devices for priority in PRIORITIES}
        for record in records:
            if record.state == "queued":  # also for a device that the settings no longer name
                queues.setdefault((record.device, record.priority), []).append(record)
        labels, now = ["device", "priority"], datetime.now(UTC)
        length = GaugeMetricFamily("recon_queue_length", "Jobs waiting, by device and priority.", labels=labels)
        oldest = GaugeMetricFamily(
            "recon_queue_oldest_seconds", "Age of the oldest job waiting, by device and priority.", labels=labels
        )
        for queue, waiting in queues.items():
            length.add_metric(queue, len(waiting))
            oldest.add_metric(queue, max((_age_s(record, now) for record in waiting), default=0.0))
        yield length
        yield oldest


def _age_s(record: Record, now: datetime) -> float:
    return (now - datetime.fromisoformat(record.created)).total_seconds()
