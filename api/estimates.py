"""Estimate of a job's memory, time and chunks, without submitting it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from api import bodies, problems, strict_json
from api.models import Estimate
from api.openapi import JOB_SPEC_BODY
from api.service import Service, key_of, service
from api.submission import checked
from recon.planning import plan
from recon.spec.job import JobSpec
from workers.keys import Key

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/estimates",
    responses=problems.responses(404, 410, 413, 415, 503),
    openapi_extra={"requestBody": JOB_SPEC_BODY},
)
async def estimate(request: Request) -> Estimate:
    """Estimate memory by part, network evaluations, seconds and chunks of a job; `fits`: would it be accepted.

    `start_s` and `duration_s` are ranges, from the queue and from how long jobs of the method have taken here.
    """
    # The log of the job that is then submitted says which names in it are old.
    spec = JobSpec.parse(strict_json.parse(await bodies.small_json(request)), notes=[])
    return await run_in_threadpool(_estimated, service(request), key_of(request), spec)


def _estimated(found: Service, key: Key | None, spec: JobSpec) -> Estimate:
    planned, limit = checked(found, key, spec), plan.memory_limit()
    forecast = found.queue_estimates.forecast(spec.method.name, planned.seconds, spec.device, spec.priority)
    return Estimate(**planned.model_dump(), limit_bytes=limit, fits=planned.memory_bytes <= limit, **forecast._asdict())
