"""HDF5 files: single datasets, and measurement files of ``recon simulate``, which carry their acquisition.

A dataset is an array as in a .npy file; it may be compressed once, by gzip or LZF.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from operators.errors import InputError
from recon.formats.detector_frames import inside, text
from recon.formats.format import Format, PlainArray, StoredArray
from recon.formats.hdf5_chunks import check_chunks, chunk_bytes
from recon.formats.safety import array_bytes, check_size, existing, real, slice_range
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions import Acquisition, AnyAcquisition
from recon.spec.affine import shifted_affine
from recon.spec.job import Input
from recon.spec.upgrade import upgraded
from recon.spec.validation import invalid, reason

if TYPE_CHECKING:
    import h5py

OURS = "diffusion-recon measurement 1"
"""Attribute that marks the files that we write."""
_ACQUISITIONS: TypeAdapter[Acquisition] = TypeAdapter(AnyAcquisition)
_NOTES: TypeAdapter[list[str]] = TypeAdapter(list[str])
MAGIC = b"\x89HDF\r\n\x1a\n"


@contextmanager
def opened(path: Path, field: str = "input") -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; anything that h5py cannot open or read is an `InputError`."""
    import h5py

    existing(path, field)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, zlib.error) as error:
        raise InputError(
            f"{path.name} is not a readable HDF5 file: {reason(error)}", field=field, remedy="copy it again"
        ) from error


def dataset(
    file: h5py.File, name: str, field: str = "input", slices: tuple[int, int] | None = None
) -> NDArray[np.generic]:
    """Read a dataset that lies in the file itself, or indices ``[first, last)`` of its first axis.

    Its size is checked first.
    """
    node = located(file, name, field)
    part = node.shape if slices is None else (slices[1] - slices[0], *node.shape[1:])
    check_size(part, node.dtype.itemsize, field)
    check_size((chunk_bytes(node) or 1,), 1, field)
    return np.asarray(node[()] if slices is None else node[slice(*slices)])


def located(file: h5py.File, name: str, field: str = "input") -> h5py.Dataset:
    """Find a dataset of numbers that lies in the file itself, without reading it."""
    import h5py

    node: h5py.Group | h5py.Dataset = file
    for part in name.strip("/").split("/"):
        # Links can lead to other files of the machine: only hard links are followed.
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) and part in node else None
        if not isinstance(link, h5py.HardLink):
            present = ", ".join(sorted(map(str, node))) if isinstance(node, h5py.Group) else "none"
            raise InputError(
                f"there is no dataset {name!r} in the file",
                field=field,
                remedy=f"give its name in input.dataset; at that place there are: {present or 'none'}",
            )
        node = node[part]
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
        raise InputError(f"{name!r} is not a dataset stored in this file", field=field)
    if node.dtype.kind not in "biufc":
        raise InputError(f"{name!r} holds {node.dtype}, expected numbers", field=field)
    check_chunks(node, field)
    return node


def stored(path: Path, name: str | None, field: str = "input") -> StoredArray:
    """Find one dataset without reading its numbers; ``data`` or ``kspace`` when no name is given."""
    with opened(path, field) as file:
        chosen = name or next((n for n in ("data", "kspace") if n in file), "data")
        node = located(file, chosen, field)
        array_bytes(node.shape, node.dtype.itemsize, field)
        shape, dtype, least = node.shape, node.dtype, chunk_bytes(node)

    def part(first: int, last: int) -> NDArray[np.generic]:
        with opened(path, field) as file:
            return dataset(file, chosen, field, (first, last))

    return StoredArray(shape, dtype, part, least)


def holds(*names: str) -> Callable[[Path], bool]:
    """Make a test whether objects of all these names lie in a file, or in one of its groups."""

    def test(path: Path) -> bool:
        import h5py

        with opened(path) as file:
            places = [file, *(node for name in file if isinstance(node := inside(file, name), h5py.Group))]
            return any(all(inside(place, name) is not None for name in names) for place in places)

    return test


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def is_measurement(path: Path) -> bool:
    """Whether the file was written by `write_measurement`."""
    with opened(path) as file:
        return text(file.attrs.get("format")) == OURS


def read_measurement(path: Path, slices: tuple[int, int] | None = None) -> Measurement:
    """Read a file written by `write_measurement`, or slices ``[first, last)`` of it."""
    try:
        return _read_measurement(path, slices)
    except ValidationError as error:
        raise invalid(error, path.name) from error
    except (ValueError, TypeError, IndexError) as error:  # attributes that somebody has changed
        raise InputError(
            f"{path.name} has attributes that cannot be read: {reason(error)}",
            field="input",
            remedy="measure it again with `recon simulate`, or give its dataset and the acquisition",
        ) from error


def _today(acquisition: Any) -> Any:
    """An acquisition in today's names: a user cannot mend a file from before they changed."""
    return upgraded({"acquisition": acquisition})["acquisition"] if isinstance(acquisition, dict) else acquisition


def _read_measurement(path: Path, slices: tuple[int, int] | None) -> Measurement:
    with opened(path) as file:
        acquisition = _ACQUISITIONS.validate_python(_today(json.loads(file.attrs.get("acquisition", "null"))))
        node = located(file, "data")
        array_bytes(node.shape, node.dtype.itemsize)
        first, last = slice_range(None if acquisition.slices_encoded else slices, len(node))
        affine, begin = dataset(file, "affine") if "affine" in file else None, acquisition.first_of_result(first)
        known = "truth" in file
        truth = None
        if known:
            part = None if acquisition.slices_encoded else acquisition.slices_of_result(first, last)
            truth = dataset(file, "truth", slices=part)
        mask = dataset(file, "mask") if "mask" in file else None
        covariance = dataset(file, "noise_covariance") if "noise_covariance" in file else None
        in_patient = bool(file.attrs.get("in_patient", True))
        codes = [int(n) for n in np.asarray(file.attrs["nifti_codes"])] if "nifti_codes" in file.attrs else None
        noise = float(file.attrs["noise_std"]) if "noise_std" in file.attrs else None
        provenance = json.loads(str(file.attrs.get("provenance", "{}")))
        notes = _NOTES.validate_json(str(file.attrs.get("notes", "[]")))
        data = dataset(file, "data", slices=(first, last))
        count, least = len(node), chunk_bytes(node)
        files = {name: dataset(file, f"files/{name}") for name in file.get("files", ())}
    return Measurement(
        data=data.astype(np.complex64) if acquisition.COMPLEX_DATA else real(data),
        acquisition=acquisition,
        affine=None if affine is None else shifted_affine(affine.astype(np.float64), begin),
        in_patient=in_patient,
        codes=None if codes is None else (codes[0], codes[1]),
        truth=None if truth is None else truth.astype(np.float32),
        mask=None if mask is None else mask.astype(bool),
        noise_std=noise,
        noise_covariance=None if covariance is None else covariance.astype(np.complex128),
        files=files,
        notes=notes,
        provenance=provenance,
        slices_in_file=count,
        read_bytes=max(data.nbytes, least),
    )


def write_measurement(path: Path, measurement: Measurement) -> None:
    """Write a measurement with everything needed to reconstruct it."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["format"] = OURS
        file.attrs["acquisition"] = measurement.acquisition.model_dump_json(exclude_none=True)
        file.attrs["in_patient"] = measurement.in_patient
        file.attrs["provenance"] = json.dumps(measurement.provenance)
        file.attrs["notes"] = json.dumps(measurement.notes)
        if measurement.codes is not None:
            file.attrs["nifti_codes"] = measurement.codes
        if measurement.noise_std is not None:
            file.attrs["noise_std"] = measurement.noise_std
        file["data"] = measurement.data
        for name in ("affine", "truth", "mask", "noise_covariance"):
            value = getattr(measurement, name)
            if value is not None:
                file.create_dataset(name, data=value, compression="gzip", compression_opts=1)
        for name, array in measurement.files.items():
            file.create_dataset(f"files/{name}", data=array, compression="gzip", compression_opts=1)


def _read(path: Path, given: Input) -> Measurement | PlainArray:
    if is_measurement(path):
        return read_measurement(path, given.slices)
    return PlainArray(stored(path, given.dataset), order_known=False)


FORMAT = Format(
    name="hdf5",
    endings=(".h5", ".hdf5"),
    magic=(MAGIC,),
    read=_read,
    selects=True,
    slicewise=True,
    recognises=is_measurement,
)
