"""Routes of jobs: show, list, cancel, purge, fetch results."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api import pages, problems, ranges, waiting
from api.links import link
from api.media_types import MEDIA_TYPES, OTHER, media_type
from api.models import Job, Jobs, Purged, ResultFile, Results
from api.openapi import BINARY, PREFER_WAIT, STRING, header_parameter, headers
from api.representation import answer, etag, matches, represent
from api.result_files import KEPT, stem, zipped
from api.service import key_of, owns, service
from api.slices import require_results
from api.web_security import RESULT_POLICY
from operators.errors import NotFound
from recon.spec.job import JobSpec
from recon.spec.job_states import State
from workers import retention
from workers.results import manifest
from workers.store import Record

router = APIRouter(tags=["jobs"])
SHOWN = ("text/html", "image/", "application/json")
"""Media types that a browser shows, where it is not told to save them; the policy of results makes that safe."""
RESULT_CONTENT = {kind: {} if kind == "application/json" else BINARY for kind in sorted({*MEDIA_TYPES.values(), OTHER})}


@router.get("/v1/jobs")
@router.head("/v1/jobs", include_in_schema=False)
def list_jobs(
    request: Request,
    state: Annotated[State | None, Query(description="State that the jobs have.")] = None,
    tag: Annotated[str | None, Query(max_length=64, description="Tag that the jobs have.")] = None,
    name: Annotated[str | None, Query(max_length=100, description="Part of the name, in any case.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Length of a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="From `next` of the page before.")] = None,
) -> Jobs:
    """List jobs, newest first; `next` leads to the next page."""
    found, key = service(request), key_of(request)
    wanted = (name or "").casefold()
    records = [
        r
        for r in found.index.records()
        if (state is None or r.state == state)
        and (tag is None or tag in r.tags)
        and wanted in r.name.casefold()
        and owns(key, r.owner)
    ]
    page, following = pages.cut(records, limit, cursor)
    filters = {"state": state, "tag": tag, "name": name, "limit": str(limit)}
    return Jobs(
        jobs=[represent(found, r) for r in page],
        total=len(records),
        truncated=following is not None,
        next=pages.link(link("/v1/jobs"), filters, following) if following else None,
    )


@router.get(
    "/v1/jobs/{job_id}",
    response_model=Job,
    responses={
        200: {"headers": headers(STRING, "ETag")},
        304: {"description": "As the client has it (If-None-Match)."},
        **problems.responses(404, 410),
    },
    openapi_extra={
        "parameters": [
            PREFER_WAIT,
            header_parameter("If-None-Match", "The `ETag` that the client has; 304 if it still holds."),
        ]
    },
)
@router.head("/v1/jobs/{job_id}", include_in_schema=False)
async def get_job(request: Request, job_id: str) -> Response:
    """State, progress and links of a job.

    With ``Prefer: wait=SECONDS`` the answer comes when the job has ended; together with ``If-None-Match``, when it
    has changed.
    """
    found, key = service(request), key_of(request)
    seconds = waiting.preferred(request)
    conditional = "if-none-match" in request.headers

    def enough(record: Record) -> bool:
        return record.terminal or (conditional and not matches(request, etag(represent(found, record))))

    record = await waiting.until(request, lambda: found.job(key, job_id), enough, seconds)
    full = await run_in_threadpool(answer, found, record, 200, waiting.applied(seconds))
    if matches(request, full.headers["ETag"]):
        kept = {k: v for k, v in full.headers.items() if k in ("etag", "retry-after", "preference-applied")}
        return Response(status_code=304, headers=kept)
    return full


@router.get(
    "/v1/jobs/{job_id}/preview",
    response_class=Response,
    responses={
        200: {"content": {"image/png": BINARY}, "headers": headers(STRING, "ETag")},
        304: {"description": "As the client has it (If-None-Match)."},
        **problems.responses(404, 410),
    },
    openapi_extra={
        "parameters": [header_parameter("If-None-Match", "The `ETag` that the client has; 304 if it still holds.")]
    },
)
@router.head("/v1/jobs/{job_id}/preview", include_in_schema=False)
def preview(request: Request, job_id: str) -> Response:
    """Middle planes of the image as it is now, while a job is computed; another one every 5 s at most.

    A job has the link `preview` when there is one.
    """
    found = service(request)
    record = found.job(key_of(request), job_id)
    try:
        path = found.store.preview(job_id)
        changed, picture = path.stat().st_mtime_ns, path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(
            f"job {job_id} is {record.state}: there is no preview of it",
            field="preview",
            remedy="see its results"
            if record.terminal
            else "ask again: the first comes after some seconds of computing",
        ) from error
    tag = f'"{changed:x}"'
    kept = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if matches(request, tag):
        return Response(status_code=304, headers=kept)
    return Response(picture, headers=kept, media_type="image/png")


@router.get("/v1/jobs/{job_id}/spec", response_model=JobSpec, responses=problems.responses(404, 410))
@router.head("/v1/jobs/{job_id}/spec", include_in_schema=False)
def get_spec(request: Request, job_id: str) -> JSONResponse:
    """Specification of the job, as submitted."""
    found = service(request)
    found.job(key_of(request), job_id)
    return JSONResponse(found.store.spec(job_id).model_dump(mode="json", exclude_unset=True))


@router.delete(
    "/v1/jobs/{job_id}",
    response_model=Job | Purged,
    responses={
        202: {"model": Job, "description": "It will stop at its next step."},
        **problems.responses(404, 409, 410),
    },
)
def cancel(
    request: Request,
    response: Response,
    job_id: str,
    purge: Annotated[bool, Query(description="Delete a finished job and its results.")] = False,
) -> Job | Purged:
    """Cancel: at once while queued, at the next step while running; finished jobs stay as they are.

    With ``purge=1`` a finished job is deleted at once, and is 410 afterwards.
    """
    found = service(request)
    record = found.job(key_of(request), job_id)
    if purge:
        found.durations.count([record])  # before it is gone: nobody may have asked for metrics since its end
        retention.purge_job(found.store, record, "it was purged on request")
        return Purged(id=job_id, purged=True)
    record = found.store.request_cancel(job_id)
    response.status_code = 200 if record.terminal else 202
    return represent(found, record)


@router.get("/v1/jobs/{job_id}/results", responses=problems.responses(404, 409, 410))
@router.head("/v1/jobs/{job_id}/results", include_in_schema=False)
def results(request: Request, job_id: str) -> Results:
    """Manifest of the results: name, bytes, sha256 and link of each file."""
    found = service(request)
    require_results(found.job(key_of(request), job_id))
    entries = manifest(found.store.output(job_id))
    files = [ResultFile(**entry, href=link(f"/v1/jobs/{job_id}/results/{entry['name']}")) for entry in entries]
    return Results(id=job_id, files=files)


@router.get(
    "/v1/jobs/{job_id}/results/{name}",
    response_class=FileResponse,
    responses={
        200: {"content": RESULT_CONTENT},
        206: {"description": "The range asked for."},
        **problems.responses(404, 409, 410, 416),
    },
    openapi_extra={"parameters": [header_parameter("Range", "`bytes=FIRST-LAST`: this part only.")]},
)
@router.head("/v1/jobs/{job_id}/results/{name}", include_in_schema=False)
def result(request: Request, job_id: str, name: str) -> Response:
    """Fetch one result file; Range requests are supported."""
    found = service(request)
    record = found.job(key_of(request), job_id)
    require_results(record)
    # Names come from the folder's own listing, never from the URL.
    file = next((p for p in found.store.output(job_id).iterdir() if p.name == name), None)
    if file is None:
        raise NotFound(f"job {job_id} has no result {name!r}", field="name", remedy="see the manifest")
    refusal = ranges.refusal(request, file.stat().st_size)
    if refusal is not None:
        return refusal
    kind, headers = media_type(name), {**KEPT, "Content-Security-Policy": RESULT_POLICY}
    shown = "inline" if kind.startswith(SHOWN) else "attachment"
    return FileResponse(
        file, media_type=kind, filename=f"{stem(record)}-{name}", headers=headers, content_disposition_type=shown
    )


@router.get(
    "/v1/jobs/{job_id}/results.zip",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": BINARY}}, **problems.responses(404, 409, 410)},
)
@router.head("/v1/jobs/{job_id}/results.zip", include_in_schema=False)
def results_zip(request: Request, job_id: str) -> Response:
    """Fetch all results as one zip, in a folder that is named after the job."""
    found = service(request)
    record = found.job(key_of(request), job_id)
    require_results(record)
    named = f"attachment; filename*=UTF-8''{quote(stem(record))}.zip"
    body = zipped(found.store.output(job_id), record) if request.method == "GET" else iter(())
    return StreamingResponse(body, media_type="application/zip", headers={**KEPT, "Content-Disposition": named})
