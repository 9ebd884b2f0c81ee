"""DXchange HDF5, as beamlines write it: raw projections with flat and dark fields.

Layout: ``/exchange/data (views, rows, columns)``, ``data_white``, ``data_dark`` and ``theta`` in degrees; the dark
fields may be missing, and either field a single frame. A detector
row is a slice of the volume. The views may be another axis, if the attribute ``axes`` or the number of angles says so.
Without ``theta``, angles follow from ``/process/acquisition/rotation``; the pixel size on the sample is that of the
objective under ``/measurement``, and the rotation axis the one that was set by hand in tomopy-cli.

References
----------
De Carlo et al. 2014, J. Synchrotron Rad. 21, 1224-1230.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError
from recon.formats import detector_frames, hdf5
from recon.formats.format import Format, RawCounts
from recon.formats.safety import check_size, real, slice_range
from recon.measurement.counts import Counts
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import Input
from recon.spec.validation import invalid

if TYPE_CHECKING:
    import h5py

_DATA, _FLATS, _DARKS, _THETA = (f"exchange/{name}" for name in ("data", "data_white", "data_dark", "theta"))
_ROTATION = "process/acquisition/rotation"
_RESOLUTION = "measurement/instrument/detection_system/objective/resolution"
_ONE_ANGLE = "write one angle per projection into exchange/theta"
_VIEWS = {"theta", "angle", "angles", "rotation", "rotation_angle"}
"""Names of the axis of views in the attribute ``axes``."""


def read(path: Path, slices: tuple[int, int] | None = None) -> RawCounts:
    """Read the counts of some rows, with what the file says of the geometry.

    Raises
    ------
    InputError
        If a dataset is missing, frames differ in size, or angles do not fit the projections.
    """
    notes: list[str] = []
    with hdf5.opened(path) as file:
        data = hdf5.located(file, _DATA)
        axis = _views_axis(data, file, notes)
        frame = _frame(data, axis)
        projections = detector_frames.frames(data, _DATA, slices, axis)
        flats = _field(file, _FLATS, slices, axis, frame, notes)
        has_darks = file["exchange"].get("data_dark", getlink=True) is not None
        darks = _field(file, _DARKS, slices, axis, frame, notes) if has_darks else None
        stated = {
            "angles_rad": _angles(file, len(projections), notes),
            "detector_mm": _pixel_mm(file, notes),
            "rotation_center_column": _rotation_centre(file, projections.shape[2], notes),
        }
    # Flat fields may have been taken before, after or both: the file does not tell.
    counts = Counts(projections, flats, darks, names=(_DATA, _FLATS, _DARKS))
    return RawCounts(counts, _acquisition(stated, path), notes, slices_in_file=frame[0])


def _field(
    file: h5py.File, name: str, slices: tuple[int, int] | None, axis: int, frame: tuple[int, ...], notes: list[str]
) -> NDArray[np.float32]:
    """Read flat or dark fields, stored like the projections, frame by frame, or as a single frame without its axis."""
    node = hdf5.located(file, name)
    way = axis if node.shape[1:] != frame and _frame(node, axis) == frame else 0
    single = node.ndim == 2
    if single or node.ndim == 3:
        found = node.shape if single else _frame(node, way)
        if found != frame:
            raise GeometryError(
                f"{name} has frames of {found}, {_DATA} of {frame}",
                field="input",
                remedy="give fields of the same rows and columns as the projections",
            )
    if not single:
        return detector_frames.frames(node, name, slices, way)
    notes.append(f"{name} has shape {node.shape}: it is taken as one frame")
    rows = slice_range(slices, frame[0])
    check_size((rows[1] - rows[0], frame[1]), node.dtype.itemsize, name)
    return real(node[slice(*rows)], name)[None]


def _acquisition(stated: dict[str, Any], path: Path) -> CTParallel:
    try:
        return CTParallel(**stated)
    except ValidationError as error:
        raise invalid(error, path.name) from error


def _frame(node: h5py.Dataset, axis: int) -> tuple[int, ...]:
    """Rows and columns, where `axis` counts the frames."""
    return tuple(n for i, n in enumerate(node.shape) if i != axis)


def _views_axis(data: h5py.Dataset, file: h5py.File, notes: list[str]) -> int:
    """The axis that counts the views: what the attribute says, or the only one that is as long as there are angles."""
    if data.ndim != 3:
        return 0
    named = (detector_frames.text(data.attrs["axes"]) or "").lower().split(":") if "axes" in data.attrs else []
    if len(named) == 3 and len(fits := [i for i, name in enumerate(named) if name.strip() in _VIEWS]) == 1:
        return fits[0]
    theta = hdf5.located(file, _THETA) if "theta" in file["exchange"] else None
    fits = [i for i, length in enumerate(data.shape) if theta is not None and (length,) == theta.shape]
    if theta is None or len(fits) != 1 or fits == [0]:
        return 0
    notes.append(f"{_DATA} has shape {data.shape} and there are {theta.size} angles: views are axis {fits[0]}")
    return fits[0]


def _angles(file: h5py.File, views: int, notes: list[str]) -> list[float] | None:
    if "theta" not in file["exchange"]:
        return _planned_angles(file, views, notes)
    theta = hdf5.located(file, _THETA)
    if theta.shape != (views,):
        raise GeometryError(f"{theta.size} angles for {views} projections", field=_THETA, remedy=_ONE_ANGLE)
    check_size(theta.shape, theta.dtype.itemsize, _THETA)
    return detector_frames.angles_rad(np.asarray(theta[()]), detector_frames.unit(theta), _THETA, notes)


def _planned_angles(file: h5py.File, views: int, notes: list[str]) -> list[float] | None:
    """Angles that the scan was to take."""
    names = ("rotation_start", "rotation_step", "num_angles")
    found = [detector_frames.number(file, f"{_ROTATION}/{name}") for name in names]
    start, step, planned = found
    if start is None or step is None or step[0] == 0:
        return None
    if planned is not None and planned[0] < views:
        raise GeometryError(
            f"{planned[0]:g} angles for {views} projections", field=f"{_ROTATION}/num_angles", remedy=_ONE_ANGLE
        )
    notes.append(f"no {_THETA}: angles are {start[0]:g} + i * {step[0]:g} {step[1] or 'degrees'}, from {_ROTATION}")
    if planned is not None and planned[0] > views:
        notes.append(f"the scan was to take {planned[0]:g} views; the file has {views}, taken to be the first ones")
    values = start[0] + step[0] * np.arange(views)
    return detector_frames.angles_rad(values, step[1] or "degrees", f"{_ROTATION}/rotation_step", notes)


def _pixel_mm(file: h5py.File, notes: list[str]) -> float | None:
    """Pixel size on the sample, which is the detector's pitch in parallel beams."""
    found = detector_frames.number(file, _RESOLUTION)
    if found is None:
        return None
    pixel_mm = detector_frames.length_mm(*found)
    if pixel_mm is None:
        notes.append(f"{_RESOLUTION} is {found[0]:g} {found[1] or 'without a unit'}: no pixel size, not used")
    else:
        notes.append(f"pixel size {pixel_mm:.6g} mm, from {_RESOLUTION}")
    return pixel_mm


def _rotation_centre(file: h5py.File, columns: int, notes: list[str]) -> float | None:
    """Column of the rotation axis, if it was set by hand."""
    process = detector_frames.inside(file, "process")
    group = process if isinstance(process, Mapping) else {}
    for name in sorted((n for n in group if n.startswith("tomopy-cli")), reverse=True):
        place = f"process/{name}/find-rotation-axis"
        found = detector_frames.number(file, f"{place}/rotation-axis")
        if found is None or detector_frames.word(file, f"{place}/rotation-axis-auto") != "manual":
            continue
        if 0 < found[0] < columns - 1:
            notes.append(f"rotation axis at column {found[0]:g}, from {place}")
            return found[0]
        notes.append(f"{place} has the rotation axis at column {found[0]:g} of {columns}: not used")
    return None


def _read(path: Path, given: Input) -> RawCounts:
    return read(path, given.slices)


FORMAT = Format(
    name="dxchange",
    endings=(".h5", ".hdf5", ".hdf"),
    magic=(hdf5.MAGIC,),
    read=_read,
    selects=True,
    slicewise=True,
    recognises=hdf5.holds("exchange/data"),
)
