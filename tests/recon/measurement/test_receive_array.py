"""Receive arrays: the field of a loop in closed form, noise of the covariance that is stated, geometry by the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recon.measurement import receive_array
from recon.measurement.receive_array import ReceiveArray


def array(coils: int = 8, seed: int = 0) -> ReceiveArray:
    return ReceiveArray.around((5.0, -8.0), (70.0, 90.0), coils, torch.Generator().manual_seed(seed))


def test_the_field_on_the_axis_of_a_loop() -> None:
    """Biot and Savart: ``R^2 / (R^2 + x^2)^(3/2)`` along its axis, here x, and nothing across it."""
    radius = 60.0
    middle, normal = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    corners = receive_array._loop(middle, normal, radius)[None]
    x = torch.tensor([0.0, 20.0, 60.0, 150.0], dtype=torch.float64)
    points = torch.stack([x, torch.zeros(4), torch.zeros(4)], 1).double()
    found = receive_array._received(corners, points)[0]
    expected = radius**2 / (radius**2 + x**2) ** 1.5
    assert torch.allclose(found.real.abs() / found.real.abs()[0], expected / expected[0], rtol=0.02)
    assert float(found.imag.abs().max()) < 1e-6 * float(found.real.abs().max())


def test_a_coarse_grid_holds_the_field() -> None:
    found = array()
    rows, cols = torch.linspace(-90, 70, 81).double(), torch.linspace(-60, 70, 60).double()
    maps = found.sensitivities(rows, cols, 12.0)
    at = torch.stack([cols[[3, 30, 50]], rows[[8, 40, 70]], torch.full((3,), 12.0).double()], 1)
    exact = found.gains[:, None] * receive_array._received(found.corners, at)
    interpolated = maps[:, [8, 40, 70], [3, 30, 50]]
    assert float((exact - interpolated).abs().max()) < 2e-3 * float(exact.abs().max())
    inside = maps[:, 20:60, 20:40].abs().square().sum(0).sqrt()
    assert 0.5 < float(inside.mean()) < 1.2  # 1 on average over the head, less in its middle


def test_noise_has_the_covariance_that_is_stated() -> None:
    found = array()
    drawn = found.noise(200_000, torch.Generator().manual_seed(1))
    measured = drawn @ drawn.conj().T / (2 * drawn.shape[1])
    assert float((measured - found.covariance).abs().max()) < 0.02
    size = found.covariance.diagonal().real.sqrt()
    share = found.covariance.abs() / torch.outer(size, size)
    neighbours = torch.stack([share[i, (i + 1) % 8] for i in range(8)])
    next_ones = torch.stack([share[i, (i + 2) % 8] for i in range(8)])
    assert float(neighbours.min()) > 0.2 and float(neighbours.max()) < 0.7
    assert float(next_ones.max()) < float(neighbours.min())


@pytest.mark.parametrize("coils", [1, 2, 8, 12, 32])
def test_any_number_of_coils(coils: int) -> None:
    positions = torch.linspace(-80, 80, 20).double()
    maps = array(coils).sensitivities(positions, positions, 0.0)
    assert maps.shape == (coils, 20, 20) and bool(torch.isfinite(torch.view_as_real(maps)).all())
    assert array(coils).noise(10, torch.Generator().manual_seed(0)).shape == (coils, 10)


def test_the_seed_makes_the_array() -> None:
    assert torch.equal(array(seed=3).corners, array(seed=3).corners)
    assert not np.allclose(array(seed=3).corners, array(seed=4).corners)
