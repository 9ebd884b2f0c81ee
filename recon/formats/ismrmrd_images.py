"""ISMRMRD images: results of MRI in HDF5, one image per slice with its header.

References
----------
Inati et al. 2017, ISMRM Raw data format, Magn. Reson. Med. 77, 411-421; https://ismrmrd.readthedocs.io/en/latest/mrd_image_data.html.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from recon.formats.format import Format, Written
from recon.formats.kspace import LPS_TO_RAS
from recon.spec.affine import voxel_size

GROUP = "dataset/image_0"
HEADER = np.dtype([
    ("version", "<u2"), ("data_type", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"),
    ("matrix_size", "<u2", (3,)), ("field_of_view", "<f4", (3,)), ("channels", "<u2"), ("position", "<f4", (3,)),
    ("read_dir", "<f4", (3,)), ("phase_dir", "<f4", (3,)), ("slice_dir", "<f4", (3,)),
    ("patient_table_position", "<f4", (3,)), ("average", "<u2"), ("slice", "<u2"), ("contrast", "<u2"),
    ("phase", "<u2"), ("repetition", "<u2"), ("set", "<u2"), ("acquisition_time_stamp", "<u4"),
    ("physiology_time_stamp", "<u4", (3,)), ("image_type", "<u2"), ("image_index", "<u2"),
    ("image_series_index", "<u2"), ("user_int", "<i4", (8,)), ("user_float", "<f4", (8,)),
    ("attribute_string_len", "<u4"),
])  # fmt: skip
_COMPLEX = np.dtype([("real", "<f4"), ("imag", "<f4")])
_FLOAT_DATA, _COMPLEX_DATA = 5, 7
MAGNITUDE, PHASE, COMPLEX = 1, 2, 5
"""Types of images."""


def _write(path: Path, volume: Written) -> None:
    """Write ``data (slices, channels, z, y, x)``, a header and a string of attributes for each slice."""
    import h5py

    slices, rows, cols = volume.shape
    is_complex = volume.dtype.kind == "c"
    attributes = _attributes(volume)
    with h5py.File(path, "w") as file:
        group = file.create_group(GROUP)
        data = group.create_dataset("data", (slices, 1, 1, rows, cols), _COMPLEX if is_complex else "<f4")
        first = 0
        for slab in volume.slabs():
            stored = np.ascontiguousarray(slab)
            data[first : first + len(slab), 0, 0] = stored.view(_COMPLEX) if is_complex else stored
            first += len(slab)
        group["header"] = _headers(volume, is_complex=is_complex, attributes=len(attributes))
        text = group.create_dataset("attributes", (slices,), h5py.string_dtype("ascii"))
        text[:] = [attributes] * slices


def _headers(volume: Written, *, is_complex: bool, attributes: int) -> NDArray[np.void]:
    """Make the headers of all slices. Positions are those of the pixel that k = 0 turns about, its field's middle."""
    slices, rows, cols = volume.shape
    directions = LPS_TO_RAS @ volume.affine[:3, :3]
    col_mm, row_mm, slice_mm = voxel_size(volume.affine)
    read, phase, across = (directions / np.linalg.norm(directions, axis=0)).T
    middles = np.stack([np.full(slices, cols // 2), np.full(slices, rows // 2), np.arange(slices)], axis=1)
    found = np.zeros(slices, HEADER)
    found["version"], found["channels"] = 1, 1
    found["data_type"] = _COMPLEX_DATA if is_complex else _FLOAT_DATA
    found["image_type"] = COMPLEX if is_complex else PHASE if volume.quantity == "phase" else MAGNITUDE
    found["matrix_size"], found["field_of_view"] = (cols, rows, 1), (cols * col_mm, rows * row_mm, slice_mm)
    found["position"] = middles @ directions.T + LPS_TO_RAS @ volume.affine[:3, 3]
    found["read_dir"], found["phase_dir"], found["slice_dir"] = read, phase, across
    found["slice"], found["image_index"] = np.arange(slices), np.arange(1, slices + 1)
    found["image_series_index"], found["attribute_string_len"] = volume.number, attributes
    return found


def _attributes(volume: Written) -> bytes:
    """Say in the format's XML what the images are."""
    origin = volume.origin
    comment = f"not for clinical use; {origin.software}, {volume.method}, from {origin.scan}; {volume.unit}"
    values = {"GADGETRON_ImageComment": comment, "GADGETRON_DataRole": volume.quantity}
    told = "".join(f"<meta><name>{n}</name><value>{escape(v)}</value></meta>" for n, v in values.items())
    return f"<ismrmrdMeta>{told}</ismrmrdMeta>".encode("ascii", "xmlcharrefreplace")


FORMAT = Format(
    name="ismrmrd",
    endings=(".h5",),
    media_type="application/x-hdf5",
    write=_write,
    holds_complex=True,
    keeps_complex=True,
    modalities=("mri",),
)
