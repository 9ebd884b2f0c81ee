"""NIfTI volumes, read and written, and Analyze 7.5, read.

Arrays are ``(slices, rows, cols)``, files are ``(col, row, slice)``: NIfTI-1 and NIfTI-2, in one file or as a pair
``.hdr`` and ``.img``, plain or compressed by gzip. A result has the codes of the input's sform and qform; one that is
not known to lie in the patient has codes 0.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats import volumes
from recon.formats.format import Format, KnownVolume, Written
from recon.formats.safety import check_finite, existing, slice_range
from recon.spec.affine import Affine, shifted_affine
from recon.spec.job import Input
from recon.spec.validation import reason
from recon.storage.patterns import lies_in

if TYPE_CHECKING:
    import nibabel as nib

UNORIENTED = "the NIfTI file does not say how it lies in the patient (sform and qform codes are 0)"
ANALYZE = "an Analyze file does not say how it lies in the patient"
OURS = b"diffusion-recon"
"""Description of files that we write, whose sform is kept when its code is 0: then it is the scanner's frame."""
PATIENT, SCANNER = (1, 1), (0, 0)
"""Codes of sform and qform for an affine into the patient, and for one of which nothing is known but the scanner."""
_LONGEST_SIDE = 32767
"""Longest side of a volume in NIfTI-1, whose sizes have 16 bits; NIfTI-2 is written beyond it."""
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}
_HEADER_BYTES = 540


@dataclass(frozen=True)
class Header:
    """Header of a volume or several.

    Parameters
    ----------
    shape
        ``(cols, rows, slices)``.
    count
        Volumes of this shape, one behind the other.
    dtype, offset
        Of the numbers, in the file `numbers`.
    scaling
        Slope and intercept.
    affine
        Voxel ``(col, row, slice)`` to RAS millimetres.
    codes
        Of sform and qform; zeros for Analyze.
    """

    shape: tuple[int, int, int]
    count: int
    dtype: np.dtype[np.generic]
    numbers: Path
    offset: int
    scaling: tuple[float, float]
    affine: Affine
    codes: tuple[int, int]
    notes: list[str]


def read(path: Path, field: str = "input", *, finite: bool = True) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a volume ``(slices, rows, cols)`` and its affine from ``(col, row, slice)`` to RAS millimetres.

    Parameters
    ----------
    finite
        Whether values that are not finite are refused.

    Raises
    ------
    InputError
        If the file is not NIfTI, truncated, holds several volumes or values that are not finite, or its affine is
        unusable.
    ResourceLimit
        If the header promises more than the limit.
    """
    found = header(path, field)
    if found.count != 1:
        raise InputError(f"{path.name} holds {found.count} volumes, expected three dimensions", field=field)
    volume = _voxels(found, 0, (0, found.shape[2]), field)
    if finite:
        check_finite(volume, field)
    return volume, found.affine


def header(path: Path, field: str = "input") -> Header:
    """Read and check the header of a file, or of the pair that it belongs to."""
    first = path.with_name(path.name.replace(".img", ".hdr")) if path.name.endswith((".img", ".img.gz")) else path
    existing(first, field)
    try:
        with gzip.open(first) if first.name.endswith(".gz") else first.open("rb") as stream:
            block = stream.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{first.name} is truncated or damaged: {reason(error)}", field=field) from error
    try:
        parsed, single = _parsed(block, first, field)
        return _header(parsed, first if single else _image_of(first, field), field)
    except _unreadable() as error:
        raise InputError(f"{first.name} is not a readable NIfTI file: {reason(error)}", field=field) from error


def _unreadable() -> tuple[type[Exception], ...]:
    """Errors that nibabel raises on damaged headers."""
    import nibabel as nib

    return (nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError, ValueError, TypeError, OverflowError)


def _parsed(block: bytes, path: Path, field: str) -> tuple[nib.Nifti1Header, bool]:
    """Header by its first bytes, and whether the numbers are in the same file."""
    import nibabel as nib

    log = logging.getLogger("nibabel.global")
    sizes = {block[:4], block[3::-1]} if len(block) >= 348 else set()
    if (348).to_bytes(4, "little") in sizes:
        magic = block[344:348]
        kind: Any
        if magic in (b"n+1\0", b"ni1\0"):
            kind = nib.Nifti1Header if magic[:2] == b"n+" else nib.nifti1.Nifti1PairHeader
        elif path.name.endswith((".hdr", ".hdr.gz")):
            kind = nib.spm99analyze.Spm99AnalyzeHeader  # Analyze 7.5, with a scale where SPM has written one
        else:
            raise _none(path, field)
        size = 348
    elif (540).to_bytes(4, "little") in sizes and block[4:7] in (b"n+2", b"ni2") and len(block) >= 540:
        kind = nib.Nifti2Header if block[4:6] == b"n+" else nib.nifti2.Nifti2PairHeader
        size = 540
    else:
        raise _none(path, field)
    disabled, log.disabled = log.disabled, True  # what it mends is checked below
    try:
        return kind(block[:size]), b"n+" in block[4:6] + block[344:346]
    finally:
        log.disabled = disabled


def _none(path: Path, field: str) -> InputError:
    return InputError(f"{path.name} is not a NIfTI file", field=field, remedy="give a .nii, .nii.gz or .hdr file")


def _image_of(path: Path, field: str) -> Path:
    """File of the numbers, of a header in another one."""
    stem = path.name.removesuffix(".gz").removesuffix(".hdr")
    names = [f"{stem}.img", f"{stem}.img.gz"]
    found = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not found or path.name == stem:
        raise InputError(
            f"there is no file {' or '.join(names)} beside {path.name}",
            field=field,
            remedy="give both files in one folder, or save them as one .nii",
        )
    place = found[0]
    if not lies_in(place, path.parent):
        raise InputError(f"{place.name} is a link to outside of its folder", field=field, remedy="copy the file there")
    return place


def _header(parsed: nib.Nifti1Header, numbers: Path, field: str) -> Header:
    import nibabel as nib

    shape = tuple(int(n) for n in parsed.get_data_shape())
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(f"{numbers.name} has shape {shape}, expected three dimensions", field=field)
    shape = (*shape, 1) if len(shape) == 2 else shape
    dtype = parsed.get_data_dtype()
    slope, intercept = parsed.get_slope_inter()
    notes: list[str] = []
    if isinstance(parsed, nib.Nifti1Header):
        codes = int(parsed["sform_code"]), int(parsed["qform_code"])
        affine = np.asarray(parsed.get_best_affine(), dtype=np.float64)
        if codes == SCANNER and bytes(parsed["descrip"].item()).startswith(OURS):
            affine = np.asarray(parsed.get_sform(), dtype=np.float64)
        affine[:3] *= _MILLIMETRES.get(parsed.get_xyzt_units()[0], 1.0)
        if codes == SCANNER:
            notes.append(UNORIENTED)
        elif min(codes) > 0 and not _agree(parsed):
            codes = codes[0], 0
            notes.append("the qform leads elsewhere than the sform, which is taken: the result has no qform")
    else:
        codes, affine = SCANNER, np.asarray(parsed.get_base_affine(), dtype=np.float64)
        notes.append(ANALYZE)
    return Header(
        shape=(shape[0], shape[1], shape[2]),
        count=volumes.product(shape[3:]),
        dtype=dtype,
        numbers=numbers,
        offset=int(parsed.get_data_offset()),
        scaling=(1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        affine=volumes.check_affine(affine, numbers.name),
        codes=codes,
        notes=notes,
    )


def _agree(parsed: nib.Nifti1Header) -> bool:
    """Whether both affines lead every voxel to the same place, within a tenth of a voxel."""
    far = np.array([*parsed.get_data_shape()[:3], 1.0])
    differences = (parsed.get_sform() - parsed.get_qform())[:3] * far
    return bool(np.abs(differences).max() < 0.1 * float(min(parsed.get_zooms()[:3])))


def _voxels(found: Header, number: int, slices: tuple[int, int], field: str) -> NDArray[np.float32]:
    """Read slices ``[first, last)`` of one of the volumes as ``(slices, rows, cols)``."""
    cols, rows, count = found.shape
    first, last = slices
    stored = volumes.numbers(
        found.numbers,
        (last - first, rows, cols),
        found.dtype,
        skip=found.offset + (number * count + first) * rows * cols * found.dtype.itemsize,
        compressed=found.numbers.name.endswith(".gz"),
        field=field,
    )
    return volumes.scaled(stored, *found.scaling)


def write(
    path: Path, volume: NDArray[np.float32], affine: Affine, description: str, codes: tuple[int, int] = PATIENT
) -> None:
    """Write ``(slices, rows, cols)`` as float32 NIfTI with `affine` and its codes; units are millimetres."""
    slices, rows, cols = volume.shape
    _write_slabs(path, (slices, rows, cols), [volume], affine, description, codes, np.dtype(np.float32))


def _write_slabs(
    path: Path,
    shape: tuple[int, int, int],
    slabs: Iterable[NDArray[np.float32] | NDArray[np.complex64]],
    affine: Affine,
    description: str,
    codes: tuple[int, int],
    dtype: np.dtype[Any],
) -> None:
    """Write a volume some slices at a time: in the file they follow each other, as rows of columns."""
    import nibabel as nib

    voxels = np.broadcast_to(dtype.type(0), shape[::-1])  # nibabel makes the header from it
    long = max(shape) > _LONGEST_SIDE
    image = nib.Nifti2Image(voxels, affine) if long else nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, codes[1])
    image.set_sform(affine, codes[0])
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()[:79]
    image.header.set_slope_inter(1, 0)
    with nib.openers.ImageOpener(str(path), "wb") as stream:
        image.header.write_to(stream)
        for slab in slabs:
            stream.write(np.ascontiguousarray(slab, dtype.newbyteorder("<")).tobytes())


def _read(path: Path, given: Input) -> KnownVolume:
    found = header(path)
    slices = slice_range(given.slices, found.shape[2])
    return KnownVolume(
        _voxels(found, volumes.which(given, found.count), slices, "input"),
        shifted_affine(found.affine, slices[0]),
        in_patient=found.codes != SCANNER,
        codes=found.codes,
        notes=found.notes,
        slices_in_file=found.shape[2],
    )


def _write(path: Path, volume: Written) -> None:
    codes = volume.codes or (PATIENT if volume.in_patient else SCANNER)
    description = f"{OURS.decode()}, {volume.unit}"
    _write_slabs(path, volume.shape, volume.slabs(), volume.affine, description, codes, volume.dtype)


FORMAT = Format(
    name="nifti",
    # A plain .hdr is told by its first bytes: those of BART end so, too.
    endings=(".nii.gz", ".nii", ".hdr.gz", ".img", ".img.gz"),
    magic=(b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"),
    certain=True,
    volumes=True,
    media_type="application/gzip",
    read=_read,
    write=_write,
    holds_complex=True,
    names_others=True,
    selects=True,
)
PLAIN = Format(name="nii", endings=(".nii",), write=_write, holds_complex=True)
"""The same without compression, which takes longer than a quick method."""
