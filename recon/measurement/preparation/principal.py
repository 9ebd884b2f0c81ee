"""Flat fields that change during a scan: principal components of the flats, fitted to each view.

The logarithm of a flat is that of their mean and some of its principal components. How much of each a view has shows in
its fine structure along the rows, which the object, being smoother or sharper in few places only, does not hide.

References
----------
Van Nieuwenhove et al. 2015, Opt. Express 23, 27975-27989 (dynamic intensity normalisation by eigen flat fields).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 5
"""Components that are used, at most."""
ABOVE_NOISE = 2.0
"""Variance of a component over that of the median one, from which it is more than noise."""
FEWEST_FLATS = 5
"""Flats from which there are components at all."""
ROUNDS = 8
"""Reweighted least squares, towards least absolute differences."""


def components(log_flats: NDArray[np.float32], bad: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Find how flats differ beyond their brightness, ``(components, rows, columns)``.

    Parameters
    ----------
    log_flats
        Logarithms of the flats ``(frames, rows, columns)``.
    bad
        Elements that are not used.
    """
    if len(log_flats) < FEWEST_FLATS:
        return np.zeros((0, *log_flats.shape[1:]), np.float32)
    flat = np.where(bad, 0, log_flats).reshape(len(log_flats), -1).astype(np.float64)
    good = ~bad.reshape(-1)
    flat[:, good] -= flat[:, good].mean(axis=1, keepdims=True)  # brightness is the beam's, not its shape
    flat -= flat.mean(axis=0)
    variances, vectors = np.linalg.eigh(flat @ flat.T)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    count = min(int((variances > ABOVE_NOISE * np.median(variances)).sum()), MOST)
    found = vectors[:, :count].T @ flat / np.sqrt(np.maximum(variances[:count], 1e-30))[:, None]
    return np.asarray(found.reshape(count, *log_flats.shape[1:]), dtype=np.float32)


def correct(data: NDArray[np.float32], parts: NDArray[np.float32], bad: NDArray[np.bool_]) -> float:
    """Take the components out of line integrals ``(slices, views, detectors)`` in place; returns their rms."""
    if not len(parts):
        return 0.0
    # Differences of neighbouring good elements.
    good = (~bad[:, 1:] & ~bad[:, :-1]).reshape(-1)
    change = np.diff(parts.astype(np.float64), axis=2).reshape(len(parts), -1)[:, good].T
    square = 0.0
    for view in range(data.shape[1]):
        wanted = -np.diff(data[:, view].astype(np.float64), axis=1).reshape(-1)[good]
        taken = np.tensordot(_fitted(change, wanted), parts, axes=1)
        data[:, view] += taken
        square += float(np.square(taken).mean())
    return float(np.sqrt(square / data.shape[1]))


def _fitted(matrix: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the columns of a matrix with the least sum of absolute differences: edges count no more than noise."""
    weights: NDArray[np.float64] = np.ones(len(wanted))
    found: NDArray[np.float64] = np.zeros(matrix.shape[1])
    for _ in range(ROUNDS):
        weighted = matrix * weights[:, None]
        found = np.asarray(np.linalg.lstsq(weighted.T @ matrix, weighted.T @ wanted, rcond=None)[0])
        left = np.abs(wanted - matrix @ found)
        weights = 1 / np.maximum(left, 0.1 * np.median(left) + 1e-12)
    return found
