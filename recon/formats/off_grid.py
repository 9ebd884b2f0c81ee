"""K-space off the Cartesian grid from a scanner: samples of a slice in a row, and where in k-space they lie.

Partitions of a stack (of stars, of spirals) that share a trajectory take the place of slices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError
from recon.formats import kspace, readouts
from recon.formats.kspace import Plane
from recon.formats.readouts import CHOICES, Readouts
from recon.formats.safety import check_size
from recon.measurement.coils import level_of
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.mri_noncartesian import BEYOND, MRINonCartesian
from recon.spec.job import Input

NORMALISED = 0.51
"""Reach of a trajectory up to which it is in units of the sampling rate, from -0.5 to 0.5."""
FLAT = 1e-3
"""Largest spatial frequency across the slice, relative to those in the plane, of a trajectory in the plane."""


@dataclass(frozen=True)
class Grid:
    """Image that a header asks for.

    Parameters
    ----------
    encoded, recon
        Points ``(x, y)`` of what is measured, and of the image.
    partitions, kept_partitions
        Partitions of a stack, and those that are no oversampling; one for 2D scans.
    partition
        Counter of the partition in the middle of k-space.
    encoded_mm, recon_mm
        Their sizes, None if unknown.
    thickness_mm
        Of a slice, or of all partitions, None if unknown.
    in_patient
        Whether the file says how the patient lay.
    relative_bandwidth
        Of the receiver's noise, of imaging against noise readouts.
    """

    encoded: tuple[int, int]
    recon: tuple[int, int]
    partitions: int
    kept_partitions: int
    partition: int
    encoded_mm: tuple[float | None, float | None]
    recon_mm: tuple[float | None, float | None]
    thickness_mm: float | None
    in_patient: bool
    relative_bandwidth: float


def measurement(
    found: Readouts, locate: Callable[[int], NDArray[np.float64]], grid: Grid, given: Input, notes: list[str]
) -> Measurement:
    """Put the readouts that are asked for in a row, slice by slice, or partition by partition.

    Parameters
    ----------
    found
        Readouts of the file.
    locate
        Place in k-space of the samples of a readout, ``(samples, dimensions)``, along the read direction first.
    grid
        The image.
    given
        What the job asks for.
    notes
        Remarks for the report.

    Raises
    ------
    InputError, GeometryError
        If there is no trajectory, it leaves the plane or its unit is unknown, slices or partitions differ in theirs, or
        partitions are missing.
    """
    numbers = {name: np.unique(found.counters[name][found.image]).tolist() for name in CHOICES}
    wanted = kspace.chosen(given.scan, numbers, notes)
    used = found.image & readouts.matching(found, wanted)
    if not used.any():
        raise InputError("no readout has what is asked for", field="input.scan", remedy="choose another combination")
    coils = np.unique(found.coils[used])
    if len(coils) > 1:
        raise InputError(
            f"readouts have {coils.min()} to {coils.max()} coils", field="input", remedy="export the same coils of each"
        )
    stack = len(np.unique(found.counters["partition"][used])) > 1
    if stack:
        name, thickness_mm = "partition", None if grid.thickness_mm is None else grid.thickness_mm / grid.partitions
        numbers_of, planes = _partitions(found, used, grid), _across(found, used, grid, thickness_mm, notes)
    else:
        name, thickness_mm = "slice", grid.thickness_mm
        present = np.unique(found.counters["slice"][used]).tolist()
        every = [found.planes.get(number) for number in present]
        order = kspace.stacked(every, given.slices, notes)
        numbers_of, planes = [present[i] for i in order], [every[i] for i in order]
    rows_of = [np.flatnonzero(used & (found.counters[name] == number)) for number in numbers_of]
    trajectory = _shared([_trajectory(locate, indices, stack=stack) for indices in rows_of], numbers_of, name)
    check_size((len(rows_of), int(coils[0]), len(trajectory)), 8)
    data = np.stack([np.concatenate([found.load(int(i)) for i in indices], axis=1) for indices in rows_of])
    noise = readouts.noise_of(found, used, grid.relative_bandwidth, 1, notes)
    places = _cycles(trajectory, grid, notes)
    notes.append(f"{len(rows_of[0])} readouts a {name} off the Cartesian grid, {len(places)} samples")
    if len(planes) < len(data):
        notes.append(kspace.slab_note(len(data), len(planes), cropped=True))
        data = kspace.without_oversampling(data, len(planes), 0)
    slice_mm = thickness_mm if stack else kspace.distance_mm(planes, thickness_mm, notes)
    cols, rows = grid.recon
    sides = [None if mm is None else mm / n for mm, n in zip(grid.recon_mm, grid.recon, strict=True)]
    placed = None
    first, last = planes[0], planes[-1]
    col_mm, row_mm = sides
    if first is not None and last is not None and col_mm is not None and row_mm is not None:
        placed = kspace.affine(first, last, (len(data), 1, rows, cols), (col_mm, row_mm, slice_mm or col_mm))
    return Measurement(
        np.ascontiguousarray(data),
        MRINonCartesian(rows=rows, cols=cols, pixel_mm=col_mm, slice_mm=slice_mm, partition_encoding=stack),
        affine=placed,
        in_patient=grid.in_patient and placed is not None,
        noise_std=None if noise is None else level_of(noise),
        noise_covariance=noise,
        files={"trajectory_cycles_per_fov": places},
        notes=notes,
    )


def _partitions(found: Readouts, used: NDArray[np.bool_], grid: Grid) -> list[int]:
    """Numbers of a stack's partitions in order, of which none may be missing."""
    slabs = np.unique(found.counters["slice"][used])
    if len(slabs) > 1:
        raise InputError(
            f"{len(slabs)} stacks of partitions; one is read", field="input", remedy="split the file by its slabs"
        )
    numbers = np.unique(found.counters["partition"][used])
    kspace.check_lines(numbers - grid.partition + grid.partitions // 2, grid.partitions, "partition")
    if len(numbers) < grid.partitions:
        raise InputError(
            f"{len(numbers)} of {grid.partitions} partitions were measured, and all are needed",
            field="input",
            remedy="estimate the missing ones first: samples may be left out in the plane",
        )
    return [int(number) for number in numbers]


def _across(
    found: Readouts, used: NDArray[np.bool_], grid: Grid, thickness_mm: float | None, notes: list[str]
) -> list[Plane | None]:
    """Places of the slices that a stack's partitions encode."""
    middle = found.planes.get(int(found.counters["slice"][used][0]))
    if middle is None or thickness_mm is None:
        return [None] * grid.kept_partitions
    notes.append("partitions are taken to count along the slice direction that the file states")
    steps = (np.arange(grid.kept_partitions) - grid.kept_partitions // 2) * thickness_mm
    return [replace(middle, centre_mm=middle.centre_mm + step * middle.across) for step in steps]


def _trajectory(
    locate: Callable[[int], NDArray[np.float64]], indices: NDArray[np.int64], *, stack: bool
) -> NDArray[np.float64]:
    """Places ``(samples, 2)`` of the readouts of a slice, or of a partition, each in a plane of its own."""
    readouts_of = [locate(int(index)) for index in indices]
    points = np.concatenate(readouts_of)
    if points.shape[1] < 2:
        raise InputError(
            "the readouts carry no trajectory",
            field="input",
            remedy="write it into the acquisitions, or give the samples as .npy with trajectory_cycles_per_fov",
        )
    in_plane = float(np.abs(points[:, :2]).max(initial=0.0))
    across = np.concatenate([one[:, 2:] - (one[:1, 2:] if stack else 0) for one in readouts_of])
    if float(np.abs(across).max(initial=0.0)) > FLAT * in_plane:
        raise InputError("the trajectory leaves the plane of the slice", field="input", remedy="give 2D scans")
    found: NDArray[np.float64] = points[:, :2]
    return found


def _shared(trajectories: list[NDArray[np.float64]], numbers: list[int], name: str) -> NDArray[np.float64]:
    """The trajectory of all slices, or of all partitions."""
    first = trajectories[0]
    for number, other in zip(numbers, trajectories, strict=True):
        if other.shape != first.shape or np.abs(other - first).max() > 1e-4 * np.abs(first).max():
            field, remedy = "input.slices", "read them one by one"
            if name == "partition":
                field, remedy = "input", "stacks that turn from partition to partition are not read"
            raise GeometryError(
                f"{name} {number} has another trajectory than {name} {numbers[0]}", field=field, remedy=remedy
            )
    return first


def _cycles(points: NDArray[np.float64], grid: Grid, notes: list[str]) -> NDArray[np.float64]:
    """Places in cycles per field of view of the image, whichever of the two usual units the file has."""
    reach = np.abs(points).max(0)
    encoded = np.array(grid.encoded, float)
    if reach.max() <= NORMALISED:
        points = points * encoded
        notes.append("the trajectory is in units of the sampling rate (-0.5 to 0.5)")
    elif (reach > BEYOND * encoded / 2).any():
        raise GeometryError(
            f"the trajectory reaches {reach.max():.4g}, the encoded matrix is {grid.encoded[0]} x {grid.encoded[1]}",
            field="input",
            remedy="write it in cycles per field of view, or from -0.5 to 0.5",
        )
    for axis in (0, 1):
        outer, inner = grid.encoded_mm[axis], grid.recon_mm[axis]
        if outer is not None and inner is not None:
            points = points * np.where(np.arange(2) == axis, inner / outer, 1.0)
    # Beyond what the image can hold there is nothing of it.
    limits = np.array(grid.recon) / 2
    if (np.abs(points) > BEYOND * limits).any():
        raise GeometryError(
            f"the trajectory reaches beyond a matrix of {grid.recon[0]} x {grid.recon[1]}",
            field="input",
            remedy="correct reconSpace in the header",
        )
    return points
