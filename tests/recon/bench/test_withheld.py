"""Measured data are judged by samples that the methods do not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from operators.errors import InputError
from recon.bench.withheld import withhold
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.samples import SAMPLES
from recon.spec.acquisitions.ct import AngleRange, CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.simulation import Simulation
from tests.benchmarks import quality
from tests.benchmarks.quality_report import Report
from tests.conftest import disc


def ct(views: int = 20) -> Measurement:
    volume = -1000 + 1000 * disc(32, 2.0, 20.0).numpy()
    found = simulate(volume, np.diag([2.0, 2.0, 2.0, 1.0]), CTParallel(), Simulation(views=views))
    return Measurement(found.data, found.acquisition)


@pytest.mark.parametrize(("every", "left"), [(10, 18), (-4, 5)])
def test_views_are_withheld_and_judge(every: int, left: int) -> None:
    whole = ct()
    rest, judge = withhold(whole, every=every)
    assert isinstance(rest.acquisition, CTParallel) and isinstance(whole.acquisition, CTParallel)
    kept, angles = rest.acquisition.angles(), whole.acquisition.angles()
    assert kept is not None and angles is not None
    assert rest.data.shape[1] == len(kept) == left and kept[0] == angles[0]
    index = [angles.index(angle) for angle in kept]
    assert np.array_equal(rest.data, whole.data[:, index])
    truth = 0.02 * disc(32, 2.0, 20.0)  # water
    problem = inverse_problem.build(rest).problem
    assert judge(problem, truth) < 0.05 < judge(problem, 0.5 * truth)
    assert judge(problem, torch.zeros_like(truth)) == pytest.approx(1.0)


def test_points_of_k_space_are_withheld_and_judge() -> None:
    kspace = np.load(SAMPLES / "mri_brain_8coil.npy")[None]
    rest, judge = withhold(Measurement(kspace, MRICartesian()))
    before, after = ((k != 0).any(axis=(0, 1)) for k in (kspace, rest.data))
    assert 0.03 < 1 - after.sum() / before.sum() < 0.1 and not (after & ~before).any()
    centre = (slice(kspace.shape[2] // 2 - 16, kspace.shape[2] // 2 + 16), slice(74, 106))
    assert (after == before)[centre].all()
    problem = inverse_problem.build(rest).problem
    assert judge(problem, torch.zeros_like(problem.zeros())) == pytest.approx(1.0)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(InputError, match="no samples to withhold"):
        withhold(Measurement(np.zeros((2, 8, 8), np.float32), MRISuperResolution()))
    with pytest.raises(InputError, match="cannot be split"):
        withhold(ct(3), every=10)


def test_a_measured_task_has_a_row_and_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "sinogram.npy"
    measured = ct()
    np.save(path, measured.data)
    acquisition = {"kind": "ct-parallel", "angles_rad": AngleRange(count=20).model_dump(), "detector_mm": 2.0}
    job = {"input": {"path": str(path), "format": "numpy"}, "acquisition": acquisition}
    task = quality.Task("Measured disc", job, [{"name": "fbp"}, {"name": "tv", "iterations": 5}])
    report = Report(tmp_path / "out", "a machine", 1)
    for found in quality.compare(task):
        report.add(*found)
    report.finish(task)
    first, second = report.rows
    assert first.psnr is None and first.withheld_misfit is not None and second.withheld_misfit is not None
    assert 0 < second.withheld_misfit < first.withheld_misfit < 1
    assert (tmp_path / "out" / "measured-disc.png").stat().st_size > 3000
    assert "| tv iterations=5 |  |  |" in (tmp_path / "out" / "quality.md").read_text()
