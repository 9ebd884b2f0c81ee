"""File format: name endings, first bytes, and the functions that read or write it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.measurement.counts import Counts
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions import Acquisition
from recon.spec.affine import Affine
from recon.spec.job import Input


@dataclass(frozen=True)
class StoredArray:
    """Array in a file, whose numbers are read when they are needed.

    Parameters
    ----------
    shape, dtype
        Shape and dtype in the file.
    read
        Reads the indices ``[first, last)`` of the first axis; raises `InputError` or `ResourceLimit`.
    least_bytes
        Bytes that reading a single number takes: those of a compressed chunk.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    read: Callable[[int, int], NDArray[np.generic]]
    least_bytes: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class PlainArray:
    """Array without geometry; the acquisition of the specification says what it is.

    Parameters
    ----------
    data
        In the acquisition's order of axes; that of slices may be missing. A stored array is read for the slices that
        are asked for, any other holds these and no others.
    stated
        Fields of the acquisition, whatever its kind, that the file states.
    noise_std
        Standard deviation of the noise, if the file shows it.
    notes
        Remarks for the report.
    order_known
        Whether the format prescribes that order, so that one of k-space's three axes is missing for certain.
    slices_in_file
        As in `Measurement`; a stored array's are known from its shape.
    """

    data: NDArray[np.generic] | StoredArray
    stated: dict[str, Any] = field(default_factory=dict)
    noise_std: float | None = None
    notes: list[str] = field(default_factory=list)
    order_known: bool = True
    slices_in_file: int | None = None


@dataclass(frozen=True)
class KnownVolume:
    """Image volume: the object of a simulated measurement, or a measured low-resolution stack.

    Parameters
    ----------
    data
        ``(slices, rows, cols)``; CT in HU, MRI in any magnitude.
    affine
        Voxel ``(col, row, slice)`` to millimetres.
    in_patient
        Whether `affine` leads into the patient's RAS frame.
    codes
        NIfTI's codes of the affine, for sform and qform, if the file has them.
    unit
        What the file says of its values: ``HU``, or what else they are; None if it says nothing.
    slices_in_file
        Number of slices in the file, if `data` and `affine` are those of the slices that are asked for; None if they
        are to be cut out.
    source
        Patient and study, as in `Measurement`.
    """

    data: NDArray[np.float32]
    affine: Affine
    in_patient: bool = True
    codes: tuple[int, int] | None = None
    unit: str | None = None
    notes: list[str] = field(default_factory=list)
    slices_in_file: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RawCounts:
    """Raw counts of a CT detector, and what the file says of the geometry.

    Parameters
    ----------
    counts
        The frames that were asked for.
    stated
        Acquisition that the file states; or only fields of it, where the specification says its kind.
    notes
        Remarks for the report.
    slices_in_file
        As in `Measurement`.
    """

    counts: Counts
    stated: Acquisition | dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    slices_in_file: int | None = None

    @property
    def data(self) -> NDArray[np.float32]:
        """Projections as ``(slices, views, detectors)``: a detector row is a slice."""
        return self.counts.projections.transpose(1, 0, 2)


class Incomplete(InputError):
    """Error of a measurement whose geometry is known, and whose numbers cannot be read before something is mended.

    Parameters
    ----------
    error
        What is wrong.
    stated
        Acquisition that the file states.
    shape
        Shape of its data, in the acquisition's order.
    notes
        Remarks on these.
    """

    def __init__(self, error: InputError, stated: Acquisition, shape: tuple[int, ...], notes: list[str]) -> None:
        super().__init__(error.message, field=error.field, remedy=error.remedy)
        self.code, self.stated, self.shape, self.notes = error.code, stated, shape, notes


Quantity = Literal["values", "phase", "error", "interval", "undetermined"]
"""Content of a written volume: the result, the phase of a complex one, the errors to be expected, half the width of
90 % intervals, the part that no sample determined."""

Content = PlainArray | KnownVolume | RawCounts | Measurement


@dataclass(frozen=True)
class Origin:
    """Origin of the volumes of a job, which they share.

    Parameters
    ----------
    modality
        Kind of scan.
    scan
        How it was measured, in words.
    software
        Name and version of this program.
    source
        Patient and study, as in `Measurement`.
    key, made
        What tells these results from all others, and when they were made.
    """

    modality: Literal["ct", "mri"]
    scan: str
    software: str
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)
    key: uuid.UUID = field(default_factory=uuid.uuid4)
    made: datetime = field(default_factory=datetime.now)

    def uid(self, name: str) -> str:
        """Make a DICOM unique identifier (UID): the same one for the same name, another than in any other results."""
        return f"2.25.{uuid.uuid5(self.key, name).int}"


@dataclass(frozen=True)
class Written:
    """Volume to write: in slabs, since it may be larger than memory.

    Parameters
    ----------
    shape
        ``(slices, rows, cols)``.
    dtype
        float32, or complex64 for a volume as reconstructed.
    affine
        Voxel ``(col, row, slice)`` to millimetres.
    unit
        Unit of the values.
    slabs
        Makes a new pass through the volume: some slices at a time, in order.
    origin
        Origin of the volumes of the job.
    method
        Name of the method that made it, with its prior.
    number
        Number of the volume among those of the job, from 1.
    quantity
        What the values are.
    in_patient
        Whether `affine` leads into the patient's RAS frame.
    codes
        NIfTI's codes of the affine, for sform and qform, if the input has them.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[np.float32] | np.dtype[np.complex64]
    affine: Affine
    unit: str
    slabs: Callable[[], Iterator[NDArray[np.float32] | NDArray[np.complex64]]]
    origin: Origin
    method: str = ""
    number: int = 1
    quantity: Quantity = "values"
    in_patient: bool = True
    codes: tuple[int, int] | None = None

    @property
    def data(self) -> NDArray[np.float32] | NDArray[np.complex64]:
        """The whole volume in memory, for formats that cannot be written in slabs."""
        return np.concatenate(list(self.slabs()))


@dataclass(frozen=True)
class Format:
    """File format: one module with a constant ``FORMAT``, and a row in `recon.spec.registry`.

    Parameters
    ----------
    name
        As in a specification.
    endings
        Endings of its files' names; results get the first.
    magic
        First bytes of its files, or those at `magic_at`; empty if these do not identify it.
    magic_at
        Where `magic` stands.
    certain
        Whether an ending or the first bytes leave no doubt that a file is of this format.
    volumes
        Whether files hold image volumes, not measurements.
    media_type
        For HTTP.
    read
        Reads a file as an `Input` says; None for a format of results only.
    write
        Writes a volume to a path that ends as `endings` says; None for a format of inputs only.
    holds_complex
        Whether complex volumes can be written as they are; else only as magnitude and phase, in two files.
    keeps_complex
        Whether they are written as they are unless something else is asked for.
    modalities
        Kinds of scans whose volumes it holds.
    check
        Raises `InputError` for a shape ``(slices, rows, cols)`` and an affine that a written volume cannot have.
    selects
        Whether only the slices that the input asks for are read, by `read` or from its `StoredArray`; else they are
        cut out of what `read` returns.
    slicewise
        Whether reading some slices takes the time and memory of these, of files whose content says `slices_in_file`.
    folders
        Whether `read` also takes a folder of such files.
    recognises
        Whether a file with these first bytes is of this format, by what it holds; for formats that share them.
    names_others
        Whether its files name others around them, which are read with them.
    refused
        Whether `read` says what to do instead, and nothing else.
    """

    name: str
    endings: tuple[str, ...]
    magic: tuple[bytes, ...] = ()
    magic_at: int = 0
    certain: bool = False
    volumes: bool = False
    media_type: str = "application/octet-stream"
    read: Callable[[Path, Input], Content] | None = None
    write: Callable[[Path, Written], None] | None = None
    holds_complex: bool = False
    keeps_complex: bool = False
    modalities: tuple[Literal["ct", "mri"], ...] = ("ct", "mri")
    check: Callable[[tuple[int, int, int], Affine], None] | None = None
    selects: bool = False
    slicewise: bool = False
    folders: bool = False
    recognises: Callable[[Path], bool] | None = None
    names_others: bool = False
    refused: bool = False

    @property
    def certain_endings(self) -> tuple[str, ...]:
        """Endings that identify the format."""
        return self.endings if self.certain else ()
