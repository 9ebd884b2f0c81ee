"""Slices that stand for a stack where something is told that is one for all of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SLICES = 16
"""Number of slices, at most: as many as the acquisitions look at, too."""


def sampled(count: int) -> NDArray[np.intp]:
    """Return evenly spaced slices of `count`, the first and the last among them; a sample of a sample is all of it."""
    return np.unique(np.linspace(0, count - 1, min(count, SLICES)).round().astype(np.intp))
