"""Perceptual distance and spectra: what is soft, noisy or elsewhere is told from what is only moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from recon.quality.perceptual import perceptual_distance
from recon.quality.spectrum import power_ratio, sharpness_ratio, spectral_error
from recon.samples import SAMPLES


@pytest.fixture(scope="module")
def brain() -> NDArray[np.float32]:
    image: NDArray[np.float32] = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][7].astype(np.float32) / 255
    return image


def moved(image: NDArray[np.float32], pixels: float) -> NDArray[np.float32]:
    shifted = ndimage.fourier_shift(np.fft.fft2(image), (pixels, 0))
    return np.fft.ifft2(shifted).real.astype(np.float32)


def test_the_perceptual_distance_orders_images_as_eyes_do(brain: NDArray[np.float32]) -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=brain.shape).astype(np.float32)

    def distance(image: NDArray[np.float32]) -> float:
        return perceptual_distance(image, brain)

    soft = [distance(ndimage.gaussian_filter(brain, width)) for width in (0.5, 1, 2, 4)]
    noisy = [distance(brain + strength * noise) for strength in (0.01, 0.03, 0.1)]
    assert distance(brain) == 0 and soft == sorted(soft) and noisy == sorted(noisy) and max(soft + noisy) < 1
    # Half a pixel or a tenth less contrast is hardly seen, though the squared error is that of a soft image.
    assert distance(moved(brain, 0.5)) < soft[1] / 5 and distance(0.9 * brain) < soft[1] / 5
    assert perceptual_distance(3 * brain, 3 * brain * 0.9) == pytest.approx(perceptual_distance(brain, 0.9 * brain))
    assert math.isnan(perceptual_distance(brain, np.ones_like(brain)))


def test_drawn_detail_is_nearer_than_none(brain: NDArray[np.float32]) -> None:
    """Detail beyond a quarter of Nyquist, as strong as the truth's but elsewhere: worse in mean square, but seen."""
    spectrum, frequencies = np.fft.fft2(brain), np.fft.fftfreq(len(brain))
    low = np.hypot(frequencies[:, None], frequencies) < 1 / 8
    soft = np.fft.ifft2(spectrum * low).real.astype(np.float32)
    drawn = soft + np.roll(brain - soft, 3, 1)
    assert np.square(drawn - brain).sum() > np.square(soft - brain).sum()
    assert perceptual_distance(drawn, brain) < 0.75 * perceptual_distance(soft, brain)
    assert sharpness_ratio(soft[None], brain[None], 4) < 0.1 < 0.9 < sharpness_ratio(drawn[None], brain[None], 4) < 1.1


def test_power_is_told_ring_by_ring_and_along_one_axis() -> None:
    rows = np.arange(128)[:, None] + np.zeros((128, 96))
    slow, fast = (np.cos(2 * np.pi * f * rows).astype(np.float32) for f in (0.05, 0.4))
    truth = (slow + fast)[None]
    ratio = power_ratio((slow + 0.5 * fast)[None], truth)
    assert ratio[1] == pytest.approx(1, abs=0.01) and ratio[12] == pytest.approx(0.25, abs=0.01)
    along = power_ratio((slow + 0.5 * fast)[None], truth, (0,))
    across = power_ratio((slow + 0.5 * fast)[None], truth, (1,))
    assert along[12] == pytest.approx(0.25, abs=0.01) and across[0] == pytest.approx(1.25 / 2, abs=0.02)
    assert spectral_error(truth, truth) == 0 and sharpness_ratio(truth, truth, 1) == 1
