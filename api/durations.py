"""Histogram of computing times for Prometheus; it counts each succeeded job once and only grows."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime

from prometheus_client import Histogram, disable_created_metrics

from api.queue_estimate import seconds
from workers.store import Record

BOUNDS_S = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
disable_created_metrics()  # its series says no more than the scraper's own clock


class Durations:
    """Computing times of the jobs that succeeded since this process started, by method and device.

    Each job is counted once, and stays counted when it is deleted. A new process starts at zero, which Prometheus
    recognises; jobs that ended before are not counted again.
    """

    def __init__(self) -> None:
        self._since = datetime.now(UTC)
        self._lock = threading.Lock()
        self._counted: set[str] = set()
        self.histogram = Histogram(
            "recon_job_seconds",
            "Computing time of the jobs that succeeded since the API started, by method and device.",
            ["method", "device"],
            buckets=BOUNDS_S,
            registry=None,  # that of this service alone: see `api.metrics`
        )

    def count(self, records: Iterable[Record]) -> None:
        """Count the jobs that were not counted before."""
        with self._lock:
            for record in records:
                took = seconds(record)
                if record.state != "succeeded" or took is None or record.id in self._counted:
                    continue
                if datetime.fromisoformat(str(record.finished)) >= self._since:
                    self._counted.add(record.id)
                    self.histogram.labels(record.method, record.device).observe(took)
