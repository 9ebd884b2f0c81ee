"""Uploads: the raw body streamed to disk, counted and hashed on the way."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from operators.errors import InputError, ReconError, ResourceLimit
from workers.settings import Settings
from workers.store import JobStore

router = APIRouter(tags=["uploads"])


class StorageFull(ReconError):
    """The disk is too full to take more."""

    code, status = "storage_full", 507


@router.post("/v1/uploads", status_code=201)
@router.put("/v1/uploads", status_code=201)
async def upload(request: Request) -> JSONResponse:
    """Store the request's body; send its sha256 in ``X-Checksum-SHA256`` to have it verified."""
    settings: Settings = request.app.state.settings
    store: JobStore = request.app.state.store
    announced = request.headers.get("content-length")
    if announced is not None and announced.isdigit():
        _check_room(settings, int(announced))
    digest, size = hashlib.sha256(), 0
    with store.new_upload() as (upload_id, path):
        with path.open("wb") as stream:
            async for chunk in request.stream():
                size += len(chunk)
                _check_room(settings, size, still=len(chunk))
                digest.update(chunk)
                await asyncio.to_thread(stream.write, chunk)
        if size == 0:
            raise InputError("the body is empty", field="body", remedy="send the file as the request's body")
        if announced is not None and announced.isdigit() and int(announced) != size:
            raise InputError(f"{size} bytes arrived, {announced} were announced", field="body", remedy="send it again")
        expected = request.headers.get("x-checksum-sha256")
        if expected is not None and expected.lower() != digest.hexdigest():
            raise InputError(
                f"sha256 {digest.hexdigest()} arrived, {expected} was announced", field="X-Checksum-SHA256"
            )
        meta: dict[str, Any] = await asyncio.to_thread(store.publish_upload, upload_id, path, digest.hexdigest())
    return JSONResponse(meta, 201, headers={"Location": f"/v1/uploads/{upload_id}"})


def _check_room(settings: Settings, size: int, still: int | None = None) -> None:
    if size > settings.max_upload_bytes:
        raise ResourceLimit(
            f"{size} bytes, an upload has at most {settings.max_upload_bytes}",
            field="body",
            remedy="send fewer slices, or raise RECON_MAX_UPLOAD_BYTES on the server",
        )
    free = shutil.disk_usage(settings.store).free
    needed = size if still is None else still
    if free - needed < settings.min_free_bytes:
        raise StorageFull(f"{free} bytes are free on the server", field="body", remedy="delete old jobs, try later")
