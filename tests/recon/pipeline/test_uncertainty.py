"""The map of errors to be expected: right where they are known, other scans of the same kind, jobs that ask for it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam, SamplingPattern
from operators.tomography import Tomography
from recon.bench import auto, coverage
from recon.defaults.errors import ErrorTable, Fitted, Shares, installed
from recon.measurement import noise_estimate
from recon.measurement.detection import photon_noise
from recon.pipeline import uncertainty
from recon.pipeline.reconstruct import run as run_job
from recon.pipeline.uncertainty import Clues
from recon.problem.ct import Cover, CTProblem
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem, run
from recon.quality import body
from recon.samples import SAMPLES
from recon.solvers import registry
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import CGSense
from recon.spec.registry import METHODS
from recon.tuning import fit_errors
from recon.tuning.fit_errors import Sample
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
    assert told is not None and told.rms is not None and told.rms_error is not None and told.held is not None
    assert told.replicates == 3 and told.rms == pytest.approx(float(np.sqrt((found**2).mean())), rel=1e-3)
    # Fitted to anatomy, whose texture this object lacks.
    assert 0.7 < told.rms / told.rms_error < 4 and told.held > 0.85
    half, inside = voxels(tmp_path / "out" / "interval.nii.gz"), body.inside(voxels(ct_file))
    assert half.shape == volume.shape and half.min() >= 0 and half[inside].mean() > found[inside].mean()
    assert told.held == pytest.approx(float((error <= half)[inside].mean()), abs=0.01)
    assert told.interval == pytest.approx(2 * float(half[body.inside(volume)].mean()), rel=0.01)
    assert not (tmp_path / "out" / "undetermined.nii.gz").exists()  # a clue to the errors that was not asked for
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
    half = np.load(tmp_path / "out" / "interval.npy")
    assert found.min() >= 0 and half.shape == found.shape and (half >= found).mean() > 0.9
    assert (tmp_path / "out" / "uncertainty.png").stat().st_size > 5_000


def test_stacks_have_no_other_scan() -> None:
    with pytest.raises(InputError, match=r"output\.uncertainty: there is no other scan"):
        job(input="a.nii", acquisition="mri-superresolution", method="interpolation", output={"uncertainty": 2})


def test_clues_say_where_edges_are_and_what_was_drawn() -> None:
    """A step of 2 in one column: as much edge as it changes, nothing far from it, and a level of its contrast."""
    shown = torch.zeros(2, 20, 20)
    shown[:, :, 10:] = 2.0
    drawn = torch.zeros(2, 20, 20)
    drawn[1, 4, 4] = 5.0
    clues = Clues.of(shown, torch.full((2, 20, 20), 0.09), drawn)
    assert torch.allclose(clues.replicates, torch.tensor(0.3)) and torch.equal(
        clues.level, torch.full((2, 20, 20), 2.0)
    )
    # Two columns of five change by 1 a pixel.
    assert float(clues.edges[0, 10, 10]) == pytest.approx((2 / 5) ** 0.5) and float(clues.edges[0, 10, 3]) == 0
    assert float(clues.undetermined[1, 4, 4]) == pytest.approx(1.0) and float(clues.undetermined[0].max()) == 0
    twice = uncertainty.errors(Clues(*(2 * clue for clue in clues)), "regularised", "ct", "full", 5.0)
    once = uncertainty.errors(clues, "regularised", "ct", "full", 5.0)
    for one, other in zip(once, twice, strict=True):
        assert torch.allclose(2 * one, other)  # in any unit
    assert bool((once.half_widths > once.expected).all())


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_every_method_has_its_errors_explained(modality: str) -> None:
    for method in METHODS.values():
        for pattern in get_args(SamplingPattern):
            rows = installed().around(modality, method.ERRORS_LIKE, pattern, 5.0)
            assert sum(weight for _, weight in rows) == pytest.approx(1)


def test_every_kind_of_scan_was_fitted_to_by_itself() -> None:
    patterns = {"ct": {"full", "limited"}, "mri": {"lines", "points"}}
    for modality, wanted in patterns.items():
        for like in ("prior", "regularised", "linear"):
            rows = [one for one in installed().fitted if (one.modality, one.errors_like) == (modality, like)]
            assert {one.pattern for one in rows} == wanted
    shares = [tuple(one.interval.values()) for one in installed().fitted]
    assert len(set(shares)) == len(shares)  # none stands for another


def test_scans_between_two_that_were_fitted_to_are_interpolated() -> None:
    def row(ratio: float, share: float) -> Fitted:
        shares = Shares(replicates=share, edges=0, undetermined=0, level=0)
        told = {"modality": "ct", "errors_like": "prior", "expected": shares, "interval": shares}
        return Fitted(pattern="full", undersampling=ratio, **told)

    table = ErrorTable(command="", fitted=[row(16, 4.0), row(1, 1.0), row(4, 2.0)])

    def share(ratio: float, pattern: SamplingPattern = "full") -> float:
        rows = table.around("ct", "prior", pattern, ratio)
        return math.exp(sum(weight * math.log(one.interval.replicates) for one, weight in rows))

    assert [share(r) for r in (0.5, 1, 2, 4, 8, 16, 50)] == pytest.approx([1, 1, 2**0.5, 2, 8**0.5, 4, 4])
    assert share(4, "limited") == pytest.approx(2)


def made(seed: int) -> Sample:
    """Normal errors of known standard deviation: half of the replicates', a tenth of the level, nothing else."""
    random = np.random.default_rng(seed)
    clues = random.gamma(2.0, 1.0, (4, 20_000)) * np.array([[1.0], [1.0], [1.0], [3.0]])
    size = np.hypot(0.5 * clues[0], 0.1 * clues[3])
    return Sample(clues, np.abs(random.normal(0, size)))


def test_shares_are_found_and_intervals_hold_what_they_were_not_fitted_to() -> None:
    thinned = [made(seed).thinned() for seed in range(4)]
    assert np.allclose([one.error.mean() for one in thinned], 1, atol=0.05)
    expected = fit_errors.expected(thinned)
    assert expected.replicates == pytest.approx(0.5, rel=0.05) and expected.level == pytest.approx(0.1, rel=0.1)
    assert max(expected.edges, expected.undetermined) < 0.06
    interval = np.array(fit_errors.interval(thinned).values())
    new = made(10)
    half = np.sqrt(((interval[:, None] * new.clues) ** 2).sum(0))
    assert (new.error <= half).mean() == pytest.approx(0.9, abs=0.01)
    large = new.clues[0] > 3
    assert (new.error <= half)[large].mean() == pytest.approx(0.9, abs=0.02)  # not only on average


def test_errors_are_observed_once_and_a_table_is_fitted(tmp_path: Path) -> None:
    few = np.load(SAMPLES / "tune" / "ct_hu.npz")["images"][:2].astype(np.float32) * 4 - 1024
    for case in auto.ct_cases("shipped", "anatomy", 1.4, lambda: few)[4:5]:
        first = coverage.kept(tmp_path / "seen", case, ("fbp", "cg-sense"), 2)
        twice = replace(case, measured=lambda: pytest.fail("measured again"))
        again = coverage.kept(tmp_path / "seen", twice, ("fbp", "cg-sense"), 2)
    assert len(first) == len(again) == 1
    for one, other in zip(first[0], again[0], strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
    table = coverage.table(first, "by hand")
    table.write(tmp_path / "errors.yaml")
    assert ErrorTable.read(tmp_path / "errors.yaml") == table
    (row,) = table.fitted
    assert (row.modality, row.errors_like) == ("ct", "linear") and max(row.interval.values()) > 0.5
    rows = coverage.rows_of("shipped", first)
    assert [r.voxels for r in rows] == ["all", "edge", "flat"] and all(0.6 < r.coverage < 1 for r in rows)
    assert rows[1].width > rows[2].width > 0 and rows[0].width_over_tv is None


def test_scans_with_nearly_the_same_undersampling_share_a_row() -> None:
    """60 views of 256 columns and 23 of 128 are alike, 8 of 128 are not, nor is a limited angle."""
    clues, error = (values[..., :2000].astype(np.float32) for values in made(0))
    edge = np.arange(2000) % 2 == 0
    observed = [
        coverage.Observed("tv", clues, error, edge, "ct", "tv", pattern, ratio)
        for pattern, ratio in (("full", 4.5), ("full", 11.2), ("full", 3.0), ("limited", 3.0))
    ]
    rows = coverage.table(observed, "by hand").fitted
    found = [(row.pattern, row.undersampling) for row in rows]
    assert found == [("full", pytest.approx(math.sqrt(4.5 * 3.0), abs=1e-3)), ("full", 11.2), ("limited", 3.0)]
