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
from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam
from operators.resolution import Truncation
from operators.tomography import Tomography
from recon.defaults import table
from recon.defaults.table import Table, Tuned
from recon.pipeline import chunks
from recon.pipeline.chunk_cache import ChunkCache
from recon.pipeline.reconstruct import run as run_job
from recon.priors import registry
from recon.priors.network import as_channels
from recon.priors.prior import Given, NetworkPrior
from recon.problem import conditioning
from recon.problem.problem import IntensityMap, Problem, run
from recon.solvers import registry as solvers
from recon.spec.job import local_files
from recon.spec.methods import DiffPIR, REDDiff
from recon.training.export import export
from recon.training.recipe import Recipe
from recon.training.start import start_from
from tests.recon.pipeline.test_reconstruct import job
from tests.recon.training.test_training import stir, tiny, trained

AXIS = IntensityMap(0.025, 0.025)


def recipe(folder: Path, **changes: Any) -> Recipe:
    """A tiny one, of discs in HU."""
    source = {"file": "train.npz", "slope": 5.0, "intercept": -1000.0}
    changes = {
        "modality": "ct",
        "complex": False,
        "least_squares": True,
        "intensity_range": {"unit": "HU", "low": -1000.0, "high": 1500.0},
        "sources": [source],
        "validation": [source],
        **changes,
    }
    found = tiny(folder, **changes)
    rows, cols = np.mgrid[-1:1:40j, -1:1:40j]
    discs = [np.where((rows - a) ** 2 + (cols - b) ** 2 < 0.3, 200, 20) for a in (-0.3, 0.3) for b in (-0.3, 0, 0.3)]
    np.savez(folder / "train.npz", images=np.stack(discs).astype(np.uint8), subject=np.array(list("aabbcc")))
    return found


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Card of a tiny prior."""
    folder = tmp_path_factory.mktemp("conditions")
    stir(trained(recipe(folder), folder, folder / "run"))
    export(folder / "run", folder, "recon train tiny", folder)
    return folder / "tiny.yaml"


@pytest.fixture
def prior(card: Path) -> NetworkPrior:
    return registry.load(str(card))


def scanned(views: int, slices: int = 3, size: int = 32, noise: float = 0.0) -> tuple[Problem, Tensor]:
    """A problem and its truth on the prior's scale: smooth blobs in air."""
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
    found = conditioning.least_squares(problem, AXIS)
    assert problem.misfit(AXIS.to_physical(found)) < 0.01
    assert 0.05 < float((found - truth).norm() / (truth + 1).norm()) < 0.6  # six views leave streaks
    # Nearest to empty: of all images that fit, the truth is one and lies farther away.
    assert float((found + 1).norm()) < float((truth + 1).norm())
    nothing = Problem(problem.operator, problem.operator.forward(AXIS.to_physical(torch.full_like(truth, -1.0))))
    assert float((conditioning.least_squares(nothing, AXIS) + 1).abs().max()) < 1e-4


def test_the_condition_scales_with_the_data_and_each_slice_is_its_own() -> None:
    problem, _ = scanned(views=9)
    whole = conditioning.least_squares(problem, AXIS)
    assert torch.equal(conditioning.least_squares(problem.part(1, 3), AXIS), whole[1:])
    empty = problem.operator.forward(AXIS.to_physical(torch.full_like(whole, -1.0)))
    halved = Problem(problem.operator, (problem.data + empty) / 2)
    error = conditioning.least_squares(halved, AXIS) - (whole - 1) / 2
    # Ten steps of conjugate gradients in single precision, whose rounding differs from machine to machine.
    assert float(error.norm()) < 2e-3 * float(((whole + 1) / 2).norm())


def test_noise_asks_for_a_smoother_condition() -> None:
    noisy, truth = scanned(views=30, noise=0.02)
    believed = Problem(noisy.operator, noisy.data, 0.0)
    error, naive = ((conditioning.least_squares(p, AXIS) - truth).norm() for p in (noisy, believed))
    assert float(error) < 0.9 * float(naive)


def discs(size: int = 48) -> Tensor:
    grid = torch.linspace(-1, 1, size)
    inside = [((grid[:, None] - a).square() + (grid - b).square() < 0.3) * 1.0 for a, b in ((0, 0), (0.2, -0.3))]
    return torch.polar(torch.stack(inside), torch.sin(3 * grid)[:, None] + grid).to(torch.complex64)


def test_a_prior_is_given_only_what_it_was_trained_with(card: Path, tmp_path: Path) -> None:
    stir(trained(tiny(tmp_path, super_resolution=2), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    finer, views = registry.load(str(tmp_path / "tiny.yaml")), registry.load(str(card))
    sampled = torch.arange(48)[:, None].expand(48, 48) % 2 == 0
    lines = CartesianMRI(sampled, torch.ones(1, 48, 48, dtype=torch.complex64))
    scan, stack = (Problem(o, o.forward(discs())) for o in (lines, Truncation(48, 48, 2)))
    for seen, other, says in (
        (scan, finer, "needs an image of x2 less resolution, which this acquisition does not give"),
        (scan, views, "are of different modalities"),
        (stack, views, "are of different modalities"),
    ):
        with pytest.raises(InputError, match=rf"method\.prior: .*{says}"):
            solvers.start(seen, REDDiff(), prior=other, intensity=IntensityMap(1.0, 0.0))
    with pytest.raises(InputError, match="needs the least-squares image of the projections, the data are x2"):
        conditioning.require_fit(views.card, stack, REDDiff())


def test_a_condition_begins_without_effect(tmp_path: Path) -> None:
    """A network that starts from a prior is that prior, whatever it is given."""
    stir(trained(recipe(tmp_path, least_squares=False), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    prior = registry.load(str(tmp_path / "tiny.yaml"))
    network = registry.new_network(recipe(tmp_path))
    start_from(network, str(tmp_path / "tiny.yaml"))
    x = as_channels(discs().abs() + 0.1)
    streaks = x.roll(12, 2)
    prior.network.engine = None
    with torch.no_grad():
        mine, started = prior.network(x, torch.tensor([0.2])), network(x, torch.tensor([0.2]), streaks)
    assert torch.allclose(mine, started, atol=1e-5) and float((mine - x).abs().max()) > 1e-3


@pytest.mark.parametrize("method", [DiffPIR(steps=4, start="classical"), REDDiff(steps=4)])
def test_a_solver_gives_every_slice_its_own_condition(prior: NetworkPrior, method: DiffPIR | REDDiff) -> None:
    problem, _ = scanned(views=12, slices=5)
    whole = run(solvers.start(problem, method, prior=prior, intensity=AXIS))
    part = run(solvers.start(problem.part(3, 5), method, prior=prior, intensity=AXIS))
    assert torch.allclose(part, whole[3:], atol=1e-6)
    # The condition has a say: that of other slices gives another image.
    condition = conditioning.least_squares(problem, AXIS)
    x = torch.zeros_like(condition)
    mine, other = (Given(prior, c).denoise(x, 0.3) for c in (condition, condition.flip(0)))
    assert float((mine - other).abs().max()) > 1e-3
    index = torch.tensor([4, 1])
    assert torch.equal(Given(prior, condition).denoise(x, 0.3, index=index), mine[index])


def test_chunks_have_the_conditions_of_their_slices(prior: NetworkPrior, tmp_path: Path) -> None:
    """Also where rays are weighted by their noise, and where evaluations are skipped."""
    problem, _ = scanned(views=12, slices=20, noise=0.01)
    inverse_std = torch.rand(problem.data.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    problem = replace(problem, inverse_std=inverse_std)
    method = REDDiff(steps=6, skip_threshold=10.0)
    before = prior.evaluations
    start = partial(solvers.start, settings=method, prior=prior, intensity=AXIS)
    whole = run(start(problem))
    assert prior.evaluations - before < 20 * 2 * 6
    cut = finished(chunks.solve(problem, method, start, ChunkCache(tmp_path / "cache"), "key", 6))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4
    assert float((cut - whole).abs().max()) < 1e-5 * float(whole.max() - whole.min())


def finished(steps: chunks.Steps[Tensor]) -> Tensor:
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

    for name in ("diffpir", "red-diff", "dds", "diffusion-mbir"):
        report = run_job(spec(name), local_files(spec(name)), tmp_path / name)
        assert report.prior is not None and report.prior["least_squares"] is True and report.network_evaluations > 0
        # Which cannot tell what it has not seen: the usual prior is asked.
        assert report.familiarity is not None and report.familiarity.judge == "ct"
    with pytest.raises(InputError, match=r"method\.prior: .*dps takes none"):
        run_job(spec("dps"), local_files(spec("dps")), tmp_path / "dps")


def test_settings_found_with_another_prior_are_for_those_who_name_it(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of the table may name a prior: job and report agree on whose it is."""

    def row(**settings: Any) -> Tuned:
        return Tuned(
            kind="ct-parallel", task="-", pattern="full", noisy=False, undersampling=3.0, method="red-diff",
            settings=settings, psnr=1, psnr_before=0,
        )  # fmt: skip

    monkeypatch.setattr(
        table, "installed", lambda: Table(command="-", tuned=[row(prior=str(card), steps=2), row(steps=3)])
    )
    rows, cols, _ = np.mgrid[-1:1:32j, -1:1:32j, 0:2]
    water = np.where(rows**2 + cols**2 < 0.6, 0.0, -1000.0).astype(np.float32)
    nib.save(nib.Nifti1Image(water, np.eye(4)), tmp_path / "water.nii.gz")
    known = {"path": str(tmp_path / "water.nii.gz"), "simulate": {"views": 10}}
    for method, expected, steps in (
        ({"name": "red-diff", "prior": str(card)}, "tiny", 2),
        ("red-diff", "ct", 3),
        ({"name": "red-diff", "prior": "ct", "steps": 2}, "ct", 2),
    ):
        spec = job(input=known, acquisition="ct-parallel", method=method, output={"baselines": []})
        report = run_job(spec, local_files(spec), tmp_path / f"{expected}-{steps}")
        assert report.prior is not None and report.prior["name"] == expected
        assert report.method["steps"] == steps
        assert expected == "ct" or Path(report.method["prior"]).stem == expected


def test_a_prior_for_super_resolution_serves_other_solvers_too(tmp_path: Path) -> None:
    stir(trained(tiny(tmp_path, super_resolution=2), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    image = np.random.default_rng(0).random((32, 32, 2)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "brain.nii.gz")

    def spec(factor: int) -> Any:
        known = {"path": str(tmp_path / "brain.nii.gz"), "simulate": {}}
        method = {"name": "red-diff", "prior": str(tmp_path / "tiny.yaml"), "steps": 2}
        acquisition = {"kind": "mri-superresolution", "factor": factor}
        return job(input=known, acquisition=acquisition, method=method, output={"baselines": []})

    report = run_job(spec(2), local_files(spec(2)), tmp_path / "x2")
    assert report.prior is not None and report.prior["super_resolution"] == 2
    with pytest.raises(InputError, match=r"method\.prior: .*x2 less resolution, the data are x4"):
        run_job(spec(4), local_files(spec(4)), tmp_path / "x4")


def test_a_prior_of_any_factor_is_told_the_one_of_the_stack(tmp_path: Path) -> None:
    stir(trained(tiny(tmp_path, factors=[2.0, 4.0]), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    image = np.random.default_rng(0).random((32, 30, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "brain.nii.gz")
    chosen = str(tmp_path / "tiny.yaml")

    def spec(name: str, **acquisition: Any) -> Any:
        known = {"path": str(tmp_path / "brain.nii.gz"), "simulate": {}}
        method = {"name": name, "prior": chosen, "steps": 2}
        kind = {"kind": "mri-superresolution", **acquisition}
        return job(input=known, acquisition=kind, method=method, output={"baselines": []})

    for name in ("red-diff", "boundary"):
        for acquisition in ({"factor": 2.5}, {"factor": 2, "direction": "slices"}):
            some = spec(name, **acquisition)
            report = run_job(some, local_files(some), tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}")
            assert report.prior is not None and report.prior["factors"] == [2.0, 4.0]
    with pytest.raises(InputError, match=r"method\.prior: .*needs an image of x2 to x4 less .*, the data are x5"):
        run_job(spec("boundary", factor=5), local_files(spec("boundary", factor=5)), tmp_path / "x5")
    assert registry.load(chosen).at((2.0, 1.0)).factors == (2.0, 1.0)
    with pytest.raises(InputError, match="which this acquisition does not give"):
        registry.load(chosen).at(None)


def test_recipes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for changes in ({"modality": "mri"}, {"complex": True}, {"complex": True, "super_resolution": 2}):
        for scanned in ({}, {"least_squares": False, "solved": True}):
            with pytest.raises(ValidationError, match="least_squares, solved: for real CT priors only"):
                recipe(tmp_path, **changes, **scanned)


def test_a_card_that_asks_for_the_least_squares_image_of_k_space_is_refused(card: Path) -> None:
    other = card.with_name("other.yaml")
    text = card.read_text().replace("modality: ct", "modality: mri")
    other.write_text(text.replace("complex: false", "complex: true"))
    with pytest.raises(InputError, match=r"method\.prior: other\.yaml .*least_squares: for real CT priors only"):
        registry.card_of(str(other))


def test_the_older_name_of_the_condition_is_understood(card: Path) -> None:
    text = card.read_text()
    assert "least_squares: true" in text
    older = card.with_name("older.yaml")
    older.write_text(text.replace("least_squares: true", "projections: true"))
    assert registry.card_of(str(older)).least_squares


def test_what_says_that_it_sees_no_neighbours_is_still_read(card: Path, tmp_path: Path) -> None:
    """Cards and recipes had a setting for them once; a prior that was trained to see some is none for one slice."""
    older = card.with_name("older.yaml")
    older.write_text(card.read_text() + "neighbours: 0\n")
    assert registry.card_of(str(older)) == registry.card_of(str(card))
    assert recipe(tmp_path, neighbours=0) == recipe(tmp_path)
    older.write_text(card.read_text() + "neighbours: 1\n")
    with pytest.raises(InputError, match=r"method\.prior: older\.yaml .*neighbours: 1, but priors see one slice"):
        registry.card_of(str(older))
    with pytest.raises(ValidationError, match="neighbours: 1, but priors see one slice at a time"):
        recipe(tmp_path, neighbours=1)
