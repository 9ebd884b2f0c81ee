"""Diffusion solvers: closed forms, the published step, presets, total variation between slices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import recon
from operators.differences import gradient_z, gradient_z_adjoint
from operators.errors import InputError
from operators.fourier import CartesianMRI, fourier
from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.priors.noise import SliceNoise
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, Progress, run
from recon.solvers import red_diff, registry
from recon.spec.job import JobSpec
from recon.spec.methods import (
    DDS,
    DPS,
    DiffPIR,
    DiffusionMBIR,
    REDDiff,
)
from tests.conftest import SAMPLES, GaussianPrior, disc
from tests.recon.solvers.test_solvers import Identity, _Blur, angles, half_measured, nrmse_complex

RED = REDDiff(steps=100, sigma_first=2.0, sigma_last=0.02, start="classical", average=0.1)
FAST = DiffusionMBIR(steps=200, sigma_first=5.0, sigma_last=0.01, eta=0.15, start="classical", tv_z_weight=1e-6)


def test_a_step_projects_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven projections a step for three iterations, nine for the four of coupled slices; a misfit takes one more."""
    operator = Tomography(ParallelBeam(32, 32, 1.0, angles(20), 50, 1.0))
    truth = 0.02 * disc(32, 1.0, 10.0).repeat(2, 1, 1)
    problem = Problem(operator, operator(truth))
    prior, intensity = GaussianPrior(-1.0, 0.1), IntensityMap(0.02, 0.02)
    _ = operator.norms, operator.spectrum(), problem.scales
    applied: list[str] = []
    project = Tomography._apply

    def counted(self: Tomography, x: Tensor, shape: tuple[int, ...], *, adjoint: bool) -> Tensor:
        applied.append("back" if adjoint else "forward")
        return project(self, x, shape, adjoint=adjoint)

    monkeypatch.setattr(Tomography, "_apply", counted)

    def looked(progress: Progress) -> None:
        _ = progress.data_misfit

    def projections(steps: int, *, looked_at: bool = False, tv_z_weight: float = 0.0) -> int:
        applied.clear()
        solver = registry.start(
            problem, DiffPIR(steps=steps, tv_z_weight=tv_z_weight), prior=prior, intensity=intensity
        )
        run(solver, looked if looked_at else None)
        return len(applied)

    for tv_z_weight, each in ((0.0, 7), (0.1, 9)):
        fewer, more = (projections(steps, tv_z_weight=tv_z_weight) for steps in (4, 9))
        assert more - fewer == 5 * each
    assert projections(4, looked_at=True) - projections(4) == 4 + 1  # and the start


@pytest.mark.parametrize("more", [{}, {"start": "zero"}, {"sigma_x0": 0.02}], ids=str)
def test_red_diff_with_a_gaussian_prior_finds_the_posterior_mean(more: dict[str, Any]) -> None:
    """Like the diffpir solver; what noise its draws leave is averaged away."""
    operator, mask, truth = half_measured()
    prior, settings = GaussianPrior(0.5, 0.09, is_complex=True), RED.model_copy(update=more)
    found = run(
        registry.start(
            Problem(operator, operator(truth)), settings, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=3
        )
    )
    expected = torch.where(mask, fourier(truth), fourier(torch.full_like(truth, 0.5)))
    assert nrmse_complex(fourier(found)[:, mask], expected[:, mask]) < 0.01
    assert nrmse_complex(fourier(found), expected) < 0.06


@pytest.mark.parametrize("times", [2.0, red_diff.PNP_TIMES])
def test_plug_and_play_steps_end_at_the_posterior_mean_of_a_noisy_image(
    times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the level it works at; the descent alone ends elsewhere. Slices do not depend on each other."""
    monkeypatch.setattr(red_diff, "PNP_TIMES", times)
    y = 0.5 + 0.3 * torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(1))
    prior, assumed = GaussianPrior(0.5, 0.04), 0.2 * red_diff.PNP_FRACTION
    expected = 0.5 + 0.04 / (0.04 + assumed**2) * (y - 0.5)

    def found(pnp_steps: int, first: int = 0, last: int = 3) -> Tensor:
        problem = Problem(Identity(24, 24), y, noise_std=0.2).part(first, last)
        settings = REDDiff(steps=5, pnp_steps=pnp_steps)
        return run(registry.start(problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=2))

    with_pnp = found(100)
    assert float((with_pnp - expected).abs().max()) < 4e-3 < 2e-2 < float((found(0) - expected).abs().max())
    assert torch.equal(found(100, 1, 2), with_pnp[1:2])


def test_diffusion_mbir_with_a_gaussian_prior_samples_the_posterior() -> None:
    operator, mask, truth = half_measured()
    prior = GaussianPrior(0.5, 0.09, is_complex=True)
    problem = Problem(operator, operator(truth))
    found = fourier(run(registry.start(problem, FAST, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=1)))
    assert nrmse_complex(found[:, mask], fourier(truth)[:, mask]) < 1e-2
    # One sweep a step holds on to the last step's differences between slices, which costs some spread.
    free = (found - fourier(torch.full_like(truth, 0.5)))[:, ~mask]
    assert 0.23 < float(free.real.std()) < 0.32


def test_published_diffusion_mbir_meets_data_and_keeps_the_priors_spread() -> None:
    operator, mask, truth = half_measured()
    settings = DiffusionMBIR(preset="paper", steps=400, sigma_first=20.0, threshold=0.0, penalty=1e-6)
    prior = GaussianPrior(0.5, 0.09, is_complex=True)
    problem = Problem(operator, operator(truth))
    found = fourier(run(registry.start(problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=1)))
    assert nrmse_complex(found[:, mask], fourier(truth)[:, mask]) < 1e-2
    free = (found - fourier(torch.full_like(truth, 0.5)))[:, ~mask]
    assert float(free.real.std()) == pytest.approx(0.3, rel=0.15)


def test_dps_with_a_gaussian_prior_approaches_the_data() -> None:
    operator, mask, truth = half_measured()
    settings = DPS(steps=300, sigma_first=5.0, sigma_last=0.01, scale=1.0)
    prior = GaussianPrior(0.5, 0.09, is_complex=True)
    problem = Problem(operator, operator(truth))
    found = fourier(run(registry.start(problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=1)))
    assert nrmse_complex(found[:, mask], fourier(truth)[:, mask]) < 0.1
    free = (found - fourier(torch.full_like(truth, 0.5)))[:, ~mask]
    assert float(free.real.std()) == pytest.approx(0.3, rel=0.15)


def test_red_diff_takes_the_published_step() -> None:
    """One step of Adam on the published losses, by automatic differentiation in the variance-preserving view."""
    operator = Tomography(ParallelBeam(24, 24, 1.0, angles(6), 40, 1.0))
    truth = 0.02 * disc(24, 1.0, 8.0)
    problem, intensity, prior = Problem(operator, operator(truth)), IntensityMap(0.025, 0.025), _Blur(0, 1)
    steps: list[Progress] = []
    settings = REDDiff(preset="paper", steps=500)
    run(registry.start(problem, settings, prior=prior, intensity=intensity, seed=5), steps.append)
    start, first, second = steps[-501].volume, steps[-500].volume, steps[-499].volume

    levels = settings.sigmas()
    noise = SliceNoise(5, 1)
    mu = intensity.to_prior(start).requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.1, betas=(0.9, 0.99))
    norm = float(operator.norms)
    data = (problem.data - operator.forward(intensity.to_physical(torch.zeros_like(truth)))) / intensity.scale / norm
    for sigma, expected in zip(levels[:2], (first, second), strict=True):
        abar = 1 / (1 + sigma**2)
        n = noise.draw(mu.detach())
        x_t = abar**0.5 * mu + (1 - abar) ** 0.5 * n
        with torch.no_grad():
            clean = prior.denoise(x_t / abar**0.5, sigma)
            seen = (x_t - abar**0.5 * clean) / (1 - abar) ** 0.5
        loss = 0.5 * (data - operator.forward(mu) / norm).square().mean()
        loss = loss + 0.25 * sigma * ((seen - n).detach() * mu).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert torch.allclose(intensity.to_prior(expected), mu.detach(), atol=1e-5)


def test_means_are_over_what_was_measured() -> None:
    """Half of k-space unsampled, or left out of the data: the published losses are the same."""
    _, mask, truth = half_measured()
    lines = CartesianMRI(mask[:, :1].expand(-1, 48).clone(), torch.ones(1, 48, 48, dtype=torch.complex64))
    problem, seen = Problem(lines, lines(truth)), int(lines.mask.sum())
    settings = REDDiff(preset="paper")
    adam = red_diff._Adam(problem, DataStep.of(problem, IntensityMap(1.0, 0.0), settings), settings)
    zero = torch.zeros_like(truth)
    adam(zero, zero, zero, 1.0, 0)
    assert adam.first is not None
    slope = 10 * torch.view_as_complex(adam.first)  # Adam has seen a tenth of the gradient
    mu = torch.view_as_real(zero).requires_grad_()
    found = lines.forward(torch.view_as_complex(mu))[:, :, lines.mask[0]]
    loss = 0.5 * torch.view_as_real(found - lines(truth)[:, :, lines.mask[0]]).square().sum((1, 2, 3)) / (2 * seen)
    loss.sum().backward()
    assert mu.grad is not None
    assert torch.allclose(slope, torch.view_as_complex(mu.grad), atol=1e-8)


def test_red_diff_weightings() -> None:
    expected = {"linear": 4.0, "sqrt": 2.0, "square": 16.0, "log": math.log(5), "trunc-linear": 1.0, "const": 1.0}
    assert {kind: red_diff.weight(kind, 4.0) for kind in expected} == expected


def test_presets_fill_in_and_give_way() -> None:
    paper = REDDiff.model_validate({"preset": "paper", "steps": 20})
    assert (paper.update, paper.steps, paper.rate) == ("adam", 20, 0.1)
    assert (REDDiff().update, REDDiff().rate, REDDiff(update="adam").rate) == ("proximal", 1.0, 0.1)
    assert DiffusionMBIR(preset="paper").steps == 2000
    assert DDS(preset="paper").gamma == 1.0
    assert DDS.model_validate(DDS(preset="paper").model_dump()) == DDS(preset="paper")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "red-diff", "decay": "cosine"}, "decay has no effect with update: proximal"),
        ({"name": "red-diff", "preset": "paper", "tv_z_weight": 1}, "tv_z_weight has no effect with update: adam"),
        (
            {"name": "red-diff", "preset": "paper", "update": "proximal", "weighting": "sqrt"},
            "weighting has no effect with update: proximal",
        ),
        ({"name": "diffusion-mbir", "snr": 0.2}, "snr has no effect with preset: fast"),
        ({"name": "dps", "sigma_first": 0.01}, r"sigma_last 0\.01 must be below sigma_first 0\.01"),
        ({"name": "dds", "schedule": "ddpm", "steps": 2000}, "the ddpm schedule has 1000 times"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        JobSpec.parse({"input": "a.npy", "acquisition": "ct-parallel", "method": settings})


def test_sweeps_along_z_find_the_minimiser() -> None:
    """Against projected gradients on the dual problem; data and anchor of a denoising problem are one anchor."""
    generator = torch.Generator().manual_seed(0)
    data, v = torch.randn(2, 6, 4, 5, generator=generator)
    problem = Problem(Identity(4, 5), data, slice_mm=2.0, pixel_mm=1.0)
    sigma, s, tv_z_weight = 0.5, 0.7, 0.3
    fit = DataStep(problem, IntensityMap(1.0, 0.0), s, 40, tv_z_weight)
    for _ in range(300):
        found = fit(v, sigma)
    stiffness = 1 / s**2 + 1 / sigma**2
    middle = (data / s**2 + v / sigma**2) / stiffness
    weight, along = tv_z_weight / sigma / stiffness, 0.5
    dual = torch.zeros_like(v)
    for _ in range(4000):
        slope = along * gradient_z(middle - weight * along * gradient_z_adjoint(dual))
        dual = (dual + slope / weight).clamp(-1, 1)
    expected = middle - weight * along * gradient_z_adjoint(dual)
    assert (found - expected).abs().max() < 2e-4
    assert not torch.allclose(expected, middle, atol=0.05)


def test_the_ends_of_a_volume_are_no_neighbours() -> None:
    volume = torch.zeros(5, 8, 8)
    volume[0] = 1.0
    assert not gradient_z(volume)[-1].any()
    problem = Problem(Identity(8, 8), volume)
    fit = DataStep(problem, IntensityMap(1.0, 0.0), 1.0, 20, 0.3)
    for _ in range(50):
        found = fit(volume, 1.0)
    # One jump, between the first two slices; ends that met would make it two and pull the first down to 0.7.
    assert found[:, 0, 0].tolist() == pytest.approx([0.85] + [0.15 / 4] * 4, abs=1e-4)


@pytest.mark.parametrize("zeta", [0.0, 0.25, 1.0])
def test_diffpir_adds_its_share_of_fresh_noise(zeta: float) -> None:
    """Without data to hold on to, one step denoises ``sqrt(zeta) sigma n``, and nothing else is drawn."""
    operator = Tomography(ParallelBeam(16, 16, 1.0, (0.0, 1.0), 24, 1.0))
    problem = Problem(operator, operator(torch.ones(2, 16, 16)), noise_std=1e9)
    settings = DiffPIR(steps=1, sigma_first=0.5, zeta=zeta, start="zero")
    prior, intensity = GaussianPrior(0.0, 1.0), IntensityMap(1.0, 0.0)
    found = run(registry.start(problem, settings, prior=prior, intensity=intensity, seed=4))
    (sigma,) = settings.sigmas()
    drawn = SliceNoise(4, 2).draw(problem.zeros())
    assert torch.allclose(found, zeta**0.5 * sigma * drawn / (1 + sigma**2), atol=1e-5)


@pytest.mark.parametrize("name", ["red-diff", "dds"])
def test_no_pixel_alternates_from_slice_to_slice(name: str) -> None:
    """Data steps that stop early must not leave behind what alternates: it grew into bright and dark dots in bone."""
    body = SAMPLES / "ct_body.nii.gz"
    scan = recon.simulate(body, "ct-parallel", slices=(58, 62), views=60, photons_per_ray=1e5)
    found = recon.reconstruct(scan, method={"name": name}, baselines=[], progress=False).volume
    detail = found - ndimage.median_filter(found, (1, 3, 3))
    bone = detail[:, 40:55, 50:70].reshape(4, -1)
    alike = [np.corrcoef(bone[k], bone[k + 1])[0, 1] for k in range(3)]
    assert np.mean(alike) > 0.2, alike
