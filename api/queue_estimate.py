"""Queue estimate: predict when jobs start and how long they take, from finished jobs."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from redis.exceptions import RedisError

from api.models import JobTimes, Range
from recon.spec.job_states import DEVICES, PRIORITIES, Device, Priority
from workers import lease, presence, tasks
from workers.index import JobIndex
from workers.store import Record

LEARN_FROM = 50
"""Number of a method's latest finished jobs to use."""
FRESH_S = 1.0
"""Seconds between looks at the queue, independent of the number of requests."""
STALE_S = 5.0
"""Seconds after which an estimate is too old to be shown."""
ENOUGH = 5
"""Number of finished jobs whose 10th and 90th percentile are a range; that of fewer is widened by `FEW`."""
FEW = 1.5
UNKNOWN = (0.5, 3.0)
"""Range of the ratio of computed to planned seconds where no job has finished: machines differ, and are shared."""
log = logging.getLogger("recon.queue_estimate")


def seconds(record: Record) -> float | None:
    """Seconds for which a finished job was computed."""
    if record.started is None or record.finished is None:
        return None
    return (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()


class Forecast(NamedTuple):
    """Forecast of a job that is not submitted yet.

    Parameters
    ----------
    start_s
        Range of the seconds until it starts; None without a worker, or if the queue is not known.
    duration_s
        Range of the seconds for which it is computed.
    learned_from
        Number of finished jobs of its method that say so; 0 if only the plan does.
    """

    start_s: Range | None
    duration_s: Range
    learned_from: int


@dataclass
class _View:
    at: float = -1e9
    rates: dict[str, list[float]] = field(default_factory=dict)
    ahead: dict[str, int] = field(default_factory=dict)
    starts: dict[str, float | None] = field(default_factory=dict)
    free_in: dict[tuple[str, str], Range | None] = field(default_factory=dict)
    """Range of the seconds until a job that is submitted now starts, by device and priority."""
    seen: dict[str, datetime] = field(default_factory=dict)

    def forecast(self, records: list[Record], waiting: list[str], device: Device, workers: int) -> None:
        """Forecast when a job of each priority would start on a device."""
        if workers == 0:
            return
        among = set(waiting)
        running = [r for r in records if r.state in ("running", "cancelling") and r.id not in among]
        queued = [r for r in records if r.id in among and r.state in ("queued", "running")]
        now = datetime.now(UTC)
        busy = [_span(r, self.rates) for r in running]
        gone = [_elapsed_s(r, now) for r in running]
        left = [(max(0.0, low - took), max(0.0, high - took)) for (low, high), took in zip(busy, gone, strict=True)]
        for priority in PRIORITIES:
            before = PRIORITIES[: PRIORITIES.index(priority) + 1]
            ahead = [_span(r, self.rates) for r in queued if r.priority in before]
            if len(running) + len(ahead) < workers:
                self.free_in[device, priority] = (0.0, 0.0)
                continue
            low, high = (sum(span[end] for span in [*left, *ahead]) / workers for end in (0, 1))
            # The first of several that run is done when the shortest of them is.
            least = min((span[0] for span in left), default=0.0) if not ahead else low
            self.free_in[device, priority] = (min(low, least), high)

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
        if not known:
            return view.ahead.get(record.id), None
        span = None if duration is None else _rounded_range(_span(record, view.rates))
        estimate = JobTimes(start_s=_rounded(start), duration_s=_rounded(duration), duration_range_s=span)
        return view.ahead.get(record.id), estimate

    def seen(self, record: Record) -> str | None:
        """Time at which the worker of a running job was last heard of, ISO 8601; None without a worker."""
        found = self._view.seen.get(record.id)
        return None if found is None or record.terminal else found.isoformat(timespec="milliseconds")

    def forecast(self, method: str, planned_s: float, device: Device, priority: Priority) -> Forecast:
        """Forecast a job that is not submitted yet."""
        with self._lock:
            if self._age() > FRESH_S:
                self._view = self._look()
        view = self._view
        low, high = _ratios(view.rates.get(method, []))
        start = view.free_in.get((device, priority))
        return Forecast(
            None if start is None else _rounded_range(start),
            _rounded_range((low * planned_s, high * planned_s)),
            len(view.rates.get(method, [])),
        )

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
        records = self.index.records()
        view = _View(time.monotonic(), _rates(records))
        try:
            waiting = {device: tasks.waiting(self.redis_url, device) for device in DEVICES}
            workers = presence.count(self.redis_url)
            with lease.connect(self.redis_url) as client:
                view.seen = lease.last_beats(client, [r.id for r in records if r.state in ("running", "cancelling")])
        except RedisError:
            return view  # nothing is known of the queue and of workers, which is said so
        for device, ids in waiting.items():
            here = [r for r in records if r.device == device]
            view.add(here, ids)
            view.forecast(here, ids, device, workers[device])
        return view


def _remaining(record: Record, expected: float | None, now: datetime) -> float | None:
    """Remaining seconds of a running job."""
    if expected is None or record.started is None:
        return None
    return max(0.0, expected - (now - datetime.fromisoformat(record.started)).total_seconds())


def _rates(records: list[Record]) -> dict[str, list[float]]:
    """Ratios of computed to planned seconds of each method's latest jobs."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.state == "succeeded" and record.planned_s and len(found[record.method]) < LEARN_FROM:
            took = seconds(record)
            if took is not None:
                found[record.method].append(took / record.planned_s)
    return dict(found)


def _expected(record: Record, rates: dict[str, list[float]]) -> float | None:
    """Estimated seconds of a job's computation, if jobs of its method have finished."""
    found = rates.get(record.method)
    return statistics.median(found) * record.planned_s if found and record.planned_s is not None else None


def _span(record: Record, rates: dict[str, list[float]]) -> Range:
    """Range of the seconds of a job's computation; without a plan, of any length."""
    low, high = _ratios(rates.get(record.method, []))
    return low * (record.planned_s or 0.0), high * (record.planned_s or 0.0)


def _ratios(found: list[float]) -> Range:
    """Range of the ratio of computed to planned seconds, from those of finished jobs."""
    if not found:
        return UNKNOWN
    if len(found) < ENOUGH:
        return min(found) / FEW, max(found) * FEW
    tenths = statistics.quantiles(found, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def _elapsed_s(record: Record, now: datetime) -> float:
    return 0.0 if record.started is None else (now - datetime.fromisoformat(record.started)).total_seconds()


def _rounded_range(span: Range) -> Range:
    return round(span[0], 1), round(span[1], 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
