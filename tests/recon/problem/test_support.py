"""Every method leaves alone what rays through air show to be air, and loses nothing by it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.tomography import Tomography
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.problem.ct import CTProblem
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, run
from recon.solvers import registry
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.methods import method_of
from recon.spec.simulation import Simulation
from tests.conftest import GaussianPrior, disc

SIZE, VIEWS = 64, 12
WATER = 0.02
DETECTORS = 96
AXIS = IntensityMap(WATER, WATER)
"""Air at -1 and water at 0 of the prior's scale."""


def body(slices: int = 3) -> Tensor:
    """A disc of water with a hole, and a small one beside it; one slice is smaller than the next."""
    found = [
        disc(SIZE, 2.0, 40.0 - 4 * i, 5.0) - disc(SIZE, 2.0, 8.0, 12.0, 6.0) + disc(SIZE, 2.0, 5.0, -48.0, 20.0)
        for i in range(slices)
    ]
    return WATER * torch.cat(found)


def scan(views: int = VIEWS, **given: Any) -> CTParallel:
    sizes = {"detector_mm": 2.0, "rows": SIZE, "cols": SIZE, "mu_water_per_mm": WATER}
    return CTParallel.model_validate({"angles_rad": {"count": views}, **sizes, **given})


def built(image: Tensor, photons: float | None = 1e5, views: int = VIEWS, **given: Any) -> CTProblem:
    acquisition = scan(views, **given)
    data = Tomography(acquisition.geometry(DETECTORS)).forward(image)
    if photons is not None:
        counts = torch.poisson(photons * torch.exp(-data.double()), generator=torch.Generator().manual_seed(0))
        data = -torch.log(counts / photons).float()
    found = inverse_problem.build(Measurement(data.numpy(), acquisition))
    assert isinstance(found, CTProblem)
    return found


def solved(problem: Problem, method: dict[str, Any]) -> Tensor:
    settings = method_of(method)
    return run(registry.start(problem, settings, prior=GaussianPrior(-0.7, 0.1), intensity=AXIS, seed=1))


METHODS: list[dict[str, Any]] = [
    {"name": "fbp"},
    {"name": "sirt", "iterations": 30},
    {"name": "cgls"},
    {"name": "tv", "iterations": 20},
    {"name": "tv", "iterations": 20, "dimensions": 2},
    {"name": "diffpir", "steps": 4},
    {"name": "red-diff", "steps": 4},
    {"name": "red-diff", "steps": 4, "tv_z_weight": 1.0},
    {"name": "red-diff", "preset": "paper", "steps": 4},
    {"name": "dds", "steps": 4},
    {"name": "dds", "preset": "paper-3d", "steps": 4},
    {"name": "diffusion-mbir", "steps": 4},
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_air_is_zero_whatever_the_method(method: dict[str, Any]) -> None:
    inverse = built(body())
    inside = inverse.problem.support
    assert inside is not None
    assert bool(inside[body() > 0].all())
    volume = solved(inverse.problem, method)
    assert not volume[~inside].any()
    assert bool(volume[inside].any())
    assert float(inverse.display(volume)[~inside.numpy()].max()) == -1000.0


@pytest.mark.parametrize("method", METHODS[1:8], ids=str)
def test_what_is_known_to_be_air_brings_the_rest_nearer(method: dict[str, Any]) -> None:
    image = body()
    errors = []
    for support in ("none", "auto"):
        problem = built(image, support=support).problem
        assert (problem.support is None) == (support == "none")
        errors.append(float((solved(problem, method) - image).norm()))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_beside_the_disc_that_views_see_is_nothing(method: dict[str, Any]) -> None:
    acquisition = scan()
    image = WATER * disc(SIZE, 2.0, 61.0)
    geometry = acquisition.geometry(SIZE)  # the object fills the detector, and leaves next to no air
    problem = inverse_problem.build(Measurement(Tomography(geometry).forward(image).numpy(), acquisition)).problem
    y, x = ((torch.arange(SIZE) - (SIZE - 1) / 2) * 2.0 for _ in range(2))
    beyond = torch.hypot(x[None, :], y[:, None]) > SIZE * 2.0 / 2 / math.cos(math.pi / VIEWS / 2)
    volume = solved(problem, method)
    assert not volume[:, beyond].any()
    assert bool(volume[image > 0].all())


def test_the_report_says_how_much_was_known() -> None:
    inverse = built(body())
    assert inverse.problem.support is not None
    shares = 100 * (1 - inverse.problem.support.float().mean((1, 2)))
    (note,) = (note for note in inverse.notes if "are air" in note)
    assert note.startswith(f"{float(shares.min()):.0f} to {float(shares.max()):.0f} % of a slice's pixels")
    assert not any("are air" in note for note in built(body(), support="none").notes)


def test_views_that_contradict_each_other_are_said() -> None:
    problem = built(body()).problem
    data = problem.data.clone()
    data[1, 3] = 0.0  # a frame without the object
    again = inverse_problem.build(Measurement(data.numpy(), scan()))
    assert any(note.startswith("in 1 of 3 slices") for note in again.notes)
    assert problem.support is not None
    assert again.problem.support is not None
    assert bool(again.problem.support[1].all())
    assert torch.equal(again.problem.support[::2], problem.support[::2])


def test_a_data_step_meets_the_normal_equations_of_the_support() -> None:
    problem = built(body()).problem
    assert problem.support is not None
    step = DataStep(problem, AXIS, 1e-3, 60)
    v = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    sigma = 0.05
    u = step(v, sigma)
    assert torch.equal(u[~problem.support], torch.full_like(u[~problem.support], -1.0))
    anchored = step.supported(v)
    fidelity = (step.sigma.reshape(-1, 1, 1)) ** -2
    left = fidelity * step.operator.adjoint(step.operator.forward(u) - step.data) + (u - anchored) / sigma**2
    before = fidelity * step.operator.adjoint(step.operator.forward(anchored) - step.data)
    assert float(left.norm()) < 1e-3 * float(before.norm())


@pytest.mark.parametrize("method", [{"name": "tv", "dimensions": 2}, {"name": "diffpir", "steps": 4}], ids=str)
def test_a_slice_is_the_same_alone_and_in_a_stack(method: dict[str, Any]) -> None:
    whole = built(body()).problem
    stacked = solved(whole, method)
    alone = solved(whole.part(1, 2), method)
    assert (alone[0] - stacked[1]).abs().max() <= 1e-5 * WATER


def test_many_clean_views_lose_nothing() -> None:
    image = body()
    errors = []
    for support in ("none", "auto"):
        problem = built(image, None, 90, support=support).problem
        errors.append(float((solved(problem, {"name": "tv", "iterations": 60}) - image).norm()))
    assert errors[1] <= 1.001 * errors[0]


def test_replicates_for_uncertainty_keep_to_the_support() -> None:
    inverse = built(body())
    problem = inverse.problem
    other = problem.operator.another(0)
    clean = other(body())
    again = inverse.measured(other, clean, torch.zeros_like(clean))
    assert again.support is problem.support
    assert math.isfinite(again.misfit(body()))


def test_a_slice_that_reaches_beyond_the_detector_keeps_what_lies_there() -> None:
    acquisition = scan()
    images = WATER * torch.cat([disc(SIZE, 2.0, radius) for radius in (50.0, 50.0, 75.0, 50.0)])
    data = Tomography(acquisition.geometry(SIZE)).forward(images)
    inside = inverse_problem.build(Measurement(data.numpy(), acquisition)).problem.support
    assert inside is not None
    y, x = ((torch.arange(SIZE) - (SIZE - 1) / 2) * 2.0 for _ in range(2))
    corners = torch.hypot(x[None, :], y[:, None]) > 66.0
    assert not inside[[0, 1, 3]][:, corners].any()
    seen = Tomography(acquisition.geometry(SIZE)).adjoint(torch.ones(1, VIEWS, SIZE))[0] > 0
    assert bool(inside[2][corners & seen].all())


def test_a_wide_volume_on_a_detector_aside_is_not_cut_off() -> None:
    volume = np.full((1, 40, 80), -1000.0, np.float32)
    volume[0, 10:30, 4:76] = 0.0
    acquisition = CTParallel.model_validate({"rotation_center_column": 40})
    measured = simulate(volume, np.diag([5.0, 5.0, 5.0, 1.0]), acquisition, Simulation(views=60, model="ideal"))
    inside = inverse_problem.build(measured).problem.support
    assert inside is None or bool(inside[0][torch.from_numpy(volume[0] > -1000)].all())
