"""GET /metrics: what an operator watches."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import get_args

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from api import exposition
from api.outlook import seconds
from api.service import service
from workers.store import Record, State

router = APIRouter(tags=["service"])
BOUNDS_S = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]
PRIORITIES = ("high", "normal", "low")


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> PlainTextResponse:
    """Queue, jobs, durations, memory, uploads and requests in Prometheus' text format."""
    found = service(request)
    records = found.index.records()
    uploads = found.usage.uploads()
    states, now = Counter(r.state for r in records), datetime.now(UTC)
    queued = {p: [r for r in records if r.state == "queued" and r.priority == p] for p in PRIORITIES}
    durations: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        took = seconds(record)
        if record.state == "succeeded" and took is not None:
            durations[record.method].append(took)
    memory: defaultdict[str, int] = defaultdict(int)
    for record in records:
        memory[record.method] = max(memory[record.method], found.index.peak_bytes(record))
    text = [
        exposition.family(
            "recon_queue_length",
            "gauge",
            "Jobs waiting, by priority.",
            [({"priority": p}, len(jobs)) for p, jobs in queued.items()],
        ),
        exposition.family(
            "recon_queue_oldest_seconds",
            "gauge",
            "Age of the oldest job waiting, by priority.",
            [({"priority": p}, max((_age(r, now) for r in jobs), default=0.0)) for p, jobs in queued.items()],
        ),
        exposition.family(
            "recon_jobs", "gauge", "Jobs in the store, by state.", [({"state": s}, states[s]) for s in get_args(State)]
        ),
        exposition.histogram(
            "recon_job_seconds",
            "Computing time of the succeeded jobs in the store, by method.",
            BOUNDS_S,
            [({"method": m}, values) for m, values in sorted(durations.items())],
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
