"""Decoded volumes of results, kept in bounded memory by an API process for pictures of their slices."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError, NotFound, ResourceLimit
from recon.formats import nifti
from recon.quality.views import WINDOW_SLICES, View, grey_window, views_of
from recon.spec.affine import Affine

ENDINGS = (".nii", ".nii.gz")
PERCENTILES = (0.0, 1.0, 5.0, 50.0, 95.0, 99.0, 100.0)
BYTES_PER_VOXEL = 4
"""Of what is kept, float32."""


@dataclass(frozen=True)
class Head:
    """What the header of a volume says.

    Parameters
    ----------
    shape
        ``(slices, rows, cols)``.
    affine
        Voxel ``(col, row, slice)`` to millimetres.
    in_patient
        Whether it leads into the patient's RAS frame.
    """

    shape: tuple[int, int, int]
    affine: Affine
    in_patient: bool

    @cached_property
    def views(self) -> dict[str, View]:
        """Axial, coronal and sagittal view."""
        return {view.plane: view for view in views_of(self.affine, in_patient=self.in_patient)}

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded volume."""
        return int(np.prod(self.shape, dtype=np.int64)) * BYTES_PER_VOXEL


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
        """Percentiles of the values, of some slices if there are many."""
        sample = self.values[:: -(-len(self.values) // WINDOW_SLICES)]
        found = zip(PERCENTILES, np.percentile(sample, PERCENTILES), strict=True)
        return {f"{share:g}": float(value) for share, value in found}


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
    return Head((slices, rows, cols), found.affine, found.codes != nifti.SCANNER)


class VolumeCache:
    """Cache of decoded volumes; those that nobody has asked for the longest make room.

    One volume is decoded at a time, so that decoding takes no more memory than the largest volume does.

    Parameters
    ----------
    most_bytes
        Bytes that it may hold; a larger volume is refused.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, int, int], Decoded] = OrderedDict()
        self._lock, self._decoding = threading.Lock(), threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(found.head.nbytes for found in self._kept.values())

    def volume(self, path: Path) -> Decoded:
        """Return a decoded volume.

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
        found = self._look(key)
        if found is not None:
            return found
        with self._decoding:
            found = self._look(key)  # who waited may find it done
            if found is None:
                found = self._decode(path)
                self._keep(key, found)
        return found

    def _look(self, key: tuple[str, int, int]) -> Decoded | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def _decode(self, path: Path) -> Decoded:
        found = head(path)
        if found.nbytes > self.most_bytes:
            most = f"{self.most_bytes / 1e9:.1f} GB"
            raise ResourceLimit(
                f"{path.name} takes {found.nbytes / 1e9:.1f} GB, pictures are made of volumes of up to {most}",
                field="name",
                remedy="download it, or have the operator raise RECON_PICTURE_BYTES",
            )
        self._make_room(found.nbytes)
        values, _ = nifti.read(path, "name")
        return Decoded(found, values)

    def _make_room(self, nbytes: int) -> None:
        with self._lock:
            while self._kept and self.nbytes + nbytes > self.most_bytes:
                self._kept.popitem(last=False)

    def _keep(self, key: tuple[str, int, int], found: Decoded) -> None:
        with self._lock:
            self._kept[key] = found


def _key(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise NotFound(f"there is no {path.name} any more", field="name") from error
    return str(path), status.st_size, status.st_mtime_ns
