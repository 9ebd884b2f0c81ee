"""``Prefer: wait=SECONDS`` (RFC 7240): the answer comes when there is something to say, or after so long."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from workers.store import Record

MAX_WAIT_S = 60
LOOK_EVERY_S = 0.2


def preferred(request: Request) -> int:
    """Seconds that the client would wait; 0 when it did not say."""
    for preference in request.headers.get("prefer", "").split(","):
        found = re.fullmatch(r"wait=(\d{1,6})", preference.strip())
        if found:
            return min(int(found[1]), MAX_WAIT_S)
    return 0


def applied(seconds: int) -> dict[str, str]:
    """The header that says that we waited."""
    return {"Preference-Applied": f"wait={seconds}"} if seconds else {}


async def until(request: Request, look: Callable[[], Record], enough: Callable[[Record], bool], seconds: int) -> Record:
    """Look at a job until `enough`, the time is over, or the client has gone."""
    deadline = time.monotonic() + seconds

    def both() -> tuple[Record, bool]:
        record = look()
        return record, enough(record)

    record, done = await run_in_threadpool(both)
    while not done and time.monotonic() < deadline and not await request.is_disconnected():
        await asyncio.sleep(min(LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))
        record, done = await run_in_threadpool(both)
    return record
