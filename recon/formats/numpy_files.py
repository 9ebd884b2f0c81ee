"""NumPy files (.npy), read without pickle and with a check of their size."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats.format import Format, PlainArray, Written
from recon.formats.safety import check_size, existing
from recon.spec.job import Input
from recon.spec.validation import reason

_MOST_AXES = 32
_MOST_HEADER_BYTES = 10_000
"""As many as NumPy reads."""


def read(path: Path, field: str = "input") -> NDArray[np.generic]:
    """Read one array.

    Raises
    ------
    InputError
        If the header is damaged, promises more or less than the file holds, or the dtype is not numeric.
    ResourceLimit
        If the header promises more than the limit.
    """
    with existing(path, field).open("rb") as stream:
        shape, dtype = _header(stream, path.name, field)
        if dtype.hasobject or dtype.kind not in "biufc":
            raise InputError(f"{path.name} holds dtype {dtype}, expected numbers", field=field)
        promised = check_size(shape, dtype.itemsize, field)
        present = path.stat().st_size - stream.tell()
        if promised != present:
            raise InputError(
                f"the header of {path.name} promises {promised} bytes ({shape} {dtype}), the file holds {present}",
                field=field,
                remedy="the file is truncated or damaged; copy it again",
            )
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


def _header(stream: IO[bytes], name: str, field: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    try:
        version = npy.read_magic(stream)
        _check_header(stream, version)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read_header(stream)
    except Exception as error:  # the header is Python syntax: its parser can fail in a dozen ways
        raise InputError(
            f"{name} is not a readable .npy file: {reason(error)}",
            field=field,
            remedy="write it with numpy.save",
        ) from error
    if len(shape) > _MOST_AXES:
        raise InputError(f"{name} says that its array has {len(shape)} axes", field=field)
    return shape, dtype


def _check_header(stream: IO[bytes], version: tuple[int, int]) -> None:
    """Raise ValueError for a header that is longer than that of any array, before it is read."""
    length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    stream.seek(-(2 if version == (1, 0) else 4), 1)


def _read(path: Path, given: Input) -> PlainArray:
    del given
    return PlainArray(read(path))


def _write(path: Path, volume: Written) -> None:
    np.save(path, volume.data)


FORMAT = Format(
    name="numpy",
    endings=(".npy",),
    magic=(b"\x93NUMPY",),
    certain=True,
    read=_read,
    write=_write,
    keeps_complex=True,
)
