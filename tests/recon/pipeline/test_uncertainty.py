"""The map of errors to be expected: right where they are known, other scans of the same kind, jobs that ask for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.measurement import noise_estimate
from recon.measurement.detection import photon_noise
from recon.pipeline import uncertainty
from recon.pipeline.reconstruct import run as run_job
from recon.problem.ct import Cover, CTProblem
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem, run
from recon.samples import SAMPLES
from recon.solvers import registry
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import CGSense
from tests.benchmarks.__main__ import app
from tests.conftest import disc, image, voxels
from tests.recon.pipeline.test_reconstruct import job, reconstructed
from tests.recon.solvers.test_solvers import angles


def mri(problem: Problem) -> InverseProblem:
    return InverseProblem(problem, np.eye(4), False, "a.u.", "mri", [])


def test_noise_that_a_linear_method_lets_through_is_found() -> None:
    """All of k-space by one coil: the image has the noise of the data, in every pixel."""
    generator = torch.Generator().manual_seed(0)
    truth = 5 + torch.randn(2, 32, 32, generator=generator).to(torch.complex64)
    operator = CartesianMRI(torch.ones(32, 32, dtype=torch.bool), torch.ones(1, 32, 32, dtype=torch.complex64))
    problem = Problem(operator, operator(truth), noise_std=0.3)

    def solve(problem: Problem) -> Tensor:
        return run(registry.start(problem, CGSense(weight=0.0)))

    found = solve(problem)
    errors = [(solve(uncertainty.replicate(mri(problem), found, k, 1)).abs() - found.abs()).square() for k in range(4)]
    pooled = uncertainty.pooled(sum(errors[1:], errors[0]) / 4)
    assert float(pooled.mean()) == pytest.approx(0.3, rel=0.05)
    assert float((pooled - 0.3).abs().max()) < 0.15
    other = uncertainty.replicate(mri(problem), found, 0, 2)
    assert not torch.equal(other.data, uncertainty.replicate(mri(problem), found, 0, 1).data)
    assert torch.equal(other.data, uncertainty.replicate(mri(problem), found, 0, 2).data)


def ct(problem: Problem) -> CTProblem:
    """Problem of a scan that sees all of its object."""
    assert isinstance(problem.operator, Tomography)
    geometry = problem.operator.geometry
    return CTProblem(problem, np.eye(4), False, "1/mm", "ct", [], Cover(geometry, geometry))


def test_other_views_have_the_noise_of_these() -> None:
    operator = Tomography(ParallelBeam(48, 48, 1.0, angles(24), 70, 1.0))
    truth = 0.05 * disc(48, 1.0, 16.0)
    clean = operator(truth)
    measured, noise_std = photon_noise(clean, 2e3, torch.Generator().manual_seed(0))
    mean, inverse_std = noise_estimate.of_photons(measured, 2e3)
    for problem in (
        Problem(operator, measured, noise_std=noise_std),
        Problem(operator, measured, noise_std=mean, inverse_std=inverse_std),
    ):
        other = uncertainty.replicate(ct(problem), truth, 0, 3)
        assert isinstance(other.operator, Tomography)
        turned = other.operator.geometry.angles_rad
        gaps = {round((a - b) % math.pi, 6) for a in turned for b in operator.geometry.angles_rad}
        assert min(min(gap, math.pi - gap) for gap in gaps) > 1e-3  # no view is measured twice
        noise = other.data - clean  # a centred disc looks the same from everywhere
        assert float(noise.std()) == pytest.approx(noise_std, rel=0.1)
        dense = noise[..., 30:40].std() / noise[..., :8].std()
        weighted = problem.inverse_std is not None
        assert (float(dense) > 1.6) == weighted and (other.inverse_std is not None) == weighted
    problem = Problem(operator, clean, noise_std=0.0, inverse_std=inverse_std)
    silent = uncertainty.replicate(ct(problem), truth, 0, 3)
    assert silent.inverse_std is None and bool(silent.data.isfinite().all())


@pytest.mark.parametrize("rows", [32, 33])
def test_other_lines_and_points_keep_the_centre(rows: int) -> None:
    lines = torch.zeros(rows, 24, dtype=torch.bool)
    lines[::4] = True
    lines[rows // 2 - 3 : rows // 2 + 4] = True
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(rows, 24, generator=generator) < 0.2
    points[rows // 2 - 4 : rows // 2 + 5, 8:17] = True
    for mask in (lines, lines.T.contiguous(), points):
        maps = torch.ones(2, *mask.shape, dtype=torch.complex64)
        problem = Problem(CartesianMRI(mask, maps), torch.zeros(3, 2, *mask.shape, dtype=torch.complex64))
        seen: list[Tensor] = []
        for index in range(3):
            other = uncertainty.replicate(mri(problem), torch.ones(3, *mask.shape, dtype=torch.complex64), index, 0)
            assert isinstance(other.operator, CartesianMRI)
            moved = other.operator.mask[0]
            middle = tuple(slice(n // 2 - 3, n // 2 + 4) for n in mask.shape)
            assert bool((moved[middle] == mask[middle]).all())
            assert abs(int(moved.sum()) - int(mask.sum())) <= 2 * 24 + 9
            assert int((moved & ~mask).sum()) > 0.4 * int((mask & ~moved).sum()) > 0
            assert all(not torch.equal(moved, earlier) for earlier in seen)
            seen.append(moved)


def asked(ct_file: Path, method: Any, replicates: int, **more: Any) -> JobSpec:
    known = {"path": str(ct_file), "simulate": {"views": 14, "photons_per_ray": 1e5}}
    output = {"uncertainty": replicates, "montage": False}
    return job(input=known, acquisition="ct-parallel", method=method, output=output, **more)


def test_a_job_maps_the_errors_it_makes(tmp_path: Path, ct_file: Path) -> None:
    """In the result's unit and place; larger where the errors are, and about as large as they are."""
    volume, affine, report = reconstructed(asked(ct_file, "tv", 3), tmp_path / "out")
    path = tmp_path / "out" / "uncertainty.nii.gz"
    found = voxels(path)
    assert found.shape == volume.shape and np.allclose(image(path).affine, affine)
    error = np.abs(volume - np.maximum(voxels(ct_file), -1000))
    high = found > np.quantile(found, 0.8)
    assert error[high].mean() > 1.5 * error[~high].mean()
    told = report.uncertainty
    assert told is not None and told.rms is not None and told.rms_error is not None and told.within_two is not None
    assert told.replicates == 3 and told.rms == pytest.approx(float(np.sqrt((found**2).mean())), rel=1e-3)
    # Scaled up as anatomy needs it, which flat regions do not.
    assert 0.7 < told.rms / told.rms_error < 3 and told.within_two > 0.75
    again = reconstructed(asked(ct_file, "tv", 3), tmp_path / "again")
    assert np.array_equal(again[0], volume) and again[2].uncertainty == told
    plain = reconstructed(asked(ct_file, "tv", 0), tmp_path / "plain")
    assert np.array_equal(plain[0], volume) and plain[2].uncertainty is None
    assert not (tmp_path / "plain" / "uncertainty.nii.gz").exists()


def test_a_diffusion_job_counts_its_replicates(tmp_path: Path, ct_file: Path) -> None:
    """Every replicate draws its own noise; a picture shows the map; progress never goes back."""
    spec = asked(ct_file, {"name": "red-diff", "steps": 2, "skip_threshold": 0}, 2)
    spec = spec.model_copy(update={"output": spec.output.model_copy(update={"montage": True, "format": "numpy"})})
    fractions: list[float] = []
    report = run_job(spec, local_files(spec), tmp_path / "out", lambda p: fractions.append(p.fraction))
    assert fractions == sorted(fractions)
    slices = np.load(tmp_path / "out" / "volume.npy").shape[0]
    assert report.network_evaluations == 3 * 2 * 2 * slices
    found = np.load(tmp_path / "out" / "uncertainty.npy")
    assert found.min() >= 0 and 0.2 < (found > 0).mean() < 1  # air that is known has no error
    assert (tmp_path / "out" / "uncertainty.png").stat().st_size > 5_000


def test_stacks_have_no_other_scan() -> None:
    with pytest.raises(InputError, match=r"output\.uncertainty: there is no other scan"):
        job(input="a.nii", acquisition="mri-superresolution", method="interpolation", output={"uncertainty": 2})


def test_the_uncertainty_bench_judges_the_map(tmp_path: Path) -> None:
    """On tuning slices shipped: a map that knows where errors are, and roughly how large."""
    out = tmp_path / "rows.json"
    few = np.load(SAMPLES / "tune" / "ct_hu.npz")
    (tmp_path / "tune").mkdir()
    images = np.resize(few["images"], (43, 256, 256))
    np.savez(tmp_path / "tune" / "ct_hu.npz", images=images, subject=np.full(43, "one"))
    asked = [
        "uncertainty",
        "--data",
        str(tmp_path),
        "--only",
        "23 views",
        "--methods",
        "fbp",
        "--replicates",
        "2",
    ]
    done = CliRunner().invoke(app, [*asked, "--json", str(out)])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(out.read_text())["rows"]
    assert 0.4 < row["error_over_uncertainty"] < 1.6 and row["rank_correlation"] > 0.3
    assert row["within_one"] < row["within_two"] and row["within_two"] > 0.8
    wrong = CliRunner().invoke(app, [*asked[:4], "22 views"])
    assert "'22 views' is not one of" in str(wrong.exception)
