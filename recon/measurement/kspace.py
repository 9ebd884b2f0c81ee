"""Preparation of k-space: what a file has wrong and what can be mended, coils weighted by their noise and combined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.spec.acquisitions.kspace import KSpace, empty_points, energies, low_resolution

RESIDUE = 1e-5
"""Magnitude relative to the median of all samples below which a sample is what rounding left of a zero."""
LEAST_RESIDUES = 0.05
"""Fraction of k-space that such values must fill before they count as not measured."""
OFF_CENTRE = 2
"""Distance of k-space's peak from the middle, in samples, up to which the image's own phase explains it."""
CLEAR = 4.0
"""Energy of the peak over that in the middle from which k-space counts as off its centre."""
LOUD = 3.0
"""Noise of a coil over the median of all from which the coils are weighted by their noise."""
FLAT = 0.8
"""Least ratio of a coil's outermost to its next samples where both are noise and not signal."""
KEPT_ENERGY = 0.999
"""Fraction of the energy that compressed coils keep."""
INSIDE, OUTSIDE = 0.35, 0.75
"""Fraction of the image's energy in the middle half of an axis, at most as it is, and at least once it is moved by half
the field of view, for an object that lies across the image's edge."""
COMPRESSED = 12
"""Number of coils up to which none are left out."""


@dataclass(frozen=True)
class Prepared:
    """K-space that was looked at and mended, its mask and coil maps alike, and remarks for the report."""

    data: KSpace
    mask: NDArray[np.bool_] | None
    maps: NDArray[np.complex64] | None
    notes: list[str]


def prepared(
    data: KSpace, mask: NDArray[np.bool_] | None, maps: NDArray[np.complex64] | None, *, placed: bool, noise_known: bool
) -> Prepared:
    """Mend k-space: residues of zeros, a centre off the middle, dead and loud coils, more coils than are needed.

    Parameters
    ----------
    data, mask, maps
        K-space, its sampling mask ``(rows, cols)`` and coil maps ``([slices,] coils, rows, cols)``, if they are given.
    placed
        Whether the file says where in space the image lies.
    noise_known
        Whether the noise is known to be the same in every coil, as where it was simulated.
    """
    notes = []
    if mask is not None and (missing := empty_points(data, mask)):
        notes.append(
            f"{missing} of the {int(mask.sum())} points that the mask calls sampled are zero in every coil: they count"
            " as measured; if they were not, leave the mask out"
        )
    found = Prepared(data, mask, maps, notes)
    for step in (_without_residues, _centred, _without_dead_coils):
        found = step(found)
    if not placed:
        found = _unwrapped(found)
    if not noise_known:
        found = _whitened(found)
    return _compressed(found)


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
    return Prepared(np.where(residues, np.complex64(0), found.data), None, found.maps, [*found.notes, note])


def _centred(found: Prepared) -> Prepared:
    """Move k-space whose peak is elsewhere so that k = 0 is at index ``n // 2``; what leaves the array is zero."""
    data = found.data
    energy = energies(data).sum(0)
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
        return Prepared(np.fft.fftshift(data, axes=(-2, -1)), mask, found.maps, [*found.notes, note])
    moved = _moved(data, moves)
    mask = None if found.mask is None else _moved(found.mask, moves)
    note = (
        f"k-space has its peak at row {peak[0]}, column {peak[1]} of {rows} x {cols}: moved to the middle; the image"
        " loses the phase that goes with it"
    )
    return Prepared(moved, mask, found.maps, [*found.notes, note])


def _unwrapped(found: Prepared) -> Prepared:
    """Move an image that lies across its edges by half the field of view, as of a transform of an unshifted array."""
    image = np.sqrt(sum((np.abs(low_resolution(one)) ** 2).sum(0) for one in found.data))
    moved = [axis for axis in (0, 1) if _wraps(np.square(image.sum(1 - axis), dtype=np.float64))]
    if not moved:
        return found
    data, maps = found.data, found.maps
    for axis in moved:
        n = data.shape[2 + axis]
        shift = n // 2
        # The phase that belongs to a shift of the image by a whole number of pixels.
        ramp = np.exp(-2j * math.pi * shift * (np.arange(n) - n // 2) / n).astype(np.complex64)
        data = data * (ramp[:, None] if axis == 0 else ramp)
        maps = None if maps is None else np.roll(maps, shift, axis - 2)
    ways = " and ".join("rows" if axis == 0 else "columns" for axis in moved)
    note = f"the object lay across the image's edge: moved by half the field of view along {ways}"
    return Prepared(data, found.mask, maps, [*found.notes, note])


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


def _without_dead_coils(found: Prepared) -> Prepared:
    """Leave out coils that are zero everywhere."""
    alive = found.data.any((0, 2, 3))
    if alive.all() or not alive.any():
        return found
    dead = ", ".join(str(i) for i in np.flatnonzero(~alive))
    maps = None if found.maps is None else np.compress(alive, found.maps, axis=-3)
    note = f"coil {dead} is zero everywhere: left out"
    return Prepared(np.compress(alive, found.data, axis=1), found.mask, maps, [*found.notes, note])


def _whitened(found: Prepared) -> Prepared:
    """Weight coils by their noise, where one is far noisier than the others at the edge of k-space.

    References
    ----------
    Pruessmann et al. 2001, Magn. Reson. Med. 46, 638-651, section on noise decorrelation.
    """
    data = found.data
    if data.shape[1] < 2:
        return found
    noise, flat = _edge_noise(data)
    usual = float(np.median(noise))
    loud = (noise > LOUD * usual) & flat
    if not loud.any() or usual <= 0:
        return found
    weights = np.where(loud, usual / np.maximum(noise, 1e-38), 1.0).astype(np.float32)[:, None, None]
    maps = None if found.maps is None else found.maps * weights
    listed = ", ".join(f"{i} ({noise[i] / usual:.0f} times)" for i in np.flatnonzero(loud))
    note = f"coils noisier than the others are weighted by their noise: {listed}"
    return Prepared(data * weights, found.mask, maps, [*found.notes, note])


def _edge_noise(data: KSpace) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Noise of each coil from its outermost samples, per real channel, and whether these are noise alone."""
    rows, cols = data.shape[-2:]
    radius = np.maximum(
        np.abs(np.arange(rows) - rows // 2)[:, None] / (rows / 2), np.abs(np.arange(cols) - cols // 2) / (cols / 2)
    )
    sampled = (data != 0).any((0, 1))
    reach = radius[sampled].max() if sampled.any() else 1.0
    rings = [sampled & (radius > low * reach) & (radius <= high * reach) for low, high in ((0.85, 1.0), (0.7, 0.85))]
    outer, next_ = (
        np.array([np.median(np.abs(data[:, c, ring])) if ring.any() else 0.0 for c in range(data.shape[1])])
        for ring in rings
    )
    return outer / math.sqrt(2 * math.log(2)), outer > FLAT * next_


def _compressed(found: Prepared) -> Prepared:
    """Combine many coils to the fewest that keep their energy.

    References
    ----------
    Buehrer et al. 2007, Magn. Reson. Med. 57, 1131-1139; Huang et al. 2008, Magn. Reson. Imaging 26, 133-141.
    """
    data = found.data
    coils = data.shape[1]
    if coils <= COMPRESSED:
        return found
    gram = np.zeros((coils, coils), np.complex128)
    for one in data:
        flat = one.reshape(coils, -1)
        gram += flat @ flat.conj().T
    values, vectors = np.linalg.eigh(gram)
    kept = np.cumsum(values[::-1]) / values.sum()
    count = max(int(np.searchsorted(kept, KEPT_ENERGY)) + 1, COMPRESSED)
    if count >= coils:
        return found
    basis = vectors[:, ::-1][:, :count].conj().T.astype(np.complex64)
    combined = np.einsum("vc,scrx->svrx", basis, data, optimize=True).astype(np.complex64)
    maps = None if found.maps is None else np.einsum("vc,...crx->...vrx", basis, found.maps).astype(np.complex64)
    note = f"{coils} coils combined to {count} that keep {100 * kept[count - 1]:.2f} % of their energy"
    # What is zero in every coil stays exactly so.
    return Prepared(np.where((data != 0).any(1, keepdims=True), combined, 0), found.mask, maps, [*found.notes, note])
