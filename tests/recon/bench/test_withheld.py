"""Measured data are judged by samples that the methods do not see."""

from __future__ import annotations

from collections.abc import Callable
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
from tests.recon.problem.test_kspace_as_files_have_it import coils as coil_maps
from tests.recon.problem.test_kspace_as_files_have_it import head, transformed


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
    inverse = inverse_problem.build(rest)
    assert judge(inverse, truth).misfit < 0.05 < judge(inverse, 0.5 * truth).misfit
    assert judge(inverse, torch.zeros_like(truth)).misfit == pytest.approx(1.0)


def test_points_of_k_space_are_withheld_and_judge() -> None:
    kspace = np.load(SAMPLES / "mri_brain_8coil.npy")[None]
    rest, judge = withhold(Measurement(kspace, MRICartesian()))
    before, after = ((k != 0).any(axis=(0, 1)) for k in (kspace, rest.data))
    assert 0.03 < 1 - after.sum() / before.sum() < 0.1 and not (after & ~before).any()
    centre = (slice(kspace.shape[2] // 2 - 16, kspace.shape[2] // 2 + 16), slice(74, 106))
    assert (after == before)[centre].all()
    inverse = inverse_problem.build(rest)
    assert judge(inverse, inverse.problem.zeros()).misfit == pytest.approx(1.0)


SIZE = 64


def noise(coils: int, samples: int, seed: int, mix: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(coils, samples)) + 1j * generator.normal(size=(coils, samples))
    return 0.01 * mix @ found


CHANGED: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray], str | None]] = {
    "whitened": (8, lambda k: k, "whitening"),
    "combined": (24, lambda k: k, "kept_energy"),
    "whitened and combined": (24, lambda k: k, "whitening"),
    "one dead": (8, lambda k: np.where(np.arange(8)[:, None, None] == 3, 0, k), None),
    "centred": (8, lambda k: np.pad(k[:, :-6], ((0, 0), (6, 0), (0, 0))), None),
}


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("masked", [False, True])
def test_withheld_points_are_those_of_the_prepared_coils(name: str, masked: bool) -> None:
    """An image of the right object fits them to their noise, whatever was done to the coils; half of it by half."""
    count, change, step = CHANGED[name]
    mix = np.linalg.cholesky(0.8 ** np.abs(np.arange(count)[:, None] - np.arange(count)))
    mix = mix if step == "whitening" else np.eye(count)
    maps, truth = coil_maps(count, SIZE, SIZE), head(SIZE, SIZE)
    kspace = transformed(maps * truth) + noise(count, SIZE**2, 0, mix).reshape(count, SIZE, SIZE)
    files = {"noise_scan": noise(count, 20_000, 1, mix)[None].astype(np.complex64)} if step == "whitening" else {}
    data = change(kspace)[None].astype(np.complex64)
    mask = (data != 0).any((0, 1)) if masked else None
    whole = Measurement(data, MRICartesian(), coil_maps=maps.astype(np.complex64), files=files, mask=mask)
    rest, judge = withhold(whole)
    inverse = inverse_problem.build(rest)
    steps = {one.name for one in inverse.steps if one.changed}
    assert step is None or step in steps
    fewest, most = {"whitened": (8, 8), "one dead": (7, 7), "centred": (8, 8)}.get(name, (12, 23))
    assert fewest <= inverse.problem.data.shape[1] <= most
    image = torch.from_numpy(truth.astype(np.complex64))[None]
    right, half, nothing = (judge(inverse, factor * image).misfit for factor in (1, 0.5, 0))
    # Of the withheld energy the share right^2 is noise, and independent of the object.
    assert right < 0.7 and half == pytest.approx(np.sqrt(0.25 * (1 - right**2) + right**2), rel=0.05)
    assert nothing == pytest.approx(1.0)


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
