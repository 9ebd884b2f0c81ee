"""Cancelling: in every state, soon, whatever the computation is at, and for good."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from operators.errors import Cancelled
from operators.interrupt import checkpoint
from recon.spec.job_states import TERMINAL, TRANSITIONS, State
from tests.workers.test_leases import computing, job, names
from workers.execute import execute
from workers.store import JobStore


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "store")


@pytest.mark.parametrize("state", list(TRANSITIONS))
def test_cancelling_in_every_state(store: JobStore, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = job(store)
    path: dict[str, list[State]] = {"queued": [], "cancelled": ["cancelled"], "cancelling": ["running", "cancelling"]}
    for step in path.get(state, ["running", state] if state != "running" else ["running"]):
        store.transition(job_id, step)
    with store.running_lock(job_id):  # somebody computes
        found = store.request_cancel(job_id).state
    wanted = {"queued": "cancelled", "running": "cancelling"}
    assert found == wanted.get(state, state)
    assert store.request_cancel(job_id).state in TERMINAL  # nobody does: at once
    computing(monkeypatch, lambda _: pytest.fail("computed all the same"))
    before = store.record(job_id)
    execute(store, job_id)
    assert store.record(job_id) == before and before.state in (state, "cancelled")


def test_a_computation_hears_of_its_cancellation(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = job(store)

    def deep_in_a_loop(_: Path) -> None:
        assert store.request_cancel(job_id).state == "cancelling"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)
            checkpoint()

    computing(monkeypatch, deep_in_a_loop)
    execute(store, job_id)
    assert store.record(job_id).state == "cancelled" and not {"output", "work", "attempt-1"} & names(store, job_id)


def test_a_deaf_computation_is_cancelled_without_it(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = job(store)
    seen: list[str] = []

    def one_long_read(_: Path) -> None:
        store.request_cancel(job_id)
        time.sleep(2.0)
        seen.append(store.record(job_id).state)

    computing(monkeypatch, one_long_read)
    execute(store, job_id)  # and what it publishes in the end is refused
    assert seen == ["cancelled"] and store.record(job_id).state == "cancelled"
    assert not {"output", "work", "attempt-1"} & names(store, job_id)


def test_results_that_come_too_late_for_a_cancellation_are_not_published(store: JobStore) -> None:
    job_id = job(store)
    record = store.transition(job_id, "running")
    store.attempt(record).mkdir()
    store.transition(job_id, "cancelling")
    with pytest.raises(Cancelled):
        store.publish(job_id, str(record.token), store.attempt(record))
    assert not store.output(job_id).exists()


HANGING = """
import sys, time
from pathlib import Path
from workers import execute
from workers.store import JobStore

execute.DEAF_S = 0.5
store, job_id = JobStore(Path(sys.argv[1])), sys.argv[2]

def run(*_):
    store.request_cancel(job_id)
    time.sleep(60)

execute.run = run
execute.execute(store, job_id)
"""


def test_a_computation_that_hangs_is_ended_with_its_process(store: JobStore) -> None:
    """Or the worker would never take another job."""
    job_id = job(store)
    ended = subprocess.run([sys.executable, "-c", HANGING, str(store.root), job_id], timeout=50, capture_output=True)
    assert ended.returncode == 1, ended.stderr
    assert store.record(job_id).state == "cancelled"
