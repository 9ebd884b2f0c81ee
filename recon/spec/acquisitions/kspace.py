"""Plausibility of k-space, its mask and its coil maps: axes in another order, and files of another scan."""

from __future__ import annotations

import math
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError

KSpace = NDArray[np.complex64]
"""``(slices, coils, rows, cols)``."""
PEAK = 4.0
"""Largest entry of an axis' energy over its mean from which the axis counts as one of k-space."""
MOST_COILS = 128
MOST_SETS = 2
"""Sets of coil maps: an object that lies over itself more than twice is not known to any."""
EMPTY = 0.02
"""Fraction of a mask's points that may be zero in every coil by chance, as of filtered or clipped data."""
EXPLAINED, DOUBTFUL = 0.9, 0.75
"""Fraction of the low-resolution images' energy that right coil maps explain at least, and wrong ones at most."""
CALIBRATION = 24
"""Width of the centre of k-space that is compared with coil maps."""

Readout = Literal["slices", "rows", "cols"]
"""Axis of a volume along which 3D k-space was measured as a whole."""
AXES: tuple[Readout, Readout, Readout] = ("slices", "rows", "cols")
SOLVED_AXES = {None: (0, 1, 2), "slices": (0, 1, 2), "rows": (1, 0, 2), "cols": (2, 0, 1)}
"""Axes of a volume ``(slices, rows, cols)`` in the order of planes across a readout, by the readout."""


def transformed(data: NDArray[np.complex64], axis: int, *, inverse: bool) -> NDArray[np.complex64]:
    """Fourier transform along one axis, centred and orthonormal."""
    transform = np.fft.ifft if inverse else np.fft.fft
    shifted = np.fft.ifftshift(data, axes=axis)
    return np.fft.fftshift(transform(shifted, axis=axis, norm="ortho"), axes=axis).astype(np.complex64)


def across_readout(kspace: KSpace, readout: str | None) -> KSpace:
    """K-space ``(planes, coils, rows, cols)`` of planes across the readout of 3D ``(slices, coils, rows, cols)``.

    The readout is measured as a whole: after the inverse transform along it every plane has a problem of its own, and
    white noise stays white. The remaining axes keep their order.
    """
    if readout is None:
        return kspace
    axis = {"slices": 0, "rows": 2, "cols": 3}[readout]
    return reordered(transformed(kspace, axis, inverse=True), SOLVED_AXES[readout])


def whole_axes(kspace: KSpace, *, strictly: bool) -> tuple[bool, bool, bool]:
    """Whether 3D k-space ``(slices, coils, rows, cols)`` was measured as a whole along each axis of the volume.

    Along such an axis all lines have the same points, without gaps between them. `strictly`, these are all points; else
    the first or the last may be missing, as of a partial echo, and single ones, which are zero by chance.
    """
    sampled = (kspace != 0).any(1)
    return _is_whole(sampled, 0, strictly), _is_whole(sampled, 1, strictly), _is_whole(sampled, 2, strictly)


def _is_whole(sampled: NDArray[np.bool_], axis: int, strictly: bool) -> bool:
    rest = (0, 1, 2)[:axis] + (0, 1, 2)[axis + 1 :]
    along, across = sampled.any(rest, keepdims=True), sampled.any(axis, keepdims=True)
    if strictly:
        return bool((sampled == across).all())
    points, expected = np.flatnonzero(along), along & across
    without_gaps = not len(points) or len(points) == points[-1] - points[0] + 1
    return without_gaps and int((expected & ~sampled).sum()) <= EMPTY * int(expected.sum())


def require_whole(kspace: KSpace, readout: Readout | None) -> None:
    """Refuse a readout along which 3D k-space was not measured as a whole.

    Raises
    ------
    InputError
        With the axes that it can be.
    """
    if readout is None:
        return
    fits = [name for name, whole in zip(AXES, whole_axes(kspace, strictly=False), strict=True) if whole]
    if readout not in fits:
        raise InputError(
            f"{readout!r}, but along {readout} k-space was not measured as a whole",
            field="acquisition.readout",
            remedy=f"give {' or '.join(fits)}" if fits else "leave it out, or check the order of the axes",
        )


def reordered(array: KSpace, axes: tuple[int, int, int]) -> KSpace:
    """Put the axes of ``(slices, coils, rows, cols)`` into another order, but for the coils."""
    first, second, third = (axis + (axis > 0) for axis in axes)
    return np.ascontiguousarray(array.transpose(first, 1, second, third))


def maps_by_set(
    maps: NDArray[np.complex64], slices_in_file: int | None, selected: tuple[int, int] | None
) -> NDArray[np.complex64]:
    """Coil maps ``([slices,] coils, rows, cols)`` of one set, or ``(slices or 1, sets, coils, rows, cols)`` of several.

    Parameters
    ----------
    maps
        As they are in a file, ``([slices,] [sets,] coils, rows, cols)``.
    slices_in_file
        Number of slices of k-space in its file, if it is known.
    selected
        Those that were read, if they are not all.

    Raises
    ------
    InputError
        If nothing tells whether the first of four axes counts slices or sets.
    """
    if maps.ndim == 4 and len(maps) == MOST_SETS:
        if slices_in_file in (MOST_SETS, None):
            raise InputError(
                f"shape {maps.shape}: are these {MOST_SETS} slices, or {MOST_SETS} sets of maps for every slice?",
                field="acquisition.coil_maps",
                remedy="give all five axes (slices, sets, coils, rows, cols)",
            )
        maps = maps[None]
    if selected is not None and maps.ndim > 3 and len(maps) > max(selected[1] - selected[0], 1):
        maps = maps[slice(*selected)]
    return maps[:, 0] if maps.ndim == 5 and maps.shape[1] == 1 else maps


def require_plausible(data: KSpace, mask: NDArray[np.bool_] | None, maps: NDArray[np.complex64] | None) -> None:
    """Refuse k-space whose axes are in another order, and masks and coil maps that are not of this scan.

    Raises
    ------
    InputError
        With what seems to be wrong, and what would fit.
    """
    _require_order(data)
    if mask is not None:
        _require_mask(data, mask)
    if maps is not None and data.shape[1] > 1:
        _require_maps(data, maps)


def _require_order(data: KSpace) -> None:
    """Refuse coils on the last axis: k-space falls off from a peak along its own axes, and not along that of coils."""
    _, coils, rows, cols = data.shape
    if cols > MOST_COILS or min(coils, rows) <= cols:
        return
    energy = energies(data)
    peaked = [_peaked(energy.sum(tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    if peaked[0] and peaked[1] and not peaked[2]:
        raise InputError(
            f"shape {data.shape}: the axis of {coils} looks like one of k-space, and that of {cols} like coils",
            field="input",
            remedy="order the axes (slices, coils, rows, cols), for instance by numpy.moveaxis(kspace, -1, 1)",
        )


def _peaked(profile: NDArray[np.float64]) -> bool:
    mean = float(profile.mean())
    return mean > 0 and float(profile.max()) > PEAK * mean


def _require_mask(data: KSpace, mask: NDArray[np.bool_]) -> None:
    present = (data != 0).any((0, 1))
    missing = empty_points(data, mask)
    # Noiseless data of a simple object have true zeros: where nothing lies outside the mask, it may be right.
    if not missing or not (present & ~mask).any():
        return
    others = {"its transpose": mask.T, "with k = 0 moved from the corner to the middle": np.fft.fftshift(mask)}
    fits = [name for name, other in others.items() if other.shape == present.shape and not (other & ~present).any()]
    raise InputError(
        f"{missing} of the {int(mask.sum())} points that it calls sampled are zero in every coil",
        field="acquisition.mask",
        remedy=f"{fits[0]} would fit" if fits else "leave it out: the points that are not zero then count as sampled",
    )


def empty_points(data: KSpace, mask: NDArray[np.bool_]) -> int:
    """Number of points that a mask calls sampled and that are zero in every coil; 0 if it may be by chance."""
    missing = int((mask & ~(data != 0).any((0, 1))).sum())
    return missing if missing > EMPTY * mask.sum() else 0


def _require_maps(data: KSpace, maps: NDArray[np.complex64]) -> None:
    """Refuse coil maps that do not explain the coils' images at low resolution, if maps of another convention do."""
    at = len(data) // 2
    own = maps if maps.ndim == 3 else maps[at if len(maps) > 1 else 0]
    own = own if own.ndim == 4 else own[None]
    images = low_resolution(data[at])
    if not images.any() or _explained(images, own) >= DOUBTFUL:
        return
    shifts = {"": own, "shifted by half the field of view": np.fft.fftshift(own, axes=(-2, -1))}
    flips = {"": (), "upside down": (-2,), "mirrored": (-1,), "turned by 180 degrees": (-2, -1)}
    for (moved, shifted), (turned, axes), conjugate in product(shifts.items(), flips.items(), (False, True)):
        other = np.flip(shifted, axes) if axes else shifted
        other = other.conj() if conjugate else other
        if _explained(images, other) >= EXPLAINED:
            what = ", ".join(word for word in (moved, turned, "conjugated" if conjugate else "") if word)
            raise InputError(
                "the maps do not belong to these data as they are: they explain "
                f"{100 * _explained(images, own):.0f} % of the coils' images, and {what} "
                f"{100 * _explained(images, other):.0f} %",
                field="acquisition.coil_maps",
                remedy=f"give them {what}, or leave them out",
            )


def _explained(images: KSpace, maps: KSpace) -> float:
    """Fraction of the energy of coil images ``(coils, rows, cols)`` that objects seen through maps have.

    The maps are ``(sets, coils, rows, cols)``, with one object for each set.
    """
    faintest = 1e-6 * float((np.abs(maps) ** 2).sum(1).max())
    explained = 0.0
    seen: list[KSpace] = []
    for one in maps:
        for other in seen:
            one = one - (other.conj() * one).sum(0) * other
        weight = (np.abs(one) ** 2).sum(0)
        one = np.where(weight > faintest, one / np.sqrt(np.maximum(weight, 1e-38)), 0)
        explained += float((np.abs((one.conj() * images).sum(0)) ** 2).sum())
        seen.append(one)
    return explained / float((np.abs(images) ** 2).sum())


def low_resolution(kspace: KSpace) -> KSpace:
    """Images ``(coils, rows, cols)`` of the centre of k-space, tapered."""
    windows = []
    for n in kspace.shape[-2:]:
        distance = np.abs(np.arange(n) - n // 2) / (min(CALIBRATION, n) / 2)
        windows.append(np.where(distance < 1, np.cos(math.pi / 2 * np.minimum(distance, 1)) ** 2, 0))
    tapered = kspace * windows[0][:, None] * windows[1]
    shifted = np.fft.ifftshift(tapered, axes=(-2, -1))
    found: KSpace = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1)).astype(np.complex64)
    return found


def energies(data: KSpace) -> NDArray[np.float64]:
    """Energy of every sample, summed over slices: ``(coils, rows, cols)``, by slices to spare memory."""
    total = np.zeros(data.shape[1:])
    for one in data:
        total += np.square(one.real, dtype=np.float64) + np.square(one.imag, dtype=np.float64)
    return total
