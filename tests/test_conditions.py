"""Priors that are given what the measurement determines by itself: the condition, training on it, solving with it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from operators.errors import InputError
from operators.geometry import ParallelBeam
from operators.resolution import Truncation
from operators.tomography import Tomography
from recon import conditions, slabs, table
from recon.methods import Annealed, REDDiff
from recon.prepare import local_files
from recon.priors import few_samples, registry
from recon.priors.export import export
from recon.priors.network import as_channels
from recon.priors.prior import Given, NetworkPrior
from recon.priors.recipe import Recipe
from recon.reconstruct import run as run_job
from recon.solvers import registry as solvers
from recon.solvers.problem import Axis, Problem, run
from recon.table import Table, Tuned
from tests.test_reconstruct import job
from tests.test_training import stir, tiny, trained

pytestmark = pytest.mark.usefixtures("one_thread")

AXIS = Axis(0.025, 0.025)


def recipe(folder: Path, modality: str = "ct", **changes: Any) -> Recipe:
    """A tiny one, of discs in HU or as magnitudes."""
    source: dict[str, Any] = {"file": "train.npz", "slope": 1 / 200}
    axis = {"unit": "-", "low": -1.0, "high": 1.0}
    if modality == "ct":
        source = {"file": "train.npz", "slope": 5.0, "intercept": -1000.0}
        axis = {"unit": "HU", "low": -1000.0, "high": 1500.0}
    changes = {
        "modality": modality,
        "complex": modality == "mri",
        "least_squares": True,
        "axis": axis,
        "sources": [source],
        "validation": [source],
        **changes,
    }
    found = tiny(folder, **changes)
    rows, cols = np.mgrid[-1:1:40j, -1:1:40j]
    discs = [np.where((rows - a) ** 2 + (cols - b) ** 2 < 0.3, 200, 20) for a in (-0.3, 0.3) for b in (-0.3, 0, 0.3)]
    np.savez(folder / "train.npz", images=np.stack(discs).astype(np.uint8), subject=np.array(list("aabbcc")))
    return found


def made(folder: Path, modality: str) -> Path:
    """The card of a tiny prior."""
    stir(trained(recipe(folder, modality), folder, folder / "run"))
    export(folder / "run", folder, "recon train tiny", folder)
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("conditions"), "ct")


@pytest.fixture(scope="module")
def complex_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("conditions"), "mri")


@pytest.fixture
def prior(card: Path) -> NetworkPrior:
    return registry.load(str(card))


def scanned(views: int, slices: int = 3, size: int = 32, noise: float = 0.0) -> tuple[Problem, Tensor]:
    """A problem and its truth on the prior's axis: smooth blobs in air."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.arange(size) - (size - 1) / 2
    centres = 4 * torch.randn(slices, 2, generator=generator)
    distance = (grid[:, None] - centres[:, :1, None]).square() + (grid - centres[:, 1:, None].mT).square()
    truth = 0.8 * torch.exp(-distance / 30) - 1
    angles = tuple(math.pi * k / views for k in range(views))
    operator = Tomography(ParallelBeam(size, size, 1.0, angles, 48, 1.0))
    clean = operator.forward(AXIS.to_physical(truth))
    return Problem(operator, clean + noise * torch.randn(clean.shape, generator=generator), noise), truth


def test_the_condition_fits_what_was_measured_and_is_empty_elsewhere() -> None:
    problem, truth = scanned(views=6)
    found = conditions.least_squares(problem, AXIS)
    assert problem.misfit(AXIS.to_physical(found)) < 0.01
    assert 0.05 < float((found - truth).norm() / (truth + 1).norm()) < 0.6  # six views leave streaks
    # Nearest to empty: of all images that fit, the truth is one and lies farther away.
    assert float((found + 1).norm()) < float((truth + 1).norm())
    nothing = Problem(problem.operator, problem.operator.forward(AXIS.to_physical(torch.full_like(truth, -1.0))))
    assert float((conditions.least_squares(nothing, AXIS) + 1).abs().max()) < 1e-4


def test_the_condition_scales_with_the_data_and_each_slice_is_its_own() -> None:
    problem, _ = scanned(views=9)
    whole = conditions.least_squares(problem, AXIS)
    assert torch.equal(conditions.least_squares(problem.part(1, 3), AXIS), whole[1:])
    empty = problem.operator.forward(AXIS.to_physical(torch.full_like(whole, -1.0)))
    halved = Problem(problem.operator, (problem.data + empty) / 2)
    error = conditions.least_squares(halved, AXIS) - (whole - 1) / 2
    # Ten steps of conjugate gradients in single precision, whose rounding differs from machine to machine.
    assert float(error.norm()) < 2e-3 * float(((whole + 1) / 2).norm())


def test_noise_asks_for_a_smoother_condition() -> None:
    noisy, truth = scanned(views=30, noise=0.02)
    believed = Problem(noisy.operator, noisy.data, 0.0)
    error, naive = ((conditions.least_squares(p, AXIS) - truth).norm() for p in (noisy, believed))
    assert float(error) < 0.9 * float(naive)


def test_the_condition_of_k_space_is_that_of_the_samples_alone() -> None:
    """The ghosts of what is missing stay: nothing of the truth leaks in, and a slice is not told from its ghost."""
    image = discs()
    problem, axis = few_samples.evenly(image, factor=4)
    found = conditions.least_squares(problem, axis)
    assert problem.misfit(found) < 0.02
    assert 0.01 < float((found - image).norm() / image.norm()) < 0.5
    turned = Problem(problem.operator, problem.data * complex(0, 1))
    assert torch.allclose(conditions.least_squares(turned, axis), found * complex(0, 1), atol=1e-5)
    assert torch.equal(conditions.least_squares(problem.part(1, 2), axis), found[1:2])


def discs(size: int = 48) -> Tensor:
    grid = torch.linspace(-1, 1, size)
    inside = [((grid[:, None] - a).square() + (grid - b).square() < 0.3) * 1.0 for a, b in ((0, 0), (0.2, -0.3))]
    return torch.polar(torch.stack(inside), torch.sin(3 * grid)[:, None] + grid).to(torch.complex64)


def test_a_prior_is_given_only_what_it_was_trained_with(card: Path, complex_card: Path, tmp_path: Path) -> None:
    stir(trained(tiny(tmp_path, super_resolution=2), tmp_path, tmp_path / "run"))
    finer = export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    scan = few_samples.evenly(discs())
    low = Truncation(48, 48, 2)
    stack = Problem(low, low.forward(discs())), Axis(1.0, 0.0)
    for seen, other, needs in (
        (scan, finer, "x2 less resolution"),
        (stack, registry.load(str(complex_card)).card, "the least-squares image of k-space"),
        (stack, registry.load(str(card)).card, "the least-squares image of the projections"),
    ):
        with pytest.raises(
            InputError, match=rf"method\.prior: .*needs .*{needs}, which this acquisition does not give"
        ):
            conditions.of(*seen, other)


def test_a_condition_begins_without_effect(tmp_path: Path) -> None:
    """A network that starts from a prior is that prior, also where the ghosts of the condition have another phase."""
    stir(trained(tiny(tmp_path), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    prior = registry.load(str(tmp_path / "tiny.yaml"))
    network = registry.new_network(recipe(tmp_path, "mri"))
    registry.start_from(network, str(tmp_path / "tiny.yaml"))
    x = as_channels(discs() + 0.1)
    ghosts = as_channels(discs().roll(12, 1) * complex(0, 1))
    prior.network.engine = None
    with torch.no_grad():
        mine, started = prior.network(x, torch.tensor([0.2])), network(x, torch.tensor([0.2]), ghosts)
    assert torch.allclose(mine, started, atol=1e-5) and float((mine - x).abs().max()) > 1e-3


@pytest.mark.parametrize("method", [Annealed(steps=4, start="classical"), REDDiff(steps=4)])
def test_a_solver_gives_every_slice_its_own_condition(prior: NetworkPrior, method: Annealed | REDDiff) -> None:
    problem, _ = scanned(views=12, slices=5)
    whole = run(solvers.start(problem, method, prior=prior, axis=AXIS))
    part = run(solvers.start(problem.part(3, 5), method, prior=prior, axis=AXIS))
    assert torch.allclose(part, whole[3:], atol=1e-6)
    # The condition has a say: that of other slices gives another image.
    condition = conditions.least_squares(problem, AXIS)
    x = torch.zeros_like(condition)
    mine, other = (Given(prior, c).denoise(x, 0.3) for c in (condition, condition.flip(0)))
    assert float((mine - other).abs().max()) > 1e-3
    index = torch.tensor([4, 1])
    assert torch.equal(Given(prior, condition).denoise(x, 0.3, index=index), mine[index])


def test_slabs_have_the_conditions_of_their_slices(prior: NetworkPrior, tmp_path: Path) -> None:
    """Also where rays are weighted by their noise, and where evaluations are skipped."""
    problem, _ = scanned(views=12, slices=20, noise=0.01)
    weights = torch.rand(problem.data.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    problem = replace(problem, weights=weights)
    method = REDDiff(steps=6, skip=10.0)
    before = prior.evaluations
    start = partial(solvers.start, settings=method, prior=prior, axis=AXIS)
    whole = run(start(problem))
    assert prior.evaluations - before < 20 * 2 * 6
    cut = finished(slabs.solve(problem, method, start, slabs.Shelf(tmp_path / "shelf"), "key", 6))
    assert len(list((tmp_path / "shelf").glob("*.npy"))) == 4
    assert float((cut - whole).abs().max()) < 1e-5 * float(whole.max() - whole.min())


def finished(steps: slabs.Steps[Tensor]) -> Tensor:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        volume: Tensor = end.value
        return volume


def test_a_job_with_a_prior_that_is_given_the_projections(card: Path, tmp_path: Path) -> None:
    rows, cols, _ = np.mgrid[-1:1:32j, -1:1:32j, 0:2]
    water = np.where(rows**2 + cols**2 < 0.6, 0.0, -1000.0).astype(np.float32)
    nib.save(nib.Nifti1Image(water, np.eye(4)), tmp_path / "water.nii.gz")
    known = {"path": str(tmp_path / "water.nii.gz"), "simulate": {"views": 10}}

    def spec(name: str, **more: Any) -> Any:
        method = {"name": name, "prior": str(card), "steps": 2, **more}
        return job(input=known, acquisition="ct-parallel", method=method, output={"baselines": []})

    for name in ("annealed", "red-diff", "dds", "diffusion-mbir"):
        report = run_job(spec(name), local_files(spec(name)), tmp_path / name)
        assert report["prior"]["least_squares"] is True and report["network_evaluations"] > 0
        # Which cannot tell what it has not seen: the usual prior is asked.
        assert report["familiarity"]["judge"] == "ct"
    with pytest.raises(InputError, match=r"method\.prior: .*dps takes none"):
        run_job(spec("dps"), local_files(spec("dps")), tmp_path / "dps")


def test_a_prior_that_was_tuned_for_is_the_one_that_is_used(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table may name a prior: job and report must agree with it, and the user's own choice wins."""
    entry = Tuned(
        kind="ct-parallel", task="-", pattern="full", noisy=False, undersampling=3.0, method="red-diff",
        settings={"prior": str(card), "steps": 2}, psnr=1, psnr_before=0,
    )  # fmt: skip
    monkeypatch.setattr(table, "installed", lambda: Table(command="-", tuned=[entry]))
    rows, cols, _ = np.mgrid[-1:1:32j, -1:1:32j, 0:2]
    water = np.where(rows**2 + cols**2 < 0.6, 0.0, -1000.0).astype(np.float32)
    nib.save(nib.Nifti1Image(water, np.eye(4)), tmp_path / "water.nii.gz")
    known = {"path": str(tmp_path / "water.nii.gz"), "simulate": {"views": 10}}
    for method, expected in (("red-diff", "tiny"), ({"name": "red-diff", "prior": "ct", "steps": 2}, "ct")):
        spec = job(input=known, acquisition="ct-parallel", method=method, output={"baselines": []})
        report = run_job(spec, local_files(spec), tmp_path / expected)
        assert report["prior"]["name"] == expected
        assert Path(report["method"]["prior"]).stem == expected and report["method"]["steps"] == 2


def test_a_prior_for_super_resolution_serves_other_solvers_too(tmp_path: Path) -> None:
    stir(trained(tiny(tmp_path, super_resolution=2), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    image = np.random.default_rng(0).random((32, 32, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "brain.nii.gz")

    def spec(factor: int) -> Any:
        known = {"path": str(tmp_path / "brain.nii.gz"), "simulate": {}}
        method = {"name": "red-diff", "prior": str(tmp_path / "tiny.yaml"), "steps": 2}
        acquisition = {"kind": "mri-resolution", "factor": factor}
        return job(input=known, acquisition=acquisition, method=method, output={"baselines": []})

    report = run_job(spec(2), local_files(spec(2)), tmp_path / "x2")
    assert report["prior"]["super_resolution"] == 2
    with pytest.raises(InputError, match=r"method\.prior: .*x2 less resolution, the data are x4"):
        run_job(spec(4), local_files(spec(4)), tmp_path / "x4")


def test_a_job_with_a_prior_that_is_given_k_space(complex_card: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((48, 48, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "brain.nii.gz")

    def spec(acquisition: Any, **simulate: Any) -> Any:
        known = {"path": str(tmp_path / "brain.nii.gz"), "simulate": simulate}
        method = {"name": "red-diff", "prior": str(complex_card), "steps": 2}
        return job(input=known, acquisition=acquisition, method=method, output={"baselines": []})

    scan = spec("mri-cartesian", acceleration=2, center_fraction=0.5)
    report = run_job(scan, local_files(scan), tmp_path / "scan")
    assert report["prior"]["least_squares"] is True and report["network_evaluations"] > 0
    assert report["familiarity"]["judge"] == "brain-mri"
    stack = spec({"kind": "mri-resolution", "factor": 2})
    with pytest.raises(InputError, match=r"method\.prior: .*needs the least-squares image of k-space"):
        run_job(stack, local_files(stack), tmp_path / "stack")


def test_recipes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for changes in ({"complex": True}, {"neighbours": 1}):
        with pytest.raises(ValidationError, match="least_squares"):
            recipe(tmp_path, **changes)
    with pytest.raises(ValidationError, match="least_squares"):
        recipe(tmp_path, "mri", super_resolution=2)


def test_the_older_name_of_the_condition_is_understood(card: Path) -> None:
    text = card.read_text()
    assert "least_squares: true" in text
    older = card.with_name("older.yaml")
    older.write_text(text.replace("least_squares: true", "projections: true"))
    assert registry.card_of(str(older)).least_squares
