"""Sharpness of images: their power spectrum relative to the truth's, up to the Nyquist frequency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Images = NDArray[np.float32]
RINGS = 16
"""Rings of equal width between frequency zero and Nyquist."""


def power_ratio(found: Images, truth: Images, axes: Sequence[int] = (0, 1)) -> NDArray[np.float64]:
    """Ratio of the power of images ``(images, rows, cols)`` to the truth's in each of `RINGS` rings, the lowest first.

    A Hann window keeps the edges of the image out of it; the mean of each image is left out. Where the truth has no
    power the ratio is 1.

    Parameters
    ----------
    found, truth
        Images of the same shape and unit.
    axes
        Axes of an image along which frequencies are told apart: both for rings of the radial spectrum, one for that
        along rows (0) or columns (1).
    """
    rows, cols = truth.shape[1:]
    window = np.hanning(rows + 2)[1:-1, None] * np.hanning(cols + 2)[1:-1]
    frequencies = np.meshgrid(fft.fftfreq(rows), fft.fftfreq(cols), indexing="ij")
    radius = np.sqrt(sum(np.square(frequencies[axis]) for axis in axes))
    ring = np.minimum((radius * 2 * RINGS).astype(int), RINGS)
    powers = []
    for images in (found, truth):
        centred = images.astype(np.float64)
        centred = (centred - (centred * window).sum((1, 2), keepdims=True) / window.sum()) * window
        power = np.square(np.abs(fft.fft2(centred))).sum(0)
        # Beyond Nyquist, in the corners, no scan measures along one direction what it measures along the other.
        powers.append(np.bincount(ring.ravel(), power.ravel(), RINGS + 1)[:RINGS])
    mine, true = powers
    return np.where(true > 0, mine / np.where(true > 0, true, 1), 1.0)


def spectral_error(found: Images, truth: Images, axes: Sequence[int] = (0, 1)) -> float:
    """Mean over rings of the absolute difference in dB of both spectra: 0 for images as sharp as the truth."""
    return float(np.abs(decibels(power_ratio(found, truth, axes))).mean())


def sharpness_ratio(found: Images, truth: Images, factor: float, axes: Sequence[int] = (0, 1)) -> float:
    """Ratio of amplitudes to the truth's, root mean square, beyond the frequencies that a `factor` leaves measured."""
    lost = np.arange(RINGS) >= RINGS / factor
    return float(np.sqrt(power_ratio(found, truth, axes)[lost].mean())) if lost.any() else 1.0


def decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert power ratios to dB; none at all counts as -60 dB."""
    return 10 * np.log10(np.maximum(power, 1e-6))
