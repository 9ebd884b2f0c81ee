"""Locally low rank: its proximal map in closed form, what it minimises, and images that need no coil maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import recon
from operators.errors import InputError
from operators.fourier import CartesianMRI, MapSetsMRI
from recon.bench.withheld import withhold
from recon.measurement.measurement import Measurement
from recon.problem import inverse_problem
from recon.problem.mri_cartesian import birdcage_maps
from recon.problem.problem import Problem, run
from recon.quality import metrics
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.solvers.low_rank import Coils, shrunk
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.methods import CGSense, LowRank


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    images = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][3:5].astype(np.float32)
    small: np.ndarray = images.reshape(2, 64, 4, 64, 4).mean((2, 4))
    small /= small.max()
    return small


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def simulated(brain: np.ndarray, kind: str = "mri-cartesian", **more: Any) -> Any:
    given = {"model": "ideal", "coils": 8, "noise_std": 0.01, **more}
    return recon.simulate(brain, {"kind": kind}, affine=np.diag([3.2, 3.2, 4.0, 1.0]), **given)


def solved(measurement: Any, method: Any = "low-rank", **more: Any) -> np.ndarray:
    volume: np.ndarray = recon.reconstruct(measurement, method=method, progress=False, **more).volume
    return volume


@pytest.mark.parametrize("limit", [0.5, 3.0, 30.0])
@pytest.mark.parametrize(("rows", "cols", "shift"), [(12, 8, (0, 0)), (13, 10, (3, 1))])
def test_the_proximal_map_is_that_of_the_blocks_singular_values(
    rows: int, cols: int, shift: tuple[int, int], limit: float
) -> None:
    images = noise(2, 3, rows, cols)
    found = shrunk(images, torch.tensor([limit, 1.0]), 4, shift)
    expected = np.zeros_like(images.numpy())
    for index, threshold in enumerate((limit, 1.0)):
        for row in range(-shift[0], rows, 4):
            for col in range(-shift[1], cols, 4):
                block = (index, slice(None), slice(max(row, 0), row + 4), slice(max(col, 0), col + 4))
                values = images.numpy()[block]
                u, s, vh = np.linalg.svd(values.reshape(3, -1), full_matrices=False)
                expected[block] = ((u * np.maximum(s - threshold, 0)) @ vh).reshape(values.shape)
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_with_a_known_phase_it_is_the_proximal_map_beside_the_virtual_coils() -> None:
    images, phase = noise(1, 3, 4, 4), torch.polar(torch.ones(1, 4, 4), torch.rand(1, 4, 4))
    found = shrunk(images, torch.tensor([1.5]), 4, (0, 0), phase)[0].reshape(3, -1).numpy()
    own = images.reshape(3, -1).numpy()
    turn = phase.square().reshape(1, -1).numpy()
    u, s, vh = np.linalg.svd(np.concatenate([own, turn * own.conj()]), full_matrices=False)
    expected = (u * np.maximum(s - 1.5, 0)) @ vh
    assert np.abs(found - expected[:3]).max() < 1e-5
    assert np.abs(turn * found.conj() - expected[3:]).max() < 1e-5  # a virtual coil stays one


def objective(problem: Problem, images: Tensor, weight: float, shifts: Sequence[tuple[int, int]]) -> float:
    """What is minimised, on coil images ``(1, coils, rows, cols)``: the mean over places of the blocks."""
    operator = problem.operator
    assert isinstance(operator, CartesianMRI)
    scale = float(problem.scales[0])
    misfit = 0.5 * float((operator.of_coils().forward(images) - problem.data).abs().square().sum()) / scale**2
    rows, cols = images.shape[-2:]
    nuclear = 0.0
    for down, across in shifts:
        pad = (across, -(cols + across) % 8, down, -(rows + down) % 8)
        blocks = torch.nn.functional.pad(images / scale, pad).unfold(2, 8, 8).unfold(3, 8, 8)
        matrices = blocks.permute(0, 2, 3, 4, 5, 1).flatten(0, 2).flatten(1, 2)
        nuclear += float(torch.linalg.svdvals(matrices).sum()) / len(shifts)
    return misfit + weight * (8 + math.sqrt(images.shape[1])) * nuclear


@pytest.fixture
def square() -> Problem:
    """A square that four coils see at half of the points."""
    image = torch.zeros(1, 32, 32, dtype=torch.complex64)
    image[:, 8:24, 10:22] = torch.tensor(1 + 0.5j)
    mask = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[12:20, 12:20] = True
    operator = CartesianMRI(mask, birdcage_maps(4, 32, 32))
    random = operator.noise(1, torch.Generator().manual_seed(1))
    return Problem(operator, operator.forward(image) + 0.02 * random, 0.02)


def test_the_objective_falls_with_blocks_in_one_place(square: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.zeros(2, dtype=torch.long))
    found: list[Tensor] = []

    def kept(_: Coils, images: Tensor) -> Tensor:
        found.append(images)
        return images[:, 0]

    monkeypatch.setattr(Coils, "combined", kept)
    run(solvers.start(square, LowRank(weight=0.02, iterations=60)))
    start = Coils(square.operator).seen(square.initial_image())  # type: ignore[arg-type]
    values = [objective(square, images, 0.02, [(0, 0)]) for images in (start, *found)]
    assert len(values) == 13 and values[1] < 0.95 * values[0], values
    assert all(later < earlier * (1 + 1e-5) for earlier, later in pairwise(values)), values


def test_the_mean_objective_falls_with_blocks_that_move(square: Problem) -> None:
    found = run(solvers.start(square, LowRank(weight=0.02)))
    coils, shifts = Coils(square.operator), list(product(range(8), range(8)))  # type: ignore[arg-type]
    before, after = (objective(square, coils.seen(v), 0.02, shifts) for v in (square.initial_image(), found))
    assert after < 0.95 * before


@pytest.mark.parametrize(("kind", "acceleration"), [("mri-cartesian", 4.0), ("mri-noncartesian", 2.0)])
def test_it_beats_least_squares(brain: np.ndarray, kind: str, acceleration: float) -> None:
    measurement = simulated(brain, kind, pattern="poisson", acceleration=acceleration)
    found = {m: metrics.psnr(np.abs(solved(measurement, m)), brain) for m in ("cg-sense", "low-rank")}
    assert found["low-rank"] > found["cg-sense"] + 1, found


@pytest.mark.parametrize("kind", ["mri-cartesian", "mri-noncartesian"])
def test_what_was_fully_sampled_without_noise_is_given_back(brain: np.ndarray, kind: str) -> None:
    more = {} if kind == "mri-noncartesian" else {"pattern": "equispaced"}
    measurement = simulated(brain, kind, acceleration=1.0, noise_std=0.0, **more)
    limit = 2e-3 if kind == "mri-cartesian" else 0.06  # spokes leave the corners of k-space out
    found = np.abs(solved(measurement))
    assert np.linalg.norm(found - brain) < limit * np.linalg.norm(brain)


def test_slices_do_not_know_each_other(brain: np.ndarray) -> None:
    measurement = simulated(brain * np.array([1.0, 0.2], np.float32)[:, None, None])
    whole, part = solved(measurement), solved(measurement, slices=(1, 2))
    assert np.abs(whole[1] - part[0]).max() < 1e-6 * np.abs(whole[1]).max()


def test_images_of_two_sets_of_maps_come_back_from_their_coils() -> None:
    first, second = noise(1, 4, 16, 12), noise(1, 4, 16, 12).flip(1)
    second[..., :6] = 0
    maps = torch.stack([first, second], 1)
    image = noise(1, 32, 12)
    image[:, 16:, :6] = 0  # which the second set does not see
    coils = Coils(MapSetsMRI(torch.ones(16, 12, dtype=torch.bool), maps))
    apart = image.reshape(1, 2, 1, 16, 12)
    assert float((coils.seen(image) - (maps * apart).sum(1)).abs().max()) < 1e-5
    assert float((coils.combined(coils.seen(image)) - image).abs().max()) < 1e-3


def test_maps_of_any_scale_are_divided_out_and_blind_pixels_left_empty() -> None:
    maps = 7 * birdcage_maps(4, 16, 16)
    maps[:, :4] = 0
    image = noise(1, 16, 16)
    coils = Coils(CartesianMRI(torch.ones(16, 16, dtype=torch.bool), maps))
    back = coils.combined(coils.seen(image))
    assert float((back[:, 4:] - image[:, 4:]).abs().max()) < 1e-5 and not bool(back[:, :4].any())


def test_one_coil_is_refused_with_what_would_do() -> None:
    with pytest.raises(InputError, match=r"method\.name: low-rank needs several coils, there is one \(use l1-wavelet"):
        solved(simulated(np.ones((1, 32, 32), np.float32), coils=1))


def test_two_sets_of_maps_and_a_known_phase_are_refused_together() -> None:
    mask = torch.ones(16, 16, dtype=torch.bool)
    operator = MapSetsMRI(mask, noise(1, 2, 4, 16, 16))
    phase = torch.ones(1, 32, 16, dtype=torch.complex64)
    problem = Problem(operator, operator(noise(1, 32, 16)), phase=phase)
    with pytest.raises(InputError, match="partial Fourier with one set of coil maps, there are 2"):
        run(solvers.start(problem, LowRank()))


def test_a_weight_of_ones_own_excludes_those_that_make_one() -> None:
    with pytest.raises(InputError, match="weight_per_noise has no effect with a weight"):
        solved(simulated(np.ones((1, 32, 32), np.float32)), {"name": "low-rank", "weight": 0.1, "weight_per_noise": 1})


def test_the_measured_brain_is_predicted_where_it_was_not_measured() -> None:
    """Points of a measured scan that no method is given: nearer than by least squares."""
    kspace = np.load(SAMPLES / "mri_brain_8coil.npy")[None]
    rest, judge = withhold(Measurement(kspace, MRICartesian()))
    inverse = inverse_problem.build(rest)
    found = {m.name: judge(inverse, run(solvers.start(inverse.problem, m))).misfit for m in (CGSense(), LowRank())}
    assert found["low-rank"] < 0.95 * found["cg-sense"], found
