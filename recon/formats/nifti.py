"""NIfTI volumes, read and written; arrays are ``(slices, rows, cols)``, files are ``(col, row, slice)``."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats.format import Format, KnownVolume, Written
from recon.formats.safety import check_finite, check_size, existing
from recon.spec.job import Input

if TYPE_CHECKING:
    import nibabel as nib

UNORIENTED = "the NIfTI file does not say how it lies in the patient (sform and qform codes are 0)"
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}


def _unreadable() -> tuple[type[Exception], ...]:
    """Errors that nibabel raises on damaged headers."""
    import nibabel as nib

    return (
        nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError,
        OSError, EOFError, ValueError, TypeError, zlib.error, OverflowError,
    )  # fmt: skip


def orientation_known(path: Path) -> bool:
    """Whether the file states the patient affine of its voxels; nibabel invents one if not."""
    import nibabel as nib

    header = nib.Nifti1Image.from_filename(path).header
    return int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def read(path: Path, field: str = "input") -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a volume ``(slices, rows, cols)`` and its affine from ``(col, row, slice)`` to RAS millimetres.

    Raises
    ------
    InputError
        If the file is not NIfTI, truncated, not three-dimensional, or its affine is unusable.
    ResourceLimit
        If the header promises more than the limit.
    """
    import nibabel as nib

    existing(path, field)
    try:
        if not nib.Nifti1Image.path_maybe_image(path)[0]:
            raise InputError(f"{path.name} is not a NIfTI file", field=field, remedy="give a .nii or .nii.gz file")
        image = nib.Nifti1Image.from_filename(path)
        shape = tuple(int(n) for n in image.shape)
        dtype = image.get_data_dtype()
    except _unreadable() as error:
        raise InputError(f"{path.name} is not a readable NIfTI file", field=field) from error
    trimmed = shape[:3] if len(shape) > 3 and set(shape[3:]) == {1} else shape
    if len(trimmed) != 3:
        raise InputError(f"{path.name} has shape {shape}, expected three dimensions", field=field)
    if dtype.kind not in "iuf":
        raise InputError(f"{path.name} holds {dtype}, expected real numbers", field=field)
    affine = np.asarray(image.affine, dtype=np.float64)
    affine[:3] *= _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path.name} has an affine that is singular or not finite", field=field)
    check_size(trimmed, max(dtype.itemsize, 4), field)
    _check_length(path, int(np.prod(shape)) * dtype.itemsize + _offset(image), field)
    try:
        data = np.asarray(image.dataobj, dtype=np.float32).reshape(trimmed)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path.name} is damaged: its voxels cannot be read", field=field) from error
    check_finite(data, field)
    return np.ascontiguousarray(data.transpose(2, 1, 0)), affine


def _offset(image: nib.Nifti1Image) -> int:
    """Bytes before the first voxel; the loaded header forgets them, the array proxy does not."""
    import nibabel as nib

    proxy = image.dataobj
    assert isinstance(proxy, nib.arrayproxy.ArrayProxy)
    return int(proxy.offset)


def _check_length(path: Path, promised: int, field: str) -> None:
    """Check that the file holds what its header promises; compressed files are decompressed no further than that."""
    if path.name.endswith(".gz"):
        held = 0
        try:
            with gzip.open(path) as stream:
                while held < promised and (chunk := stream.read(2**20)):
                    held += len(chunk)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{path.name} is truncated or damaged after {held} bytes",
                field=field,
                remedy="copy it again",
            ) from error
    else:
        held = path.stat().st_size
    if held < promised:
        raise InputError(
            f"{path.name} is truncated: the header promises {promised} bytes, the file holds {held}",
            field=field,
            remedy="copy it again",
        )


def write(path: Path, volume: NDArray[np.float32], affine: NDArray[np.float64], description: str) -> None:
    """Write ``(slices, rows, cols)`` as float32 NIfTI with `affine`; units are millimetres."""
    import nibabel as nib

    image = nib.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()[:79]
    nib.save(image, path)


def _read(path: Path, given: Input) -> KnownVolume:
    del given
    data, affine = read(path)
    known = orientation_known(path)
    return KnownVolume(data, affine, in_patient=known, notes=[] if known else [UNORIENTED])


def _write(path: Path, volume: Written) -> None:
    values = np.abs(volume.data) if np.iscomplexobj(volume.data) else volume.data
    write(path, values.astype(np.float32), volume.affine, f"diffusion-recon, {volume.unit}")


FORMAT = Format(
    name="nifti",
    endings=(".nii.gz", ".nii"),
    magic=(b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"),
    certain=True,
    volumes=True,
    media_type="application/gzip",
    read=_read,
    write=_write,
)
