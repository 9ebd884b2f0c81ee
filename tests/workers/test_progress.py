"""Progress as people see it: it never falls, and a new stage is told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import Conflict
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


def drawn(picture: bytes = b"picture") -> JobProgress:
    return JobProgress(0.1, "tv", 1, 10, draw=lambda: picture)


@pytest.fixture
def running(tmp_path: Path) -> tuple[JobStore, str, execute._Reporter]:
    store = JobStore(tmp_path / "store")
    value = {"input": {"path": "a.npy", "format": "numpy"}, "acquisition": "ct-parallel", "method": "fbp"}
    job = store.create(JobSpec.parse(value)).id
    return store, job, execute._Reporter(store, job, str(store.transition(job, "running").token))


def test_a_preview_comes_after_some_seconds_and_goes_with_the_job(
    running: tuple[JobStore, str, execute._Reporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job, report = running
    report(drawn())
    assert not store.preview(job).exists()  # short jobs need none
    report.draw_at = 0.0
    report(drawn(b"first"))
    report(drawn(b"too soon"))
    assert store.preview(job).read_bytes() == b"first"
    report.draw_at = 0.0
    report(drawn(b"second"))
    assert store.preview(job).read_bytes() == b"second"
    store.transition(job, "failed", error={})
    store.clear(job)
    assert not store.preview(job).exists()


def test_previews_that_take_long_are_rare(
    running: tuple[JobStore, str, execute._Reporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, report = running
    clock = [100.0]

    def slow() -> bytes:
        clock[0] = 102.0
        return b"x"

    monkeypatch.setattr("workers.execute.time.monotonic", lambda: clock[0])
    report.draw_at = 0.0
    report._preview(slow)
    assert report.draw_at >= 102.0 + 2.0 / execute.PREVIEW_SHARE


def test_a_preview_that_fails_is_not_the_end_of_its_job(
    running: tuple[JobStore, str, execute._Reporter],
) -> None:
    store, job, report = running

    def broken() -> bytes:
        raise ValueError("cannot be drawn")

    report.draw_at = 0.0
    report(JobProgress(0.1, "tv", 1, 10, draw=broken))
    report(drawn())
    assert not store.preview(job).exists() and store.record(job).state == "running"


def test_an_attempt_that_is_over_shows_nothing(running: tuple[JobStore, str, execute._Reporter]) -> None:
    store, job, _ = running
    store.show(job, str(store.record(job).token), b"mine")
    with pytest.raises(Conflict):
        store.show(job, "another", b"not mine")
    assert store.preview(job).read_bytes() == b"mine"


def test_a_job_that_is_computed_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the solver to the file, and none is left behind."""
    monkeypatch.setattr(execute, "PREVIEW_EVERY_S", 0.0)
    monkeypatch.setattr(execute, "PREVIEW_SHARE", 1.0)
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((1, 12, 16), dtype=np.float32))
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 12}, "detector_mm": 1.0}
    value = {"input": {"path": str(tmp_path / "a.npy"), "format": "numpy"}, "acquisition": acquisition}
    store, seen = JobStore(tmp_path / "store"), []
    show = store.show

    def watched(job_id: str, token: str, picture: bytes) -> None:
        show(job_id, token, picture)
        seen.append(store.preview(job_id).read_bytes())

    monkeypatch.setattr(store, "show", watched)
    job = store.create(JobSpec.parse({**value, "method": {"name": "cgls", "iterations": 5}})).id
    execute.execute(store, job)
    assert store.record(job).state == "succeeded"
    assert seen and all(picture.startswith(b"\x89PNG") for picture in seen)
    assert not store.preview(job).exists()
