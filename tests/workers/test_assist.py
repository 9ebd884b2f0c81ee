"""Idle workers help with the chunks of a job: the same result, whoever computes, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.pipeline import chunks
from recon.pipeline.chunk_cache import ChunkCache
from recon.pipeline.reconstruct import reconstruct, run
from recon.problem.problem import Problem
from recon.solvers import registry
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import TV
from tests.service.serving import celery_on
from workers import tasks
from workers.app import app
from workers.assist import assist
from workers.embedded import private_redis, running, worker_command
from workers.store import JobStore

T = TypeVar("T")
SLICES, SIDE, VIEWS = 128, 40, 24


def problem() -> Problem:
    """Slices that all differ."""
    operator = Tomography(ParallelBeam(SIDE, SIDE, 1.0, tuple(np.linspace(0, np.pi, VIEWS, endpoint=False)), 60, 1.0))
    x = torch.zeros(SLICES, SIDE, SIDE)
    for n in range(SLICES):
        x[n, 8 : 12 + n // 6, 10:30] = 0.02
    return Problem(operator, operator(x))


def spec(folder: Path, iterations: int) -> JobSpec:
    np.save(folder / "data.npy", problem().data.numpy())
    geometry = {"angles_rad": {"count": VIEWS}, "detector_mm": 1.0, "pixel_mm": 1.0, "rows": SIDE}
    return JobSpec.parse(
        {
            "input": str(folder / "data.npy"),
            "acquisition": {"kind": "ct-parallel", **geometry},
            "method": {"name": "tv", "dimensions": 2, "iterations": iterations},
            "output": {"baselines": [], "montage": False},
        }
    )


def driven(parts: chunks.Steps[T], each: Callable[[str], None]) -> T:
    """Drive a solver to its end, calling `each` with the label of every step."""
    try:
        while True:
            each(next(parts)[0])
    except StopIteration as end:
        found: T = end.value
        return found


def test_two_processes_share_chunks_and_neither_computes_twice(tmp_path: Path) -> None:
    method = TV(dimensions=2, iterations=3)
    start = partial(registry.start, settings=method)
    alone = driven(chunks.solve(problem(), method, start, ChunkCache(tmp_path / "alone"), "k"), lambda _: None)
    invited: list[int] = []
    mine, theirs = ChunkCache(tmp_path / "shared", invited.append), ChunkCache(tmp_path / "shared")
    assert list(chunks.assist(problem(), method, start, theirs, "k")) == []  # nothing is open yet
    solving = chunks.solve(problem(), method, start, mine, "k")
    by_me = {next(solving)[0]}  # it has begun the first chunk
    assert list(chunks.assist(problem(), method, start, theirs, "k", lambda: True)) == []  # others wait
    # Who cuts other chunks, having other memory, is no help, and is not asked again.
    assert driven(chunks.assist(problem(), method, start, theirs, "k", size=8), lambda _: None) is False
    helper = chunks.assist(problem(), method, start, theirs, "k")
    by_them: set[str] = set()

    def step(label: str) -> None:
        by_me.add(label)
        by_them.update(next(helper, ("",))[:1])  # both advance in turn

    found = driven(solving, step)
    assert torch.equal(found, alone)
    assert invited == [7] and mine.given == len(by_them - {""}) > 2
    assert not {label for label in by_me if "with other" not in label} & by_them


def test_who_invites_nobody_offers_nothing(tmp_path: Path) -> None:
    """Replicates are solved without help: idle workers that looked would prepare the job in vain."""
    method = TV(dimensions=2, iterations=1)
    cache = ChunkCache(tmp_path)
    solving = chunks.solve(problem(), method, partial(registry.start, settings=method), cache, "k")
    next(solving)
    assert not list(tmp_path.glob("*.open")) and not ChunkCache(tmp_path).wanted()


@pytest.mark.parametrize("hangs", [False, True], ids=["dies", "hangs"])
def test_a_chunk_of_a_helper_that_is_lost_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    method = TV(dimensions=2, iterations=3)
    start = partial(registry.start, settings=method)
    monkeypatch.setattr(chunks, "LEAST_PATIENCE_S", 0.5)
    cache = ChunkCache(tmp_path, lambda _: None)
    solving = chunks.solve(problem(), method, start, cache, "k")
    next(solving)
    helper = chunks.assist(problem(), method, start, ChunkCache(tmp_path), "k")
    first = next(helper)[0]
    waited: list[str] = []

    def step(label: str) -> None:
        waited.append(label)
        if "with other workers" in label and waited.count(label) == 2 and not hangs:
            helper.close()  # as the kernel does for a process that is killed

    driven(solving, step)
    assert waited.count("1 chunks with other workers") >= 2 and waited[-1] == first and cache.given == 0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis of our own, which Celery talks to as well."""
    with private_redis(tmp_path_factory.mktemp("redis") / "data") as found, celery_on(found):
        yield found
        app.pool.force_close_all()


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("killed", [False, True], ids=["both live", "the helper is killed"])
def test_an_idle_worker_helps(tmp_path: Path, url: str, *, killed: bool) -> None:
    given = spec(tmp_path, 60)
    run(given, local_files(given), tmp_path / "offline")
    store = JobStore(tmp_path / "store")
    env = {"REDIS_URL": url, "RECON_STORE": str(store.root), "OMP_NUM_THREADS": "1"}
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with running(worker_command(), env, logs[0]) as one, running(worker_command(), env, logs[1]) as two:
        until(lambda: all(log.exists() and " ready." in log.read_text() for log in logs), 300)
        (child,) = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
        assert os.getpriority(os.PRIO_PROCESS, int(child)) > os.getpriority(os.PRIO_PROCESS, one.pid)
        job_id = store.create(given).id
        tasks.enqueue(job_id)
        helps = "helping with job"
        until(lambda: any(helps in log.read_text() for log in logs), 300)
        if killed:
            assert not store.record(job_id).terminal
            helper = one if helps in logs[0].read_text() else two
            os.killpg(helper.pid, signal.SIGKILL)
        until(lambda: store.record(job_id).terminal, 300)
    assert store.record(job_id).state == "succeeded" and store.record(job_id).attempt == 1
    assert (store.output(job_id) / "volume.nii.gz").read_bytes() == (tmp_path / "offline/volume.nii.gz").read_bytes()
    report = json.loads((store.output(job_id) / "report.json").read_text())
    if not killed:
        assert 1 <= report["chunks_by_other_workers"] <= 7


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGTERM, id="stopped"),
        pytest.param(signal.SIGKILL, id="killed", marks=pytest.mark.slow),  # the fault benchmark kills twenty more
    ],
)
def test_what_a_worker_had_finished_is_not_computed_again(tmp_path: Path, url: str, how: signal.Signals) -> None:
    given = spec(tmp_path, 30)
    run(given, local_files(given), tmp_path / "offline")
    store = JobStore(tmp_path / "store")
    job_id = store.create(given).id
    tasks.enqueue(job_id)
    env = {"REDIS_URL": url, "RECON_STORE": str(store.root), "OMP_NUM_THREADS": "1"}
    with running(worker_command(), env, tmp_path / "one.log") as one:
        until(lambda: len(list(store.work(job_id).glob("chunk-*.npy"))) >= 2, 300)
        if how == signal.SIGTERM:
            one.terminate()
            one.wait(20)  # long before the job would be done
            # Given back: in the queue, and no attempt is counted.
            assert tasks.waiting(url) == [job_id] and store.record(job_id).attempt == 0
        else:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait(20)
            tasks.enqueue(job_id)  # as the reconciler does
        assert store.record(job_id).state == "running"
    with running(worker_command(), env, tmp_path / "two.log"):
        until(lambda: store.record(job_id).terminal, 300)
    record = store.record(job_id)
    assert record.state == "succeeded" and record.attempt == (1 if how == signal.SIGTERM else 2)
    assert json.loads((store.output(job_id) / "report.json").read_text())["chunks_resumed"] >= 2
    assert (store.output(job_id) / "volume.nii.gz").read_bytes() == (tmp_path / "offline/volume.nii.gz").read_bytes()


def test_a_helper_that_comes_too_late_does_nothing(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "store")
    job_id = store.create(spec(tmp_path, 3)).id
    assist(store, job_id, "none")  # it waits in a queue
    token = str(store.transition(job_id, "running").token)
    store.transition(job_id, "cancelled", token=token)
    assist(store, job_id, token)
    assist(store, "a" * 26, token)  # removed
    assert not store.work(job_id).exists()


def being_solved(store: JobStore, given: JobSpec) -> tuple[str, str]:
    """A job whose worker has put up its chunks, and the token of the attempt."""
    job_id = store.create(given).id
    token = str(store.transition(job_id, "running").token)
    running = reconstruct(given, local_files(given), store.output(job_id), store.work(job_id), invite=lambda _: None)
    while "slices 0:16" not in next(running).stage:
        pass
    running.close()
    return job_id, token


def test_a_helper_stops_when_the_attempt_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(tmp_path / "store")
    job_id, token = being_solved(store, spec(tmp_path, 20))
    put = ChunkCache.put

    def put_then_cancel(cache: ChunkCache, *what: object) -> None:
        put(cache, *what)  # type: ignore[arg-type]
        store.transition(job_id, "cancelled", token=token)
        time.sleep(0.3)  # it asks now and then only

    monkeypatch.setattr(ChunkCache, "put", put_then_cancel)
    assert not assist(store, job_id, token)
    assert len(list(store.work(job_id).glob("*.npy"))) == 1


def test_a_helper_of_a_cache_that_was_cleared_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(tmp_path / "store")
    job_id, token = being_solved(store, spec(tmp_path, 3))
    put = ChunkCache.put

    def cleared_then_put(cache: ChunkCache, *what: object) -> None:
        ChunkCache(store.work(job_id)).clear()
        put(cache, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(ChunkCache, "put", cleared_then_put)
    assert not assist(store, job_id, token)
    assert not store.work(job_id).exists()


def test_a_helper_makes_way_for_jobs_that_wait(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "store")
    job_id, token = being_solved(store, spec(tmp_path, 3))
    asked: list[int] = []

    def others_wait() -> bool:
        asked.append(len(list(store.work(job_id).glob("*.npy"))))
        return asked[-1] == 2

    assert assist(store, job_id, token, others_wait)  # help would still be welcome
    assert asked[-1] == 2 and len(list(store.work(job_id).glob("*.npy"))) == 2
    assert not assist(store, job_id, token)  # now it is finished
    assert len(list(store.work(job_id).glob("*.npy"))) == 8


def test_invitations_are_no_waiting_jobs(url: str) -> None:
    tasks.invite("some-job", "token", 3)
    assert tasks.waiting(url) == []


def test_without_redis_nobody_is_invited_and_the_job_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with celery_on("redis://127.0.0.1:1/0"):
        tasks.invite("some-job", "token", 3)
    assert "no helpers for job some-job" in caplog.text
