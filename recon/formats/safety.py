"""Safety checks that readers share: sizes before allocation, dtypes, finite values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError, ResourceLimit
from recon.settings import Settings
from recon.spec.acquisitions import Acquisition


def limit_bytes() -> int:
    """Size limit of arrays in bytes, set by RECON_MAX_INPUT_BYTES."""
    return Settings().max_input_bytes


def existing(path: Path, field: str = "input") -> Path:
    """Return the path if it is a readable file; raises `InputError`."""
    if path.is_dir():
        raise InputError(f"{path.name} is a folder", field=f"{field}.path", remedy="give one of its files")
    if not path.is_file():
        raise InputError(f"there is no file {path.name}", field=f"{field}.path", remedy="check the path")
    return path


def array_bytes(shape: tuple[int, ...], itemsize: int, field: str = "input") -> int:
    """Compute the bytes of an array; raises if a size is negative or zero."""
    if not shape or any(n < 1 for n in shape):
        raise InputError(f"the header says shape {shape}: an empty array", field=field)
    return math.prod(int(n) for n in shape) * itemsize


def check_size(shape: tuple[int, ...], itemsize: int, field: str = "input") -> int:
    """Compute the bytes of an array; raises if a size is negative, zero or above the limit."""
    nbytes = array_bytes(shape, itemsize, field)
    if nbytes > limit_bytes():
        raise ResourceLimit(
            f"the header says shape {shape}, {nbytes / 1e9:.1f} GB; the limit is {limit_bytes() / 1e9:.1f} GB",
            field=field,
            remedy="select fewer slices, or raise RECON_MAX_INPUT_BYTES on the machine that computes",
        )
    return nbytes


class TooFewSlices(InputError):
    """The input asks for slices that the file does not have, which has `count`."""

    def __init__(self, slices: tuple[int, int], count: int) -> None:
        super().__init__(f"slices {list(slices)}, the input has {count}", field="input.slices")
        self.count = count


def slice_range(slices: tuple[int, int] | None, count: int) -> tuple[int, int]:
    """Return the first slice and the one after the last that an input asks for; raises if there are fewer."""
    if slices is None:
        return 0, count
    if slices[1] > count:
        raise TooFewSlices(slices, count)
    return slices


def check_finite(data: NDArray[np.generic], field: str = "input", first: int = 0) -> None:
    """Raise `InputError` naming the first value that is NaN or infinite; `first` is the number of the first slice."""
    bad = ~np.isfinite(data)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = (index[0] + first, *index[1:])
        raise InputError(
            f"{int(bad.sum())} of {data.size} values are not finite, the first at {place} is {data[index]}",
            field=field,
            remedy="replace dead detector elements or missing samples before reconstruction",
        )


def no_real_numbers(dtype: np.dtype[np.generic], field: str = "input") -> InputError:
    """Make the error for an array that had to hold real numbers and does not."""
    if dtype.kind == "c":
        remedy = (
            "complex numbers look like k-space: give an acquisition of MRI, as mri-cartesian; else give their real part"
        )
    else:
        remedy = "save it as float32, or as whole numbers"
    return InputError(f"dtype {dtype}, expected real numbers", field=field, remedy=remedy)


def real(data: NDArray[np.generic], field: str = "input") -> NDArray[np.float32]:
    """Convert real numbers to float32; complex and non-numeric arrays are refused."""
    if data.dtype.kind not in "iuf":
        raise no_real_numbers(data.dtype, field)
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is found
        return np.ascontiguousarray(data, dtype=np.float32)


def check_axes(shape: tuple[int, ...], acquisition: Acquisition, field: str = "input") -> None:
    """Raise `InputError` unless an array has the acquisition's axes, or all but one."""
    if len(shape) not in (len(acquisition.AXES) - 1, len(acquisition.AXES)):
        raise InputError(f"shape {shape}, expected {acquisition.axes} or the same without slices", field=field)
