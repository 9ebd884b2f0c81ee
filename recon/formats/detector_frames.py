"""Detector frames in HDF5, read for some rows only, and the units of what lies beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError
from recon.formats.hdf5_chunks import check_chunks
from recon.formats.safety import check_finite, check_size, slice_range

if TYPE_CHECKING:
    import h5py

_DEGREES = {"deg", "degs", "degree", "degrees", "°"}
_RADIANS = {"rad", "rads", "radian", "radians"}
_MILLIMETRES = {
    **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1e3),
    **dict.fromkeys(("cm", "centimetre", "centimeter"), 10.0),
    **dict.fromkeys(("mm", "millimetre", "millimeter", "millimetres", "millimeters"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometre", "micrometer", "micrometers"), 1e-3),
    **dict.fromkeys(("nm", "nanometre", "nanometer", "nanometers"), 1e-6),
}
_PIXELS_MM = (1e-6, 10.0)
"""Detector pitches of any scanner, from soft X-ray microscopes to linear accelerators."""
_AT_ONCE = 256
"""Frames read at once, if the chunks of the file have no more: so few lie in memory twice."""
_LONGEST = 1000
"""Bytes of a text that can be a number or a word."""
_MOST_RADIANS = 2 * math.pi * 1.01
"""A scan whose angles span less can be a full turn in radians; in degrees it would be next to no scan."""


def frames(
    node: h5py.Dataset,
    field: str,
    slices: tuple[int, int] | None = None,
    axis: int = 0,
    wanted: NDArray[np.intp] | None = None,
) -> NDArray[np.float32]:
    """Read ``(frames, rows, columns)`` of the rows ``[first, last)`` that are asked for, and no others.

    Parameters
    ----------
    axis
        Axis of the frames in the file; those of rows and columns follow each other around it.
    wanted
        Indices of the frames to read, in their order. Default: all.
    """
    if node.ndim != 3:
        raise InputError(
            f"shape {node.shape}, expected (frames, rows, columns)", field=field, remedy="give frames with three axes"
        )
    row_axis = 1 if axis == 0 else 0
    first, last = slice_range(slices, node.shape[row_axis])
    chosen = np.arange(node.shape[axis]) if wanted is None else wanted
    columns = node.shape[3 - axis - row_axis]
    check_size((len(chosen), last - first, columns), node.dtype.itemsize, field)
    if node.chunks:
        check_size(node.chunks, node.dtype.itemsize, field)  # the least that is decompressed
    if node.dtype.kind not in "iuf":
        raise InputError(f"dtype {node.dtype}, expected real numbers", field=field, remedy="give detector counts")
    found = np.empty((len(chosen), last - first, columns), np.float32)
    part: list[slice] = [slice(None)] * 3
    part[row_axis] = slice(first, last)
    for begin, end in _runs(chosen, max(_AT_ONCE, node.chunks[axis] if node.chunks else 1)):
        part[axis] = slice(int(chosen[begin]), int(chosen[end - 1]) + 1)
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is found
            found[begin:end] = np.moveaxis(node[tuple(part)], axis, 0)
    return found


def _runs(indices: NDArray[np.intp], most: int) -> Iterator[tuple[int, int]]:
    """Parts of a list, of `most` at a time, in which each index follows the one before."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    for begin, end in pairwise([0, *(int(i) for i in breaks), len(indices)]):
        for start in range(begin, end, most):
            yield start, min(start + most, end)


def text(value: object) -> str | None:
    """Convert an attribute, or a dataset of one element, to text; None if it is neither."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size == 1 else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).strip() if isinstance(value, str | int | float | np.generic) else None


def unit(node: h5py.Dataset) -> str | None:
    """Return the attribute ``units`` or ``unit`` in lower case; None without it."""
    found = next((text(node.attrs[name]) for name in ("units", "unit") if name in node.attrs), None)
    return found.lower() if found else None


def inside(file: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Find what lies in the file itself under a name; None if there is nothing, or a link to elsewhere."""
    import h5py

    node: h5py.Group | h5py.Dataset = file
    for part in name.split("/"):
        if not isinstance(node, h5py.Group) or not isinstance(node.get(part, getlink=True), h5py.HardLink):
            return None
        node = node[part]
    return node


def word(file: h5py.Group, name: str) -> str | None:
    """Read the text of a small dataset of one element; None if there is none, or it is stored in another file."""
    import h5py

    node = inside(file, name)
    if not isinstance(node, h5py.Dataset) or node.size != 1 or node.dtype.itemsize > _LONGEST:
        return None
    if node.is_virtual or node.external:
        return None
    check_chunks(node)
    return text(node[()])


def number(file: h5py.Group, name: str) -> tuple[float, str | None] | None:
    """Read number and unit of a dataset of one element; None if there is none."""
    try:
        value = float(word(file, name) or "")
    except ValueError:
        return None
    node = inside(file, name)
    return (value, unit(node)) if node is not None and math.isfinite(value) else None


def length_mm(value: float, given: str | None) -> float | None:
    """Convert a detector pitch to millimetres; None if its unit is unknown, or no detector has such a pitch."""
    scale = _MILLIMETRES.get(given or "")
    if scale is None or not _PIXELS_MM[0] <= value * scale <= _PIXELS_MM[1]:
        return None
    return value * scale


def angles_rad(values: NDArray[np.generic], given: str | None, field: str, notes: list[str]) -> list[float]:
    """Convert angles to radians by their unit, or else by their range, which is then noted.

    They may go on for several turns: they are the same views modulo one.
    """
    check_finite(values, field)
    angles = values.astype(np.float64).reshape(-1)
    if given is not None and given not in _DEGREES | _RADIANS:
        raise GeometryError(
            f"the unit is {given!r}, neither degrees nor radians", field=field, remedy="set its attribute units"
        )
    span = float(angles.max() - angles.min()) if angles.size else 0.0
    if given in _RADIANS:
        return [float(a) for a in (angles % (2 * math.pi) if np.abs(angles).max(initial=0.0) > 4 * math.pi else angles)]
    if given is None and 0 < span <= _MOST_RADIANS:
        notes.append(
            f"{field} spans {span:.4g} and has no unit: taken as radians; if these are degrees, give "
            "acquisition.angles_rad"
        )
        return [float(a) for a in angles]
    if np.abs(angles).max(initial=0.0) > 720:
        angles = angles % 360
    return [float(a) for a in np.deg2rad(angles)]
