"""What a job would take, without submitting it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from api import bodies, strict_json
from api.service import key_of, service
from api.submission import checked
from recon.planning import plan
from recon.spec.job import JobSpec

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/estimates",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
        }
    },
)
async def estimate(request: Request) -> dict[str, Any]:
    """Memory by part, network evaluations, seconds and chunks of a job; `fits` says whether it would be accepted."""
    spec = JobSpec.parse(strict_json.parse(await bodies.small(request)), "the request")
    found = await run_in_threadpool(checked, service(request), key_of(request), spec)
    limit = plan.memory_limit()
    return {**found.model_dump(mode="json"), "limit_bytes": limit, "fits": found.memory_bytes <= limit}
