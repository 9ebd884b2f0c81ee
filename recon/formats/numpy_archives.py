"""NumPy archives (.npz), read array by array, without pickle and with a check of each size."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats import numpy_files
from recon.formats.safety import check_size, existing
from recon.spec.validation import reason

_ENDING = ".npy"
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those of NumPy; others are inflated without a limit."""


class NumpyArchive:
    """Open archive of arrays.

    Parameters
    ----------
    archive
        The open file.
    file_name
        Its name, for messages.
    field
        Field of the specification that names it.
    """

    def __init__(self, archive: zipfile.ZipFile, file_name: str, field: str) -> None:
        self._archive, self._file_name, self._field = archive, file_name, field
        self._members = {
            item.filename.removesuffix(_ENDING): item
            for item in archive.infolist()
            if item.filename.endswith(_ENDING)
        }  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the arrays."""
        return iter(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def header(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
        """Read what `numpy_files.header` does of an array, not its numbers."""
        with self._archive.open(self._members[name]) as stream:
            return numpy_files.header(stream, name, self._field)

    def array(self, name: str) -> NDArray[np.generic]:
        """Read an array.

        Raises
        ------
        InputError
            If its header is damaged, or promises more or less than there is.
        ResourceLimit
            If its header promises more than the limit.
        """
        item = self._members[name]
        with self._archive.open(item) as stream:
            shape, fortran_order, dtype = numpy_files.header(stream, f"{name} in {self._file_name}", self._field)
            promised = check_size(shape or (1,), dtype.itemsize, self._field)
            held = stream.read(promised)
            if len(held) != promised or stream.read(1):
                raise InputError(
                    f"the header of {name} in {self._file_name} promises {promised} bytes ({shape} {dtype}), the file "
                    f"holds {'more' if len(held) == promised else len(held)}",
                    field=self._field,
                    remedy="the file is truncated or damaged; copy it again",
                )
        return np.frombuffer(held, dtype).reshape(shape, order="F" if fortran_order else "C")


@contextmanager
def opened(path: Path, field: str = "input") -> Iterator[NumpyArchive]:
    """Open an archive; whatever cannot be read in it is an `InputError`."""
    existing(path, field)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(item.compress_type not in _COMPRESSIONS for item in archive.infolist()):
                raise InputError(
                    f"{path.name} is not compressed as NumPy does", field=field, remedy="write it with numpy.savez"
                )
            yield NumpyArchive(archive, path.name, field)
    # An encrypted member is a RuntimeError.
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path.name} is not a readable .npz file: {reason(error)}", field=field, remedy="copy it again"
        ) from error
