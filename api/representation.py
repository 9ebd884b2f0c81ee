"""Representation of a job in responses, with its headers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

from fastapi import Request, Response

from api.links import link
from api.models import Job
from api.service import Service
from workers import retention
from workers.store import Record

POLL_S = 1


def represent(service: Service, record: Record) -> Job:
    """Represent a job with its links, queue position and estimated times."""
    base = link(f"/v1/jobs/{record.id}")
    links = {"self": base, "spec": f"{base}/spec", "events": f"{base}/events", "logs": f"{base}/logs"}
    if service.store.preview(record.id).exists():
        links["preview"] = f"{base}/preview"
    if record.state == "succeeded":
        links |= {"results": f"{base}/results", "results_zip": f"{base}/results.zip"}
    queue_position, estimate = service.queue_estimates.of(record)
    return Job(
        **{k: v for k, v in asdict(record).items() if k != "token"},  # the workers' own
        queue_position=queue_position,
        estimate=estimate,
        expires=retention.expires(record, service.settings),
        seen=service.queue_estimates.seen(record),
        links=links,
    )


def etag(job: Job) -> str:
    """Entity tag of the job; what changes with the clock, estimate and sign of life, does not count."""
    text = job.model_dump_json(exclude={"estimate", "seen"})
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def answer(service: Service, record: Record, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Make the response for a job, with its location and the seconds after which to ask again."""
    job = represent(service, record)
    more = {"ETag": etag(job), **(headers or {})}
    if not record.terminal:
        more["Retry-After"] = str(POLL_S)
    if status == 202:
        more["Location"] = link(f"/v1/jobs/{record.id}")
    return Response(job.model_dump_json(), status, more, media_type="application/json")


def matches(request: Request, tag: str) -> bool:
    """Whether the client already has this representation."""
    known = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    return tag.removeprefix("W/") in known or known == ["*"]
