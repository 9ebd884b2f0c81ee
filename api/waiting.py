"""Long polling, ``Prefer: wait=SECONDS`` (RFC 7240): the response is sent when the job changes, or after that time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from operators.errors import BackendUnavailable
from workers.store import Record

MAX_WAIT_S = 60
MAX_WAITERS = 500
"""Maximum number of waiting requests; further ones are answered at once, as the RFC allows."""
LOOK_EVERY_S = 0.2
LOOKS_PER_S = 200
"""Checks per second of all waiting requests together: the more there are, the rarer each one checks."""
_waiting = 0


def preferred(request: Request) -> int:
    """Seconds to wait: as the client prefers, at most a minute; 0 without a preference or if too many wait already."""
    if _waiting >= MAX_WAITERS:
        return 0
    for preference in request.headers.get("prefer", "").split(","):
        found = re.fullmatch(r"wait=(\d{1,6})", preference.strip())
        if found:
            return min(int(found[1]), MAX_WAIT_S)
    return 0


def applied(seconds: int) -> dict[str, str]:
    """Header that confirms the preference."""
    return {"Preference-Applied": f"wait={seconds}"} if seconds else {}


async def until(request: Request, look: Callable[[], Record], enough: Callable[[Record], bool], seconds: int) -> Record:
    """Check a job until `enough`, the time is over, or the client has disconnected.

    Raises
    ------
    BackendUnavailable
        If the server is stopped meanwhile.
    """
    global _waiting
    deadline = time.monotonic() + seconds

    def both() -> tuple[Record, bool]:
        record = look()
        return record, enough(record)

    _waiting += seconds > 0
    try:
        record, done = await run_in_threadpool(both)
        while not done and time.monotonic() < deadline and not await request.is_disconnected():
            pause_s = max(LOOK_EVERY_S, _waiting / LOOKS_PER_S)
            await asyncio.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
            record, done = await run_in_threadpool(both)
    except asyncio.CancelledError as error:  # without an answer of ours, it would be a bare 500
        raise BackendUnavailable("the server is being stopped", remedy="ask again in a moment") from error
    finally:
        _waiting -= seconds > 0
    return record
