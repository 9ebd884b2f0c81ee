"""Checks of untrusted files in processes of their own: crashes, limits, what is remembered, and what ends when."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import BackendUnavailable, InputError, ResourceLimit
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

    def counted(question: Any) -> Any:
        asked.append(question)
        return ask(question)

    monkeypatch.setattr(box, "_ask", counted)
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


def test_checks_of_many_threads_each_get_their_own_answer(tmp_path: Path, box: sandbox.Sandbox) -> None:
    box.start()
    paths = [tmp_path / f"{slices}.npy" for slices in range(1, 13)]
    for slices, path in enumerate(paths, 1):
        np.save(path, np.zeros((slices, 6, 20), np.float32))
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda path: box.check(*job(path)).shape[0], paths))
    assert found == list(range(1, 13))


def test_a_fork_server_that_was_killed_is_replaced_and_a_closed_one_leaves_nothing(
    tmp_path: Path, box: sandbox.Sandbox
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 6, 20), np.float32))
    box.check(*job(path))
    first = box._server
    assert first is not None
    first.kill()
    first.wait()
    box._known.clear()
    assert box.check(*job(path)).shape == (2, 6, 20)
    second = box._server
    assert second is not None and second.pid != first.pid
    box.close()
    assert second.poll() is not None


@pytest.mark.parametrize("failure", ["ctypes.string_at(0)", "time.sleep(60)", "[None for _ in itertools.count()]"])
def test_a_reader_that_crashes_or_takes_too_long_is_an_error_of_the_file(
    failure: str, tmp_path: Path, box: sandbox.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 6, 20), np.float32))
    code = f"""import ctypes, itertools, time, recon.formats.reader, recon.formats.sandbox
recon.formats.reader.check = lambda spec, files: {failure} if "a.npy" in str(files) else 1 / 0
recon.formats.sandbox.WALL_S = recon.formats.sandbox.CPU_S = 1
recon.formats.sandbox.main()"""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}'\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(InputError, match=f"crash, or take more than {sandbox.CPU_S} s"):
        box.check(*job(tmp_path / "a.npy"))
    with pytest.raises(InputError, match="unexpected ZeroDivisionError"):  # the fork server goes on
        box.check(*job(tmp_path / "b.npy"))


def test_a_fork_server_that_cannot_start_is_no_fault_of_the_file(
    tmp_path: Path, box: sandbox.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 6, 20), np.float32))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendUnavailable, match="no process"):
        box.check(*job(path))


def test_the_fork_server_ends_with_its_parent_even_if_that_is_killed() -> None:
    code = "from recon.formats.sandbox import shared as s; s.start(); print(s._server.pid, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = Path("/proc", parent.stdout.readline().strip())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while _lives(server):
        assert time.monotonic() < deadline, "the fork server lives on"
        time.sleep(0.05)


def _lives(process: Path) -> bool:
    """Whether a process of /proc is there, and no zombie; it can end while it is looked at."""
    try:
        return "Z" not in (process / "stat").read_text().split()[2]
    except OSError:
        return False


def test_the_log_has_the_whole_error_though_checks_write_no_files(
    tmp_path: Path, box: sandbox.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """import recon.formats.reader, recon.formats.sandbox
recon.formats.reader.check = lambda spec, files: 1 / 0
recon.formats.sandbox.main()"""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' 2> {log}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(InputError, match="unexpected ZeroDivisionError"):
        box.check(*job(tmp_path / "a.npy"))
    assert "ZeroDivisionError: division by zero" in log.read_text()


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
    # A process that ends without a word, as after a crash: a limit that is no number kills it.
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "memory_limit", lambda: "none")
        with pytest.raises(InputError, match="crash"):
            box.check(spec, files)
    box._known.clear()
    assert box.check(spec, files).shape == (8, 600, 2000)
    with pytest.raises(InputError, match="there is no file"):
        box.check(spec, {"input": tmp_path / "b.npy"})
