"""Zingers: single samples of a sinogram that a particle has made bright, or the readout has lost."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recon.measurement.counts import SMALLEST_TRANSMISSION
from recon.spec.report import Step

Sinogram = NDArray[np.float32]
"""Line integrals ``(views, detectors)``, views in the order of their angles."""

OUTLIER = 8.0
"""Multiple of the noise by which a zinger exceeds all its neighbours."""
LEAST_EXCESS = 0.05
"""Least excess of a zinger over all its neighbours, in roots of the transmission."""
LEAST_LIT = 0.01
"""Transmission of all the neighbours of a sample that was lost."""
IMPOSSIBLE = 1.25
"""Root of the transmission over that of the air, from which a sample is brighter than any object can make it."""
PASSES = 4
"""Number of times that zingers are looked for, at most."""
MOST = 0.01
"""Fraction of the samples above which such spots are the object, not zingers."""


def remove(sinograms: NDArray[np.float32], order: NDArray[np.intp]) -> Step:
    """Remove zingers from sinograms ``(slices, views, detectors)``, in place.

    Parameters
    ----------
    order
        Views in the order of their angles.
    """
    bright, lost, views, spared = 0, 0, np.zeros(sinograms.shape[1], bool), 0
    for sinogram in sinograms:
        mended, too_bright, without = _mended(sinogram[order])
        hit = too_bright | without
        if hit.mean() > MOST:
            spared += 1
        elif hit.any():
            bright, lost = bright + int(too_bright.sum()), lost + int(without.sum())
            views[order] |= hit.any(1)
            sinogram[order] = mended
    changed = bright + lost > 0
    text = "none found"
    if changed:
        text = f"{bright} samples too bright and {lost} without signal, in {int(views.sum())} views, were replaced"
    if spared:
        text += f"; {spared} slices have so many that they may be the object: left as they are"
    numbers: dict[str, int | float | list[int]] = {"bright": bright, "lost": lost, "views": int(views.sum())}
    numbers["slices_left"] = spared
    return Step(name="zingers", changed=changed, warning=spared > 0, text=text, numbers=numbers)


def _mended(sinogram: Sinogram) -> tuple[Sinogram, NDArray[np.bool_], NDArray[np.bool_]]:
    """Replace zingers; also returns where there were samples too bright, and samples without signal.

    Each pass finds those that stood beside ones that an earlier pass has removed; brighter than the beam come first.
    """
    bright, lost = _brighter_than_the_beam(sinogram), np.zeros(sinogram.shape, bool)
    mended = _filled(sinogram, bright)
    for _ in range(PASSES):
        more, without = find(mended)
        if not (more.any() or without.any()):
            break
        more = _grown(mended, more)
        bright, lost = bright | more, lost | (without & ~bright)
        mended = _filled(mended, more | without)
    return mended, bright, lost


def _brighter_than_the_beam(sinogram: Sinogram) -> NDArray[np.bool_]:
    """Samples that no object can make, however wide they are."""
    root = _root(sinogram)
    air = max(1.0, float(np.percentile(root, 98)))
    return np.asarray(root > IMPOSSIBLE * air)


def find(sinogram: Sinogram) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the samples that are too bright, and those without signal.

    The root of the transmission has the same noise everywhere, where photons are counted. A zinger exceeds the
    brightest of its neighbours, in the same view two to four columns away and in the views beside it up to two, by
    more than noise can; so does no feature of an object that is seen in more than one view, or is wider.
    """
    root = _root(sinogram)
    brightest, darkest = _neighbours(root, largest=True), _neighbours(root, largest=False)
    limit = max(OUTLIER * _noise(root), LEAST_EXCESS)
    bright = root - brightest > limit
    lost = (sinogram >= -math.log(SMALLEST_TRANSMISSION) - 1e-3) & (darkest > math.sqrt(LEAST_LIT))
    return bright, lost


def _root(sinogram: Sinogram) -> Sinogram:
    """Root of the transmission; something finite also of values that are no line integrals: these are refused later."""
    return np.asarray(np.exp(-0.5 * np.clip(sinogram, -20, 100)), dtype=np.float32)


def _neighbours(root: Sinogram, *, largest: bool) -> Sinogram:
    """Largest or smallest of the neighbours of each sample."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    extremum, outside = (maximum_filter1d, -np.inf) if largest else (minimum_filter1d, np.inf)
    join = np.maximum if largest else np.minimum
    beside = extremum(root, 3, axis=1, mode="nearest")
    found = np.full_like(root, outside)
    found[:, :-3] = beside[:, 3:]
    found[:, 3:] = join(found[:, 3:], beside[:, :-3])
    other = extremum(root, 5, axis=1, mode="nearest")
    found[:-1] = join(found[:-1], other[1:])
    found[1:] = join(found[1:], other[:-1])
    return found


def _noise(root: Sinogram) -> float:
    """Standard deviation of white noise, from fourth differences along the detector."""
    if root.shape[1] < 5:
        return math.inf
    rough = root[:, :-4] - 4 * root[:, 1:-3] + 6 * root[:, 2:-2] - 4 * root[:, 3:-1] + root[:, 4:]
    return float(np.median(np.abs(rough))) / (0.6745 * math.sqrt(70.0))


def _grown(sinogram: Sinogram, bright: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Add the columns beside a zinger that it reaches: brighter than both ends of the line across it."""
    hit, root = bright.copy(), _root(sinogram)
    limit = max(OUTLIER * _noise(root), LEAST_EXCESS) / 2
    for view, column in np.argwhere(bright):
        ends = root[view, [max(column - 3, 0), min(column + 3, root.shape[1] - 1)]]
        for near in (column - 1, column + 1):
            if 0 <= near < root.shape[1] and root[view, near] > ends.max() + limit:
                hit[view, near] = True
    return hit


def _filled(sinogram: Sinogram, hit: NDArray[np.bool_]) -> Sinogram:
    """Replace samples by the line between those beside them in the same view."""
    if not hit.any():
        return sinogram
    found, columns = sinogram.copy(), np.arange(sinogram.shape[1])
    for view in np.flatnonzero(hit.any(1)):
        good = ~hit[view]
        if good.any():
            found[view, ~good] = np.interp(columns[~good], columns[good], sinogram[view, good])
    return found
