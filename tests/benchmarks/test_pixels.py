"""Pixel sizes are compared on the same anatomy, and a small volume runs through."""

from __future__ import annotations

import numpy as np
import pytest

from operators.errors import InputError
from recon.samples import SAMPLES
from tests.benchmarks import pixels


def test_binning_keeps_means() -> None:
    volume = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    found = pixels.binned(volume, 2)
    assert found.shape == (2, 2, 3) and found[0, 0, 0] == np.mean([0, 1, 6, 7])
    assert found.mean() == volume.mean()


def test_a_body_at_two_pixel_sizes() -> None:
    rows = list(pixels.compare(SAMPLES / "ct_body.nii.gz", (50, 51), (1, 2), 1e5))
    assert [(r.pixel_mm, r.columns, r.views, r.method) for r in rows] == [
        (3.0, 96, 22, "tv"), (3.0, 96, 22, "red-diff"), (6.0, 48, 11, "tv"), (6.0, 48, 11, "red-diff"),
    ]  # fmt: skip
    assert all(15 < r.psnr < 45 and 15 < r.psnr_inside < 45 for r in rows)
    (pixel, columns, views, tv, ours, gain, *_), second = pixels.gains(rows)
    assert (pixel, columns, views) == (3.0, 96, 22) and gain == pytest.approx(ours - tv) and second[0] == 6.0


def test_too_small_a_volume_is_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        list(pixels.compare(SAMPLES / "ct_body.nii.gz", (50, 51), (1, 16), 1e5))
