"""A finer grid for an image whose pixels are known: the smooth object behind it, for simulation."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SUPPORT = 2.0
"""Half the width of a cubic B-spline in pixels."""


def refined(images: Tensor, factor: int) -> Tensor:
    """Refine images ``(slices, rows, cols)`` without negative values to `factor` times the rows and columns.

    The object is the cubic spline whose mean over every pixel is the given value, so that the images stay its truth;
    fine pixels hold its means. Splines are nearly band-limited to the given pixels' Nyquist frequency, and ring over a
    few pixels only. Where that would be negative, the pixel's fine ones move towards their mean: air stays empty.

    References
    ----------
    Unser, Aldroubi and Eden 1993, IEEE Trans. Signal Process. 41, 821-848 (B-spline interpolation).
    Zhang and Shu 2010, J. Comput. Phys. 229, 8918-8934, eq. 3.7 (what keeps means and takes negative values away).
    """
    slices, rows, cols = images.shape
    means = images.double()
    fine = _means(rows, factor) @ means @ _means(cols, factor).T
    fine = fine.reshape(slices, rows, factor, cols, factor)
    means = means.reshape(slices, rows, 1, cols, 1)
    lowest = fine.amin((2, 4), keepdim=True)
    kept = torch.where(lowest < 0, means / (means - lowest).clamp(min=1e-300), 1.0)
    return (means + kept * (fine - means)).reshape(slices, rows * factor, cols * factor).to(images.dtype)


@lru_cache(maxsize=8)
def _means(size: int, factor: int) -> Tensor:
    """Matrix ``(size * factor, size)`` from means over pixels to means over fine ones, float64."""
    from scipy.interpolate import BSpline  # takes its time, and what was measured needs none

    cubic = BSpline.basis_element([-2.0, -1.0, 0.0, 1.0, 2.0])
    below = cubic.antiderivative()

    def means(edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means of every pixel's spline between neighbouring edges, in pixels from the first pixel's centre."""
        within = np.clip(edges[:, None] - np.arange(size), -SUPPORT, SUPPORT)
        found: NDArray[np.float64] = np.diff(below(within), axis=0) / np.diff(edges)[:, None]
        return found

    coarse = means(np.arange(size + 1, dtype=np.float64) - 0.5)
    fine = means(np.arange(size * factor + 1, dtype=np.float64) / factor - 0.5)
    return torch.from_numpy(fine @ np.linalg.inv(coarse))


def steepened(images: Tensor, factor: int, steepness: float) -> Tensor:
    """Refine images as `refined` does, with edges that are `steepness` times as steep: an object has no resolution.

    Within a pixel, fine ones depart more from its mean, at most to the darkest and brightest of its eight neighbours;
    then they move towards one of these until the mean is the pixel's again.
    """
    slices, rows, cols = images.shape
    fine = refined(images, factor).reshape(slices, rows, factor, cols, factor)
    means = images.reshape(slices, rows, 1, cols, 1)
    around = functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    high = functional.max_pool2d(around, 3, 1).reshape(means.shape)
    low = -functional.max_pool2d(-around, 3, 1).reshape(means.shape)
    fine = torch.minimum(torch.maximum(means + steepness * (fine - means), low), high)
    found = fine.mean((2, 4), keepdim=True)
    end = torch.where(found > means, low, high)
    kept = torch.where(found == end, 1.0, (means - end) / torch.where(found == end, 1.0, found - end))
    return (end + kept * (fine - end)).reshape(slices, rows * factor, cols * factor)
