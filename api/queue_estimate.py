"""Queue estimate: predict when jobs start and how long they take, from finished jobs."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

from redis.exceptions import RedisError

from api.models import JobTimes
from recon.spec.job_states import DEVICES
from workers import tasks
from workers.index import JobIndex
from workers.store import Record

LEARN_FROM = 50
"""Number of a method's latest finished jobs to use."""
FRESH_S = 1.0
"""Seconds between looks at the queue, independent of the number of requests."""
STALE_S = 5.0
"""Seconds after which an estimate is too old to be shown."""
log = logging.getLogger("recon.queue_estimate")


def seconds(record: Record) -> float | None:
    """Seconds for which a finished job was computed."""
    if record.started is None or record.finished is None:
        return None
    return (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()


@dataclass
class _View:
    at: float = -1e9
    rates: dict[str, float] = field(default_factory=dict)
    ahead: dict[str, int] = field(default_factory=dict)
    starts: dict[str, float | None] = field(default_factory=dict)

    def add(self, records: list[Record], waiting: list[str]) -> None:
        """Estimate the queue of one device; `waiting` are its messages, the next one first."""
        among = set(waiting)
        # A job that a stopping worker gave back is running, and waits.
        queued = {r.id: r for r in records if r.state == "queued" or (r.state == "running" and r.id in among)}
        running = [r for r in records if r.state in ("running", "cancelling") and r.id not in queued]
        now = datetime.now(UTC)
        left = [_remaining(r, _expected(r, self.rates), now) for r in running]
        busy = None if None in left else sum(s for s in left if s is not None)
        at_once = max(1, len(running))  # as many as are computed now
        # What was cancelled, or came twice, is dropped when its turn comes, and takes no time.
        for place, record in enumerate(queued[job_id] for job_id in waiting if job_id in queued):
            self.ahead[record.id] = place
            self.starts[record.id] = None if busy is None else busy / at_once
            expected = _expected(record, self.rates)
            busy = None if busy is None or expected is None else busy + expected


class QueueEstimates:
    """Estimate of queue positions and durations of unfinished jobs; null if unknown.

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

    def of(self, record: Record) -> tuple[int | None, JobTimes | None]:
        """Number of jobs ahead of an unfinished one in the queue, and its estimated times."""
        if record.terminal:
            return None, None
        if self._age() > STALE_S:
            with self._lock:  # one looks, and the others see what it saw
                if self._age() > STALE_S:
                    self._view = self._look()
        elif self._age() > FRESH_S and self._lock.acquire(blocking=False):
            self._refresh_soon()  # many ask: nobody waits for the look, which may take its time
        view = self._view
        start, duration = view.starts.get(record.id), _expected(record, view.rates)
        if record.state != "queued" and start is None:
            start = 0.0
        known = start is not None or duration is not None
        estimate = JobTimes(start_s=_rounded(start), duration_s=_rounded(duration)) if known else None
        return view.ahead.get(record.id), estimate

    def _age(self) -> float:
        return time.monotonic() - self._view.at

    def _refresh_soon(self) -> None:
        try:
            threading.Thread(target=self._refresh, name="queue-estimate", daemon=True).start()
        except RuntimeError as error:  # no more threads now: what was seen last is told again
            self._lock.release()
            log.warning("the queue cannot be looked at: %s", error)

    def _refresh(self) -> None:
        try:
            self._view = self._look()
        finally:
            self._lock.release()

    def _look(self) -> _View:
        try:
            waiting = {device: tasks.waiting(self.redis_url, device) for device in DEVICES}
        except RedisError:
            waiting = {}  # nothing is known of the queue, which is said so
        records = self.index.records()
        view = _View(time.monotonic(), _rates(records))
        for device, ids in waiting.items():
            view.add([r for r in records if r.device == device], ids)
        return view


def _remaining(record: Record, expected: float | None, now: datetime) -> float | None:
    """Remaining seconds of a running job."""
    if expected is None or record.started is None:
        return None
    return max(0.0, expected - (now - datetime.fromisoformat(record.started)).total_seconds())


def _rates(records: list[Record]) -> dict[str, float]:
    """Median ratio of computed to planned seconds of each method's latest jobs."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.state == "succeeded" and record.planned_s and len(found[record.method]) < LEARN_FROM:
            took = seconds(record)
            if took is not None:
                found[record.method].append(took / record.planned_s)
    return {method: statistics.median(values) for method, values in found.items() if values}


def _expected(record: Record, rates: dict[str, float]) -> float | None:
    """Estimated seconds of a job's computation, if jobs of its method have finished."""
    rate = rates.get(record.method)
    return None if rate is None or record.planned_s is None else rate * record.planned_s


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
