"""Rotation centre: the detector column of the axis, found from rays that are measured from both sides.

A ray and its opposite have the same line integral. In parallel beams the view half a turn later is the mirror image
about the axis; in a fan the opposite ray belongs to another view, depending on its place in the fan. Where no more than
half a turn was measured, the first views have to continue the last ones, mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.spec.acquisitions.ct import CT, Diverging
from recon.spec.report import Step

Array = NDArray[np.floating[Any]]

SLICES, DOUBTED_SLICES = 5, 2
"""Slices that are looked at to find a centre, and to check one."""
NOTABLE, TIMES_UNCERTAINTY, LEAST_GAIN = 1.0, 4.0, 1.2
"""Columns that a centre has to be off for a warning, times the uncertainty of the right one, and gain of that."""
COARSE_COLUMNS = 200
"""Columns, about, of the data in which the whole detector is searched."""
AROUND = 3
"""Views on either side of the seam between the first views and the last ones, mirrored."""
OPPOSITES, COARSE_OPPOSITES = 60, 20
"""Views whose opposite rays are looked up, at most, in fine steps and over the whole detector."""
BLUR = 0.25
"""Smoothing along the detector, in units of what the outermost point in view moves between two views."""
LEAST_OVERLAP = 0.1
"""Fraction of the columns that have to be seen from both sides."""
LEAST_SIGNAL = 0.002
"""Variance in these columns, over that in all, from which they show anything."""
ALIKE = 0.2
"""Cost above which opposite rays are not the same."""
SIMILAR = 2.0
"""Cost of a minimum over that of the lowest one, up to which either may be right."""


class Centre(NamedTuple):
    """Rotation centre.

    Parameters
    ----------
    column, uncertainty
        Detector column, and its standard uncertainty.
    gain
        Mean square of the differences of opposite rays with the assumed centre over that with this one.
    """

    column: float
    uncertainty: float
    gain: float


class _Fit(NamedTuple):
    """Agreement of rays with their opposites for one centre.

    Parameters
    ----------
    cost
        Mean square of the differences over what it would be for unlike rays; infinite if too few are seen twice.
    square
        Mean square of the differences.
    rays
        Number of independent differences.
    """

    cost: float
    square: float
    rays: float


def step(sinograms: NDArray[np.float32], acquisition: CT) -> tuple[Step, float | None]:
    """Find the centre if it is to be found, or else check the one that is assumed.

    Returns
    -------
    Step
        What is said.
    float
        The centre, if it was to be found.

    Raises
    ------
    InputError
        If the centre is to be found, and the data do not tell.
    """
    wanted, columns = acquisition.rotation_center_column == "auto", sinograms.shape[2]
    now = assumed(acquisition, columns)
    found = find(sinograms, acquisition, now, SLICES if wanted else DOUBTED_SLICES)
    numbers: dict[str, int | float | list[int]] = {} if wanted else {"assumed": round(now, 4)}
    if found is None:
        if wanted:
            raise InputError(
                "the data do not tell the rotation centre: no rays are measured from both sides, or these differ",
                field="acquisition.rotation_center_column",
                remedy="give it as a number",
            )
        text = "no rays are measured from both sides, or slices differ: the rotation centre could not be checked"
        return Step(name="rotation_center_column", changed=False, text=text, numbers=numbers), None
    numbers |= {"found": round(found.column, 4), "uncertainty": round(found.uncertainty, 4)}
    at = f"column {found.column:.2f} +- {found.uncertainty:.2f}"
    if wanted:
        text = f"the rotation axis is at {at}, where opposite rays agree best"
        return Step(name="rotation_center_column", changed=True, text=text, numbers=numbers), round(found.column, 4)
    off = abs(found.column - now)
    warning = off > max(NOTABLE, TIMES_UNCERTAINTY * found.uncertainty) and found.gain > LEAST_GAIN
    text = f"opposite rays agree best with the rotation axis at {at}"
    if warning:
        text += f", not at {now:.2f}, which makes double edges: give rotation_center_column, or auto"
    return Step(name="rotation_center_column", changed=False, warning=warning, text=text, numbers=numbers), None


def find(sinograms: NDArray[np.float32], acquisition: CT, now: float, slices: int = SLICES) -> Centre | None:
    """Find the centre of ``(slices, views, detectors)``; None if no rays come from both sides, or slices differ.

    `now` is the one that is assumed so far.

    Each of some slices is searched at low resolution over the whole detector, then in fine steps. The uncertainty holds
    the noise and the scatter of the slices, not what a moving object or wrong angles add.
    """
    angles = acquisition.angles()
    if angles is None or len(angles) < 2 * AROUND + 2 or sinograms.shape[2] < 16:
        return None
    some = np.unique(np.linspace(0, len(sinograms) - 1, min(slices, len(sinograms))).round().astype(int))
    each = [_of_slice(sinograms[index], np.asarray(angles), acquisition, now) for index in some]
    found = [one for one in each if one is not None]
    if not found:
        return None
    columns, spread = np.array([one.column for one in found]), np.array([one.uncertainty for one in found])
    near = np.abs(columns - np.median(columns)) <= 1 + 5 * np.median(spread)  # a slice may show little, and be wrong
    if not near.any():  # as two that contradict each other, with their median between them
        return None
    columns, weights = columns[near], 1 / np.square(spread[near])
    mean = float((columns * weights).sum() / weights.sum())
    scatter = float(np.square(columns - mean).mean() / max(len(columns) - 1, 1))
    gain = float(np.median([one.gain for one in found]))
    return Centre(mean, math.sqrt(1 / float(weights.sum()) + scatter), gain)


def assumed(acquisition: CT, columns: int) -> float:
    """The column that the acquisition says, or the middle."""
    if isinstance(acquisition.rotation_center_column, float):
        return acquisition.rotation_center_column
    shift = (acquisition.detector_shift_mm or 0.0) / (acquisition.detector_mm or 1.0)
    return (columns - 1) / 2 - shift


def _of_slice(sinogram: Array, angles: NDArray[np.float64], acquisition: CT, now: float) -> Centre | None:
    factor = max(sinogram.shape[1] // COARSE_COLUMNS, 1)
    columns = sinogram.shape[1] // factor
    coarse = sinogram[:, : columns * factor].reshape(len(sinogram), columns, factor).mean(2)
    fit = _comparison(coarse, angles, acquisition, factor, COARSE_OPPOSITES)
    fine = _comparison(sinogram, angles, acquisition, 1, OPPOSITES)
    if fit is None or fine is None:
        return None
    edge = LEAST_OVERLAP * columns / 2
    places = np.arange(edge, columns - 1 - edge, 0.5)
    costs = np.array([fit(place).cost for place in places])
    lows = 1 + np.flatnonzero((costs[1:-1] <= costs[:-2]) & (costs[1:-1] <= costs[2:]) & (costs[1:-1] < ALIKE))
    if not len(lows):
        return None
    # Few rays agree by chance sooner than many: of similar minima, the one with most of them is right.
    similar = places[lows[costs[lows] <= SIMILAR * costs[lows].min()]]
    best = float(similar[np.argmin(np.abs(similar - (columns - 1) / 2))])
    place, apart = best * factor + (factor - 1) / 2, 0.25 * factor
    while apart > 0.1:
        near = place + apart * np.arange(-2, 3)
        place = float(near[np.argmin([fine(one).cost for one in near])])
        apart /= 2
    return _minimum(fine, place, now)


def _minimum(fit: Callable[[float], _Fit], place: float, now: float) -> Centre | None:
    """The minimum of the parabola around a place, and its uncertainty from the differences that are left there."""
    off = np.linspace(-1, 1, 9)
    squares = np.array([fit(place + one).square for one in off])
    if not np.isfinite(squares).all():
        return None
    curvature, slope, _ = (float(one) for one in np.polyfit(off, squares, 2))
    if curvature <= 0 or abs(slope) > 2 * curvature:
        return None
    column = place - slope / (2 * curvature)
    left, square = fit(column), max(fit(column).square, 1e-12)
    return Centre(column, math.sqrt(square / (left.rays * curvature)), fit(now).square / square)


def _comparison(
    sinogram: Array, angles: NDArray[np.float64], acquisition: CT, factor: int, opposites: int
) -> Callable[[float], _Fit] | None:
    """Function of the centre that compares rays with their opposites; None if the views have none."""
    from scipy.ndimage import gaussian_filter1d

    turned = angles % (2 * np.pi)
    order = np.argsort(turned, kind="stable")
    turned = turned[order]
    gaps = np.diff(turned, append=turned[0] + 2 * np.pi)
    step = float(np.median(gaps[gaps > 1e-6])) if (gaps > 1e-6).any() else math.inf
    first = (int(np.argmax(gaps)) + 1) % len(gaps)  # the views begin after the largest gap
    order = np.roll(order, -first)
    turned = (angles[order] - angles[order[0]]) % (2 * np.pi)
    span, whole = float(turned[-1]), float(gaps.max()) <= 3 * step
    blur = max(1.0, BLUR * step * sinogram.shape[1])
    margin = min(int(3 * blur) + 1, sinogram.shape[1] // 8)
    smooth = gaussian_filter1d(sinogram[order].astype(np.float64), blur, axis=1)
    smooth[:, :margin] = smooth[:, sinogram.shape[1] - margin :] = np.nan  # the smoothing knows nothing beyond the ends
    correlated, variance = 2 * math.sqrt(math.pi) * blur, float(np.nanvar(smooth))
    if isinstance(acquisition, Diverging) or whole or span > math.pi + 1.5 * step:
        fan = _fan_angles(acquisition, factor)
        some = np.unique(np.linspace(0, len(smooth) - 1, min(opposites, len(smooth))).round().astype(int))
        return lambda centre: _opposite(smooth, turned, some, fan, centre, step, correlated, variance, whole=whole)
    if abs(span + step - math.pi) <= 2.5 * step:
        return lambda centre: _across_seam(smooth, turned, centre, correlated, variance)
    return None


def _fan_angles(acquisition: CT, factor: int) -> Callable[[Array], Array]:
    """Function from columns off the centre to the angle between a ray and the central one."""
    if not isinstance(acquisition, Diverging):
        return np.zeros_like
    pitch = (acquisition.detector_mm or 1.0) * factor
    distance = (acquisition.source_origin_mm or math.inf) + (acquisition.origin_detector_mm or 0.0)
    return lambda off: np.arctan(off * pitch / distance)


def _opposite(
    smooth: Array,
    angles: Array,
    chosen: NDArray[np.intp],
    fan: Callable[[Array], Array],
    centre: float,
    step: float,
    correlated: float,
    variance: float,
    *,
    whole: bool,
) -> _Fit:
    """Compare rays with those that run back along the same line."""
    views, columns = smooth.shape
    off = np.arange(columns) - centre
    # The source of the opposite ray is half a turn away, and twice the fan's angle less.
    wanted = angles[chosen][:, None] + np.pi - 2 * fan(off)[None]
    if whole:
        known, index = np.append(angles, angles[0] + 2 * np.pi), np.append(np.arange(views), 0)
        wanted = wanted % (2 * np.pi)
    else:
        known, index = angles, np.arange(views)
        wanted = np.where(wanted > angles[-1] + step / 2, wanted - 2 * np.pi, wanted)
    after = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    width = known[after] - known[after - 1]
    share = (wanted - known[after - 1]) / np.maximum(width, 1e-12)
    seen = (share >= -1e-6) & (share <= 1 + 1e-6) & (width <= 3 * step)
    mirrored = np.broadcast_to(centre - off, wanted.shape)
    low, high = (_sampled(smooth, index[place], mirrored) for place in (after - 1, after))
    other = low * (1 - share) + high * share
    rays = smooth[chosen]
    seen &= np.isfinite(rays) & np.isfinite(other)
    return _fit((rays - other)[seen], rays[seen], columns, variance, 2.0, 1.0, correlated)


def _across_seam(smooth: Array, angles: Array, centre: float, correlated: float, variance: float) -> _Fit:
    """Compare the first views with the last ones, mirrored: all of them lie on one parabola in the angle."""
    columns = smooth.shape[1]
    mirrored = np.broadcast_to(2 * centre - np.arange(columns), (AROUND, columns))
    last = _sampled(smooth, np.arange(len(smooth) - AROUND, len(smooth))[:, None], mirrored)
    series = np.concatenate([last, smooth[:AROUND]])
    places = np.concatenate([angles[-AROUND:] - np.pi, angles[:AROUND]])
    powers = np.vander((places - places.mean()) / np.ptp(places), 3)
    residual = series - powers @ (np.linalg.pinv(powers) @ np.nan_to_num(series))
    seen = np.isfinite(series).all(axis=0)
    free = (2 * AROUND - 3) / (2 * AROUND)
    # What a parabola cannot follow is smooth: as many differences are independent as change their sign.
    changes = (np.diff(np.sign(residual[:, seen]), axis=1) != 0).mean() if seen.sum() > 1 else 1.0
    independent = max(correlated, 1 / max(changes, 1e-3))
    return _fit(residual[:, seen], series[:, seen], columns, variance, free, free, independent)


def _sampled(smooth: Array, views: NDArray[np.intp], columns: Array) -> Array:
    """Values between columns, by cubic interpolation along the detector; NaN outside."""
    count = smooth.shape[1]
    left = np.floor(columns).astype(np.intp)
    t = columns - left
    found = np.zeros(np.broadcast_shapes(views.shape, columns.shape))
    weights = (
        -t * (1 - t) ** 2 / 2,
        (3 * t**3 - 5 * t**2 + 2) / 2,
        t * (1 + 4 * t - 3 * t**2) / 2,
        -(t**2) * (1 - t) / 2,
    )
    inside = (left >= 1) & (left < count - 2)
    left = np.clip(left, 1, count - 3)
    for place, weight in zip(range(-1, 3), weights, strict=True):
        found += weight * smooth[views, left + place]
    return np.where(inside, found, np.nan)


def _fit(
    differences: Array, rays: Array, columns: int, of_all: float, unlike: float, free: float, correlated: float
) -> _Fit:
    """Compare differences of rays with what those of unlike ones would be: `unlike` times the rays' variance.

    `columns` and `of_all` are the number of columns and the variance of the whole sinogram.
    """
    if rays.size < LEAST_OVERLAP / 2 * columns * AROUND:
        return _Fit(math.inf, math.inf, 1.0)
    variance, square = float(rays.var()), float(np.square(differences).mean())
    if variance <= LEAST_SIGNAL * of_all:
        return _Fit(math.inf, square, 1.0)
    return _Fit(square / (unlike * variance), square, max(differences.size * free / correlated, 1.0))
