"""NumPy files (.npy), read without pickle and with a check of their size.

An array is what the acquisition says: line integrals ``(slices, views, detectors)``, k-space ``(slices, coils, rows,
cols)``, samples ``(slices, coils, samples)``, a stack ``(slices, rows, cols)``. The slice axis may be missing.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats.format import Format, PlainArray, StoredArray, Written
from recon.formats.safety import array_bytes, check_size, existing
from recon.spec.job import Input
from recon.spec.validation import reason

_MOST_AXES = 32
_MOST_HEADER_BYTES = 10_000
"""Most axes that NumPy reads."""


def read(path: Path, field: str = "input") -> NDArray[np.generic]:
    """Read one array.

    Raises
    ------
    InputError
        If the header is damaged, promises more or less than the file holds, or the dtype is not numeric.
    ResourceLimit
        If the header promises more than the limit.
    """
    found = stored(path, field)
    return found.read(0, found.shape[0])


def stored(path: Path, field: str = "input") -> StoredArray:
    """Find the array of a file without reading its numbers; raises as `read` does."""
    with existing(path, field).open("rb") as stream:
        shape, fortran_order, dtype = header(stream, path.name, field)
        promised, offset = array_bytes(shape, dtype.itemsize, field), stream.tell()
    present = path.stat().st_size - offset
    if promised != present:
        check_size(shape, dtype.itemsize, field)  # what is far too large was hardly cut off
        raise InputError(
            f"the header of {path.name} promises {promised} bytes ({shape} {dtype}), the file holds {present}",
            field=field,
            remedy="the file is truncated or damaged; copy it again",
        )

    def part(first: int, last: int) -> NDArray[np.generic]:
        check_size((last - first, *shape[1:]), dtype.itemsize, field)
        read_part = _columns if fortran_order and len(shape) > 1 else _rows
        with path.open("rb") as stream:
            stream.seek(offset)
            return read_part(stream, shape, dtype, first, last)

    return StoredArray(shape, dtype, part)


def _rows(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic], first: int, last: int
) -> NDArray[np.generic]:
    """Read ``[first, last)`` of the first axis, which varies slowest."""
    each = math.prod(shape[1:])
    stream.seek(first * each * dtype.itemsize, os.SEEK_CUR)
    return np.fromfile(stream, dtype, (last - first) * each).reshape(last - first, *shape[1:])


def _columns(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic], first: int, last: int
) -> NDArray[np.generic]:
    """Read ``[first, last)`` of the first axis where it varies fastest (Fortran order): all is read, little kept."""
    blocks, size = shape[-1], math.prod(shape[:-1])
    found = np.empty((blocks, size // shape[0], last - first), dtype)
    for block in found:
        block[:] = np.fromfile(stream, dtype, size).reshape(-1, shape[0])[:, first:last]
    return found.reshape(*shape[:0:-1], last - first).transpose()


def header(stream: IO[bytes], name: str, field: str = "input") -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Read shape, order (True for Fortran's) and dtype, the stream standing at the magic bytes.

    Raises
    ------
    InputError
        If the header is damaged, or the dtype is not numeric.
    """
    try:
        version = npy.read_magic(stream)
        _check_header(stream, version)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran_order, dtype = read_header(stream)
    except Exception as error:  # the header is Python syntax: its parser can fail in a dozen ways
        raise InputError(
            f"{name} is not a readable .npy file: {reason(error)}",
            field=field,
            remedy="write it with numpy.save",
        ) from error
    if len(shape) > _MOST_AXES:
        raise InputError(f"{name} says that its array has {len(shape)} axes", field=field)
    if dtype.hasobject or dtype.kind not in "biufc":
        raise InputError(f"{name} holds dtype {dtype}, expected numbers", field=field)
    return shape, fortran_order, dtype


def _check_header(stream: IO[bytes], version: tuple[int, int]) -> None:
    """Raise ValueError for a header that is longer than that of any array, before it is read."""
    length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    stream.seek(-(2 if version == (1, 0) else 4), 1)


def _read(path: Path, given: Input) -> PlainArray:
    del given
    return PlainArray(stored(path))


def _write(path: Path, volume: Written) -> None:
    header = {"descr": npy.dtype_to_descr(volume.dtype), "fortran_order": False, "shape": volume.shape}
    with path.open("wb") as stream:
        npy.write_array_header_1_0(stream, header)
        for slab in volume.slabs():
            stream.write(np.ascontiguousarray(slab, volume.dtype).data)


FORMAT = Format(
    name="numpy",
    endings=(".npy",),
    magic=(b"\x93NUMPY",),
    certain=True,
    read=_read,
    selects=True,
    slicewise=True,
    write=_write,
    holds_complex=True,
    keeps_complex=True,
)
