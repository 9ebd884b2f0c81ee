"""When will my job start, and how long will it take: learned from the jobs that finished."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError

from workers import tasks
from workers.index import JobIndex
from workers.store import Record

LEARN_FROM = 50
"""Latest finished jobs of a method."""
FRESH_S = 1.0
"""The queue is looked at as often, however many ask."""
STALE_S = 5.0
"""What was seen so long ago is not told any more."""


def seconds(record: Record) -> float | None:
    """How long a finished job was computed."""
    if record.started is None or record.finished is None:
        return None
    return (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()


@dataclass
class _View:
    at: float = -1e9
    rates: dict[str, float] = field(default_factory=dict)
    ahead: dict[str, int] = field(default_factory=dict)
    starts: dict[str, float | None] = field(default_factory=dict)


class Outlook:
    """Queue positions and estimates; null is said where nothing is known.

    Parameters
    ----------
    index
        The jobs.
    redis_url
        The queue.
    """

    def __init__(self, index: JobIndex, redis_url: str) -> None:
        self.index, self.redis_url = index, redis_url
        self._lock = threading.Lock()
        self._view = _View()

    def of(self, record: Record) -> dict[str, Any]:
        """``queue_position`` (jobs before it) and ``estimate`` (seconds) of an unfinished job."""
        if record.terminal:
            return {"queue_position": None, "estimate": None}
        age = time.monotonic() - self._view.at
        if age > FRESH_S and self._lock.acquire(blocking=False):
            if age > STALE_S:
                self._refresh()
            else:  # many ask: nobody waits for the look, which may take its time
                self._refresh_soon()
        view = self._view
        if time.monotonic() - view.at > STALE_S:
            view = _View()  # somebody else is looking
        start, duration = view.starts.get(record.id), _expected(record, view.rates)
        if record.state != "queued":
            start = 0.0
        known = start is not None or duration is not None
        estimate = {"start_s": _rounded(start), "duration_s": _rounded(duration)} if known else None
        return {"queue_position": view.ahead.get(record.id), "estimate": estimate}

    def _refresh_soon(self) -> None:
        try:
            threading.Thread(target=self._refresh, name="outlook", daemon=True).start()
        except RuntimeError:  # no more threads now
            self._lock.release()
            raise

    def _refresh(self) -> None:
        try:
            self._view = self._look()
        finally:
            self._lock.release()

    def _look(self) -> _View:
        records = self.index.records()
        rates = _rates(records)
        try:
            ahead = {job_id: place - 1 for job_id, place in tasks.positions(self.redis_url).items()}
        except RedisError:
            ahead = {}  # nothing is known of the queue, which is said so
        running = [r for r in records if r.state in ("running", "cancelling")]
        now = datetime.now(UTC)
        queued = {r.id: _expected(r, rates) for r in records if r.state == "queued"}
        left = [_remaining(r, _expected(r, rates), now) for r in running]
        busy = None if None in left else sum(s for s in left if s is not None)
        starts: dict[str, float | None] = {}
        at_once = max(1, len(running))  # as many as are computed now
        for job_id in sorted(ahead, key=ahead.__getitem__):
            starts[job_id] = None if busy is None else busy / at_once
            if job_id in queued:  # a cancelled one takes no time
                expected = queued[job_id]
                busy = None if busy is None or expected is None else busy + expected
        return _View(time.monotonic(), rates, ahead, starts)


def _remaining(record: Record, expected: float | None, now: datetime) -> float | None:
    """Seconds that a running job still needs."""
    if expected is None or record.started is None:
        return None
    return max(0.0, expected - (now - datetime.fromisoformat(record.started)).total_seconds())


def _rates(records: list[Record]) -> dict[str, float]:
    """How many times as long as planned the latest jobs of each method took: the median."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.state == "succeeded" and record.planned_s and len(found[record.method]) < LEARN_FROM:
            took = seconds(record)
            if took is not None:
                found[record.method].append(took / record.planned_s)
    return {method: statistics.median(values) for method, values in found.items() if values}


def _expected(record: Record, rates: dict[str, float]) -> float | None:
    """Seconds that a job will be computed, if jobs of its method have been."""
    rate = rates.get(record.method)
    return None if rate is None or record.planned_s is None else rate * record.planned_s


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
