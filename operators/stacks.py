"""Grids of low-resolution stacks: sizes by a factor, and the names of slice profiles and k-space filters. No torch."""

from __future__ import annotations

import math
from typing import Literal

SliceProfile = Literal["box", "gaussian", "slr"]
"""Sensitivity of a slice across its thickness."""
KSpaceFilter = Literal["none", "hann", "tukey"]
"""Window with which measured frequencies are apodised."""
ROUNDING = 1e-9
"""Slack in pixels for products of sizes and factors, which are rounded up or down."""


def fine_size(coarse: int, factor: float) -> int:
    """Size of the grid that is `factor` times finer than one of `coarse` pixels, rounded up."""
    return math.ceil(coarse * factor - ROUNDING)


def coarse_size(fine: int, factor: float) -> int:
    """Smallest size whose `fine_size` covers `fine` pixels; the inverse of `fine_size` for a factor from 1."""
    return math.floor((fine - 1) / factor + ROUNDING) + 1
