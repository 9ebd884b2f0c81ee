"""Progress as people see it: it never falls, and a new stage is told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recon.pipeline.prepare import JobProgress
from recon.spec.job import JobSpec
from workers import execute
from workers.store import JobStore

Told = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def reporting(tmp_path: Path) -> tuple[Callable[[JobProgress], None], Told]:
    """The reporter of a running job, and what its events say of progress."""
    store = JobStore(tmp_path / "store")
    value = {"input": {"path": "a.npy", "format": "numpy"}, "acquisition": "ct-parallel", "method": "fbp"}
    job = store.create(JobSpec.parse(value)).id
    record = store.transition(job, "running", progress=0.0)

    def told() -> list[dict[str, Any]]:
        return [e["data"] for e in store.tail(job).read() if e["event"] == "progress"]

    return execute._Reporter(store, job, str(record.token)), told


def test_it_never_falls(reporting: tuple[Callable[[JobProgress], None], Told], monkeypatch: pytest.MonkeyPatch) -> None:
    report, told = reporting
    monkeypatch.setattr(execute, "REPORT_EVERY_S", 0.0)
    for fraction, steps in ((0.3929, 70), (0.3917, 78), (0.35, 78), (0.5, 78), (0.0, 80), (1.0, 80)):
        report(JobProgress(fraction, "tv", 1, steps))
    assert [e["progress"] for e in told()] == [0.3929, 0.3929, 0.3929, 0.5, 0.5, 1.0]
    assert [e["steps"] for e in told()] == [70, 78, 78, 78, 80, 80]


def test_a_stage_is_told_at_once(
    reporting: tuple[Callable[[JobProgress], None], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, told = reporting
    monkeypatch.setattr(execute, "REPORT_EVERY_S", 3600.0)
    for stage in ("read", "baseline fbp", "baseline fbp", "tv", "tv"):
        report(JobProgress(0.1, stage))
    assert [e["stage"] for e in told()] == ["read", "baseline fbp", "tv"]
