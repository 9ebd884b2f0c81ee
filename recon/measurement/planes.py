"""Super-resolution works on planes that hold the direction to be refined; thick slices are seen from the side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from operators.resolution import Resolution, SlabAverage, Truncation
from recon.spec.job import MRIResolution


def resolution_operator(acquisition: MRIResolution, shape: Sequence[int]) -> Resolution:
    """The operator on the planes of a high-resolution volume of `shape` ``(slices, rows, cols)``."""
    slices, rows, cols = shape
    if acquisition.direction == "plane":
        return Truncation(rows, cols, acquisition.factor)
    return SlabAverage(slices, rows, acquisition.factor, -2, complex=True)


def in_planes(volume: Tensor, acquisition: MRIResolution) -> Tensor:
    """``(slices, rows, cols)`` as the planes that the operator and the prior see.

    In-plane: the slices themselves. Through-plane: one plane ``(slices, rows)`` for every column.
    """
    return volume if acquisition.direction == "plane" else volume.permute(2, 0, 1).contiguous()


def from_planes(planes: Tensor, acquisition: MRIResolution) -> Tensor:
    """Inverse of `in_planes`."""
    return planes if acquisition.direction == "plane" else planes.permute(1, 2, 0).contiguous()
