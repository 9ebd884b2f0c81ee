"""Server-sent events of a job, read with reconnection so that none is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from operators.errors import BackendUnavailable
from recon.client.connection import Connection, ServerError
from recon.spec.job_states import TERMINAL

SILENCE_S = 45.0
"""Seconds of silence after which the connection counts as dead; the server sends something every 15 seconds."""
PAUSE_S = 0.5
"""Delay before reconnecting after a stream that ended before its job."""


@dataclass(frozen=True)
class Event:
    """Event of a job."""

    id: int
    kind: str
    """Kind of event: ``state``, ``progress`` or ``log``."""
    data: dict[str, Any]
    """Changed fields, and the time as ``at``."""


def follow(connection: Connection, job_id: str, after: int = 0) -> Iterator[Event]:
    """Yield the events of a job after one already seen, until it has ended.

    Reconnects whenever the connection breaks, and continues after the last event that arrived.

    Raises
    ------
    BackendUnavailable
        If the server stays away for longer than the connection's patience, or what answers is no stream of events.
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
                for event in parse(answer):
                    last = event.id
                    yield event
                    if event.kind == "state" and event.data.get("state") in TERMINAL:
                        return
            if connection.request("GET", f"/v1/jobs/{job_id}").json()["state"] in TERMINAL:
                return  # the final event was never written
        except SSEError as error:  # not the service but something on the way to it, as a login page
            raise BackendUnavailable(
                f"{connection.http.base_url} answers with no stream of events: {error}",
                field="url",
                remedy="have proxies pass text/event-stream on as it is",
            ) from error
        except httpx.TransportError as error:
            patience.spend(connection.unreachable(error))
        except ServerError as error:
            patience.spend(error)
        else:
            time.sleep(PAUSE_S)


def parse(answer: httpx.Response) -> Iterator[Event]:
    """Parse the events of a streamed response.

    Those without data, such as the retry interval, are skipped, and so are signs of life, which have no number.
    """
    for event in EventSource(answer).iter_sse():
        if event.id and event.data and event.event != "seen":
            yield Event(int(event.id), event.event, json.loads(event.data))
