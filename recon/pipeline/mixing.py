"""Best mixture of reconstructions by residuals at withheld samples: a small quadratic programme, in closed form.

Residuals are linear in the volume, so those of a mixture are the mixture of the residuals, and its squared error is a
quadratic form of the weights with the residuals' inner products as its matrix. A volume is the sum of its regions, so
that the same holds where each has weights of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
RIDGE = 1e-9
"""Added to the matrix's diagonal, as a fraction of it: candidates that are the same share their weight."""
LEAST = 1e-300
SWEEPS = 2
"""Times that the regions are gone through."""
DOUBT = 2.0
"""Standard errors of gain up to which a mixture is not believed."""
NEGLIGIBLE = 0.05
"""Weight below which a candidate is left out: it would cost its time and change little."""


class Mixture(NamedTuple):
    """Mixture of candidates for one slice.

    Parameters
    ----------
    weights
        Of each candidate, not negative, with sum 1.
    gains_db
        Squared residuals of the best classical candidate over those of each candidate, in dB.
    gain_db
        The same of the mixture, over samples that its weights were not found on.
    confidence
        Standard errors of that gain; 0 where there is none.
    """

    weights: Matrix
    gains_db: Matrix
    gain_db: float
    confidence: float


def mixed(products: Matrix, classical: Sequence[int]) -> Mixture:
    """Find the mixture with the least squared residual, shrunk towards the best classical candidate by what is unsure.

    With ``t`` standard errors of gain over the classical candidate, on units that the weights were not found on, the
    mixture keeps ``1 - (2 / t)^2`` of its way from there, and none below two of them: noise does not decide. That is
    the positive-part estimator of James and Stein with four times its shrinkage, since being worse than the classical
    candidate costs more than what is left on the way.

    Parameters
    ----------
    products
        Inner products of the candidates' residuals in each unit, ``(units, candidates, candidates)``.
    classical
        Which candidates are classical; at least one.

    References
    ----------
    Breiman 1996, Stacked regressions, Mach. Learn. 24, 49-64. James and Stein 1961, Proc. Fourth Berkeley Symp. 1.
    """
    total = products.sum(0)
    squares = np.diag(total)
    safe = min(classical, key=lambda index: squares[index])
    best = simplex(total)
    before, after = [], []
    for unit in products:
        others = simplex(total - unit)
        before.append(float(unit[safe, safe]))
        after.append(float(others @ unit @ others))
    confidence = _standard_errors(np.asarray(before), np.asarray(after))
    kept = max(1 - (DOUBT / confidence) ** 2, 0.0) if confidence > 0 else 0.0
    only = np.eye(len(total))[safe]
    weights = kept * best + (1 - kept) * only
    weights = np.where(weights < NEGLIGIBLE, 0.0, weights)
    weights /= weights.sum()
    gain_db = float(decibels(max(sum(before), LEAST) / max(sum(after), LEAST)))
    return Mixture(weights, decibels(squares[safe] / np.maximum(squares, LEAST)), gain_db, confidence)


class RegionMixture(NamedTuple):
    """Mixture of candidates for one slice, region by region.

    Parameters
    ----------
    weights
        ``(regions, candidates)``, not negative, with sum 1 in every region.
    gains_db
        As of `Mixture`, of the whole slice.
    gain_db
        The same of the mixture, over the samples that its weights were found on.
    confidence
        That of the region that is surest.
    """

    weights: Matrix
    gains_db: Matrix
    gain_db: float
    confidence: float


def by_region(products: Matrix, candidates: int, classical: Sequence[int]) -> RegionMixture:
    """Mix candidates region by region, each given the mixtures of the others, from the best classical candidate on.

    Regions are gone through twice: what a candidate makes of the object may make up, at the samples, for what the
    classical method makes of the table, and is worth nothing once that is drawn right.

    Parameters
    ----------
    products
        Inner products ``(units, parts, parts)`` of the first candidate's residual and of what the others ask for beyond
        it: of the first region those of all other candidates, of the second, and so on.
    candidates
        Number of candidates.
    classical
        Which of them are classical.
    """
    others = candidates - 1
    regions = (products.shape[-1] - 1) // others if others else 1
    only = np.eye(candidates)

    def row(weights: Matrix) -> Matrix:
        """Parts of the residual of a mixture ``(regions, candidates)``."""
        return np.concatenate([[1.0], weights[:, 1:].ravel()]) if others else np.ones(1)

    whole = np.stack([row(np.tile(one, (regions, 1))) for one in only])
    squares = np.diag(whole @ products.sum(0) @ whole.T)
    safe = min(classical, key=lambda index: squares[index])
    weights = np.tile(only[safe], (regions, 1))
    confidence = 0.0
    for _ in range(SWEEPS):
        found = []
        for region in range(regions):
            apart = np.stack([np.where(np.arange(regions)[:, None] == region, one, weights) for one in only])
            rows = np.stack([row(one) for one in apart])
            found.append(mixed(rows @ products @ rows.T, classical))
            weights[region] = found[-1].weights
        confidence = max(one.confidence for one in found)
    mixture = row(weights)
    gains_db = decibels(squares[safe] / np.maximum(squares, LEAST))
    left = float(mixture @ products.sum(0) @ mixture)
    gain_db = float(decibels(max(float(squares[safe]), LEAST) / max(left, LEAST)))
    return RegionMixture(weights, gains_db, gain_db, confidence)


def _standard_errors(before: Matrix, after: Matrix) -> float:
    """Standard errors by which squared residuals fall, in the mean of their logarithms; 0 if they do not.

    By logarithms every unit counts alike: the lines of k-space next to its centre hold most of the energy, and would
    decide alone.
    """
    if len(before) < 2 or after.sum() >= before.sum():
        return 0.0
    falls = np.log(np.maximum(before, LEAST) / np.maximum(after, LEAST))
    spread = float(falls.std(ddof=1)) / math.sqrt(len(falls))
    return max(float(falls.mean()) / max(spread, LEAST), 0.0)


def simplex(matrix: Matrix) -> Matrix:
    """Minimise ``w^T M w`` over weights that are not negative and sum to 1.

    The minimum lies inside a face of the simplex, and there it is a linear equation: of few candidates all faces are
    tried.
    """
    count = len(matrix)
    regular = matrix + RIDGE * max(float(np.trace(matrix)) / count, 1e-300) * np.eye(count)
    best: Matrix = np.eye(count)[int(np.argmin(np.diag(regular)))]
    least = float(np.diag(regular).min())
    for size in range(2, count + 1):
        for face in combinations(range(count), size):
            inner = np.linalg.solve(regular[np.ix_(face, face)], np.ones(size))
            if inner.min() < 0:
                continue
            weights = np.zeros(count)
            weights[list(face)] = inner / inner.sum()
            value = float(weights @ regular @ weights)
            if value < least:
                best, least = weights, value
    return best


def decibels(ratio: Matrix | float) -> Matrix:
    """Decibels of a ratio of squares."""
    return np.asarray(10 * np.log10(ratio), np.float64)
