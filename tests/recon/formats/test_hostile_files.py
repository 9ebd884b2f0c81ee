"""Hostile files read on this machine: one line that says what is wrong, status 2, and little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from operators.errors import ReconError
from recon.formats import reader
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.hostile_files import ACQUISITIONS, FILES, Make

LIMIT = 30_000_000
MEMORY = 60_000_000
"""Bytes that a refusal may take: bombs are of 268 MB."""


@pytest.mark.parametrize(("kind", "make", "statuses"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_hostile_files_are_refused_in_one_line(
    tmp_path: Path, kind: str, make: Make, statuses: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", str(LIMIT))
    (tmp_path / "made").mkdir()
    path = tmp_path / "input"
    path.write_bytes(make(tmp_path / "made"))
    value = {"input": {"path": str(path), "format": kind}, "acquisition": ACQUISITIONS.get(kind), "method": "fbp"}
    job = JobSpec.parse(value)
    tracemalloc.start()
    try:
        reader.check(job, local_files(job))
        status = 202
    except ReconError as error:
        assert error.exit_code == 2 and "\n" not in str(error) and len(str(error)) < 1000
        status = error.status
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert status in (*statuses, 413)  # the limit is lower here
    assert peak < MEMORY
