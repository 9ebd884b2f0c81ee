"""The inside of the object in a known volume, where errors matter more than in the air around it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVEL = 0.15
"""Threshold between air and object, as a fraction of the range up to the 99th percentile."""
THIN = 2
"""Half the thickness in pixels of what is not counted as object, as tables and blankets."""
LEAST_SHARE = 0.2
"""Least size of a part of the object, over the largest one in the slice, as arms beside a chest."""


def inside(truth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the object in a known volume ``(slices, rows, cols)``, in any unit in which air has the lowest values.

    Each slice is thresholded at -800 HU or so (CT), or a seventh of bright tissue (MRI); thin parts and small ones, as
    the table, are left out, and holes, as lungs, belong to it.
    """
    low, high = float(truth.min()), float(np.percentile(truth, 99))
    dense = truth > low + LEVEL * (high - low)
    if high <= low:
        return np.zeros(truth.shape, dtype=bool)
    return np.stack([_parts(one) for one in dense])


REGIONS = ("the object", "what is beside it")


def regions(volume: Tensor) -> Tensor:
    """Masks of the `REGIONS` of a reconstruction, ``(regions, slices, rows, cols)`` float32, which sum to 1.

    There may be more axes before the slices.

    They meet at the object's surface, where a step from one volume to another does not show. Each slice
    ``(rows, cols)`` is looked at by itself, so that it has the same regions alone and in a stack.
    """
    images = volume.abs().numpy().reshape(-1, *volume.shape[-2:])
    within = np.stack([inside(one[None])[0] for one in images]).astype(np.float32).reshape(volume.shape)
    return torch.stack([torch.from_numpy(within), torch.from_numpy(1 - within)])


def _parts(dense: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Large parts of one slice, with their holes."""
    from scipy import ndimage

    whole = ndimage.binary_opening(ndimage.binary_fill_holes(dense), iterations=THIN)
    labels, count = ndimage.label(whole)
    if count == 0:
        return dense
    sizes = np.bincount(labels.ravel())[1:]
    return np.isin(labels, 1 + np.flatnonzero(sizes >= LEAST_SHARE * sizes.max()))
