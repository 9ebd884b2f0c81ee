"""Server-sent events of a job, read so that a broken connection loses none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from recon.connection import Connection, ServerError
from recon.job_states import TERMINAL

SILENCE_S = 45.0
"""The server says something every 15 seconds; after so long without a word the connection is dead."""
PAUSE_S = 0.5
"""Before connecting again after a stream that ended before its job."""


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
        If the server stays away for longer than the connection's patience.
    ServerError
        If it refuses.
    """
    last, patience = after, connection.patience()
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(last)} if last else {})}
        timeout = httpx.Timeout(10.0, read=SILENCE_S)
        try:
            with connection.stream(f"/v1/jobs/{job_id}/events", headers=headers, timeout=timeout) as answer:
                patience = connection.patience()  # the server is there, however long nothing happens
                if answer.status_code == 204:
                    return
                for event in parse(answer.iter_lines()):
                    last = event.id
                    yield event
                    if event.kind == "state" and event.data.get("state") in TERMINAL:
                        return
            if connection.request("GET", f"/v1/jobs/{job_id}").json()["state"] in TERMINAL:
                return  # the final event was never written
        except httpx.TransportError as error:
            patience.spend(connection.unreachable(error))
        except ServerError as error:
            patience.spend(error)
        else:
            time.sleep(PAUSE_S)


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
