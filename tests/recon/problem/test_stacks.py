"""A slice comes out the same alone and in any stack: noise, norm, scale, weights and steps are those of each slice."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.fourier import CartesianMRI
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem import inverse_problem
from recon.problem.inverse_problem import InverseProblem
from recon.problem.mri_cartesian import birdcage_maps
from recon.problem.problem import run
from recon.solvers import registry
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.methods import DDS, DPS, TV, Boundary, CGSense, DiffPIR, DiffusionMBIR, Method, REDDiff
from recon.spec.simulation import Simulation
from tests.conftest import disc

SIDE, PIXEL_MM = 48, 8.0
ALIKE_DB = 0.3
"""How much a slice may gain or lose by others that say nothing of it."""
FAR_MM = 1e6
"""Distance at which slices say nothing of each other: at a metre their difference still smooths a flat region less."""
Noise = Literal["photons", "unknown"]


def body(size: float, density: float = 1.0) -> Tensor:
    """Cross-section in HU of a trunk or a limb: muscle, bone and lung."""
    inside = disc(SIDE, PIXEL_MM, 160.0 * size) * 1040
    bone = disc(SIDE, PIXEL_MM, 30.0 * size, x_mm=90.0 * size) * 500
    lung = disc(SIDE, PIXEL_MM, 45.0 * size, x_mm=-60.0 * size, y_mm=40.0 * size) * -700
    return -1000 + density * (inside + bone + lung)


@cache
def scan() -> Measurement:
    """Photons counted behind a dense trunk, and behind three limbs."""
    volume = torch.cat([body(1.0, 1.3), body(0.5), body(0.4), body(0.45)]).numpy()
    settings = Simulation(views=60, photons_per_ray=3e4, model="ideal")
    return simulate(volume, np.diag([PIXEL_MM, PIXEL_MM, FAR_MM, 1.0]), CTParallel(), settings)


def taken(chosen: list[int], noise: Noise) -> Measurement:
    """Some slices of the scan, whose noise is known or not."""
    whole = scan()
    acquisition = whole.acquisition
    if noise == "unknown":
        acquisition = acquisition.model_copy(update={"photons_per_ray": None})
    return replace(whole, data=np.ascontiguousarray(whole.data[chosen]), acquisition=acquisition, noise_std=None)


def solved(measurement: Measurement, method: Method) -> tuple[Tensor, InverseProblem]:
    """Solve by a method and the shipped prior; values in the unit of the result."""
    inverse = inverse_problem.build(measurement)
    prior, intensity = chosen_prior(method, inverse)
    volume = run(registry.start(inverse.problem, method, prior=prior, intensity=intensity, seed=4))
    return torch.from_numpy(inverse.display(inverse.arranged(volume))), inverse


def psnr(found: Tensor, truth: Tensor) -> float:
    return float(10 * torch.log10((truth.max() - truth.min()) ** 2 / (found - truth).square().mean()))


LEVELS: dict[str, Any] = {"steps": 8}
METHODS: list[Method] = [
    TV(iterations=40),
    TV(iterations=40, dimensions=2),
    DiffPIR(**LEVELS, tv_z_weight=0.5),
    REDDiff(**LEVELS),
    REDDiff(**LEVELS, tv_z_weight=2.0, cg_iterations=2),
    DDS(**LEVELS),
    DiffusionMBIR(**LEVELS),
    DPS(steps=20, sigma_first=2.0),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("noise", ["photons", "unknown"])
def test_a_dense_slice_is_the_same_among_thin_ones(method: Method, noise: Noise) -> None:
    truth = scan().truth
    assert truth is not None
    for index, others in ((0, [1, 2, 3]), (1, [0])):
        alone, by_itself = solved(taken([index], noise), method)
        stack, inverse = solved(taken([index, *others], noise), method)
        assert torch.equal(by_itself.problem.noise, inverse.problem.noise[:1])
        quality = [psnr(found[0], torch.from_numpy(truth[index])) for found in (alone, stack)]
        assert quality[0] == pytest.approx(quality[1], abs=ALIKE_DB)


def test_the_noise_of_a_stack_is_that_of_each_slice() -> None:
    """A dense trunk has ten times the noise of a limb, and its rays more than its air."""
    for noise in ("photons", "unknown"):
        problem = inverse_problem.build(taken([0, 1, 2, 3], noise)).problem
        assert float(problem.noise[0]) > 5 * float(problem.noise[1:].max())
        assert problem.inverse_std is not None
        ratio = problem.inverse_std[0].max() / problem.inverse_std[0].min()
        assert float(ratio) > 5


def kspace(weak: float) -> Measurement:
    """Two slices of a head, nobody knows how far apart, with unknown noise; the second has a weaker signal."""
    maps = birdcage_maps(4, SIDE, SIDE)
    head = (disc(SIDE, 1.0, 18.0) + 0.6 * disc(SIDE, 1.0, 5.0, x_mm=6.0)).to(torch.complex64)
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[::2], mask[18:30] = True, True
    generator = torch.Generator().manual_seed(0)
    full = CartesianMRI(mask, maps)(head)
    full = full + 0.02 * mask * torch.randn(full.shape, dtype=torch.complex64, generator=generator)
    both = torch.cat([full, weak * full]).numpy()
    return Measurement(both, MRICartesian(pixel_mm=1.0), coil_maps=maps.numpy())


@pytest.mark.parametrize(
    "method",
    [
        CGSense(), TV(iterations=30), TV(iterations=30, dimensions=2), REDDiff(**LEVELS, pnp_steps=3),
        DiffusionMBIR(**LEVELS, eta=0.0),
    ],
    ids=lambda m: m.name,
)  # fmt: skip
def test_a_weak_slice_is_as_good_as_its_neighbour(method: Method) -> None:
    """The same slice with less signal comes out the same with less signal, and changes nothing beside it."""
    weak = 0.3
    (strong, faint), inverse = solved(kspace(weak), settled(method))
    assert torch.allclose(inverse.problem.scales * torch.tensor([weak, 1.0]), inverse.problem.scales[1], rtol=1e-3)
    assert float((faint / weak - strong).abs().max()) < 0.02 * float(strong.max())


def settled(method: Method) -> Method:
    """The method with noise that is the same in every slice, if it draws any."""
    return method.model_copy(update={"frozen_noise": "random"}) if isinstance(method, (REDDiff, DDS)) else method


def test_attenuation_without_a_water_value_has_a_scale_by_slice() -> None:
    whole = taken([0, 0], "photons")
    data = np.asarray(whole.data, np.float32) * np.array([1.0, 0.3], np.float32).reshape(2, 1, 1)
    acquisition = whole.acquisition.model_copy(
        update={"mu_water_per_mm": None, "photons_per_ray": None, "noise_std": 0.0}
    )
    method = settled(REDDiff(**LEVELS))
    (strong, faint), inverse = solved(replace(whole, data=data, acquisition=acquisition), method)
    assert float((faint / 0.3 - strong).abs().max()) < 0.02 * float(strong.max())
    assert inverse.unit == "1/mm"


def test_a_low_resolution_slice_is_the_same_beside_a_faint_one() -> None:
    image = (disc(SIDE, 1.0, 18.0) + 0.6 * disc(SIDE, 1.0, 5.0, x_mm=6.0)).numpy()
    both = np.concatenate([image, 0.1 * image])[:, ::2, ::2]
    acquisition = MRISuperResolution(factor=2, direction="plane", pixel_mm=2.0, slice_mm=FAR_MM)
    method = Boundary()
    (strong, faint), _ = solved(Measurement(np.ascontiguousarray(both), acquisition), method)
    (alone,), _ = solved(Measurement(np.ascontiguousarray(both[:1]), acquisition), method)
    assert torch.allclose(strong, alone, atol=1e-5)
    assert float((faint / 0.1 - strong).abs().max()) < 0.02 * float(strong.max())


@pytest.mark.parametrize(("direction", "distance_mm", "side_mm"), [("slices", 4.0, 1.5), ("plane", 6.0, 4.0)])
def test_planes_of_oblong_pixels_are_as_far_apart_as_they_are(
    direction: Literal["slices", "plane"], distance_mm: float, side_mm: float
) -> None:
    """Pixels of 4 x 1.5 mm: planes across the stack are a column apart and hold the rows."""
    stack = MRISuperResolution(factor=2, direction=direction)
    volume = np.random.default_rng(0).random((8, 12, 10), dtype=np.float32)
    problem = inverse_problem.build(simulate(volume, np.diag([4.0, 1.5, 6.0, 1.0]), stack, Simulation())).problem
    assert problem.slice_mm == pytest.approx(distance_mm) and problem.pixel_mm == pytest.approx(side_mm)
