"""Rays that counted few photons count for less; a preconditioner changes the speed, never the answer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.differences import BetweenSlices
from operators.fourier import CartesianMRI
from operators.geometry import FanBeam, ParallelBeam
from operators.linear import conjugate_gradient, dot_product_error
from operators.preconditioner import fourier_inverse, laplacian_spectrum, normal_inverse
from operators.tomography import Tomography
from operators.weighted import Weighted
from recon.formats import hdf5, reader
from recon.measurement import noise_estimate
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, run
from recon.quality.metrics import nrmse
from recon.solvers import tv
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec
from recon.spec.methods import TV
from recon.spec.simulation import Simulation
from tests.conftest import disc


def views(count: int) -> tuple[float, ...]:
    return tuple(math.pi * k / count for k in range(count))


PARALLEL = ParallelBeam(64, 48, 0.8, views(30), 100, 0.8)
FAN = FanBeam(64, 48, 0.8, views(30), 170, 0.8, source_origin_mm=150, origin_detector_mm=100)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN])
def test_preconditioned_iterations_get_there_sooner(geometry: ParallelBeam) -> None:
    operator = Tomography(geometry).normalized()
    # What a denoised image still lacks: fine detail.
    truth = disc(64, 0.8, 15.0)[:, :, 8:56] * torch.randn(2, 64, 48, generator=torch.Generator().manual_seed(0))
    anchor = 1e-3

    def system(v: Tensor) -> Tensor:
        return operator.normal(v) + anchor * v

    spectrum = operator.spectrum()
    assert spectrum is not None and bool((spectrum > 0).all())
    inverse = fourier_inverse(spectrum + anchor, 48)
    right = operator.adjoint(operator.forward(truth))
    solution = conjugate_gradient(system, right, None, 400, tolerance=1e-7)

    def error(iterations: int, **given: Any) -> float:
        found = conjugate_gradient(system, right, None, iterations, **given)
        return nrmse(found.numpy(), solution.numpy())

    assert error(400, tolerance=1e-7, precondition=inverse) < 1e-2
    assert error(2, precondition=inverse) < error(5)


def test_spectra_scale_with_their_operators() -> None:
    operator = Tomography(PARALLEL)
    spectrum, scaled = operator.spectrum(), (0.5 * operator).spectrum()
    assert scaled is not None and torch.allclose(scaled, spectrum / 4)
    weighted = Weighted(operator, torch.full((2, 30, 100), 3.0)).spectrum()
    assert weighted is not None and torch.allclose(weighted, spectrum * 9)
    mri = CartesianMRI(torch.ones(8, 8, dtype=torch.bool), torch.ones(1, 8, 8, dtype=torch.complex64))
    assert mri.spectrum() is None and mri.normalized().spectrum() is None


def test_the_laplacian_is_inverted_in_fourier_space() -> None:
    x = torch.randn(2, 12, 10, generator=torch.Generator().manual_seed(0))
    periodic = sum(2 * x - x.roll(1, axis) - x.roll(-1, axis) for axis in (1, 2))
    assert isinstance(periodic, Tensor)
    assert torch.allclose(fourier_inverse(laplacian_spectrum((12, 10)) + 0.3, 10)(periodic + 0.3 * x), x, atol=1e-5)


@pytest.mark.parametrize("tv_z_weight", [0.0, 0.5])
def test_data_steps_agree_with_and_without(tv_z_weight: float) -> None:
    operator = Tomography(PARALLEL)
    truth = 0.02 * disc(64, 0.8, 15.0)[:, :, 8:56].repeat(3, 1, 1)
    start = truth / 0.02 + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for precondition in (True, False):
        problem = Problem(operator, operator(truth))
        fit = DataStep(problem, IntensityMap(0.02, 0.0), 0.01, 300, tv_z_weight, precondition=precondition)
        found.append(fit(start, 0.1))
    assert nrmse(found[0].numpy(), found[1].numpy()) < 5e-3


def test_a_weighted_operator_has_its_adjoint() -> None:
    weights = 0.5 + torch.rand(3, 30, 100, generator=torch.Generator().manual_seed(0))
    assert dot_product_error(Weighted(Tomography(PARALLEL), weights)) < 1e-5


def test_photons_tell_each_rays_noise() -> None:
    """Against the scatter of many measurements of the same rays."""
    expected = torch.linspace(0.0, 6.0, 50).expand(4000, 1, 50)
    counts = torch.poisson(1e4 * torch.exp(-expected), generator=torch.Generator().manual_seed(0))
    measured = -torch.log(counts.clamp(min=1) / 1e4)
    mean, weights = noise_estimate.of_photons(measured[:1], 1e4)
    noise = mean / weights[0, 0]
    assert mean == pytest.approx(float(noise.square().mean().sqrt()))
    # At both ends the smoothing sees one side only.
    assert torch.allclose(noise[2:-2], measured[:, 0].std(0)[2:-2], rtol=0.15)


def test_weights_make_the_image_better() -> None:
    """A dense body in few photons: rays past it are a hundred times as certain as those through it."""
    size = 64
    volume = -1000 + 1000 * disc(size, 5.0, 140.0) + 1500 * disc(size, 5.0, 40.0, x_mm=60.0)
    acquisition = CTParallel()
    settings = Simulation(model="ideal", views=40, photons_per_ray=5e3)  # noise alone
    measurement = simulate(volume.numpy(), np.diag([5.0, 5.0, 5.0, 1.0]), acquisition, settings)
    assert isinstance(measurement.acquisition, CTParallel) and measurement.acquisition.photons_per_ray == 5e3
    model = inverse_problem.build(measurement)
    assert model.problem.inverse_std is not None and measurement.truth is not None
    plain = Problem(model.problem.operator, model.problem.data, model.problem.noise_std, 5.0, 5.0)
    errors = []
    for problem, weights in ((model.problem, (1e-4, 3e-4)), (plain, (3e-3, 1e-2))):
        # The best weight of each, so that only the statistics differ.
        trials = [run(tv.solve(problem, TV(weight=w, iterations=40, cg_iterations=4, dimensions=2))) for w in weights]
        errors.append(min(nrmse(model.display(v), measurement.truth) for v in trials))
    assert errors[0] < 0.75 * errors[1]


def test_photons_travel_with_the_file(tmp_path: Path, ct_file: Path) -> None:
    spec = JobSpec.parse(
        {
            "input": {"path": str(ct_file), "simulate": {"views": 12, "photons_per_ray": 1e4}},
            "acquisition": "ct-parallel",
        }
    )
    hdf5.write_measurement(tmp_path / "m.h5", reader.read(spec, {"input": ct_file}))
    stored = JobSpec.parse({"input": {"path": str(tmp_path / "m.h5"), "format": "hdf5"}})
    again = reader.read(stored, {"input": tmp_path / "m.h5"})
    assert isinstance(again.acquisition, CTParallel) and again.acquisition.photons_per_ray == 1e4
    assert inverse_problem.build(again).problem.inverse_std is not None


@pytest.mark.parametrize("volumes", [False, True])
def test_slices_that_are_coupled_are_divided_together(volumes: bool) -> None:
    """Against the matrix along slices at each frequency; noise and scale differ from slice to slice."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 12, 10, generator=generator) if volumes else torch.randn(5, 12, 10, generator=generator)
    weights, scale, fidelity = torch.rand(3, 5, 1, 1, generator=generator) + 0.2
    between = BetweenSlices(weights, scale)
    eigenvalues = fidelity * (laplacian_spectrum((12, 10)) + 0.1)
    found = fourier_inverse(eigenvalues, 10, between)(x)

    def product(v: Tensor) -> Tensor:
        blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(v) * eigenvalues, s=(12, 10))
        return blurred + between(v)

    assert torch.allclose(product(found), x, atol=1e-5)
    apart = fourier_inverse(eigenvalues, 10, BetweenSlices(0.0))(x)
    assert torch.allclose(apart, fourier_inverse(eigenvalues, 10)(x), atol=1e-6)
    assert not torch.allclose(apart, found, atol=1e-2)


def test_coupled_slices_converge_whatever_they_weigh() -> None:
    """The preconditioner couples slices too; with a ratio of its own for each, those that alternate never converged."""
    generator = torch.Generator().manual_seed(5)
    operator = Tomography(ParallelBeam(24, 24, 1.0, views(6), 36, 1.0)).normalized()
    anchor, between = torch.full((5, 1, 1), 0.01), BetweenSlices(torch.ones(5, 1, 1))
    sizes = torch.tensor([2.7, -0.4, 2.7, -0.4, 1.6]).reshape(5, 1, 1)
    right = sizes * operator.adjoint(operator(torch.randn(1, 24, 24, generator=generator)))

    def system(v: Tensor) -> Tensor:
        return operator.normal(v) + anchor * v

    inverse = normal_inverse(operator, anchor, 1.0, between)

    def residual(iterations: int) -> float:
        x = conjugate_gradient(system, right, None, iterations, tolerance=0.0, precondition=inverse, coupling=between)
        return float((right - system(x) - between(x)).norm() / right.norm())

    assert residual(4) < 0.1 and residual(60) < 1e-4
