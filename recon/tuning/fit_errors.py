"""Fit of what the clues to an error say, to errors that were made on slices whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from recon.defaults.errors import CLUES, Shares

Array = NDArray[np.float64]
VOXELS = 4000
"""Voxels of each case and class that are fitted to."""
INTERVAL = 0.9
"""Fraction of the errors that an interval is to hold."""
FIRST, LEAST = 0.3, 1e-4
"""Share that every clue begins with, and below which it counts as none."""


class Sample(NamedTuple):
    """Errors ``(voxels,)`` of one case in one class of voxels, not negative, and their clues ``(clues, voxels)``."""

    clues: Array
    error: Array

    def thinned(self) -> Sample:
        """At most `VOXELS` of them, in units of their mean error, so that cases count alike."""
        kept = np.random.default_rng(0).permutation(len(self.error))[:VOXELS]
        unit = max(float(self.error.mean()), 1e-30)
        return Sample(self.clues[:, kept] / unit, self.error[kept] / unit)


def expected(samples: Sequence[Sample]) -> Shares:
    """Shares of the standard deviation of the error: the most likely ones if errors were normal."""

    def surprise(error: Array, size: Array) -> Array:
        return np.log(size) + 0.5 * (error / size) ** 2

    return _fitted(samples, surprise)


def interval(samples: Sequence[Sample]) -> Shares:
    """Shares of half the width of an interval: quantile regression, then the same scale for all in the conformal way.

    References
    ----------
    Koenker and Bassett 1978, Econometrica 46, 33-50. Romano, Patterson and Candes 2019, Conformalized quantile
    regression, NeurIPS (arXiv 1905.03222).
    """

    def pinball(error: Array, size: Array) -> Array:
        beyond = error - size
        return np.maximum(INTERVAL * beyond, (INTERVAL - 1) * beyond)

    shares = _fitted(samples, pinball)
    ratios = np.concatenate([one.error / _size(one.clues, np.array(shares.values())) for one in samples])
    scale = float(np.quantile(ratios, INTERVAL))
    return Shares.of([float(f"{scale * share:.4g}") for share in shares.values()])


def _size(clues: Array, shares: Array) -> Array:
    """Errors that clues explain: the root of the sum of their squares, each times its share."""
    return np.asarray(np.maximum(np.sqrt(((shares[:, None] * clues) ** 2).sum(0)), 1e-30))


def _fitted(samples: Sequence[Sample], loss: Callable[[Array, Array], Array]) -> Shares:
    """Shares with the least mean loss, all samples with the same weight."""

    def mean(logarithms: Array) -> float:
        return float(np.mean([loss(one.error, _size(one.clues, np.exp(logarithms))).mean() for one in samples]))

    start = np.full(len(CLUES), np.log(FIRST))
    found = optimize.minimize(
        mean, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-3, "fatol": 1e-7}
    )
    shares = np.exp(found.x)
    return Shares.of([float(f"{share:.4g}") if share >= LEAST else 0.0 for share in shares])
