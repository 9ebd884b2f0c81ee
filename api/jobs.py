"""Jobs: submit, look, list, cancel, fetch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from kombu.exceptions import OperationalError
from starlette.concurrency import run_in_threadpool

from operators.errors import BackendUnavailable, Conflict, InputError, NotFound, ResourceLimit
from recon.formats import reader
from recon.job import MAX_SPEC_BYTES, JobSpec
from recon.methods import Diffusion
from workers import tasks
from workers.store import TERMINAL, JobStore, Record, manifest

router = APIRouter(tags=["jobs"])
POLL_S = 1
MEDIA_TYPES = {".json": "application/json", ".png": "image/png", ".gz": "application/gzip"}


def represent(record: Record) -> dict[str, Any]:
    """A job as the API shows it."""
    base = f"/v1/jobs/{record.id}"
    links = {"self": base}
    if record.state == "succeeded":
        links["results"] = f"{base}/results"
    shown = {k: v for k, v in asdict(record).items() if k != "token"}  # the workers' own
    return {**shown, "links": links}


def _answer(record: Record, status: int = 200) -> JSONResponse:
    headers = {} if record.terminal else {"Retry-After": str(POLL_S)}
    if status == 202:
        headers["Location"] = f"/v1/jobs/{record.id}"
    return JSONResponse(represent(record), status, headers=headers)


def _store(request: Request) -> JobStore:
    store: JobStore = request.app.state.store
    return store


@router.post(
    "/v1/jobs",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
        }
    },
)
async def submit(request: Request) -> JSONResponse:
    """Accept a job: its specification is on disk, and queued, before the 202."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_SPEC_BYTES:
            raise ResourceLimit("the specification is larger than 1 MB", field="body", remedy="upload data as files")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON: {error}", field="body") from error
    spec = JobSpec.parse(value, "the request")
    return await run_in_threadpool(_accept, _store(request), spec)


def _accept(store: JobStore, spec: JobSpec) -> JSONResponse:
    for name, file in spec.files().items():
        if file.upload is None:
            raise InputError(
                f"{file.path!r} is a path, a server reads uploads only",
                field=f"{name}.path",
                remedy="send the file to /v1/uploads and give its id as upload",
            )
        store.upload(file.upload)
    if isinstance(spec.method, Diffusion):
        for name, path in spec.method.paths().items():
            raise InputError(
                f"'{path}' is a path, a server has what is installed only",
                field=f"method.{name}",
                remedy="leave it out or name an installed prior, or run the job with `recon run`",
            )
    reader.check(spec, store.job_files(spec))
    record = store.create(spec)
    try:
        tasks.enqueue(record.id, record.priority)
    except OperationalError as error:
        store.discard(record.id)
        raise BackendUnavailable(
            "the queue cannot be reached, the job was not accepted", field="redis", remedy="submit again later"
        ) from error
    return _answer(record, 202)


@router.get("/v1/jobs")
def list_jobs(
    request: Request,
    state: str | None = Query(None, max_length=20),
    limit: int = Query(50, ge=1, le=1000),
) -> dict[str, Any]:
    """Jobs, newest first."""
    records = [r for r in _store(request).records() if state is None or r.state == state]
    return {"jobs": [represent(r) for r in records[:limit]], "total": len(records), "truncated": len(records) > limit}


@router.get("/v1/jobs/{job_id}")
def get_job(request: Request, job_id: str) -> JSONResponse:
    """State, progress and links of a job."""
    return _answer(_store(request).record(job_id))


@router.get("/v1/jobs/{job_id}/spec")
def get_spec(request: Request, job_id: str) -> dict[str, Any]:
    """The specification as submitted."""
    return _store(request).spec(job_id).model_dump(mode="json", exclude_unset=True)


@router.delete("/v1/jobs/{job_id}")
def cancel(request: Request, job_id: str) -> JSONResponse:
    """Cancel: at once while queued, at the next step while running; finished jobs stay as they are."""
    record = _store(request).request_cancel(job_id)
    return JSONResponse(represent(record), 200 if record.terminal else 202)


@router.get("/v1/jobs/{job_id}/results")
def results(request: Request, job_id: str) -> dict[str, Any]:
    """Manifest of the results: name, bytes, sha256 and link of each file."""
    store = _store(request)
    _finished(store.record(job_id))
    entries = manifest(store.output(job_id))
    return {
        "id": job_id,
        "files": [{**entry, "href": f"/v1/jobs/{job_id}/results/{entry['name']}"} for entry in entries],
    }


@router.get("/v1/jobs/{job_id}/results/{name}")
@router.head("/v1/jobs/{job_id}/results/{name}", include_in_schema=False)
def result(request: Request, job_id: str, name: str) -> Response:
    """One result file; Range requests are honoured."""
    store = _store(request)
    _finished(store.record(job_id))
    # Names come from the folder's own listing, never from the URL.
    found = next((p for p in store.output(job_id).iterdir() if p.name == name), None)
    if found is None:
        raise NotFound(f"job {job_id} has no result {name!r}", field="name", remedy="see the manifest")
    media = MEDIA_TYPES.get(found.suffix, "application/octet-stream")
    return FileResponse(found, media_type=media, filename=name, headers={"X-Content-Type-Options": "nosniff"})


def _finished(record: Record) -> None:
    if record.state == "succeeded":
        return
    reason = record.error["message"] if record.error else ("wait for it" if record.state not in TERMINAL else "")
    raise Conflict(f"job {record.id} is {record.state}: it has no results", field="state", remedy=reason or None)
