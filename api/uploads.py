"""Routes of uploads: stream the raw body to disk, whole or in pieces, with a size limit and a hash.

A body of the media type of a folder is an archive, which is unpacked.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import IO, Annotated, Any, TypedDict

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from api import pages, problems
from api.bodies import chunks, media_type
from api.links import link
from api.models import Upload, UploadBegun, Uploads
from api.openapi import BINARY, COUNT, STRING, header_parameter, headers
from api.service import Service, key_of, owns, service
from operators.errors import InputError, NotFound, ResourceLimit, StorageFull
from recon.spec.files import FOLDER_MEDIA_TYPE, LONGEST_NAME
from workers import resumable_uploads, retention, uploads
from workers.keys import Key
from workers.settings import Settings

router = APIRouter(tags=["uploads"])


class _About(TypedDict):
    packed: bool
    name: str


SHA256, LENGTH, OFFSET = "X-Checksum-SHA256", "Upload-Length", "Upload-Offset"
BODY: dict[str, Any] = {"required": True, "content": {"application/octet-stream": BINARY}}
BEGINNING = {
    "requestBody": {
        "description": "A file; or, as the second media type, a folder in an uncompressed tar archive.",
        "content": {**BODY["content"], FOLDER_MEDIA_TYPE: BINARY},
    },
    "parameters": [
        header_parameter(SHA256, "SHA-256 of the file; it is verified.", pattern="^[0-9a-fA-F]{64}$"),
        header_parameter(
            LENGTH,
            "Bytes of a file that will be sent in pieces, with PATCH; the body is then empty.",
            pattern="^0{0,16}[1-9][0-9]{0,17}$",
        ),
    ],
}
BEGUN = {201: {"headers": headers(STRING, "Location")}, **problems.responses(413, 415, 507)}
PLACE = {"headers": headers(COUNT, OFFSET, LENGTH)}


@router.post(
    "/v1/uploads", status_code=201, response_model=Upload | UploadBegun, responses=BEGUN, openapi_extra=BEGINNING
)
@router.put(
    "/v1/uploads", status_code=201, response_model=Upload | UploadBegun, responses=BEGUN, openapi_extra=BEGINNING
)
async def upload(
    request: Request,
    name: Annotated[str, Query(max_length=LONGEST_NAME, description="Name of the file, for people.")] = "",
) -> JSONResponse:
    """Store the request's body; or, with ``Upload-Length``, begin an upload that arrives in pieces.

    ``Content-Type: application/x-tar`` says that it is a folder, which is unpacked.
    """
    found, key = service(request), key_of(request)
    expected = _checksum(request)
    about: _About = {"packed": media_type(request) == FOLDER_MEDIA_TYPE, "name": uploads.clean_name(name)}
    if LENGTH in request.headers:
        return await run_in_threadpool(_begin, found, key, request.headers[LENGTH], expected, **about)
    announced = request.headers.get("content-length", "")
    digest, size = hashlib.sha256(), 0
    with found.usage.one_more_upload(key) as arriving, uploads.receiving(found.store) as (upload_id, path):
        if announced.isdigit():
            await run_in_threadpool(arriving.keep, int(announced), whole=True)
            check_room(found.settings, int(announced), int(announced), packed=about["packed"])
        with path.open("wb") as stream:
            async for chunk in chunks(request):
                size += len(chunk)
                check_room(found.settings, size, len(chunk))
                if size > arriving.kept:
                    await run_in_threadpool(arriving.keep, size, whole=False)
                digest.update(chunk)
                await asyncio.to_thread(_write, stream, chunk)
        if size == 0:
            raise InputError("the body is empty", field="body", remedy="send the file as the request's body")
        if announced.isdigit() and int(announced) != size:
            raise InputError(f"{size} bytes arrived, {announced} were announced", field="body", remedy="send it again")
        if expected not in (None, digest.hexdigest()):
            raise InputError(f"sha256 {digest.hexdigest()} arrived, {expected} was announced", field=SHA256)
        owner = key.name if key else None
        publish = partial(uploads.publish, **about)
        meta = await asyncio.to_thread(publish, found.store, upload_id, path, digest.hexdigest(), owner)
    return JSONResponse(
        Upload.model_validate(meta).model_dump(), 201, headers={"Location": link(f"/v1/uploads/{upload_id}")}
    )


def _begin(
    found: Service, key: Key | None, announced: str, expected: str | None, *, packed: bool, name: str
) -> JSONResponse:
    length = _number(announced, LENGTH)
    if length == 0:
        raise InputError("an upload has at least one byte", field=LENGTH)
    check_room(found.settings, length, length, packed=packed)
    with found.usage.one_more_upload(key) as arriving:
        arriving.keep(length, whole=True)
        owner = key.name if key else None
        begun = resumable_uploads.create(found.store, length, expected, owner, packed=packed, name=name)
    headers = {"Location": link(f"/v1/uploads/{begun.id}"), OFFSET: "0", LENGTH: str(length)}
    return JSONResponse(_begun(begun, 0).model_dump(), 201, headers=headers)


@router.get("/v1/uploads")
@router.head("/v1/uploads", include_in_schema=False)
def list_uploads(
    request: Request,
    name: Annotated[str | None, Query(max_length=100, description="Part of the name, in any case.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Length of a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="From `next` of the page before.")] = None,
) -> Uploads:
    """List uploads, newest first, those that are still arriving too; `next` leads to the next page."""
    found, key = service(request), key_of(request)
    here: dict[str, Upload | UploadBegun] = {one.id: one for one in _arriving(found, key)}
    # After those, and over them: an upload that is completed meanwhile is listed once.
    here |= {meta["id"]: Upload.model_validate(meta) for meta in found.usage.uploads() if owns(key, meta["owner"])}
    wanted = (name or "").casefold()
    fitting = [one for one in here.values() if wanted in one.name.casefold()]
    fitting.sort(key=lambda one: (one.created, one.id), reverse=True)
    page, following = pages.cut(fitting, limit, cursor)
    filters = {"name": name, "limit": str(limit)}
    return Uploads(
        uploads=page,
        total=len(fitting),
        next=pages.link(link("/v1/uploads"), filters, following) if following else None,
    )


@router.head("/v1/uploads/{upload_id}", response_class=Response, responses={200: PLACE, **problems.responses(404, 410)})
def progress(request: Request, upload_id: str) -> Response:
    """Offset of an upload: ``Upload-Offset`` of ``Upload-Length`` bytes have arrived."""
    found, key = service(request), key_of(request)
    try:
        here = _unfinished(found, key, upload_id)
        offset, length, whole = resumable_uploads.offset(found.store, here), here.length, "?0"
    except NotFound:
        offset = length = int(str(found.upload(key, upload_id)["bytes"]))
        whole = "?1"
    headers = {OFFSET: str(offset), LENGTH: str(length), "Upload-Complete": whole, "Cache-Control": "no-store"}
    return Response(status_code=200, headers=headers)


@router.get("/v1/uploads/{upload_id}", responses=problems.responses(404, 410))
def describe(request: Request, upload_id: str) -> Upload | UploadBegun:
    """Bytes, sha256 and time of a complete upload; id and announced bytes of an incomplete one."""
    found, key = service(request), key_of(request)
    try:
        here = _unfinished(found, key, upload_id)
    except NotFound:
        return Upload.model_validate(found.upload(key, upload_id))
    return _begun(here, resumable_uploads.offset(found.store, here))


@router.patch(
    "/v1/uploads/{upload_id}",
    response_model=Upload,
    responses={
        204: {"description": "The piece is stored, more are to come.", **PLACE},
        **problems.responses(404, 409, 410, 413, 415, 507),
    },
    openapi_extra={
        "requestBody": BODY,
        "parameters": [
            header_parameter(
                OFFSET,
                "Byte of the file at which the piece begins, as HEAD says.",
                required=True,
                pattern="^[0-9]{1,18}$",
            )
        ],
    },
)
async def append(request: Request, upload_id: str) -> Response:
    """Store the next piece of an upload; the last one completes and verifies it."""
    media_type(request)
    found, key = service(request), key_of(request)
    at = _number(request.headers.get(OFFSET, ""), OFFSET)
    here = await run_in_threadpool(_unfinished, found, key, upload_id)
    with resumable_uploads.appending(found.store, here, at) as stream:
        async for chunk in chunks(request):
            at += len(chunk)
            if at > here.length:
                raise ResourceLimit(f"{at} bytes, {here.length} were announced", field="body")
            check_room(found.settings, at, len(chunk))
            await asyncio.to_thread(_write, stream, chunk)
        if at == here.length:
            meta = await asyncio.to_thread(resumable_uploads.complete, found.store, here)
            return JSONResponse(Upload.model_validate(meta).model_dump())
    return Response(status_code=204, headers={OFFSET: str(at), LENGTH: str(here.length)})


@router.delete("/v1/uploads/{upload_id}", status_code=204, responses=problems.responses(404, 409, 410))
def delete(request: Request, upload_id: str) -> Response:
    """Delete an upload that no unfinished job uses; it is 410 afterwards."""
    found, key = service(request), key_of(request)
    owner, reason = key.name if key else None, "it was deleted on request"
    try:
        here = _unfinished(found, key, upload_id)
    except NotFound:
        found.upload(key, upload_id)
        retention.delete_upload(found.index, upload_id, owner, reason)
    else:
        retention.delete(found.store, "uploads", resumable_uploads.folder(found.store, here.id), owner, reason)
    return Response(status_code=204)


def _arriving(found: Service, key: Key | None) -> Iterator[UploadBegun]:
    for upload in resumable_uploads.reserved(found.store):
        if owns(key, upload.owner):
            with suppress(NotFound):  # completed or deleted meanwhile
                yield _begun(upload, resumable_uploads.offset(found.store, upload))


def _begun(upload: resumable_uploads.ResumableUpload, received: int) -> UploadBegun:
    shared = {"id": upload.id, "bytes": upload.length, "created": upload.created, "name": upload.name}
    return UploadBegun(**shared, received=received, complete=False)


def _write(stream: IO[bytes], chunk: bytes) -> None:
    """Write a piece without buffering, so that the file's time tells whether data still arrive."""
    stream.write(chunk)
    stream.flush()


def _unfinished(found: Service, key: Key | None, upload_id: str) -> resumable_uploads.ResumableUpload:
    try:
        here = resumable_uploads.find(found.store, upload_id)
    except NotFound:
        found.upload(key, upload_id)  # raises what is to be said of an upload that never was, or is gone
        raise NotFound(f"upload {upload_id!r} is complete", field="id") from None
    if not owns(key, here.owner):
        raise NotFound(f"there is no upload {upload_id!r}", field="id")
    return here


def _checksum(request: Request) -> str | None:
    given = request.headers.get(SHA256)
    if given is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise InputError(f"{given[:80]!r} is no sha256", field=SHA256, remedy="give 64 hexadecimal digits")
    return given.lower() if given else None


def _number(text: str, field: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise InputError(f"{text[:40]!r} is no number of bytes", field=field, remedy="give a whole number")
    return int(text)


def check_room(settings: Settings, size: int, still: int, *, packed: bool = False) -> None:
    """Raise `ResourceLimit` for an upload of too many bytes, `StorageFull` if `still` more do not fit on the disk.

    A `packed` folder lies there twice while it is unpacked.
    """
    if size > settings.max_upload_bytes:
        raise ResourceLimit(
            f"{size} bytes, an upload has at most {settings.max_upload_bytes}",
            field="body",
            remedy="send fewer slices, or raise RECON_MAX_UPLOAD_BYTES on the server",
        )
    free = shutil.disk_usage(settings.store).free
    if free - still * (2 if packed else 1) < settings.min_free_bytes:
        raise StorageFull(f"{free} bytes are free on the server", field="body", remedy="delete old jobs, try later")
