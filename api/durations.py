"""How long jobs were computed, as a histogram that only grows, as Prometheus wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from api.queue_estimate import seconds
from workers.store import Record

BOUNDS_S = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)


@dataclass
class Tally:
    """Values counted into buckets."""

    total: float = 0.0
    below: list[int] = field(default_factory=lambda: [0] * len(BOUNDS_S))
    """How many are at most each bound."""
    count: int = 0

    def add(self, value: float) -> None:
        """Count a value."""
        self.total += value
        self.count += 1
        for i, bound in enumerate(BOUNDS_S):
            self.below[i] += value <= bound


class Durations:
    """Computing times of the jobs that succeeded since this process started, by method and device.

    Each job is counted once, and stays counted when it is deleted. A new process begins at zero, which Prometheus takes
    for what it is; jobs that ended before it are not counted again.
    """

    def __init__(self) -> None:
        self._since = datetime.now(UTC)
        self._lock = threading.Lock()
        self._counted: set[str] = set()
        self._tallies: dict[tuple[str, str], Tally] = {}

    def count(self, records: Iterable[Record]) -> None:
        """Count what of these is new."""
        with self._lock:
            for record in records:
                took = seconds(record)
                if record.state != "succeeded" or took is None or record.id in self._counted:
                    continue
                if datetime.fromisoformat(str(record.finished)) >= self._since:
                    self._counted.add(record.id)
                    self._tallies.setdefault((record.method, record.device), Tally()).add(took)

    def tallies(self) -> list[tuple[dict[str, str], Tally]]:
        """Labels and what was counted."""
        with self._lock:
            return [({"method": m, "device": d}, tally) for (m, d), tally in sorted(self._tallies.items())]
