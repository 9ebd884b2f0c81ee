"""Images continued by their mirror image: a network of convolutions takes what lies beyond an edge for nothing."""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 16
"""Pixels on each side."""


def continued(x: Tensor) -> Tensor:
    """Images ``(..., rows, cols)`` with `MARGIN` mirrored pixels on each side."""
    for axis in (-2, -1):
        x = x.index_select(axis, _folded(x.shape[axis]).to(x.device))
    return x


def cut_back(x: Tensor) -> Tensor:
    """The images in the middle: undoes `continued`."""
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def _folded(size: int) -> Tensor:
    """Which pixel each pixel of the continued side shows: ``1 0 | 0 1 2 | 2 1``, and on to and fro."""
    there_and_back = torch.arange(-MARGIN, size + MARGIN) % (2 * size)
    return torch.minimum(there_and_back, 2 * size - 1 - there_and_back)
