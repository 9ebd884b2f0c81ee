"""Skipping of network evaluations: the prediction is extrapolated where it changes steadily between noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor


class Skipping:
    """Noise prediction, evaluated, or extrapolated in log sigma where it was stable.

    A slice is skipped where its last two evaluations differ by less than `tolerance`, relative to their size, and never
    twice in a row. Each slice is its own: what others do does not matter. The data step is never skipped.

    Parameters
    ----------
    tolerance
        0 evaluates always.
    slices
        Number of slices of the volume.

    References
    ----------
    Jiang et al. 2025, SADA (arXiv 2507.17135): the criterion is simpler here, the idea is theirs.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("_before", "_last", "_levels", "_seen", "_fresh")

    def __init__(self, tolerance: float, slices: int) -> None:
        self.tolerance = tolerance
        self._before: Tensor | None = None
        self._last: Tensor | None = None
        self._levels = torch.zeros(2, slices)
        self._seen = torch.zeros(slices, dtype=torch.long)
        self._fresh = torch.ones(slices, dtype=torch.bool)

    def __call__(self, sigma: float, evaluate: Callable[[Tensor], Tensor]) -> Tensor:
        """Predict the noise at a level; `evaluate` returns that of the slices with the given indices."""
        if self.tolerance == 0:
            return evaluate(torch.arange(len(self._seen)))
        skipped = self._stable()
        index = (~skipped).nonzero()[:, 0]
        fresh = evaluate(index) if len(index) else None
        if self._before is None or self._last is None:
            assert fresh is not None
            self._before, self._last = torch.zeros_like(fresh), torch.zeros_like(fresh)
        level = math.log(sigma)
        found = torch.empty_like(self._last)
        if fresh is not None:
            found[index] = fresh
            self._before[index], self._last[index] = self._last[index], fresh
            self._levels[0, index], self._levels[1, index] = self._levels[1, index], level
            self._seen[index] += 1
        if bool(skipped.any()):
            ahead = (level - self._levels[1, skipped]) / (self._levels[1, skipped] - self._levels[0, skipped])
            last = self._last[skipped]
            found[skipped] = last + (last - self._before[skipped]) * ahead.reshape(-1, *(1,) * (last.ndim - 1))
        self._fresh = ~skipped
        return found

    def _stable(self) -> Tensor:
        """Mask of the slices that need no evaluation now."""
        known = self._fresh & (self._seen >= 2)
        if self._before is None or self._last is None or not bool(known.any()):
            return torch.zeros_like(self._fresh)
        change = torch.linalg.vector_norm((self._last - self._before).flatten(1), dim=1)
        size = torch.linalg.vector_norm(self._last.flatten(1), dim=1)
        stable: Tensor = known & (change < self.tolerance * size)
        return stable
