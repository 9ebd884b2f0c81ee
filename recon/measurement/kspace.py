"""Preparation of k-space: what a file has wrong and what can be mended; its coils made alike and combined."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.measurement import coils
from recon.measurement.coils import Coils, Matrix
from recon.spec.acquisitions.kspace import KSpace, empty_points, energies, low_resolution
from recon.spec.preparation import CoilPreparation
from recon.spec.report import Step

RESIDUE = 1e-5
"""Magnitude relative to the median of all samples below which a sample is what rounding left of a zero."""
LEAST_RESIDUES = 0.05
"""Fraction of k-space that such values must fill before they count as not measured."""
OFF_CENTRE = 2
"""Distance of k-space's peak from the middle, in samples, up to which the image's own phase explains it."""
CLEAR = 4.0
"""Energy of the peak over that in the middle from which k-space counts as off its centre."""
INSIDE, OUTSIDE = 0.35, 0.75
"""Fraction of the image's energy in the middle half of an axis, at most as it is, and at least once it is moved by half
the field of view, for an object that lies across the image's edge."""


Change = Callable[[KSpace], KSpace]
"""Function that a step applies to samples, of these data or others of the same scan."""


@dataclass(frozen=True)
class Prepared:
    """K-space that was looked at and mended, its mask and coil maps alike.

    Parameters
    ----------
    data, mask, maps
        K-space ``(slices, coils, rows, cols)``, its sampling mask and its coil maps, if these are given.
    notes, steps
        Remarks, and steps of the preparation, for the report.
    noise_std
        Of each coil, per real channel, if their noise is the same and known.
    unmixing
        As of `recon.measurement.coils.Coils`.
    changes
        What was done to the samples, in order.
    """

    data: KSpace
    mask: NDArray[np.bool_] | None
    maps: NDArray[np.complex64] | None
    notes: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    noise_std: float | None = None
    unmixing: Matrix | None = None
    changes: tuple[Change, ...] = ()

    def changed(self, change: Change, note: str, **more: Any) -> Prepared:
        """Change the samples and what belongs to them, and say so."""
        changes = (*self.changes, change)
        return replace(self, data=change(self.data), notes=[*self.notes, note], changes=changes, **more)


def prepared(
    data: KSpace,
    mask: NDArray[np.bool_] | None,
    maps: NDArray[np.complex64] | None,
    *,
    placed: bool,
    noise_known: bool,
    noise_std: float | None = None,
    covariance: Matrix | None = None,
    settings: CoilPreparation | None = None,
) -> Prepared:
    """Mend k-space: residues of zeros, a centre off the middle, dead coils, noise that differs, more coils than needed.

    Parameters
    ----------
    data, mask, maps
        K-space, its sampling mask ``(rows, cols)`` and coil maps ``([slices,] coils, rows, cols)``, if they are given.
    placed
        Whether the file says where in space the image lies.
    noise_known
        Whether the noise is known to be white, as where it was simulated.
    noise_std, covariance
        Of the noise, per real channel, where it was measured; the covariance ``(coils, coils)``.
    settings
        Steps of the preparation of coils that are wanted; all by default.
    """
    notes = []
    if mask is not None and (missing := empty_points(data, mask)):
        notes.append(
            f"{missing} of the {int(mask.sum())} points that the mask calls sampled are zero in every coil: they count"
            " as measured; if they were not, leave the mask out"
        )
    found = Prepared(data, mask, maps, notes)
    for step in (_without_residues, _centred):
        found = step(found)
    if not placed:
        found = _unwrapped(found)
    alike = coils.prepared(
        Coils(found.data, found.maps, covariance, noise_std, found.notes),
        _radius(found.data),
        settings or CoilPreparation(),
        noise_known=noise_known,
    )
    changes = found.changes
    if alike.mixing is not None:
        changes = (*changes, partial(_mixed, matrix=alike.mixing))
    return Prepared(
        alike.data, found.mask, alike.maps, alike.notes, alike.steps, alike.noise_std, alike.unmixing, changes
    )


def _mixed(data: KSpace, matrix: Matrix) -> KSpace:
    """Combine coils."""
    found: KSpace = np.einsum("vc,sc...->sv...", matrix.astype(np.complex64), data, optimize=True)
    return found


def _radius(data: KSpace) -> NDArray[np.float64]:
    """Distance of each point from the centre, in rectangles around it; the outermost that was measured is at 1."""
    sampled = (data != 0).any((0, 1))
    distances: list[NDArray[np.float64]] = []
    for axis, n in enumerate(sampled.shape):
        distance = np.abs(np.arange(n) - n // 2)
        distances.append(distance / max(int((distance * sampled.any(1 - axis)).max(initial=0)), 1))
    found: NDArray[np.float64] = np.maximum(distances[0][:, None], distances[1])
    return found


def _without_residues(found: Prepared) -> Prepared:
    """Set to zero what a transform there and back left where nothing was measured."""
    if found.mask is not None:
        return found
    largest = np.sqrt(energies(found.data).max(0))
    present = largest[largest > 0]
    limit = RESIDUE * float(np.median(present[present > RESIDUE * present.max()])) if present.size else 0.0
    residues = (largest > 0) & (largest < limit)
    if residues.sum() < LEAST_RESIDUES * largest.size:
        return found
    note = (
        f"{int(residues.sum())} points of k-space hold values below {limit:.1e}, residues of rounding: they count as"
        " not measured"
    )
    return found.changed(lambda data: np.where(residues, np.complex64(0), data), note)


def _centred(found: Prepared) -> Prepared:
    """Move k-space whose peak is elsewhere so that k = 0 is at index ``n // 2``; what leaves the array is zero."""
    energy = energies(found.data).sum(0)
    rows, cols = energy.shape
    peak = np.unravel_index(int(energy.argmax()), energy.shape)
    moves = [int(n // 2 - at) for n, at in zip((rows, cols), peak, strict=True)]
    middle = energy[rows // 2 - 1 : rows // 2 + 2, cols // 2 - 1 : cols // 2 + 2].max()
    if max(map(abs, moves)) <= OFF_CENTRE or energy.max() < CLEAR * middle:
        return found
    corner = all(min(at, n - at) <= OFF_CENTRE for n, at in zip((rows, cols), peak, strict=True))
    if corner:
        note = "k = 0 was in the corner of k-space: moved to the middle"
        mask = None if found.mask is None else np.fft.fftshift(found.mask)
        return found.changed(lambda data: np.fft.fftshift(data, axes=(-2, -1)), note, mask=mask)
    mask = None if found.mask is None else _moved(found.mask, moves)
    note = (
        f"k-space has its peak at row {peak[0]}, column {peak[1]} of {rows} x {cols}: moved to the middle; the image"
        " loses the phase that goes with it"
    )
    return found.changed(partial(_moved, moves=moves), note, mask=mask)


def _unwrapped(found: Prepared) -> Prepared:
    """Move an image that lies across its edges by half the field of view, as of a transform of an unshifted array."""
    image = np.sqrt(sum((np.abs(low_resolution(one)) ** 2).sum(0) for one in found.data))
    moved = [axis for axis in (0, 1) if _wraps(np.square(image.sum(1 - axis), dtype=np.float64))]
    if not moved:
        return found
    maps, ramps = found.maps, np.ones((1, 1), np.complex64)
    for axis in moved:
        n = found.data.shape[2 + axis]
        shift = n // 2
        # The phase that belongs to a shift of the image by a whole number of pixels.
        ramp = np.exp(-2j * math.pi * shift * (np.arange(n) - n // 2) / n).astype(np.complex64)
        ramps = ramps * (ramp[:, None] if axis == 0 else ramp)
        maps = None if maps is None else np.roll(maps, shift, axis - 2)
    ways = " and ".join("rows" if axis == 0 else "columns" for axis in moved)
    note = f"the object lay across the image's edge: moved by half the field of view along {ways}"
    return found.changed(lambda data: data * ramps, note, maps=maps)


def _wraps(profile: NDArray[np.float64]) -> bool:
    quarter = len(profile) // 4
    inside = profile[quarter : len(profile) - quarter].sum()
    moved = np.fft.fftshift(profile)[quarter : len(profile) - quarter].sum()
    return bool(inside < INSIDE * profile.sum() and moved > OUTSIDE * profile.sum())


def _moved(array: NDArray[Any], moves: list[int]) -> NDArray[Any]:
    """Shift the last two axes, filled up with zeros."""
    moved = np.zeros_like(array)
    into, out = [slice(None)] * array.ndim, [slice(None)] * array.ndim
    for axis, by in zip((-2, -1), moves, strict=True):
        n = array.shape[axis]
        into[axis], out[axis] = slice(max(by, 0), n + min(by, 0)), slice(max(-by, 0), n - max(by, 0))
    moved[tuple(into)] = array[tuple(out)]
    return moved
