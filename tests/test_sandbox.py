"""Checks of untrusted files in processes of their own: crashes, limits, what is remembered, and who follows whom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from operators.errors import InputError, ResourceLimit
from recon.formats import sandbox
from recon.spec.job import JobSpec

CT = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 1.0}


@pytest.fixture
def box() -> Iterator[sandbox.Sandbox]:
    found = sandbox.Sandbox()
    yield found
    found.close()


def job(path: Path, **more: object) -> tuple[JobSpec, dict[str, Path]]:
    return JobSpec.parse({"input": str(path), "acquisition": CT, "method": "fbp", **more}), {"input": path}


def test_a_file_that_passed_is_read_again_only_when_it_or_the_question_changes(
    tmp_path: Path, box: sandbox.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 6, 20), np.float32))
    asked: list[object] = []
    ask = box._ask
    monkeypatch.setattr(box, "_ask", lambda question: asked.append(question) or ask(question))
    for seed in (0, 1):
        assert box.check(*job(path, seed=seed, name=str(seed))).shape == (2, 6, 20)
    assert len(asked) == 1
    spec, files = job(path, acquisition={**CT, "pixel_mm": 2.0})
    assert box.check(spec, files).acquisition.pixel_mm == 2.0 and len(asked) == 2
    np.save(path, np.zeros((3, 6, 20), np.float32))
    assert box.check(*job(path)).shape == (3, 6, 20)
    np.save(path, np.full((3, 6, 20), np.nan, np.float32))
    for _ in range(2):  # what was refused is not remembered
        with pytest.raises(InputError):
            box.check(*job(path))
    assert len(asked) == 5
    monkeypatch.setattr(sandbox, "REMEMBERED", 2)
    for count in (4, 5, 6):
        np.save(path, np.zeros((count, 6, 20), np.float32))
        box.check(*job(path))
    assert len(box._known) == 2


def test_a_worn_helper_answers_until_another_is_ready(
    tmp_path: Path, box: sandbox.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 6, 20), np.float32))
    monkeypatch.setattr(sandbox, "CHECKS", 3)
    first = box._take()
    box._give_back(first)
    deadline = time.monotonic() + 60
    while not first.retired:
        box._known.clear()
        assert box.check(*job(path)).shape == (2, 6, 20)
        assert time.monotonic() < deadline
    assert first._checks >= 3
    before = first._checks
    box._known.clear()
    assert box.check(*job(path)).shape == (2, 6, 20) and first._checks == before
    assert first._process.poll() is not None and (box._alive, len(box._idle)) == (1, 1)


def test_a_reader_that_crashes_or_eats_memory_is_a_problem_of_the_file(
    tmp_path: Path, box: sandbox.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 600, 2000), np.float32))
    files = {"input": tmp_path / "a.npy"}
    value = {"input": str(files["input"]), "acquisition": {**CT, "angles_rad": {"count": 600}}, "method": "fbp"}
    spec = JobSpec.parse(value)
    assert box.check(spec, files).shape == (8, 600, 2000)
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "memory_limit", lambda: 64 * 2**20)
        with pytest.raises(ResourceLimit, match="memory"):
            box.check(spec, files)
    # A child that ends without a word, as after a crash: a limit that is no number kills it.
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "memory_limit", lambda: "none")
        with pytest.raises(InputError, match="crash"):
            box.check(spec, files)
    # Its helper killed while nothing was asked: the next check starts another.
    helper = box._take()
    helper._process.kill()
    helper._process.wait()
    box._idle.append(helper)
    box._known.clear()
    assert box.check(spec, files).shape == (8, 600, 2000)
    with pytest.raises(InputError, match="there is no file"):
        box.check(spec, {"input": tmp_path / "b.npy"})
