"""Hostile files read on this machine: one line that says what is wrong, status 2, and little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.errors import ReconError
from recon.formats import reader
from recon.formats.inspect import inspect
from recon.pipeline import peak
from recon.spec.job import Input, JobSpec, local_files
from tests.recon.formats.hostile_files import ACQUISITIONS, FILES, FOLDERS, Folder, Make

LIMIT = 30_000_000
MEMORY = 60_000_000
"""Bytes that a refusal may take: bombs are of 268 MB."""


@pytest.fixture(autouse=True)
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", str(LIMIT))


def status(read: Callable[[], object]) -> int:
    """Status of what is read, 202 if it is accepted; refusals are one line, and nothing takes much memory.

    HDF5 takes memory that Python does not see; what is taken and not written to is not resident.
    """
    tracemalloc.start()
    peak.reset()
    before = peak.resident_bytes()
    try:
        read()
        found = 202
    except ReconError as error:
        assert error.exit_code == 2 and "\n" not in str(error) and len(str(error)) < 1000
        found = error.status
    finally:
        taken, resident = tracemalloc.get_traced_memory()[1], peak.resident_bytes() - before
        tracemalloc.stop()
    assert max(taken, resident) < MEMORY
    return found


@pytest.mark.parametrize(("kind", "make", "statuses"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_hostile_files_are_refused_in_one_line(
    tmp_path: Path, kind: str, make: Make, statuses: tuple[int, ...]
) -> None:
    (tmp_path / "made").mkdir()
    path = tmp_path / "input"
    path.write_bytes(make(tmp_path / "made"))
    value = {"input": {"path": str(path), "format": kind}, "acquisition": ACQUISITIONS.get(kind), "method": "fbp"}
    job = JobSpec.parse(value)
    assert status(lambda: reader.check(job, local_files(job))) in (*statuses, 413)  # the limit is lower here
    assert status(lambda: inspect(path, job.input)) in (202, 413, 422)


@pytest.mark.parametrize("folder", FOLDERS, ids=[f.name for f in FOLDERS])
def test_hostile_folders_are_refused_in_one_line(tmp_path: Path, folder: Folder) -> None:
    given = Input(path=str(folder.write(tmp_path / "scan")), format=folder.kind, file=folder.file)
    job = JobSpec.parse({"input": given.model_dump(exclude_unset=True), "acquisition": "ct-parallel", "method": "fbp"})
    assert status(lambda: reader.check(job, local_files(job))) in (413, 422)
    assert status(lambda: inspect(tmp_path / "scan", given)) in (202, 413, 422)  # one slice may be well
