"""The benchmark of speed runs every effort of a method once, and says how far each is from the best result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from operators.errors import InputError
from recon.bench.auto import CHEST
from recon.formats import nifti
from recon.samples import SAMPLES
from tests.benchmarks import speed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "test").mkdir()
    volume, affine = nifti.read(SAMPLES / "ct_body.nii.gz")
    nifti.write(tmp_path / CHEST, volume[40:60], affine, "test")
    return tmp_path


def test_every_effort_has_a_row_and_rows_are_kept(data: Path) -> None:
    found = list(speed.compare(data, "CT, 60 views", 32, 2, ["tv", "red-diff", "boundary"], [], "here"))
    assert [(row.method, row.effort) for row in found] == [
        ("tv", None), ("red-diff", "draft"), ("red-diff", "standard"), ("red-diff", "best"),
    ]  # fmt: skip
    for row in found:
        assert row.seconds >= row.network_seconds >= 0 and (row.network_seconds > 0) == (row.method == "red-diff")
        assert row.teraflops == pytest.approx(row.seconds * row.float32_gflops / 1e3) and 15 < row.psnr < 60
    rows = speed.against_best(found)
    assert max(row.psnr_minus_best for row in rows) == 0 > min(row.psnr_minus_best for row in rows)
    assert not list(speed.compare(data, "CT, 60 views", 32, 2, ["tv", "red-diff"], rows, "here"))
    (elsewhere,) = speed.compare(data, "CT, 60 views", 32, 2, ["red-diff"], rows, "there", ["draft"])
    assert (elsewhere.machine, elsewhere.effort) == ("there", "draft")


def test_volumes_are_resampled_about_their_middle() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32), (10, 8, 8))
    fine = speed.resampled(ramp, 16, 4)
    assert fine.shape == (4, 16, 16)
    assert fine.mean() == pytest.approx(ramp.mean()) and np.all(np.diff(fine, axis=2) >= 0)
    assert len(speed.middle(ramp, 4)) == 4 and len(speed.middle(ramp, 40)) == 10


def test_unknown_names_are_refused(data: Path) -> None:
    with pytest.raises(InputError, match="is not one of CT, 60 views"):
        list(speed.compare(data, "PET", 32, 1, ["tv"], [], "here"))
    with pytest.raises(InputError, match="'magic' is not one of"):
        list(speed.compare(data, "CT, 60 views", 32, 1, ["magic"], [], "here"))
