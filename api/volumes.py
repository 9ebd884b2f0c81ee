"""Decoded volumes of results, kept in bounded memory by an API process for pictures of their slices."""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError, NotFound, ResourceLimit
from recon.formats import nifti
from recon.quality.views import View, grey_window, percentiles, views_of
from recon.spec.affine import Affine

ENDINGS = (".nii", ".nii.gz")
PERCENTILES = (0.0, 1.0, 5.0, 50.0, 95.0, 99.0, 100.0)
BYTES_PER_VOXEL = 4
"""Bytes of a voxel as it is kept, float32."""
AT_A_TIME = 3
"""Volumes of the largest size that have room at a time, the last of them while it is decoded: a viewer shows a result,
a baseline and a map, and would else have each of them decoded anew for every slice."""
T = TypeVar("T")
Key = tuple[str, int, int]
"""Path, size and time of change of a file."""


@dataclass(frozen=True)
class Head:
    """Header of a volume.

    Parameters
    ----------
    shape
        ``(slices, rows, cols)``.
    affine
        Voxel ``(col, row, slice)`` to millimetres.
    in_patient
        Whether it leads into the patient's RAS frame.
    stored_bytes
        Bytes of the numbers as they are stored, not compressed.
    """

    shape: tuple[int, int, int]
    affine: Affine
    in_patient: bool
    stored_bytes: int

    @cached_property
    def views(self) -> dict[str, View]:
        """Axial, coronal and sagittal view."""
        return {view.plane: view for view in views_of(self.affine, in_patient=self.in_patient)}

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded volume."""
        return math.prod(self.shape) * BYTES_PER_VOXEL

    @property
    def decoding_bytes(self) -> int:
        """Bytes that decoding takes: the numbers as they are stored, and the volume."""
        return self.stored_bytes + self.nbytes


@dataclass(frozen=True)
class Decoded:
    """Volume in memory: its values ``(slices, rows, cols)``, float32, and its header."""

    head: Head
    values: NDArray[np.float32]

    @cached_property
    def window(self) -> tuple[float, float]:
        """Grey window, where nothing better is known."""
        return grey_window(self.values)

    @cached_property
    def percentiles(self) -> dict[str, float]:
        """Percentiles of the finite values, of some slices if there are many."""
        found = zip(PERCENTILES, percentiles(self.values, PERCENTILES), strict=True)
        return {f"{share:g}": value for share, value in found}


def head(path: Path) -> Head:
    """Read the header of a result; raises `InputError` if it is no volume of which pictures can be made."""
    if not path.name.endswith(ENDINGS):
        raise InputError(
            f"{path.name} is no NIfTI volume, and pictures are made of these only",
            field="name",
            remedy="run the job with output.format nifti, or download the file",
        )
    found = nifti.header(path, "name")
    if found.dtype.kind == "c":
        raise InputError(
            f"{path.name} has complex values",
            field="name",
            remedy="run the job with output.parts magnitude and phase, or download the file",
        )
    cols, rows, slices = found.shape
    stored_bytes = math.prod(found.shape) * found.dtype.itemsize
    return Head((slices, rows, cols), found.affine, found.codes != nifti.SCANNER, stored_bytes)


class VolumeCache:
    """Cache of decoded volumes; those that were not asked for the longest make room.

    What is in use stays, and counts, as does what decoding takes. One volume is decoded at a time, and waits for room.

    Parameters
    ----------
    most_bytes
        Bytes that it may take; volumes of which `AT_A_TIME` would take more are refused.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[Key, Decoded] = OrderedDict()
        self._users: Counter[Key] = Counter()
        self._changed, self._decoding = threading.Condition(), threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the volumes that it holds."""
        return sum(found.head.nbytes for found in self._kept.values())

    def use(self, path: Path, take: Callable[[Decoded], T]) -> T:
        """Take something out of a decoded volume, which counts until that is done: a copy, and without waiting.

        Who takes may not use a second volume meanwhile: it might wait for the room of the first one.

        Raises
        ------
        NotFound
            If it has been deleted.
        InputError
            If the file is no NIfTI volume, or damaged.
        ResourceLimit
            If it is larger than what may be held.
        """
        key = _key(path)
        found = self._lent(key)
        if found is None:
            with self._decoding:
                found = self._lent(key) or self._decoded(path, key)  # who waited may find it done
        try:
            return take(found)
        finally:
            with self._changed:
                self._users[key] -= 1
                self._changed.notify_all()

    def check(self, path: Path) -> Head:
        """Read the header of a volume; raises what `use` does, but for damage behind the header."""
        found = head(path)
        if (AT_A_TIME - 1) * found.nbytes + found.decoding_bytes > self.most_bytes:
            raise ResourceLimit(
                f"{path.name} takes {found.nbytes / 1e6:.0f} MB, and {AT_A_TIME} like it have no room in the "
                f"{self.most_bytes / 1e6:.0f} MB that there are for pictures",
                field="name",
                remedy="download it, or have the operator raise RECON_PICTURE_BYTES",
            )
        return found

    def _lent(self, key: Key) -> Decoded | None:
        with self._changed:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self._users[key] += 1
            return found

    def _decoded(self, path: Path, key: Key) -> Decoded:
        checked = self.check(path)
        self._make_room(checked.decoding_bytes)
        values, _ = nifti.read(path, "name", finite=False)
        found = Decoded(checked, values)
        with self._changed:
            self._kept[key] = found
            self._users[key] += 1
        return found

    def _make_room(self, nbytes: int) -> None:
        with self._changed:
            while self.nbytes + nbytes > self.most_bytes:
                idle = next((key for key in self._kept if not self._users[key]), None)
                if idle is None:
                    self._changed.wait()
                else:
                    del self._kept[idle], self._users[idle]


def _key(path: Path) -> Key:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise NotFound(f"there is no {path.name} any more", field="name") from error
    return str(path), status.st_size, status.st_mtime_ns
