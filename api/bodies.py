"""Request bodies, read with a timeout and a size limit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from fastapi import Request

from operators.errors import ResourceLimit
from recon.spec.job import MAX_SPEC_BYTES
from workers.http_errors import Stalled, UnsupportedMediaType

JSON = ("application/json", "", "application/x-www-form-urlencoded")
"""Media types of JSON: what curl and HTTP libraries say of a body of which they were told nothing is believed too."""


def media_type(request: Request) -> str:
    """Return the media type of the body, without parameters; empty if none is given.

    Raises
    ------
    UnsupportedMediaType
        If the body is an envelope of parts, compressed, or text, which pages of other sites can send.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    for field, value, wrong in (
        ("Content-Type", found, found.startswith("multipart/") or found == "text/plain"),
        ("Content-Encoding", coding, coding not in ("", "identity")),
    ):
        if wrong:
            raise UnsupportedMediaType(
                f"the body is {value[:100]!r}, expected the bytes themselves",
                field=field,
                remedy="send a file as it is, as application/octet-stream: curl --data-binary @FILE, "
                "without -F and without Content-Encoding; a specification as application/json",
            )
    return found


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raises `Stalled` when nothing arrives for the settings' ``idle_s``."""
    idle_s: int = request.app.state.settings.idle_s
    stream = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), idle_s)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Stalled(f"nothing arrived for {idle_s} s", field="body", remedy="send it again") from error
        yield chunk


async def small_json(request: Request) -> bytes:
    """Read the whole body, which is JSON by its media type.

    Raises
    ------
    UnsupportedMediaType
        If it is of another type.
    ResourceLimit
        As soon as it is larger than a specification may be.
    """
    kind = media_type(request)
    if kind not in JSON and not re.fullmatch(r"application/[\w.-]+\+json", kind):
        raise UnsupportedMediaType(
            f"the body is {kind[:100]!r}, expected JSON",
            field="Content-Type",
            remedy="send it as application/json: curl --json @FILE",
        )
    body = bytearray()
    async for chunk in chunks(request):
        body += chunk
        if len(body) > MAX_SPEC_BYTES:
            raise ResourceLimit("the specification is larger than 1 MB", field="body", remedy="upload data as files")
    return bytes(body)
