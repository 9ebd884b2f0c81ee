"""The benchmark of readouts: an axial head the right way up, and a prior that sees either planes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from recon.measurement.simulate import simulate
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.simulation import Simulation
from tests.benchmarks.readout import HEAD, head, rows_of


def test_the_head_is_axial_in_its_middle(tmp_path: Path) -> None:
    voxels = np.zeros((20, 24, 28), np.float32)
    voxels[4:6, 20:22, 24:26] = 1  # to the left, in front, above, of axes to the right, to the front, upwards
    (tmp_path / HEAD).parent.mkdir()
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.2, 1.2, 1.0])), tmp_path / HEAD)
    volume, affine = head(tmp_path, 16, 2)
    assert volume.shape == (16, 16, 16) and volume.sum() == pytest.approx(1)
    z, y, x = np.argwhere(volume > 0.9)[0]
    # Of 32 voxels: two more on either side above and below, four in front and behind, six to both sides.
    assert (z, y, x) == ((24 + 2) // 2, (4 - 2 + 4) // 2, (20 - 6 + 6) // 2)
    assert np.diag(affine) == pytest.approx([-2, -2.4, 2.4, 1])


def test_a_prior_sees_either_planes_and_the_volume_stands() -> None:
    z, y, x = np.meshgrid(*(np.arange(24) - 12 for _ in range(3)), indexing="ij")
    volume = np.asarray((x**2 / 100 + y**2 / 80 + z**2 / 60 < 1) + ((x - 4) ** 2 + y**2 + z**2 < 9), np.float32)
    settings = Simulation(model="ideal", acceleration=2, coils=2, center_fraction=0.5)
    measurement = simulate(volume, np.diag([2.0, 2.0, 2.0, 1.0]), MRICartesian(readout="rows"), settings)
    methods = [{"name": "red-diff", "steps": 4}, {"name": "tv", "iterations": 5}]
    rows = list(rows_of(measurement, "rows", methods))
    assert [(row.method, row.planes) for row in rows] == [
        ("red-diff steps=4", "axial"), ("red-diff steps=4", "coronal"), ("tv iterations=5", "coronal"),
    ]  # fmt: skip
    assert all(row.psnr > 15 for row in rows) and rows[0].psnr != rows[1].psnr
