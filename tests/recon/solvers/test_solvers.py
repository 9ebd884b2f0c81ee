"""Solvers: units, closed forms, independence of slices and seeds, and refusal to hide failure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.differences import gradient, gradient_adjoint
from operators.errors import Diverged, InputError
from operators.fbp import filtered_back_projection, view_weights
from operators.fourier import CartesianMRI, fourier
from operators.geometry import FanBeam, ParallelBeam
from operators.linear import LinearOperator, Space
from operators.tomography import Tomography
from recon.problem.data_step import DataStep
from recon.problem.mri_cartesian import birdcage_maps
from recon.problem.problem import IntensityMap, Problem, Progress, check_finite, robust_maximum, run
from recon.quality.metrics import nrmse, psnr, ssim
from recon.solvers import registry, tv
from recon.spec.methods import (
    CGLS,
    DDS,
    DPS,
    FBP,
    SIRT,
    TV,
    CGSense,
    DiffPIR,
    Diffusion,
    DiffusionMBIR,
    REDDiff,
    ZeroFilled,
)
from tests.conftest import GaussianPrior, disc


def angles(views: int, span: float = math.pi) -> tuple[float, ...]:
    return tuple(np.linspace(0, span, views, endpoint=False).tolist())


GEOMETRIES: dict[str, ParallelBeam] = {
    "parallel": ParallelBeam(96, 80, 0.7, angles(120), 150, 0.7),
    "whole turn": ParallelBeam(96, 80, 0.7, angles(241, 2 * math.pi), 150, 0.7),
    "off centre": ParallelBeam(96, 80, 0.7, angles(120), 170, 0.6, detector_shift_mm=4.3),
    "fan": FanBeam(96, 80, 0.7, angles(240, 2 * math.pi), 230, 0.8, source_origin_mm=200, origin_detector_mm=150),
    "fan off centre": FanBeam(
        96, 80, 0.7, angles(240, 2 * math.pi), 240, 0.8, 3.1, source_origin_mm=200, origin_detector_mm=150
    ),
}  # fmt: skip


def phantom() -> Tensor:
    """Two discs of 0.02 and 0.03 per mm, off the middle, ``(1, 96, 80)``."""
    image = 0.02 * disc(96, 0.7, 12.0, x_mm=8.0, y_mm=5.0) + 0.03 * disc(96, 0.7, 5.0, x_mm=-12.0, y_mm=-16.0)
    return image[:, :, 8:88]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_fbp_returns_attenuation_in_place(name: str) -> None:
    geometry = GEOMETRIES[name]
    truth = phantom()
    found = filtered_back_projection(Tomography(geometry)(truth), geometry)
    assert found.is_contiguous()  # iterations that start here would keep another layout, and be slow
    core = -torch.nn.functional.max_pool2d(-(truth == 0.02).float(), 7, stride=1, padding=3)[0] > 0.5
    assert float(found[0][core].mean()) == pytest.approx(0.02, rel=0.005)
    error = (found - truth).square().mean()
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert error < 0.2 * (found.roll(shift, (1, 2)) - truth).square().mean()


def test_fbp_weights_views_by_the_angle_they_stand_for() -> None:
    uneven = tuple(sorted(angles(60) + angles(60)[:20]))  # a third of the turn measured twice
    geometry = ParallelBeam(96, 80, 0.7, uneven, 150, 0.7)
    assert float(view_weights(geometry).sum()) == pytest.approx(math.pi, rel=1e-5)
    truth = phantom()
    found = filtered_back_projection(Tomography(geometry)(truth), geometry)
    core = -torch.nn.functional.max_pool2d(-(truth == 0.02).float(), 7, stride=1, padding=3)[0] > 0.5
    assert float(found[0][core].mean()) == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("digits", [6, 15])
def test_views_half_a_turn_apart_share_their_weight(digits: int) -> None:
    """Rounded angles coincide only nearly; limited angle keeps each view's usual share at its ends."""
    whole = tuple(round(a, digits) for a in angles(720, 2 * math.pi))
    assert float(view_weights(ParallelBeam(96, 80, 0.7, whole, 150, 0.7)).sum()) == pytest.approx(math.pi, rel=1e-3)
    limited = view_weights(ParallelBeam(96, 80, 0.7, angles(60, math.pi / 2), 150, 0.7))
    assert limited.numpy() == pytest.approx(math.pi / 120, rel=1e-3)


@pytest.mark.usefixtures("all_cores")
@pytest.mark.parametrize("name", ["parallel", "off centre", "fan", "fan off centre"])
@pytest.mark.parametrize("settings", [SIRT(iterations=60), CGLS(iterations=12)], ids=["sirt", "cgls"])
def test_astras_iterative_methods_converge_to_the_attenuation(name: str, settings: SIRT | CGLS) -> None:
    truth = torch.cat([phantom(), torch.zeros(1, 96, 80), 2 * phantom()])
    operator = Tomography(GEOMETRIES[name])
    steps: list[Progress] = []
    found = run(registry.start(Problem(operator, operator(truth)), settings), steps.append)
    assert steps[-1].data_misfit < 0.02 < steps[0].data_misfit * 5
    assert nrmse(found.numpy(), truth.numpy()) < 0.35
    assert not found[1].any()  # an empty slice stays empty (ASTRA's CGLS would make it NaN)


class Identity(LinearOperator):
    """A denoising problem: what a researcher's own operator needs."""

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__(Space((rows, cols)), Space((rows, cols)))

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y


@pytest.mark.parametrize("dimensions", [2, 3])
def test_tv_finds_the_minimiser(dimensions: int) -> None:
    """Against an independent algorithm: projected gradients on the dual problem (Chambolle 2004)."""
    truth = torch.zeros(4, 10, 9)
    truth[1:, 2:7, 3:8] = torch.tensor([1.0, 0.7, 0.4]).reshape(3, 1, 1)
    noisy = truth + 0.15 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    problem = Problem(Identity(10, 9), noisy, slice_mm=2.0, pixel_mm=1.0)
    weight = 0.1
    along = 0.5 if dimensions == 3 else 0.0
    # Every slice has an intensity scale of its own, and with it a weight.
    of_slice = weight * torch.tensor([robust_maximum(image) for image in noisy]).reshape(-1, 1, 1)
    weights = torch.tensor([along, 1.0, 1.0]).reshape(3, 1, 1, 1)
    dual = torch.zeros(3, 4, 10, 9)
    for _ in range(4000):
        slope = weights * gradient(noisy - of_slice * gradient_adjoint(weights * dual))
        dual = dual + slope / (12 * of_slice.max())
        dual = dual / torch.linalg.vector_norm(dual, dim=0).clamp(min=1.0)
    expected = noisy - of_slice * gradient_adjoint(weights * dual)
    found = run(tv.solve(problem, TV(weight=weight, iterations=1500, cg_iterations=20, dimensions=dimensions)))
    assert (found - expected).abs().max() < 2e-3


def half_measured() -> tuple[CartesianMRI, Tensor, Tensor]:
    """Operator with half of k-space, its mask, and a white complex image of mean 0.5."""
    generator = torch.Generator().manual_seed(0)
    truth = 0.5 + 0.4 * torch.randn(2, 48, 48, dtype=torch.complex64, generator=generator)
    mask = torch.rand(48, 48, generator=generator) < 0.5
    return CartesianMRI(mask, torch.ones(1, 48, 48, dtype=torch.complex64)), mask, truth


def test_diffpir_with_a_gaussian_prior_gives_the_posterior_mean() -> None:
    """Noiseless k-space, white prior: measured points are met, the rest relaxes to the prior's mean."""
    operator, mask, truth = half_measured()
    settings = DiffPIR(steps=100, sigma_first=2.0, sigma_last=0.02, start="classical")
    prior = GaussianPrior(0.5, 0.09, is_complex=True)
    problem = Problem(operator, operator(truth))
    found = run(registry.start(problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0)))
    expected = torch.where(mask, fourier(truth), fourier(torch.full_like(truth, 0.5)))
    assert nrmse_complex(fourier(found), expected) < 0.03


@pytest.mark.parametrize("eta", [0.0, 0.15])
def test_dds_with_a_gaussian_prior_samples_the_posterior(eta: float) -> None:
    """Noiseless k-space, white prior: measured points are met, the rest has the prior's mean and spread."""
    operator, mask, truth = half_measured()
    settings = DDS(steps=200, sigma_first=5.0, sigma_last=0.01, eta=eta, start="classical")
    prior = GaussianPrior(0.5, 0.09, is_complex=True)
    problem = Problem(operator, operator(truth))
    found = fourier(run(registry.start(problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=1)))
    assert nrmse_complex(found[:, mask], fourier(truth)[:, mask]) < 1e-2
    free = (found - fourier(torch.full_like(truth, 0.5)))[:, ~mask]
    assert abs(complex(free.mean())) < 0.03
    assert float(free.real.std()) == pytest.approx(0.3, rel=0.1)
    assert float(free.imag.std()) == pytest.approx(0.3, rel=0.1)


def test_dds_with_fresh_noise_only_keeps_half_of_the_spread() -> None:
    """The default. With the prior at `v` a slow descent has ``s^2 = (s^2 + sigma^2) (v / (v + sigma^2))^2``."""
    operator, mask, truth = half_measured()
    settings = DDS(steps=200, sigma_first=5.0, sigma_last=0.01)
    problem, prior = Problem(operator, operator(truth)), GaussianPrior(0.5, 0.09, is_complex=True)
    found = fourier(run(registry.start(problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=1)))
    assert nrmse_complex(found[:, mask], fourier(truth)[:, mask]) < 1e-2
    free = (found - fourier(torch.full_like(truth, 0.5)))[:, ~mask]
    assert abs(complex(free.mean())) < 0.03
    assert float(free.real.std()) == pytest.approx(0.3 / 2**0.5, rel=0.1)


def nrmse_complex(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.4])
def test_the_data_step_weighs_data_by_their_noise(noise: float) -> None:
    """Full k-space: the step is the mean of data and anchor weighted by their inverse variances."""
    generator = torch.Generator().manual_seed(1)
    truth, anchor = torch.randn(2, 1, 16, 16, dtype=torch.complex64, generator=generator)
    operator = CartesianMRI(torch.ones(16, 16, dtype=torch.bool), torch.ones(1, 16, 16, dtype=torch.complex64))
    scale, least, sigma = 2.0, 5e-3, 0.1
    fit = DataStep(Problem(operator, operator(truth), noise), IntensityMap(scale, 0.0), least, 15)
    s = max(least, noise / scale)
    expected = (truth / scale / s**2 + anchor / sigma**2) / (1 / s**2 + 1 / sigma**2)
    assert nrmse_complex(fit(anchor, sigma), expected) < 1e-3


class _Blur(GaussianPrior):
    """A prior that mixes neighbouring pixels, so that errors would spread."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        smooth = torch.nn.functional.avg_pool2d(x[:, None], 3, stride=1, padding=1)[:, 0]
        return x + (smooth - x) * sigma / (sigma + 0.2)


@pytest.mark.parametrize(
    "settings",
    [
        DiffPIR(steps=4, cg_iterations=5),
        DDS(steps=4, cg_iterations=5),
        REDDiff(steps=4, cg_iterations=5),
        REDDiff(preset="paper", steps=4),
        DPS(steps=4),
        TV(iterations=10, dimensions=2),
        FBP(),
        SIRT(iterations=5),
        CGLS(iterations=5),
    ],
    ids=lambda s: s.name,
)
def test_a_slice_does_not_depend_on_its_batch(settings: Diffusion | TV | FBP | SIRT | CGLS) -> None:
    operator = Tomography(ParallelBeam(32, 32, 1.0, angles(12), 50, 1.0))
    generator = torch.Generator().manual_seed(2)
    truth = 0.02 * torch.rand(5, 32, 32, generator=generator) + 0.02 * disc(32, 1.0, 10.0)
    data = operator(truth)

    def solve(part: Tensor) -> Tensor:
        return run(
            registry.start(
                Problem(operator, part), settings, prior=_Blur(0, 1), intensity=IntensityMap(0.025, 0.025), seed=7
            )
        )

    whole = solve(data)
    assert torch.equal(solve(data[:2]), whole[:2])


@pytest.mark.parametrize("factor", [2**-10, 64.0])  # powers of two: exact in floating point
@pytest.mark.parametrize(
    "settings",
    [
        TV(weight=1e-2, iterations=10),
        DiffPIR(steps=4, min_noise_std=5e-3),
        REDDiff(steps=4, min_noise_std=5e-3),
        REDDiff(preset="paper", steps=4),
        DDS(steps=4, min_noise_std=5e-3),
        DDS(preset="paper", steps=4),
        DiffusionMBIR(steps=4, min_noise_std=5e-3),
        DPS(steps=4),
    ],
    ids=lambda s: f"{s.name} {getattr(s, 'preset', '')}",
)
def test_units_do_not_matter(settings: TV | Diffusion, factor: float) -> None:
    operator = Tomography(ParallelBeam(24, 24, 1.0, angles(9), 40, 1.0))
    data = operator(0.02 * disc(24, 1.0, 8.0))

    def solve(by: float) -> Tensor:
        intensity = IntensityMap(0.025 * by, 0.025 * by)
        return run(registry.start(Problem(operator, data * by), settings, prior=_Blur(0, 1), intensity=intensity))

    assert torch.allclose(solve(factor) / factor, solve(1.0), rtol=1e-6, atol=1e-9)


def test_mri_methods_recover_a_fully_sampled_image() -> None:
    image = (disc(48, 1.0, 18.0) + 0.5 * disc(48, 1.0, 6.0, x_mm=7.0)).to(torch.complex64)
    operator = CartesianMRI(torch.ones(48, 48, dtype=torch.bool), birdcage_maps(4, 48, 48))
    problem = Problem(operator, operator(image))
    for settings in (ZeroFilled(), CGSense(weight=0.0)):
        assert nrmse_complex(run(registry.start(problem, settings)), image) < 1e-3


def test_undersampled_mri_gets_better_with_every_baseline() -> None:
    image = (disc(64, 1.0, 24.0) + 0.5 * disc(64, 1.0, 8.0, x_mm=9.0)).to(torch.complex64)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[::3] = True
    mask[26:38] = True
    operator = CartesianMRI(mask, birdcage_maps(6, 64, 64))
    problem = Problem(operator, operator(image))
    errors = [nrmse_complex(run(registry.start(problem, s)), image) for s in (ZeroFilled(), CGSense(), TV(weight=1e-3))]
    assert errors[0] > errors[1] > errors[2]


def test_methods_refuse_the_wrong_acquisition() -> None:
    ct = Problem(Tomography(ParallelBeam(16, 16, 1.0, angles(4), 30, 1.0)), torch.zeros(1, 4, 30))
    mri_operator = CartesianMRI(torch.ones(16, 16, dtype=torch.bool), torch.ones(1, 16, 16, dtype=torch.complex64))
    mri = Problem(mri_operator, torch.zeros(1, 1, 16, 16, dtype=torch.complex64))
    for problem, settings in ((mri, FBP()), (mri, SIRT()), (ct, CGSense()), (ct, ZeroFilled())):
        with pytest.raises(InputError, match="needs"):
            run(registry.start(problem, settings))
    with pytest.raises(InputError, match="needs a prior"):
        registry.start(ct, DiffPIR())
    with pytest.raises(InputError, match="different modalities"):
        registry.start(ct, DiffPIR(), prior=GaussianPrior(0, 1, is_complex=True), intensity=IntensityMap(1, 0))


def test_a_solver_that_diverges_says_so() -> None:
    with pytest.raises(Diverged, match="not finite"):
        check_finite(torch.tensor([1.0, math.nan]), "test")


def test_metrics_do_not_rescale() -> None:
    truth = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    assert psnr(truth, truth) == math.inf
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=0.01)
    assert psnr(truth * 2, truth) < 10  # a wrong gain must cost
    assert nrmse(np.full_like(truth, truth.mean()), truth) == pytest.approx(1.0)
    image = np.random.default_rng(0).random((2, 32, 40), dtype=np.float32)
    assert ssim(image, image) == pytest.approx(1.0)
    assert ssim(image * 0.5, image) < 0.9  # a wrong gain must cost
    assert ssim(image[:, ::-1], image) < 0.2  # and a mirrored image has nothing in common
    assert math.isnan(ssim(image[:, :8], image[:, :8]))
