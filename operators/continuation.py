"""Rows of a sinogram that end in the object, continued smoothly beyond the detector. No ASTRA, no torch.

What lies beyond the detector is modelled by one uniform ellipse per slice: it says where the object ends beside the
detector, and how its rays fall off until there. Inside the field of view nothing is assumed of the object.

References
----------
Hsieh et al. 2004, Med. Phys. 31, 2385-2391 (rows continued by water cylinders). Yang et al. 2010, Inverse Probl. 26,
035013 (of the images inside that a truncated scan allows, the one of least total variation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.geometry import WIDE_GAP, FanBeam, ParallelBeam, usual_gap
from operators.interrupt import checkpoint

Array = NDArray[np.floating]
END = 5
"""Detector elements at an end of a row that are judged together; their median ignores one or two hot elements."""
LARGEST_TIMES = 3.0
"""Largest object, in fields of view, that is modelled."""


@dataclass(frozen=True)
class Ellipse:
    """Uniform ellipse, which models a slice.

    Parameters
    ----------
    x_mm, y_mm
        Its centre.
    xx, xy, yy
        Matrix of its squared support function in mm^2: along a direction the ellipse reaches ``sqrt(n^T M n)``.
    factor
        Twice the attenuation times the root of the matrix' determinant.
    """

    x_mm: float
    y_mm: float
    xx: float
    xy: float
    yy: float
    factor: float

    def project(self, phi: Array, rho: Array) -> Array:
        """Line integrals along the lines ``x cos(phi) + y sin(phi) = rho``."""
        return _projected(np.array([self.x_mm, self.y_mm, self.xx, self.xy, self.yy, self.factor]), phi, rho)[0]

    @property
    def reach_mm(self) -> float:
        """Distance from the rotation axis of its furthest point, at most."""
        turned = np.linalg.eigvalsh(np.array([[self.xx, self.xy], [self.xy, self.yy]]))
        return math.hypot(self.x_mm, self.y_mm) + math.sqrt(max(float(turned[-1]), 0.0))


def modelled(rows: Array, geometry: ParallelBeam) -> Ellipse | None:
    """Model the object of a truncated slice from its sinogram ``(views, detectors)``; None if there is no sense in one.

    What is dense or hollow inside the object misleads a fit to all rays. A second one is made to a sinogram from which
    it is subtracted, as a picture by the first shows it. Of both, the one counts whose picture of the field of view has
    the least total variation: a wrong outline bends its grey values towards the rim.
    """
    first = _fitted(rows, geometry)
    coarse = None if first is None else _coarse(rows, geometry)
    if first is None or coarse is None:
        return first
    rows, geometry = coarse
    image = _image(rows, geometry, first)
    again = _fitted(rows - _projections(_structure(image), geometry), geometry)
    if again is None or _variation(_image(rows, geometry, again)) >= _variation(image):
        return first
    return again


def _fitted(rows: Array, geometry: ParallelBeam) -> Ellipse | None:
    """Fit an ellipse to the sinogram ``(views, detectors)`` of a slice, robustly; None if there is no sense in one.

    Rays through what is denser or thinner than the rest count as outliers.
    """
    from scipy.optimize import least_squares  # takes its time, and only truncated scans need it

    phi, rho = geometry.lines()
    views, every = max(1, len(phi) // FITTED_VIEWS), max(1, rho.shape[1] // FITTED_RAYS)
    chosen = (slice(None, None, views), slice(every // 2, None, every))
    phi, rho, data = phi[chosen].ravel(), rho[chosen].ravel(), rows[chosen].ravel().astype(np.float64)
    size = float(np.quantile(data, 0.99))
    half = max(abs(edge) for edge in geometry.edges_mm)
    if not size > 0 or half <= 0:
        return None
    unit = np.array([half, half, half**2, half**2, half**2, half * size])

    def residual(q: Array) -> Array:
        return (_projected(q * unit, phi, rho)[0] - data) / size

    def slope(q: Array) -> Array:
        return _projected(q * unit, phi, rho)[1] * (unit / size)

    wide = 1.3
    q = np.array([0.0, 0.0, wide**2 * 1.05, 0.02, wide**2 / 1.05, wide])
    most = LARGEST_TIMES**2
    bounds = ([-1, -1, 1e-4, -most, 1e-4, 0], [1, 1, most, most, most, np.inf])
    for scale in (0.1, 0.03, 0.01):
        # Annealed: at first every ray counts, in the end those that an ellipse explains.
        q = least_squares(residual, q, slope, bounds, loss="cauchy", f_scale=scale, max_nfev=FIT_STEPS).x
    if q[2] * q[4] <= q[3] ** 2:
        return None
    return Ellipse(*(float(v) for v in q * unit))


FITTED_VIEWS, FITTED_RAYS, FIT_STEPS = 48, 48, 40
"""Views and rays per view that a fit uses, and its steps."""


def _projected(q: Array, phi: Array, rho: Array) -> tuple[Array, Array]:
    """Line integrals of an ellipse and their derivatives by its six parameters, ``(..., 6)``."""
    x, y, xx, xy, yy, factor = q
    cos, sin = np.cos(phi), np.sin(phi)
    squared = np.maximum(xx * cos**2 + 2 * xy * cos * sin + yy * sin**2, 1e-9 * (abs(xx) + abs(yy)) + 1e-30)
    off = rho - (x * cos + y * sin)
    inside = squared - off**2
    chord = np.sqrt(np.maximum(inside, 0.0))
    projected = factor * chord / squared
    # The derivative at the rim is infinite: it is held back.
    held = np.where(inside > 0, 1 / np.maximum(chord, 0.05 * np.sqrt(squared)), 0.0)
    by_squared = factor * (0.5 * held / squared - chord / squared**2)
    by_shift = factor * off * held / squared
    parts = (by_shift * cos, by_shift * sin, by_squared * cos**2, by_squared * 2 * cos * sin, by_squared * sin**2)
    return projected, np.stack([*parts, chord / squared], axis=-1)


def continued(
    sinogram: Array, geometry: ParallelBeam, before: int, after: int, reach_mm: float = math.inf, *, models: int = 0
) -> NDArray[np.float32]:
    """Continue the rows ``(slices, views, detectors)`` smoothly beyond both ends of the detector, to air.

    A row follows the slice's ellipse, scaled so that it meets the row's end. Where the ellipse has ended before, or
    fits the row badly, the row fades within `FADE` of the detector. Rows that end in air stay there, and all rays from
    the distance `reach_mm` from the rotation axis on. With `models`, there are no more ellipses than that, and slices
    next to each other share one.
    """
    share = -(-len(sinogram) // models) if models else 1
    found, ellipse = [], None
    for index, rows in enumerate(sinogram):
        checkpoint()
        if index % share == 0:
            ellipse = modelled(sinogram[min(index + share // 2, len(sinogram) - 1)], geometry)
        found.append(_continued(rows, geometry, ellipse, before, after, reach_mm))
    return np.stack(found).astype(np.float32)


def _continued(
    rows: Array, geometry: ParallelBeam, ellipse: Ellipse | None, before: int, after: int, reach_mm: float = math.inf
) -> Array:
    """Continue the rows ``(views, detectors)`` of a slice by its model."""
    phi, rho = geometry.extended(before, after).lines()
    model = np.zeros(phi.shape) if ellipse is None else ellipse.project(phi, rho)
    model = np.where(np.abs(rho) < reach_mm, model, 0.0)
    measured = model[:, before : before + geometry.detectors]
    # Outwards from each end: the rows, the model there, and the model beyond.
    low = _tail(rows, measured, model[:, :before][:, ::-1])[:, ::-1]
    high = _tail(rows[:, ::-1], measured[:, ::-1], model[:, before + geometry.detectors :])
    return np.concatenate([low, rows, high], axis=1)


def _tail(rows: Array, measured: Array, beyond: Array) -> Array:
    """Values beyond the first element of the rows, outwards, from what a model has there and `beyond`."""
    width = max(min(END, rows.shape[1] // 4), 1)
    end, modelled_end = (np.median(values[:, :width], axis=1)[:, None] for values in (rows, measured))
    ratio = end / np.maximum(modelled_end, 1e-12)
    distance = np.arange(1, beyond.shape[1] + 1) / max(rows.shape[1] * FADE, 2.0)
    faded = np.maximum(end, 0.0) * np.cos(np.pi / 2 * np.minimum(distance, 1.0)) ** 2
    follows = (ratio > 1 / MOST_SCALED) & (ratio < MOST_SCALED)
    return np.asarray(np.where(follows, beyond * ratio, faded))


FADE = 0.125
"""Fraction of the detector within which a row fades where no ellipse fits it."""
MOST_SCALED = 2.0
"""Largest factor, either way, by which the ellipse is scaled to meet a row."""


def _coarse(rows: Array, g: ParallelBeam) -> tuple[Array, ParallelBeam] | None:
    """Sinogram of what the scan determines in a few parallel rays, and its geometry; None where too few are measured.

    A fan's rays are sorted into parallel ones. Those along one line are the same from both sides.
    """
    radius_mm, views = g.determined_mm / 2, len(g.angles_rad)
    every = max(1, g.detectors // (2 * COARSE_RAYS))
    columns = g.detectors // every
    if views < LEAST_COARSE or columns < 2 or radius_mm < COARSE_RAYS / 4 * g.pitch_mm:
        return None
    order = np.argsort(np.asarray(g.angles_rad) % TURN)
    angles = np.asarray(g.angles_rad)[order] % TURN
    binned = rows[order, : columns * every].reshape(views, columns, every).mean(axis=2)
    places = g.positions_mm[: columns * every].reshape(columns, every).mean(axis=1)
    pitch_mm = 2 * radius_mm / COARSE_RAYS
    coarse = ParallelBeam(
        COARSE_RAYS,
        COARSE_RAYS,
        pitch_mm,
        tuple((np.arange(min(views, MOST_COARSE)) * math.pi / min(views, MOST_COARSE)).tolist()),
        COARSE_RAYS,
        pitch_mm,
    )
    theta = np.asarray(coarse.angles_rad)[:, None]
    widest = WIDE_GAP * usual_gap([*np.diff(angles), angles[0] + TURN - angles[-1]])
    sums = np.zeros((len(theta), COARSE_RAYS))
    counts = np.zeros(sums.shape)
    for back in (0.0, math.pi):
        position = np.array([g.ray_position_mm(math.cos(back) * rho) for rho in coarse.positions_mm])
        fan = np.arctan(position / g.source_origin_mm) if isinstance(g, FanBeam) else np.zeros(COARSE_RAYS)
        wanted = (theta + back + fan) % TURN
        later = np.searchsorted(angles, wanted) % views
        gap = (angles[later] - angles[later - 1]) % TURN
        share = ((wanted - angles[later - 1]) % TURN) / np.maximum(gap, 1e-9)
        column = np.broadcast_to(np.interp(position, places, np.arange(columns)), wanted.shape)
        left = np.minimum(column.astype(int), columns - 2)
        across = column - left
        inside = (position >= places[0] - g.pitch_mm * every) & (position <= places[-1] + g.pitch_mm * every)
        measured = (gap <= widest) & inside
        for view, weight in ((later - 1, 1 - share), (later, share)):
            values = binned[view, left] * (1 - across) + binned[view, left + 1] * across
            sums += np.where(measured, weight * values, 0.0)
        counts += measured
    missing = counts == 0
    if missing.mean() > MOST_MISSING or missing.all(axis=0).any():
        return None
    found = sums / np.maximum(counts, 1)
    for values, gone in zip(found.T, missing.T, strict=True):
        values[gone] = np.interp(theta[gone, 0], theta[~gone, 0], values[~gone])
    return found, coarse


TURN = 2 * math.pi
LEAST_COARSE, MOST_COARSE, COARSE_RAYS = 24, 60, 32
"""Fewest views for a picture of the field of view; most views, and rays per view, from which it is made."""
MOST_MISSING = 0.1
"""Largest fraction of its rays that may be missing."""


def _image(rows: Array, g: ParallelBeam, ellipse: Ellipse) -> Array:
    """Picture of the field of view by filtered back-projection of rows that are continued by a model."""
    count, pitch = g.detectors, g.detector_mm
    wide = _continued(rows, g, ellipse, count, count)
    size = 2 ** math.ceil(math.log2(2 * wide.shape[1]))
    offset = np.minimum(np.arange(size), size - np.arange(size))
    kernel = np.where(offset % 2 == 1, -1 / (math.pi * np.maximum(offset, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    response = np.fft.rfft(kernel).real / pitch
    response *= 0.5 + 0.5 * np.cos(math.pi * np.arange(len(response)) / (len(response) - 1))
    filtered = np.fft.irfft(np.fft.rfft(wide, size) * response, size)[:, count : 2 * count]
    image = np.zeros(count * count)
    for index, row in zip(_columns(g), filtered, strict=True):
        image += np.interp(index, np.arange(count), row) * math.pi / len(filtered)
    return image.reshape(count, count)


def _structure(image: Array) -> Array:
    """Structure that stands out of the grey values at the rim of a field of view, which a wrong outline may bend."""
    radius = _radius(image)
    inside = radius < RIM
    basis = np.stack([np.ones(inside.sum()), radius[inside] ** 2], axis=1)
    values = image[inside]
    nearness = np.clip((radius[inside] - 0.4) / 0.6, 0.02, None)
    weights, least = np.ones(len(values)), 0.02 * float(np.abs(values).max()) + 1e-30
    for _ in range(30):  # least absolute deviations, by reweighted squares
        weighted = basis * (weights * nearness)[:, None]
        found = np.linalg.solve(weighted.T @ basis + 1e-12 * np.eye(2), weighted.T @ values)
        deviation = np.abs(values - basis @ found)
        weights = 1 / np.maximum(deviation, least)
    level = found[0] + found[1] * radius**2
    notable = max(3 * float(np.median(deviation)), 0.05 * float(np.abs(level[inside]).max()))
    difference = np.where(inside, image - level, 0.0)
    return np.asarray(np.where(np.abs(difference) > notable, difference, 0.0))


RIM = 0.97
"""Part of a field of view's radius within which its picture counts."""


def _projections(image: Array, g: ParallelBeam) -> Array:
    """Line integrals of a picture of the field of view, pixel by pixel."""
    found = np.zeros((len(g.angles_rad), g.detectors + 1))
    for index, row in zip(_columns(g), found, strict=True):
        inside = (index > -1) & (index < g.detectors)
        low = np.floor(index[inside]).astype(int)
        values, share = image.ravel()[inside] * g.pixel_mm, index[inside] - low
        # The column before the first is the last of the row, which is cut off.
        np.add.at(row, low, values * (1 - share))
        np.add.at(row, low + 1, values * share)
    return found[:, :-1]


def _columns(g: ParallelBeam) -> list[Array]:
    """Fractional detector element onto which each pixel falls, for every view."""
    axis = (np.arange(g.cols) - (g.cols - 1) / 2) * g.pixel_mm
    x, y = (values.ravel() for values in np.meshgrid(axis, -axis))
    return [(x * math.cos(a) + y * math.sin(a)) / g.detector_mm + (g.detectors - 1) / 2 for a in g.angles_rad]


def _variation(image: Array) -> float:
    """Total variation of a picture within the field of view."""
    inside = _radius(image)[1:, 1:] < RIM
    return float(np.hypot(np.diff(image, axis=0)[:, 1:], np.diff(image, axis=1)[1:])[inside].sum())


def _radius(image: Array) -> Array:
    """Distance of each pixel from the middle, in half widths of the image."""
    axis = (np.arange(len(image)) + 0.5) / (len(image) / 2) - 1
    return np.asarray(np.hypot(axis[:, None], axis[None, :]))
