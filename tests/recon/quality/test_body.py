"""The inside of the body: lungs belong to it, tables and air do not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.quality.body import inside
from recon.quality.metrics import psnr
from tests.conftest import disc


def chest() -> NDArray[np.float32]:
    """An ellipse of water with a lung in it, a thin table below."""
    volume = -1000 + 1000 * disc(96, 2.0, 60.0).numpy()
    volume += -900 * disc(96, 2.0, 15.0, 20.0).numpy()
    volume[:, 82:84, 10:86] = 300.0
    found: NDArray[np.float32] = volume.astype(np.float32)
    return found


def test_lungs_are_inside_and_tables_are_not() -> None:
    volume = chest()
    found = inside(np.concatenate([volume, volume]))
    assert found.shape == (2, 96, 96)
    assert found[:, 48, 58].all() and found[:, 48, 20:76].all()
    assert not found[:, 80:].any() and not found[:, :5].any()
    exact = disc(96, 2.0, 60.0).numpy()[0] > 0.5
    assert (found[0] != exact).mean() < 0.02


def test_any_unit_will_do_and_air_alone_has_no_inside() -> None:
    assert (inside(chest()) == inside(np.float32(0.02) * (1 + chest() / np.float32(1000)))).all()
    assert not inside(np.full((1, 8, 8), -1000, np.float32)).any()


def test_psnr_of_a_part_has_the_range_of_the_whole() -> None:
    truth = chest()
    wrong = truth + 10 * ~inside(truth)
    assert psnr(wrong, truth, inside(truth)) == np.inf
    assert np.isclose(psnr(wrong, truth, ~inside(truth)), 10 * np.log10(1300.0**2 / 100))
