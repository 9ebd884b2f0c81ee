"""Server-sent events of a job, read so that a broken connection loses none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from recon.connection import Connection, ServerError

TERMINAL = ("succeeded", "failed", "cancelled")
SILENCE_S = 45.0
"""The server says something every 15 seconds; after so long without a word the connection is dead."""
PATIENCE_S = 60.0
"""How long a server may be away before it is given up."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    id: int
    kind: str
    """``state``, ``progress`` or ``log``."""
    data: dict[str, Any]
    """What changed, and the time as ``at``."""


def follow(connection: Connection, job_id: str, after: int = 0) -> Iterator[Event]:
    """The events of a job after one already seen, until it has ended.

    Connects again whenever the connection breaks, and goes on after the last event that arrived.

    Raises
    ------
    BackendUnavailable
        If the server stays away for a minute.
    ServerError
        If it refuses.
    """
    last, away_since, pause = after, None, 0.5
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(last)} if last else {})}
        timeout = httpx.Timeout(10.0, read=SILENCE_S)
        try:
            with connection.stream(f"/v1/jobs/{job_id}/events", headers=headers, timeout=timeout) as answer:
                if answer.status_code == 204:
                    return
                for event in parse(answer.iter_lines()):
                    away_since, pause, last = None, 0.5, event.id
                    yield event
                    if event.kind == "state" and event.data.get("state") in TERMINAL:
                        return
            if connection.request("GET", f"/v1/jobs/{job_id}").json()["state"] in TERMINAL:
                return  # the final event was never written
        except httpx.TransportError as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_S:
                raise connection.unreachable(error) from error
        except ServerError as error:
            if error.status != 503:
                raise
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_S:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Events of a stream of lines; comments and fields without meaning here are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if {"id", "event", "data"} <= fields.keys():
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
