"""Server-sent events of a job as they happen, and its log."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api import problems
from api.models import StreamedEvent
from api.service import Service, key_of, service
from operators.errors import NotFound
from recon.spec.job_states import TERMINAL
from workers.events import Tail
from workers.http_errors import Busy

router = APIRouter(tags=["jobs"])
LOOK_EVERY_S = 0.3
LOOKS_PER_S = 200
"""Checks per second of all streams together: the more streams, the rarer each one checks."""
HEARTBEAT_S = 15.0
SEEN_EVERY_S = 3.0
"""Least seconds between two events that tell when the worker was last heard of."""
LAST_WORD_S = 3.0
"""Seconds to wait for the event of the final state once that state is seen."""
MAX_STREAMS = 500
"""Maximum number of open streams; each one holds a connection."""
STREAM = "text/event-stream"
_open = 0


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "content": {STREAM: {"schema": StreamedEvent.model_json_schema()}},
            "description": "Events, each with id, event and data.",
        },
        204: {"description": "The job has ended and there is nothing more to tell."},
        **problems.responses(404, 410, 503),
    },
)
@router.head("/v1/jobs/{job_id}/events", include_in_schema=False)
async def events(
    request: Request,
    job_id: str,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="Id of the last event that the client has.")
    ] = None,
) -> Response:
    """Stream state, progress and log events until the job has ended; between them `seen`, while it is computed.

    `seen` has no id of its own, and tells when the worker was last heard of.
    ``Last-Event-ID`` gives the events after that one, so that a broken connection misses none.
    """
    found, key = service(request), key_of(request)
    after = int(last_event_id) if last_event_id and re.fullmatch(r"\d{1,15}", last_event_id) else 0
    record = await run_in_threadpool(found.job, key, job_id)
    tail = await run_in_threadpool(found.store.tail, job_id, after)
    if record.terminal and after and not await run_in_threadpool(Tail(tail.path, after).read):
        return Response(status_code=204)  # tells browsers not to connect again
    return streamed(request, _stream(tail, lambda: _ended(found, job_id), lambda: _seen(found, job_id)))


def streamed(request: Request, stream: AsyncIterator[dict[str, Any]]) -> Response:
    """Answer a request with a stream of events, of which there are only so many at a time; raises `Busy`."""
    if request.method == "HEAD":
        return Response(media_type=STREAM)
    if _open >= MAX_STREAMS:
        raise Busy(f"{MAX_STREAMS} event streams are open", field="events", remedy="poll the job instead")
    # A client that does not read stops the stream, not the server: what is unsent is one piece of it.
    return EventSourceResponse(
        _counted(stream),
        sep="\n",
        ping=HEARTBEAT_S,
        ping_message_factory=functools.partial(ServerSentEvent, comment="still here", sep="\n"),
    )


async def pause() -> None:
    """Wait until a stream checks again."""
    await asyncio.sleep(max(LOOK_EVERY_S, _open / LOOKS_PER_S))


async def _counted(stream: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    global _open
    _open += 1
    try:
        async for event in stream:
            yield event
    finally:
        _open -= 1


async def _stream(
    tail: Tail, ended: Callable[[], bool], seen: Callable[[], str | None]
) -> AsyncIterator[dict[str, Any]]:
    """Yield the fields of each event to send, until the job has ended."""

    def look() -> tuple[bool, list[dict[str, Any]]]:
        return ended(), tail.read()  # asked before reading: what came before the end is then read

    yield {"retry": 1000}
    over_since = None
    beat: str | None = None
    beat_at = 0.0
    while True:
        over, some = await run_in_threadpool(look)
        for event in some:
            yield {"id": str(event["id"]), "event": event["event"], "data": json.dumps(_data(event))}
            if event["event"] == "state" and event["data"].get("state") in TERMINAL:
                return
        if some:
            continue
        if over:
            now = time.monotonic()
            over_since = over_since or now
            if now - over_since > LAST_WORD_S:
                return
        elif time.monotonic() - beat_at > SEEN_EVERY_S:
            last, beat, beat_at = beat, await run_in_threadpool(seen), time.monotonic()
            if beat is not None and beat != last:
                yield {"event": "seen", "data": json.dumps({"seen": beat})}
        await pause()


def _data(event: dict[str, Any]) -> dict[str, Any]:
    return {"at": event["at"], **event["data"]}


def _seen(found: Service, job_id: str) -> str | None:
    """Time at which the worker of a job was last heard of."""
    try:
        record = found.store.record(job_id)
    except (NotFound, FileNotFoundError):
        return None  # deleted
    found.queue_estimates.of(record)  # which looks, if it is time to
    return found.queue_estimates.seen(record)


def _ended(found: Service, job_id: str) -> bool:
    try:
        over = found.store.record(job_id).terminal
        if over:
            found.store.tell_the_end(job_id)
        return over
    except (NotFound, FileNotFoundError):
        return True  # deleted


@router.get("/v1/jobs/{job_id}/logs", response_class=PlainTextResponse, responses=problems.responses(404, 410))
@router.head("/v1/jobs/{job_id}/logs", include_in_schema=False)
def logs(request: Request, job_id: str) -> Response:
    """Log of the job so far, one line per entry."""
    found = service(request)
    found.job(key_of(request), job_id)
    tail = found.store.tail(job_id)
    return StreamingResponse(_lines(tail), media_type="text/plain; charset=utf-8")


def _lines(tail: Tail) -> Iterator[str]:
    while some := tail.read():
        for event in some:
            if event["event"] == "log":
                data = event["data"]
                text = data.get("message") or json.dumps(data)
                yield f"{event['at']} {data.get('level', 'info').lower()} {text}\n"
