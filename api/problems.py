"""Problem responses: maps every error class to HTTP as problem+json (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.models import Problem, ProblemPart
from operators.errors import InputError, ReconError, StorageFull
from recon.spec.validation import described
from workers.http_errors import Refusal
from workers.logs import request_id

log = logging.getLogger("recon.api")
TYPE = "https://diffusion-recon.invalid/problems/"
MEDIA_TYPE = "application/problem+json"
MEANINGS: dict[int | str, str] = {
    401: "The key is missing or unknown.",
    403: "A page of another web site asks for it.",
    404: "It is not here, or belongs to another key.",
    409: "Its state forbids this now.",
    410: "It was here, and has been deleted.",
    413: "Larger than is accepted.",
    415: "The body is of another media type, wrapped or compressed.",
    416: "There is no such range.",
    421: "The service does not go by this name.",
    422: "The request is wrong; `field` and `remedy` say what to mend.",
    429: "The key has as many unfinished jobs as it may have.",
    503: "Try again after `Retry-After` seconds.",
    507: "The disk, or the key's share of it, is full.",
    "default": "A problem.",
}


def responses(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a route as OpenAPI responses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": MEANINGS[status], "content": content} for status in statuses}


def problem(
    status: int,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    *,
    field: str | None = None,
    remedy: str | None = None,
    instance: str | None = None,
    also: Sequence[ReconError] = (),
) -> JSONResponse:
    """Make a problem response."""
    body: Problem = {
        "type": TYPE + code,
        "title": code.replace("_", " "),
        "status": status,
        "code": code,
        "detail": detail,
    }
    if also:
        body["problems"] = [_part(detail, field, remedy), *(_part(e.message, e.field, e.remedy) for e in also)]
    more = {"field": field, "remedy": remedy, "instance": instance, "request_id": request_id.get()}
    said = {name: value for name, value in more.items() if value is not None}
    return JSONResponse({**body, **said}, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def _part(detail: str, field: str | None, remedy: str | None) -> ProblemPart:
    found: ProblemPart = {"detail": detail}
    if field is not None:
        found["field"] = field
    if remedy is not None:
        found["remedy"] = remedy
    return found


def of(request: Request, error: ReconError) -> JSONResponse:
    """Make the problem response of one of our errors."""
    headers = dict(error.headers) if isinstance(error, Refusal) else {}
    if error.status == 503:
        headers.setdefault("Retry-After", "5")
    return problem(
        error.status,
        error.code,
        error.message,
        headers,
        field=error.field,
        remedy=error.remedy,
        instance=request.url.path,
        also=error.also,
    )


def install(app: FastAPI) -> None:
    """Register the error handlers; `api.middleware` handles everything else."""

    @app.exception_handler(ReconError)
    async def of_ours(request: Request, error: ReconError) -> JSONResponse:
        return of(request, error)

    @app.exception_handler(OSError)
    async def of_the_disk(request: Request, error: OSError) -> JSONResponse:
        full = StorageFull.of(error)
        if full is None:
            raise error
        log.error("%s: %s", request.url.path, error)
        return of(request, full)

    @app.exception_handler(RequestValidationError)
    async def of_request(request: Request, error: RequestValidationError) -> JSONResponse:
        # The first part of a place says whether it is in the query, the path or a header.
        found = described([{**item, "loc": item["loc"][1:]} for item in error.errors()])
        first, *others = [InputError(one.message, field=one.field, remedy=one.remedy) for one in found]
        first.also = tuple(others)
        return of(request, first)

    @app.exception_handler(ClientDisconnect)
    async def of_departed(request: Request, error: ClientDisconnect) -> JSONResponse:
        log.info("%s: the client left (%s)", request.url.path, type(error).__name__)
        return problem(400, "incomplete", "the client left before the body was whole", instance=request.url.path)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
        code = codes.get(error.status_code, "http_error")
        detail, remedy = str(error.detail), None
        if error.status_code == 404:
            detail, remedy = f"there is nothing at {request.url.path[:200]}", "/docs lists what there is"
        headers = dict(error.headers or {})
        return problem(error.status_code, code, detail, headers, remedy=remedy, instance=request.url.path)
