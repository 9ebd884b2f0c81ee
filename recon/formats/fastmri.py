"""fastMRI HDF5: k-space of many slices, its ISMRMRD header, and the image that the data set's authors made of it.

Layout: ``kspace (slices, coils, readout, lines)``, or without coils for the single-coil tracks; ``mask (lines,)`` in
files that were undersampled; ``reconstruction_rss`` or ``reconstruction_esc (slices, rows, cols)``,
which is the known image where it has the result's size.

References
----------
Zbontar et al. 2018, arXiv:1811.08839.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError
from recon.formats import hdf5, ismrmrd, kspace
from recon.formats.format import Format
from recon.formats.kspace import Complex
from recon.formats.safety import check_size, real, slice_range
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.job import Input

if TYPE_CHECKING:
    import h5py

TRUTHS = ("reconstruction_rss", "reconstruction_esc")


def _read(path: Path, given: Input) -> Measurement:
    notes: list[str] = []
    with hdf5.opened(path) as file:
        data, first, last, total = _kspace(file, given, notes)
        header = file.get("ismrmrd_header", getlink=True) is not None
        space = ismrmrd.parsed(_text(file)).encodings[0] if header else None
        mask = hdf5.dataset(file, "mask") if "mask" in file else None
        truths = {name: hdf5.located(file, name) for name in TRUTHS if name in file}
        truth = next(iter(truths.values()), None)
        known = None if truth is None or truth.ndim != 3 else truth.shape
        width = data.shape[-1]
        data, pixel_mm, slice_mm = _sized(data, space, notes)
        sampled = None if mask is None else _sampled(mask, data, width, notes)
        if truth is not None and width == data.shape[-1] and known == (total, *data.shape[-2:]):
            check_size((last - first, *known[1:]), truth.dtype.itemsize)
            volume = real(np.asarray(truth[first:last]), next(iter(truths)))
        else:
            volume = None
            if truth is not None:
                notes.append(
                    f"the image of the file is {truth.shape}, k-space is of {data.shape[-2:]} pixels: not compared"
                )
    acquisition = MRICartesian(pixel_mm=pixel_mm, slice_mm=slice_mm)
    return Measurement(data, acquisition, in_patient=False, truth=volume, mask=sampled, notes=notes)


def _kspace(file: h5py.File, given: Input, notes: list[str]) -> tuple[Complex, int, int, int]:
    """Read k-space ``(slices, coils, readout, lines)`` of the slices that are asked for."""
    node = hdf5.located(file, given.dataset or "kspace")
    if node.dtype.kind != "c":
        raise InputError(f"kspace is {node.dtype}, k-space must be complex", field="input")
    if node.ndim not in (3, 4):
        raise InputError(
            f"kspace has shape {node.shape}, expected (slices, coils, rows, cols), or the same without coils",
            field="input",
        )
    first, last = slice_range(given.slices, len(node))
    check_size((last - first, *node.shape[1:]), max(node.dtype.itemsize, 8))
    data = np.asarray(node[first:last], dtype=np.complex64)
    if data.ndim == 3:
        notes.append(f"kspace has no axis of coils: {len(node)} slices of a single coil")
        data = data[:, None]
    return data, first, last, len(node)


def _text(file: h5py.File) -> bytes:
    node = ismrmrd.stored(file, "ismrmrd_header")
    if node is None:
        raise InputError("ismrmrd_header holds no text", field="input")
    return ismrmrd.text_of(node)


def _sized(
    data: Complex, space: ismrmrd.EncodingSpace | None, notes: list[str]
) -> tuple[Complex, float | None, float | None]:
    """Remove the readout's oversampling along the rows, make pixels square, and return the pixel and slice size."""
    if space is None:
        notes.append("there is no ismrmrd_header: the pixel size is not known, and no oversampling is removed")
        return data, None, None
    if data.shape[-2] != space.encoded.matrix[0]:
        raise GeometryError(
            f"kspace has {data.shape[-2]} samples along the readout (rows), its header says {space.encoded.matrix[0]}",
            field="input",
            remedy="give the file as fastMRI has it: (slices, coils, readout, lines)",
        )
    if space.kept < data.shape[-2]:
        notes.append(f"readout oversampling removed: {data.shape[-2]} samples became {space.kept}")
        data = kspace.without_oversampling(data.swapaxes(-1, -2), space.kept).swapaxes(-1, -2)
    x, y, z = space.encoded.fov_mm
    if x is None or y is None:
        notes.append("the file does not say its field of view: give acquisition.pixel_mm")
        return np.ascontiguousarray(data), None, z
    row_mm, col_mm = x / space.encoded.matrix[0], y / space.encoded.matrix[1]
    data, col_mm, _ = kspace.squared(np.ascontiguousarray(data), col_mm, row_mm, notes)
    return data, col_mm, z


def _sampled(mask: NDArray[np.generic], data: Complex, width: int, notes: list[str]) -> NDArray[np.bool_]:
    """Make the mask ``(rows, cols)`` from the lines that were kept."""
    lines = np.squeeze(mask)
    if lines.shape != (width,) or not np.isin(lines, (0, 1)).all():
        raise GeometryError(
            f"mask has shape {mask.shape}, expected 0 or 1 for each of the {width} lines of k-space", field="input"
        )
    rows, cols = data.shape[-2:]
    left = cols // 2 - width // 2
    kept = np.zeros(cols, dtype=bool)
    kept[left : left + width] = lines.astype(bool)
    measured = (data != 0).any(axis=(0, 1))
    if bool((measured.any(axis=0) & ~kept).any()):
        notes.append(f"the file's mask keeps {int(kept.sum())} of {width} lines; the others were measured, too")
    if bool((kept & ~measured.any(axis=0)).any()):
        notes.append("the file's mask has lines that are zero in every coil: they count as not measured")
    found: NDArray[np.bool_] = np.broadcast_to(kept, (rows, cols)) & measured
    return found


FORMAT = Format(
    name="fastmri",
    endings=(".h5", ".hdf5"),
    magic=(hdf5.MAGIC,),
    read=_read,
    selects=True,
    recognises=hdf5.holds("kspace", "ismrmrd_header"),
)
