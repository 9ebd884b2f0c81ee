"""K-space from a scanner: readout oversampling, slices in order, pixels that are square, and the place in the patient.

Scanners state positions and directions in the patient's LPS frame (left, posterior, superior); affines are RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from operators.errors import GeometryError, InputError
from recon.formats.safety import check_size, slice_range
from recon.measurement.coils import Matrix, level_of
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.kspace import AXES, Readout, reordered, transformed, whole_axes
from recon.spec.acquisitions.mri_cartesian import MRICartesian

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
PARALLEL = 1e-3
"""Largest sine of the angle between slices that count as parallel."""
EVEN = 0.02
"""Largest deviation of a slice distance from the mean, as a share of it, that counts as even."""
SQUARE = 0.01
"""Largest difference of a pixel's sides, as a share, that counts as square."""
ISOTROPIC = 1.5
"""Largest ratio of a voxel's sides up to which any of them may lie in the plane that is shown."""
_VIEWS = {
    2: ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),  # axial: columns to the left, rows to the back
    1: ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),  # coronal: columns to the left, rows downwards
    0: ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),  # sagittal: columns to the back, rows downwards
}
"""Radiology's view of a slice: directions of columns and rows in LPS by the main axis of its normal."""

Complex = NDArray[np.complex64]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Place of one slice in the patient, LPS.

    Parameters
    ----------
    centre_mm
        Of the field of view, where the phase of k-space is zero.
    cols, rows
        Unit vectors along which the columns, and the rows, of the image count.
    across
        Unit vector along which the partitions of 3D k-space count: the normal, or its opposite.
    """

    centre_mm: Vector
    cols: Vector
    rows: Vector
    across: Vector

    @property
    def normal(self) -> Vector:
        """Unit vector that makes a right-handed frame of columns and rows; slices are sorted along it."""
        return np.cross(self.cols, self.rows)


def plane(centre_mm: ArrayLike, cols: ArrayLike, rows: ArrayLike, across: ArrayLike) -> Plane | None:
    """Place a slice; None if its directions are not perpendicular unit vectors.

    `across` only tells which of the two normals it is: the right-handed one, if it tells neither.
    """
    c, x, y, z = (np.asarray(v, dtype=np.float64) for v in (centre_mm, cols, rows, across))
    if not (np.isfinite(c).all() and np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    if abs(np.linalg.norm(x) - 1) > 0.01 or abs(np.linalg.norm(y) - 1) > 0.01 or abs(x @ y) > 0.01:
        return None
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    normal = np.cross(x, y)
    return Plane(c, x, y, -normal if z @ normal < 0 else normal)


def stacked(planes: Sequence[Plane | None], slices: tuple[int, int] | None, notes: list[str]) -> list[int]:
    """Sort the slices that are asked for by their positions, and return their numbers.

    Raises
    ------
    InputError
        If the slices that are asked for are no stack of parallel ones.
    """
    order = list(range(len(planes)))
    known = [p for p in planes if p is not None]
    parallel = len(known) == len(planes) and all(_parallel(known[0], p) for p in known)
    if parallel:
        order.sort(key=lambda i: float(known[i].centre_mm @ known[0].normal))
    order = order[slice(*slice_range(slices, len(order)))]
    places = {i: p for i in order if (p := planes[i]) is not None}
    first = next(iter(places.values()), None)
    if first is not None and not all(_parallel(first, p) for p in places.values()):
        raise InputError(
            f"the file's {len(planes)} slices are not parallel, so they are no volume",
            field="input.slices",
            remedy=f"choose one, [0, 1] to [{len(planes) - 1}, {len(planes)}], or a parallel range of them",
        )
    if len(planes) > 1 and not parallel and len(known) < len(planes):
        notes.append("the file does not say where its slices lie: they are taken in the order of their numbers")
    elif first is not None:  # parallel slices out of a stack that is not
        order.sort(key=lambda i: float(places[i].centre_mm @ first.normal))
    return order


def _parallel(first: Plane, second: Plane) -> bool:
    return all(float(np.linalg.norm(np.cross(a, b))) < PARALLEL and float(a @ b) > 0 for a, b in (
        (first.cols, second.cols), (first.rows, second.rows),
    ))  # fmt: skip


def distance_mm(planes: Sequence[Plane | None], thickness_mm: float | None, notes: list[str]) -> float | None:
    """Measure the distance of slices in order by their positions; their thickness where these do not tell it."""
    known = [p for p in planes if p is not None]
    if len(planes) < 2 or len(known) < len(planes):
        return thickness_mm
    steps = np.diff([float(p.centre_mm @ known[0].normal) for p in known])
    mean = float(steps.mean())
    if mean <= 0:
        notes.append("all slices have the same position: their thickness is taken for their distance")
        return thickness_mm
    if float(np.abs(steps - mean).max()) > EVEN * mean:
        notes.append(
            f"slices are {steps.min():.3g} to {steps.max():.3g} mm apart: their mean distance, {mean:.4g} mm, is taken"
        )
    return mean


def without_oversampling(kspace: Complex, samples: int, axis: int = -1) -> Complex:
    """Crop the image of k-space to the middle `samples` pixels along an axis."""
    width = kspace.shape[axis]
    if samples == width:
        return kspace
    first = width // 2 - samples // 2
    image = transformed(kspace, axis, inverse=True).take(range(first, first + samples), axis)
    return transformed(image, axis, inverse=False)


MEMORY_3D = 4
"""Most bytes that reading 3D k-space takes, over those of its whole array: the file's pages, transforms and copies."""


def mirrored(kspace: Complex, axis: int) -> Complex:
    """K-space of the image whose pixels along an axis are in the opposite order."""
    n = kspace.shape[axis]
    found = np.roll(np.flip(kspace, axis), 1 - n % 2, axis)
    if n % 2:
        return found
    # Mirrored about pixel n // 2, an image of an even number has its first pixel at the other end: it moves by one.
    shape = [1] * kspace.ndim
    shape[axis] = n
    ramp = np.exp(2j * np.pi * (np.arange(n) - n // 2) / n).astype(np.complex64)
    moved: Complex = found * ramp.reshape(shape)
    return moved


def squared(kspace: Complex, col_mm: float, row_mm: float, notes: list[str]) -> tuple[Complex, float, float]:
    """Pad k-space with points that were not measured until pixels are square; return it and the pixel's sides."""
    rows, cols = kspace.shape[-2:]
    finer = min(col_mm, row_mm)
    wanted = (round(rows * row_mm / finer), round(cols * col_mm / finer))
    if abs(col_mm - row_mm) <= SQUARE * finer:
        return kspace, col_mm, row_mm
    check_size((*kspace.shape[:-2], *wanted), 8)
    padded = np.zeros((*kspace.shape[:-2], *wanted), dtype=np.complex64)
    top, left = wanted[0] // 2 - rows // 2, wanted[1] // 2 - cols // 2
    padded[..., top : top + rows, left : left + cols] = kspace
    notes.append(
        f"pixels of {col_mm:.4g} x {row_mm:.4g} mm were made square: k-space has {wanted[0]} x {wanted[1]} points for "
        f"{rows} x {cols}, the outer ones not measured"
    )
    return padded, col_mm * cols / wanted[1], row_mm * rows / wanted[0]


def upright(kspace: Complex, place: Plane, notes: list[str]) -> tuple[Complex, Plane, bool]:
    """Turn k-space as radiology shows its image; return it, its plane, and whether rows and columns changed places.

    A mirror image of ``n`` pixels about pixel ``n // 2`` is k-space mirrored about the same index: nothing is
    interpolated.
    """
    to_cols, to_rows = (np.array(v) for v in _VIEWS[int(np.argmax(np.abs(place.normal)))])
    cols, rows = place.cols, place.rows
    turned = bool(abs(cols @ to_rows) + abs(rows @ to_cols) > abs(cols @ to_cols) + abs(rows @ to_rows))
    if turned:
        kspace, cols, rows = kspace.swapaxes(-1, -2), rows, cols
    axes = tuple(axis for axis, along, to in ((-1, cols, to_cols), (-2, rows, to_rows)) if along @ to < 0)
    if axes:
        kspace = np.roll(np.flip(kspace, axes), [1 - kspace.shape[axis] % 2 for axis in axes], axes)
    done = ["rows and columns changed places"] * turned + ["mirrored"] * bool(axes)
    if done:
        notes.append(f"k-space was turned as radiology shows the image: {', '.join(done)}")
    found = Plane(place.centre_mm, -cols if -1 in axes else cols, -rows if -2 in axes else rows, place.across)
    return np.ascontiguousarray(kspace), found, turned


def affine(first: Plane, last: Plane, shape: tuple[int, ...], size_mm: tuple[float, float, float]) -> Vector:
    """Make the affine from voxel ``(col, row, slice)`` to RAS of slices from `first` to `last`."""
    slices, _, rows, cols = shape
    col_mm, row_mm, slice_mm = size_mm
    step = (last.centre_mm - first.centre_mm) / max(slices - 1, 1)
    if float(np.linalg.norm(step)) < 1e-6:
        step = first.across * slice_mm
    found = np.eye(4)
    found[:3, 0], found[:3, 1], found[:3, 2] = first.cols * col_mm, first.rows * row_mm, step
    found[:3, 3] = first.centre_mm - cols // 2 * found[:3, 0] - rows // 2 * found[:3, 1]
    found[:3] = LPS_TO_RAS @ found[:3]
    return found


def measurement(
    kspace: Complex,
    planes: Sequence[Plane | None],
    sides_mm: tuple[float, float] | None,
    thickness_mm: float | None,
    *,
    in_patient: bool,
    noise_std: float | None,
    notes: list[str],
) -> Measurement:
    """Make the measurement of slices in order: square pixels, turned as radiology shows them, with their affine.

    Parameters
    ----------
    kspace
        ``(slices, coils, rows, cols)``.
    planes
        Places of its slices, None where they are not known.
    sides_mm
        Distance of columns and of rows; None if the file does not say it.
    thickness_mm
        Of a slice; the distance of slices where positions do not tell it.
    in_patient
        Whether planes lie in the patient's frame.
    noise_std
        Of k-space, per real channel, if it was measured.
    notes
        What was done so far.
    """
    slice_mm = distance_mm(planes, thickness_mm, notes)
    if sides_mm is None:
        notes.append("the file does not say its field of view: give acquisition.pixel_mm")
        return Measurement(kspace, MRICartesian(slice_mm=slice_mm), in_patient=False, noise_std=noise_std, notes=notes)
    kspace, col_mm, row_mm = squared(kspace, *sides_mm, notes)
    placed = None
    first, last = planes[0], planes[-1]
    if first is not None and last is not None:
        kspace, shown, turned = upright(kspace, first, notes)
        if turned:
            col_mm, row_mm = row_mm, col_mm
        end = Plane(last.centre_mm, shown.cols, shown.rows, shown.across)
        placed = affine(shown, end, kspace.shape, (col_mm, row_mm, slice_mm or col_mm))
    acquisition = MRICartesian(pixel_mm=col_mm, slice_mm=slice_mm)
    return Measurement(
        kspace, acquisition, affine=placed, in_patient=in_patient and placed is not None, noise_std=noise_std,
        notes=notes,
    )  # fmt: skip


def measurement_3d(
    kspace: Complex,
    place: Plane | None,
    sides_mm: tuple[float | None, float | None, float | None],
    *,
    kept: int,
    in_patient: bool = False,
    noise: Matrix | None = None,
    notes: list[str],
    readout: Readout = "cols",
) -> Measurement:
    """Make the measurement of 3D k-space, with the axis along which it was measured as a whole.

    Priors know axial slices. Where the file says how the volume lies, and no side of its voxels is more than
    `ISOTROPIC` times another, its axes are put so that slices are axial; where voxels are longer, partitions remain the
    slices, shown as radiology does. Axis `acquisition.readout` is the slices' if k-space was measured as a whole along
    them, so that each has a problem of its own; else that of the readout.

    Parameters
    ----------
    kspace
        ``(partitions, coils, rows, cols)``.
    place
        Plane through the middle of the volume, None if it is not known.
    sides_mm
        Distance of partitions, rows and columns; None if the file does not say it.
    kept
        Partitions that are no oversampling of the slab.
    in_patient
        Whether the plane lies in the patient's frame.
    noise
        Covariance of k-space's noise between its coils, per real channel, if it was measured.
    notes
        What was done so far.
    readout
        Axis along which samples were read out.
    """
    held = MEMORY_3D * kspace.nbytes
    whole = whole_axes(kspace, strictly=True)
    if kept < len(kspace):
        notes.append(slab_note(len(kspace), kept, cropped=whole[0]))
        kspace = without_oversampling(kspace, kept, 0) if whole[0] else kspace
    order, against = _as_shown(place, sides_mm)
    if order != (0, 1, 2):
        notes.append(f"3D k-space was turned: slices lie along its {('partitions', 'lines', 'readout')[order[0]]}")
    kspace = reordered(kspace, order)
    slice_mm, row_mm, col_mm = (sides_mm[axis] for axis in order)
    axis = 0 if whole[order[0]] else order.index(AXES.index(readout))
    if row_mm is None or col_mm is None:
        notes.append("the file does not say its field of view: give acquisition.pixel_mm")
    else:
        measured = kspace.shape
        kspace, col_mm, row_mm = squared(kspace, col_mm, row_mm, notes)
        # The transform along the readout spreads the noise of the points that were measured over more of them.
        noise = None if noise is None else noise * (measured[axis + (axis > 0)] / kspace.shape[axis + (axis > 0)])
    placed = None
    if place is not None and slice_mm is not None and row_mm is not None and col_mm is not None:
        for n in (n for n in range(3) if against[n]):
            kspace = mirrored(kspace, n + (n > 0))
        placed = _affine_3d(place, order, against, kspace.shape, (slice_mm, row_mm, col_mm))
    notes.append(f"3D k-space, measured as a whole along the {AXES[axis]} of the volume")
    return Measurement(
        np.ascontiguousarray(kspace),
        MRICartesian(pixel_mm=col_mm, slice_mm=slice_mm, readout=AXES[axis]),
        affine=placed,
        in_patient=in_patient and placed is not None,
        noise_std=None if noise is None else level_of(noise),
        noise_covariance=noise,
        notes=notes,
        read_bytes=held,
    )


def slab_note(partitions: int, kept: int, *, cropped: bool) -> str:
    """Say what became of the oversampling of a slab."""
    if cropped:
        return f"slab oversampling removed: {partitions} partitions became {kept}"
    return (
        f"{partitions - kept} of {partitions} slices are oversampling of the slab; they are kept, since partitions "
        "were left out"
    )


def _as_shown(
    place: Plane | None, sides_mm: tuple[float | None, float | None, float | None]
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Order of the axes ``(partitions, rows, cols)`` as a volume is shown, and which of them then count backwards."""
    sides = [side for side in sides_mm if side is not None]
    if place is None or len(sides) < 3:
        return (0, 1, 2), (False, False, False)
    directions = np.stack([place.across, place.rows, place.cols])
    orders, view = list(permutations(range(3))), 2
    if max(sides) > ISOTROPIC * min(sides):
        orders, view = [(0, 1, 2), (0, 2, 1)], int(np.argmax(np.abs(place.normal)))
    cols, rows = (np.array(v) for v in _VIEWS[view])
    shown = np.stack([np.cross(cols, rows), rows, cols])
    along = directions @ shown.T
    order = max(orders, key=lambda axes: sum(abs(along[axis, n]) for n, axis in enumerate(axes)))
    first, second, third = order
    return (first, second, third), (along[first, 0] < 0, along[second, 1] < 0, along[third, 2] < 0)


def _affine_3d(
    place: Plane,
    order: tuple[int, int, int],
    against: tuple[bool, bool, bool],
    shape: tuple[int, ...],
    sides_mm: tuple[float, float, float],
) -> Vector:
    """Make the affine from voxel ``(col, row, slice)`` to RAS of 3D k-space that was put in another order."""
    directions = (place.across, place.rows, place.cols)
    counts = (shape[0], *shape[2:])
    steps = [(-1 if against[n] else 1) * sides_mm[n] * directions[axis] for n, axis in enumerate(order)]
    middle = [(n - 1) // 2 if against[i] and n % 2 == 0 else n // 2 for i, n in enumerate(counts)]
    found = np.eye(4)
    found[:3, :3] = np.stack(steps[::-1], axis=1)
    found[:3, 3] = place.centre_mm - sum(index * step for index, step in zip(middle, steps, strict=True))
    found[:3] = LPS_TO_RAS @ found[:3]
    return found


def positive(value: float | None) -> float | None:
    """Return a length that a file states; None for zero and whatever is no length."""
    return float(value) if value is not None and np.isfinite(value) and value > 0 else None


def chosen(scan: str | None, present: dict[str, Sequence[int]], notes: list[str]) -> dict[str, int]:
    """Choose which of a file's repetitions, echoes and the like to read, by ``input.scan``; else the first.

    Parameters
    ----------
    scan
        For instance ``repetition=1,contrast=0``.
    present
        Numbers that occur, by name.
    notes
        Gets what else there is.
    """
    found = {name: min(numbers) for name, numbers in present.items()}
    wanted = {}
    for part in (scan or "").split(","):
        name, sign, number = (text.strip() for text in part.partition("="))
        if not part.strip():
            continue
        if name not in present or not sign or not number.isdecimal():
            raise InputError(
                f"{part.strip()!r} does not say which part of the scan to read",
                field="input.scan",
                remedy=f"give {', '.join(f'{n}=NUMBER' for n in present)}, separated by commas",
            )
        wanted[name] = int(number)
        if wanted[name] not in present[name]:
            raise InputError(
                f"there is no {name} {number} in the file",
                field="input.scan",
                remedy=f"choose one of {_listed(present[name])}",
            )
    for name, numbers in present.items():
        if len(numbers) > 1 and name not in wanted:
            notes.append(
                f"the file has {name} {_listed(numbers)}: {found[name]} is read; input.scan chooses another, as in "
                f"{name}={max(numbers)}"
            )
    return found | wanted


def _listed(numbers: Sequence[int]) -> str:
    ordered = sorted(numbers)
    if len(ordered) > 3 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))


def check_lines(lines: NDArray[np.int64], rows: int, what: str) -> None:
    """Raise `GeometryError` for a line that lies outside k-space."""
    outside = (lines < 0) | (lines >= rows)
    if outside.any():
        raise GeometryError(
            f"{int(outside.sum())} readouts have a {what} outside of the {rows} that the header says, the first "
            f"{int(lines[outside][0])}",
            field="input",
        )
