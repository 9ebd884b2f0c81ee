"""What lies in a store, for tests: all events of a job, and results that are not as they were published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workers.results import manifest, measured
from workers.store import JobStore


def events(store: JobStore, job_id: str, after: int = 0) -> list[dict[str, Any]]:
    """Events of a job after a given number."""
    tail, found = store.tail(job_id, after), []
    while some := tail.read():
        found += some
    return found


def damaged(output: Path) -> list[str]:
    """Names of published results that are missing or have changed since."""
    present = {entry["name"]: entry for entry in measured(output)}
    return [entry["name"] for entry in manifest(output) if present.get(entry["name"]) != entry]
