"""Objects larger than the image or the detector, noticed in the sinogram. No ASTRA, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators import continuation
from operators.continuation import END, LARGEST_TIMES
from operators.geometry import SLACK_PIXELS, FanBeam, ParallelBeam

Array = NDArray[np.floating]
AIR_SHARE = 0.02
"""Fraction of a slice's densest rays below which a ray counts as through air."""
FAINT = 0.1
"""Densest rays of a slice over those of the densest slice below which the slice counts as air."""
NOISE_TIMES = 5.0
"""Multiple of the noise of a mean of `END` rays that is not air."""
LEAST_VIEWS = 0.02
"""Fraction of a slice's views that have to end in the object."""
JUDGED_SLICES = 16
"""Maximum number of evenly spaced slices from which the object's size is told."""
MOST_LEVEL, LEAST_RISE = 0.2, 0.05
"""Level of the ends over the densest rays up to which it may be that of air, and rise of the next rays, over the ends',
from which it is an object."""
MARGIN = 1.03
"""The object's size over that of the fitted ellipse."""


class Truncated(NamedTuple):
    """Rows that end in the object.

    Parameters
    ----------
    views, of
        Number of views that do, and of views, over all slices judged.
    slices
        Number of slices that have such views, of those judged.
    strength
        Median of the line integrals at these ends, over that of the densest rays.
    """

    views: int
    of: int
    slices: int
    strength: float


class Extent(NamedTuple):
    """Size of an object that is larger than the image, or than what every view sees.

    Parameters
    ----------
    object_mm
        Diameter of the disc around the rotation axis that holds it; None if it lies within the image.
    truncated
        Rows that end in it, if the scan does not see it whole.
    level
        Level of the air at the ends of the rows over the densest rays, if it is not zero.
    """

    object_mm: float | None = None
    truncated: Truncated | None = None
    level: float | None = None


def judge(data: NDArray[np.generic], geometry: ParallelBeam, *, image_given: bool) -> Extent:
    """Judge from line integrals ``(slices, views, detectors)`` how large the object is.

    Parameters
    ----------
    image_given
        Whether the image's size was asked for; otherwise it is the field of view.
    """
    sinogram = judged(data)
    found = ends(sinogram)
    low, high = geometry.edges_mm
    # The nearer end of a displaced detector lies in the object by design.
    sides = (-low > high, high > -low) if geometry.displaced else (True, True)
    missing = _truncated(found, sides)
    if missing is not None:
        if _level(sinogram, found, missing):
            return Extent(level=missing.strength)
        return Extent(_reaches_mm(sinogram, geometry, found), missing)
    if geometry.displaced and found.dense.any():
        return Extent(_seen_mm(sinogram, geometry, found.air))
    if image_given and _outside_image(sinogram, geometry, found.air):
        return Extent(_seen_mm(sinogram, geometry, found.air))
    return Extent()


def judged(data: NDArray[np.generic]) -> Array:
    """Evenly spaced slices of line integrals ``(slices, views, detectors)``, without those that hold nothing but air.

    In these the densest rays are noise, over which some others always are.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), JUDGED_SLICES)).round().astype(np.int64))
    sinogram = np.asarray(data[chosen], dtype=np.float32)
    sizes = np.quantile(sinogram.reshape(len(sinogram), -1), 0.99, axis=1)
    return np.asarray(sinogram[sizes >= FAINT * max(float(sizes.max()), 0.0)])


def seen_whole(sinogram: Array, geometry: ParallelBeam) -> NDArray[np.bool_]:
    """Tell which slices of ``(slices, views, detectors)`` have rows that all end in air, ``(slices,)``.

    Of a displaced detector that goes round the farther end counts.
    """
    found = ends(sinogram)
    low, high = geometry.edges_mm
    sides = np.array((-low > high, high > -low) if geometry.displaced else (True, True))
    dense = (np.minimum(found.values, found.outermost) > found.air[:, None, None]) & sides
    return np.asarray(~dense.any(axis=(1, 2)))


@dataclass(frozen=True)
class Ends:
    """Ends of the rows of a sinogram.

    Parameters
    ----------
    values, outermost
        Line integrals at both ends of each row, and those of the very last elements, ``(slices, views, 2)``.
    air, size
        Line integrals up to which rays count as through air, and those of the densest rays, ``(slices,)``.
    """

    values: Array
    outermost: Array
    air: Array
    size: Array

    @property
    def dense(self) -> NDArray[np.bool_]:
        """Ends that lie in the object, ``(slices, views, 2)``; none in slices where hardly any view has one."""
        # An object that ends within the last elements is seen whole.
        found = np.minimum(self.values, self.outermost) > self.air[:, None, None]
        often = found.any(axis=2).mean(axis=1) >= LEAST_VIEWS
        return np.asarray(found & often[:, None, None])


def ends(sinogram: Array) -> Ends:
    """Judge both ends of the rows of ``(slices, views, detectors)``."""
    count = sinogram.shape[2]
    width = max(min(END, count // 4), 1)
    sides = (sinogram[..., :width], sinogram[..., -width:])
    values = np.stack([np.median(side, axis=2) for side in sides], axis=2)
    outermost = np.stack([sinogram[..., 0], sinogram[..., -1]], axis=2)
    size = np.array([np.quantile(one, 0.99) for one in sinogram])
    noise = np.array([_noise(one) for one in sinogram])
    # The median of a few values is about a quarter noisier than their mean.
    air = np.maximum(AIR_SHARE * size, NOISE_TIMES * 1.25 * noise / math.sqrt(width))
    return Ends(values, outermost, air, size)


def _truncated(found: Ends, sides: tuple[bool, bool]) -> Truncated | None:
    """Rows that end in the object at one of the `sides` that count; None if there are none."""
    dense = found.dense & np.array(sides)
    if not dense.any():
        return None
    views = dense.any(axis=2)
    relative = found.values / np.maximum(found.size, 1e-30)[:, None, None]
    return Truncated(int(views.sum()), views.size, int(views.any(axis=1).sum()), float(np.median(relative[dense])))


def _level(sinogram: Array, found: Ends, missing: Truncated) -> bool:
    """Whether the ends of all rows are one low level: air that was not set to zero, and no object."""
    if missing.strength > MOST_LEVEL or missing.views < 0.9 * missing.of:
        return False
    width = max(sinogram.shape[2] // 10, 1)
    inner = np.stack(
        [np.median(sinogram[..., width : 2 * width], axis=2), np.median(sinogram[..., -2 * width : -width], axis=2)],
        axis=2,
    )
    rise = np.abs(inner - found.values) / np.maximum(np.abs(found.values), 1e-30)
    return float(np.median(rise)) < LEAST_RISE


def _outside_image(sinogram: Array, geometry: ParallelBeam, air: Array) -> bool:
    """Whether rays that miss the image pass through something."""
    phi, rho = geometry.lines()
    width, height = (n * geometry.pixel_mm / 2 for n in (geometry.cols, geometry.rows))
    slack = SLACK_PIXELS * geometry.pixel_mm
    outside = np.abs(rho) > width * np.abs(np.cos(phi)) + height * np.abs(np.sin(phi)) + slack
    if not outside.any():
        return False
    dense = (_median3(one) > level for one, level in zip(sinogram, air, strict=True))
    return any(float((one & outside).any(axis=1).mean()) >= LEAST_VIEWS for one in dense)


def _seen_mm(sinogram: Array, geometry: ParallelBeam, air: Array) -> float:
    """Diameter in mm around the axis of what is seen of the object."""
    _, rho = geometry.lines()
    # An element counts where several views agree, so that one bad ray does not make the object large.
    dense = np.stack([_median3(one) > level for one, level in zip(sinogram, air, strict=True)])
    often = (dense.mean(axis=1) >= LEAST_VIEWS / 2).any(axis=0)
    return 2 * (float(np.abs(rho[:, often]).max(initial=0.0)) + geometry.pitch_mm)


def _median3(rows: Array) -> Array:
    """Median of each ray and its two neighbours along the detector; the ends stay."""
    found = rows.copy()
    if rows.shape[-1] > 2:
        found[..., 1:-1] = np.median(np.stack([rows[..., :-2], rows[..., 1:-1], rows[..., 2:]]), axis=0)
    return found


def _noise(rows: Array) -> float:
    """Noise of the outer rays, from their fourth differences along the detector."""
    if rows.shape[-1] < 10:
        return 0.0
    width = max(min(rows.shape[-1] // 4, 32), 10)
    outer = np.concatenate([rows[:, :width], rows[:, -width:]], axis=0)
    rough = np.abs(np.diff(outer, 4, axis=1))
    return float(np.median(rough)) / (0.6745 * math.sqrt(70.0))


def _reaches_mm(sinogram: Array, geometry: ParallelBeam, found: Ends) -> float:
    """Diameter in mm around the axis of an object that reaches beyond the detector."""
    seen = max(abs(edge) for edge in geometry.edges_mm)
    reach = [seen * LEAST_MORE]
    for rows, dense in zip(sinogram, found.dense, strict=True):
        ellipse = continuation.modelled(rows, geometry) if dense.any() else None
        if ellipse is not None:
            reach.append(ellipse.reach_mm * MARGIN)
    most = LARGEST_TIMES * seen
    if isinstance(geometry, FanBeam):
        most = min(most, MOST_OF_SOURCE * geometry.source_origin_mm)  # the source lies outside, also of the corners
    return 2 * min(max(reach), most)


MOST_OF_SOURCE = 0.65
"""Largest distance of the object from the axis over that of the source."""
LEAST_MORE = 1.25
"""Minimum size of a truncated object over that of the field of view: parts of it may stand alone."""
