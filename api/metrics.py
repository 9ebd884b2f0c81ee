"""GET /metrics: what an operator watches."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from api import exposition
from api.service import service
from recon.job_states import PRIORITIES, STATES
from workers.store import Record

router = APIRouter(tags=["service"])


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> PlainTextResponse:
    """Queue, jobs, durations, memory, uploads and requests in Prometheus' text format."""
    found = service(request)
    records = found.index.records()
    uploads = found.usage.uploads()
    states, now = Counter(r.state for r in records), datetime.now(UTC)
    queues: dict[tuple[str, str], list[Record]] = {(d, p): [] for d in found.settings.devices for p in PRIORITIES}
    for record in records:
        if record.state == "queued":  # also for a device that the settings no longer name
            queues.setdefault((record.device, record.priority), []).append(record)
    found.durations.count(records)
    memory: defaultdict[str, int] = defaultdict(int)
    for record in records:
        memory[record.method] = max(memory[record.method], found.index.peak_bytes(record))
    text = [
        exposition.family(
            "recon_queue_length",
            "gauge",
            "Jobs waiting, by device and priority.",
            [({"device": d, "priority": p}, len(jobs)) for (d, p), jobs in queues.items()],
        ),
        exposition.family(
            "recon_queue_oldest_seconds",
            "gauge",
            "Age of the oldest job waiting, by device and priority.",
            [
                ({"device": d, "priority": p}, max((_age(r, now) for r in jobs), default=0.0))
                for (d, p), jobs in queues.items()
            ],
        ),
        exposition.family(
            "recon_jobs", "gauge", "Jobs in the store, by state.", [({"state": s}, states[s]) for s in STATES]
        ),
        exposition.histogram(
            "recon_job_seconds",
            "Computing time of the jobs that succeeded since the API started, by method and device.",
            found.durations.tallies(),
        ),
        exposition.family(
            "recon_job_peak_memory_bytes",
            "gauge",
            "Largest peak memory of the succeeded jobs in the store, by method.",
            [({"method": m}, size) for m, size in sorted(memory.items()) if size],
        ),
        exposition.family("recon_uploads", "gauge", "Uploads in the store.", [({}, len(uploads))]),
        exposition.family(
            "recon_upload_bytes", "gauge", "Bytes of the uploads in the store.", [({}, sum(s for _, s in uploads))]
        ),
        exposition.family(
            "recon_http_requests_total",
            "counter",
            "Requests answered, by status.",
            [({"status": str(s)}, n) for s, n in sorted(found.answers.items())],
        ),
    ]
    return PlainTextResponse("".join(text), media_type=exposition.MEDIA_TYPE)


def _age(record: Record, now: datetime) -> float:
    return (now - datetime.fromisoformat(record.created)).total_seconds()
