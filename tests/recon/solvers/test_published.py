"""Solvers as published, step by step, and noise that is frozen for every slice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from operators.differences import gradient_z, gradient_z_adjoint
from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.defaults.frozen_noise import Analysis, NoiseFile, of_settings
from recon.priors import registry as priors
from recon.priors.noise import SliceNoise
from recon.problem.problem import IntensityMap, Problem, Progress, run
from recon.solvers import registry
from recon.solvers.published import ADMM_PENALTY, ADMM_THRESHOLD, MRI_PENALTY, MRI_THRESHOLD
from recon.spec.methods import DDS, DiffusionMBIR, REDDiff
from tests.conftest import GaussianPrior, disc
from tests.recon.solvers.test_solvers import _Blur, angles

AXIS = IntensityMap(0.025, 0.025)


def scan(slices: int = 1, noise_std: float = 0.0) -> Problem:
    """Six views of discs that shrink along z, which no method can complete from the data alone."""
    operator = Tomography(ParallelBeam(24, 24, 1.0, angles(6), 40, 1.0))
    truth = torch.cat([0.02 * disc(24, 1.0, 8.0 - index) for index in range(slices)])
    return Problem(operator, operator(truth), noise_std=noise_std, slice_mm=2.0)


def dense(problem: Problem) -> tuple[Tensor, Tensor]:
    """The matrix of norm one, and the data ``(slices, rays)`` on the prior's scale; float64."""
    operator = problem.operator
    pixels = operator.domain.shape[0] * operator.domain.shape[1]
    columns = operator(torch.eye(pixels).reshape(pixels, *operator.domain.shape)).flatten(1)
    data = (problem.data - operator(AXIS.to_physical(problem.zeros()))).flatten(1)
    norm = float(operator.norms)
    return columns.T.double() / norm, data.double() / norm / AXIS.scale


def textbook(matrix: Tensor, right: Tensor, x: Tensor, iterations: int) -> Tensor:
    """Conjugate gradients for ``matrix x = right`` as they are printed; one vector."""
    residual = right - matrix @ x
    direction = residual
    for _ in range(iterations):
        step = residual @ residual / (direction @ matrix @ direction)
        x = x + step * direction
        following = residual - step * (matrix @ direction)
        direction = following + (following @ following) / (residual @ residual) * direction
        residual = following
    return x


def volumes(problem: Problem, settings: DDS | DiffusionMBIR) -> list[Tensor]:
    """The volume after each step, on the prior's scale."""
    steps: list[Progress] = []
    run(registry.start(problem, settings, prior=_Blur(0, 1), intensity=AXIS, seed=5), steps.append)
    return [AXIS.to_prior(step.volume) for step in steps]


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_dds_takes_the_published_steps(noise_std: float) -> None:
    """Five iterations on the data from the estimate; with noise on ``I + gamma A^H A``."""
    problem = scan(noise_std=noise_std)
    settings = DDS(preset="paper")
    found = volumes(problem, settings)
    matrix, data = dense(problem)
    normal, back = matrix.T @ matrix, data[0] @ matrix
    noise, prior, levels = SliceNoise(5, 1), _Blur(0, 1), settings.sigmas()
    x = AXIS.to_prior(problem.zeros())
    x = x + levels[0] * noise.draw(x)
    for step in range(2):
        clean = prior.denoise(x, levels[step])
        v = clean.flatten().double()
        anchor, anchored = (torch.eye(len(v)), v) if noise_std else (0.0, 0.0)
        u = textbook(normal + anchor, back + anchored, v, 5)
        expected = u.reshape(clean.shape).float()
        assert torch.allclose(found[step], expected, atol=2e-4)
        assert not torch.allclose(found[step], clean, atol=1e-2)
        # 0.5 of the next level's noise is fresh, the rest is what the denoiser found.
        seen = (x - clean) / levels[step]
        x = expected + levels[step + 1] * (0.5 * noise.draw(x) + 0.75**0.5 * seen)


@pytest.mark.parametrize("method", ["dds", "diffusion-mbir"])
def test_the_published_sweeps_along_z(method: str) -> None:
    """Two steps: conjugate gradients from the estimate, soft threshold, and variables that persist."""
    problem = scan(slices=3)
    is_dds = method == "dds"
    settings = DDS(preset="paper-3d") if is_dds else DiffusionMBIR(preset="paper")
    found = volumes(problem, settings.model_copy(update={"steps": 20}))
    levels = settings.model_copy(update={"steps": 20}).sigmas()
    matrix, data = dense(problem)
    pixels = matrix.shape[1]
    eye = torch.eye(3 * pixels, dtype=torch.float64).reshape(-1, 3, pixels, 1)
    differences = torch.stack([gradient_z(e) for e in eye]).flatten(1).T
    stacked = torch.block_diag(*[matrix] * 3)
    normal = stacked.T @ stacked + ADMM_PENALTY * differences.T @ differences
    back = data.flatten() @ stacked
    d = u = torch.zeros(3 * pixels, dtype=torch.float64)
    noise, prior = SliceNoise(5, 3), _Blur(0, 1)
    x = AXIS.to_prior(problem.zeros()) if is_dds else torch.zeros_like(problem.zeros())
    x = x + levels[0] * noise.draw(x)
    for step in range(2):
        sigma, following = levels[step], levels[step + 1]
        if is_dds:
            clean = prior.denoise(x, sigma)
        else:
            drop = sigma**2 - following**2
            clean = x + drop / sigma**2 * (prior.denoise(x, sigma) - x) + drop**0.5 * noise.draw(x)
            score = (prior.denoise(clean, sigma) - clean) / sigma**2
            fresh = noise.draw(x)
            ratio = torch.stack([a.norm() / b.norm() for a, b in zip(fresh, score, strict=True)]).reshape(-1, 1, 1)
            length = 2 * (0.16 * ratio) ** 2
            clean = clean + length * score + (2 * length).sqrt() * fresh
        right = back + ADMM_PENALTY * differences.T @ (d - u)
        v = textbook(normal, right, clean.flatten().double(), 5 if is_dds else 1)
        slope = differences @ v + u
        d = torch.nn.functional.softshrink(slope, ADMM_THRESHOLD)
        u = slope - d
        expected = v.reshape(x.shape).float()
        assert torch.allclose(found[step], expected, rtol=1e-4, atol=1e-3)
        seen = (x - clean) / sigma
        x = expected + following * (0.5 * noise.draw(x) + 0.75**0.5 * seen) if is_dds else expected
    assert float(d.abs().max()) > 0  # the threshold does not take it all
    z = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert float((gradient_z(z[0]) * z[1]).sum()) == pytest.approx(
        float((z[0] * gradient_z_adjoint(z[1])).sum()), rel=1e-4
    )


def test_published_diffusion_mbir_ends_with_an_algebraic_step() -> None:
    """Simultaneous algebraic reconstruction: residuals over the lengths of the rays that carry them."""
    problem = scan(slices=2)
    settings = DiffusionMBIR(preset="paper", steps=30)

    def solve(settings: DiffusionMBIR) -> Tensor:
        return AXIS.to_prior(run(registry.start(problem, settings, prior=_Blur(0, 1), intensity=AXIS, seed=5)))

    before = solve(settings.model_copy(update={"consistency": False})).flatten(1).double()
    matrix, data = dense(problem)
    rows = matrix.T @ (matrix @ torch.ones(matrix.shape[1], dtype=torch.float64))
    expected = before + torch.where(rows > 1e-6, (data - before @ matrix.T) @ matrix / rows.clamp(min=1e-6), 0.0)
    assert torch.allclose(solve(settings).flatten(1).double(), expected, rtol=1e-3, atol=1e-3)


SEEDED = [DDS(steps=4), DDS(steps=4, eta=0.0), REDDiff(steps=4), DiffusionMBIR(steps=4)]


@pytest.mark.parametrize("settings", SEEDED, ids=lambda s: s.name)
def test_one_seed_one_result(settings: DDS | REDDiff | DiffusionMBIR) -> None:
    problem = scan()

    def solve(seed: int) -> Tensor:
        return run(registry.start(problem, settings, prior=_Blur(0, 1), intensity=AXIS, seed=seed))

    assert torch.equal(solve(1), solve(1))
    assert not torch.equal(solve(1), solve(2))


@pytest.mark.parametrize("settings", SEEDED, ids=lambda s: s.name)
def test_frozen_noise_is_the_same_in_every_slice_and_chunk(settings: DDS | REDDiff | DiffusionMBIR) -> None:
    operator = Tomography(ParallelBeam(24, 24, 1.0, angles(6), 40, 1.0))
    one = operator(0.02 * disc(24, 1.0, 8.0))
    problem = Problem(operator, one.repeat(3, 1, 1))
    alone = settings.model_copy(update={"tv_z_weight": 0.0})

    def solve(problem: Problem, frozen_noise: str | None) -> Tensor:
        frozen = alone.model_copy(update={"frozen_noise": frozen_noise})
        return run(registry.start(problem, frozen, prior=_Blur(0, 1), intensity=AXIS, seed=3))

    same, own = solve(problem, "random"), solve(problem, None)
    assert torch.equal(same[0], same[2]) and not torch.equal(own[0], own[2])
    assert torch.equal(solve(problem.part(1, 3), "random"), same[1:])


def test_a_file_of_noise_gives_its_seed_to_its_method_only(tmp_path: Path) -> None:
    card = priors.card_of("ct")
    settings = REDDiff(steps=4)
    analysis = Analysis(noise_std=0.1, interaction_std=0.1, share=0.5, expected_gain=0.1)
    path = tmp_path / "noise.yaml"
    NoiseFile(
        seed=77, method=settings.model_dump(mode="json"), prior=card.name, prior_sha256=card.sha256, scans=["plane"],
        tasks=[], reference=[], slices=2, metric="nrmse", errors={77: 0.1, 78: 0.2}, analysis=analysis,
        command="recon search-noise",
    ).write(path)  # fmt: skip
    named = settings.model_copy(update={"frozen_noise": str(path)})
    random = settings.model_copy(update={"frozen_noise": "random"})
    assert of_settings(named, card, "plane", 5) == (77, str(path), None)
    assert of_settings(random, card, "plane", 5) == (5, "random", None)
    assert of_settings(settings, card, "plane", 5) is None  # every slice has its own
    for other, known, scanned, seed, says in (
        (DDS(steps=4, frozen_noise=str(path)), card, "plane", 0, "usual one: .* searched for red-diff"),
        (REDDiff(steps=5, frozen_noise=str(path)), card, "plane", 77, "searched with another steps"),
        (named, card, scan().operator.scan, 77, "searched for plane; the data are of 6 parallel views"),
        (named, None, "plane", 0, "usual one: .* searched for other weights of 'ct'"),
    ):
        found = of_settings(other, known, scanned, 5)
        assert found is not None and found.seed == seed and re.search(says, found.note or "")


def test_diffusion_mbir_has_constants_of_its_own_for_mri() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(3, 16, 16, dtype=torch.complex64, generator=generator)
    operator = CartesianMRI(torch.rand(16, 16, generator=generator) < 0.5, torch.ones(1, 16, 16, dtype=torch.complex64))
    prior = GaussianPrior(0.0, 1.0, is_complex=True)

    def solve(**given: float) -> Tensor:
        settings = DiffusionMBIR(preset="paper", steps=3, sigma_first=2.0, sigma_last=0.1, **given)
        return run(
            registry.start(Problem(operator, operator(truth)), settings, prior=prior, intensity=IntensityMap(1.0, 0.0))
        )

    assert torch.equal(solve(), solve(penalty=MRI_PENALTY, threshold=MRI_THRESHOLD))
    assert not torch.allclose(solve(), solve(penalty=ADMM_PENALTY, threshold=ADMM_THRESHOLD), atol=1e-3)
