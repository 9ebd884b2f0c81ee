"""Reflect padding for network inputs; zero padding misleads the network where anatomy is cut off."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 16
"""Padding in pixels on each side."""


def continued(x: Tensor) -> Tensor:
    """Pad images ``(..., rows, cols)`` by `MARGIN` mirrored pixels on each side."""
    for axis in (-2, -1):
        x = x.index_select(axis, _folded(x.shape[axis]).to(x.device))
    return x


def cut_back(x: Tensor) -> Tensor:
    """Crop the padding: inverse of `continued`."""
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def _folded(size: int) -> Tensor:
    """Source index of each pixel of a padded side: ``1 0 | 0 1 2 | 2 1``, and so on for short sides."""
    there_and_back = torch.arange(-MARGIN, size + MARGIN) % (2 * size)
    return torch.minimum(there_and_back, 2 * size - 1 - there_and_back)
