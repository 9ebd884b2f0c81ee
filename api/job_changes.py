"""Server-sent events of all jobs of a key in one stream: browsers open only six connections to a server.

Each event is a job as it is now, not what changed in it: what a client missed while it was away is made good by one
event a job, and an event that comes twice does no harm.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from api import events, problems
from api.models import GoneJob, Job, StreamedChange
from api.representation import represent
from api.service import Service, key_of, owns, service
from api.sessions import COOKIE
from workers import retention, sessions
from workers.keys import Key
from workers.lease import BEAT_S
from workers.store import Record

router = APIRouter(tags=["jobs"])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OVERLAP_S = 30.0
"""Seconds before the last event that are told again, since the clocks of workers may differ by so much."""
SAME_BEAT = timedelta(seconds=BEAT_S / 2)
"""Difference in seconds between two looks at the same sign of life: its time is told by what is left of a lease."""
Told = tuple[str, int | None, str | None]
"""State that a client knows: time of the job's last change, place in the queue, and last sign of its worker."""


@router.get(
    "/v1/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "content": {events.STREAM: {"schema": StreamedChange.model_json_schema()}},
            "description": "Events, each with id, event and data.",
        },
        **problems.responses(503),
    },
)
@router.head("/v1/events", include_in_schema=False)
async def job_changes(
    request: Request,
    last_event_id: Annotated[
        str | None, Header(max_length=20, description="Id of the last event that the client has.")
    ] = None,
) -> Response:
    """Stream all jobs as they change: `job` with the whole job as it is now, `gone` for one that was deleted.

    It begins with the unfinished jobs and those that have just changed; with ``Last-Event-ID``, with every job that
    changed since that event. It does not end by itself.
    """
    given = int(last_event_id) if last_event_id and re.fullmatch(r"\d{1,16}", last_event_id) else None
    token = request.cookies.get(COOKIE) if getattr(request.state, "session_expires", None) is not None else None
    changes = Changes(service(request), key_of(request), given, token)
    return events.streamed(request, _stream(changes))


async def _stream(changes: Changes) -> AsyncIterator[dict[str, Any]]:
    yield {"retry": 1000}
    while await run_in_threadpool(changes.allowed):
        some = await run_in_threadpool(changes.look)
        for event in some:
            yield event
        if not some:
            await events.pause()


class Changes:
    """Changes of the jobs that a key may see.

    Parameters
    ----------
    service
        The deployment.
    key
        Whose jobs; None for all, on a server without keys.
    after
        Id of the last event that the client has, microseconds since the epoch; None for a client that has none.
    token
        Token of the session that the key comes from; None without one.
    """

    def __init__(self, service: Service, key: Key | None, after: int | None, token: str | None = None) -> None:
        self.service, self.key, self.id, self._token = service, key, after or 0, token
        self._known: dict[str, Told] | None = None
        self._first = after is None
        last = datetime.now(UTC) if after is None else _EPOCH + timedelta(microseconds=after)
        self._since = last - timedelta(seconds=OVERLAP_S)

    def allowed(self) -> bool:
        """Whether the key is still one of the server's, and its session goes on."""
        if self.key is None:
            return True
        if self.service.keys is None or self.service.keys.of_digest(self.key.sha256) is None:
            return False
        return self._token is None or sessions.find(self.service.sessions, self.service.keys, self._token) is not None

    def look(self) -> list[dict[str, Any]]:
        """Events of what has changed since the last look; the first look tells what the client has missed."""
        records = {r.id: r for r in self.service.index.records() if owns(self.key, r.owner)}
        estimates = self.service.queue_estimates
        now = {r.id: (r.updated, estimates.of(r)[0], estimates.seen(r)) for r in records.values()}
        if self._known is None:
            changed = [r for r in records.values() if self._missed(r)]
            gone = self._gone_before()
        else:
            changed = [r for r in records.values() if _differ(now[r.id], self._known.get(r.id))]
            gone = [job_id for job_id in self._known if job_id not in now]
        self._known = now
        changed.sort(key=lambda r: (r.updated, r.id))
        told = [self._event("job", represent(self.service, r), datetime.fromisoformat(r.updated)) for r in changed]
        return told + [self._event("gone", GoneJob(id=job_id), datetime.now(UTC)) for job_id in gone]

    def _missed(self, record: Record) -> bool:
        return (self._first and not record.terminal) or datetime.fromisoformat(record.updated) >= self._since

    def _gone_before(self) -> list[str]:
        notes = retention.notes_since(self.service.store, "jobs", self._since)
        return [note.id for note in notes if owns(self.key, note.owner)]

    def _event(self, kind: str, data: Job | GoneJob, at: datetime) -> dict[str, Any]:
        self.id = max(self.id, (at - _EPOCH) // timedelta(microseconds=1))
        return {"id": str(self.id), "event": kind, "data": data.model_dump_json()}


def _differ(now: Told, before: Told | None) -> bool:
    """Whether something new is to be told of a job: its state, its place in the queue, or a later sign of life."""
    if before is None or now[:2] != before[:2]:
        return True
    if now[2] is None or before[2] is None:
        return now[2] != before[2]
    return abs(datetime.fromisoformat(now[2]) - datetime.fromisoformat(before[2])) > SAME_BEAT
