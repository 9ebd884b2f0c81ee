"""The GPU checks where there is no GPU: they say so, and what they compare with is right."""

from __future__ import annotations

import pytest
import torch

from operators.linear import dot_product_error
from operators.tomography import Tomography
from operators.volume_tomography import VolumeTomography
from tests.gpu import checks


def test_without_a_gpu_they_say_why_nothing_is_checked() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "CUDA" in (checks.missing() or "")


def test_bounds_are_kept_or_missed() -> None:
    assert checks.Row("error", 0.01, 0.02, 0, 0, 0).passed and not checks.Row("error", 0.03, 0.02, 0, 0, 0).passed
    assert checks.Row("dB", 50, 45, 0, 0, 0, least=True).passed
    assert not checks.Row("dB", 40, 45, 0, 0, 0, least=True).passed
    assert not checks.Row("nothing", float("nan"), 1, 0, 0, 0).passed


@pytest.mark.parametrize("name", checks.volume_geometries())
def test_a_mirrored_volume_would_be_noticed(name: str) -> None:
    operator = VolumeTomography(checks.volume_geometries()[name])
    assert dot_product_error(operator) < 1e-5
    image = checks.smooth(*operator.geometry.volume_shape)[None]
    expected = operator.forward(image)
    for axis in (1, 2, 3):
        assert checks.relative(operator.forward(image.flip(axis)), expected) > 5 * checks.FORWARD


@pytest.mark.parametrize("name", checks.geometries())
def test_a_mirrored_slice_would_be_noticed(name: str) -> None:
    operator = Tomography(checks.geometries()[name])
    image = checks.smooth(8, checks.SIDE, checks.SIDE)
    expected = operator.forward(image)
    for axis in (1, 2):
        assert checks.relative(operator.forward(image.flip(axis)), expected) > 5 * checks.FORWARD
