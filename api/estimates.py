"""Estimate of a job's memory, time and chunks, without submitting it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from api import bodies, problems, strict_json
from api.models import Estimate
from api.openapi import JOB_SPEC_BODY
from api.service import key_of, service
from api.submission import checked
from recon.planning import plan
from recon.spec.job import JobSpec

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/estimates",
    responses=problems.responses(404, 410, 413, 415, 503),
    openapi_extra={"requestBody": JOB_SPEC_BODY},
)
async def estimate(request: Request) -> Estimate:
    """Estimate memory by part, network evaluations, seconds and chunks of a job; `fits`: would it be accepted."""
    spec = JobSpec.parse(strict_json.parse(await bodies.small_json(request)))
    found = await run_in_threadpool(checked, service(request), key_of(request), spec)
    limit = plan.memory_limit()
    return Estimate(**found.model_dump(), limit_bytes=limit, fits=found.memory_bytes <= limit)
