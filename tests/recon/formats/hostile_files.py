"""A corpus of hostile files: lying headers, bombs, links out of the file, and damage at random."""

# ruff: noqa: E501 - the table has one input a line

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Make = Callable[[Path], bytes]


def npy_header(text: str, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    body = text.encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(body) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + body


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickled)
    return stream.getvalue()


def claims(shape: str, descr: str = "'<f4'") -> bytes:
    return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}") + b"\0" * 64


def nifti_header(**changes: tuple[int, str, tuple[Any, ...]]) -> bytes:
    """A NIfTI-1 header of a 4 x 4 x 4 float32 volume, with fields overwritten: offset, format, values."""
    header = bytearray(352)
    fields: dict[str, tuple[int, str, tuple[Any, ...]]] = {
        "sizeof_hdr": (0, "<i", (348,)),
        "dim": (40, "<8h", (3, 4, 4, 4, 1, 1, 1, 1)),
        "datatype": (70, "<2h", (16, 32)),
        "pixdim": (76, "<8f", (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
        "vox_offset": (108, "<f", (352.0,)),
        "scaling": (112, "<2f", (1.0, 0.0)),
        "codes": (252, "<2h", (0, 1)),
        "srow": (280, "<12f", (1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0)),
        "magic": (344, "4s", (b"n+1\0",)),
        **changes,
    }
    for offset, form, values in fields.values():
        struct.pack_into(form, header, offset, *values)
    return bytes(header)


VOXELS = np.linspace(-1000, 1000, 64, dtype="<f4").tobytes()


def hdf5(write: Callable[[h5py.File], Any]) -> Make:
    def make(folder: Path) -> bytes:
        path = folder / "made.h5"
        with h5py.File(path, "w") as file:
            write(file)
        return path.read_bytes()

    return make


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6, 20), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (6, 20))
    file.create_virtual_dataset("data", layout)


def external_storage(file: h5py.File) -> None:
    file.create_dataset("data", (6, 20), "f4", external=[("/etc/passwd", 0, 480)])


def link(target: Any) -> Make:
    def write(file: h5py.File) -> None:
        file["data"] = target

    return hdf5(write)


def flipped(make: Make, seed: int, count: int = 40) -> Make:
    """The file with random bytes of its first kilobyte overwritten."""

    def fuzz(folder: Path) -> bytes:
        content = bytearray(make(folder))
        rng = np.random.default_rng(seed)
        for index in rng.integers(0, min(1024, len(content)), count):
            content[index] = int(rng.integers(0, 256))
        return bytes(content)

    return fuzz


def good_hdf5(file: h5py.File) -> None:
    file["data"] = np.zeros((1, 6, 20), np.float32)


def soft_linked(file: h5py.File) -> None:
    good_hdf5(file)
    file.move("data", "x")
    file["data"] = h5py.SoftLink("/x")


def format_is_an_array(file: h5py.File) -> None:
    good_hdf5(file)
    file.attrs["format"] = np.zeros(9)


def npz_bomb(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a__sino.npy", bytes(64 * 2**20))
        for entry in archive.infolist():
            entry.file_size = 10 * 2**33  # the directory tells the truth about a bomb of 80 GB
    return stream.getvalue()


def npz_pickle(folder: Path) -> bytes:
    stream = io.BytesIO()
    scanner: dict[str, Any] = dict.fromkeys(
        ("distanceSourceOrigin_mm", "distanceSourceDetector_mm", "detectorPixel_mm"), np.array(1.0)
    )
    np.savez(stream, a__sino=np.array([{"x": 1}], dtype=object), a__deg=np.zeros(1), **scanner)
    return stream.getvalue()


def gz_bomb(folder: Path) -> bytes:
    huge = nifti_header(dim=(40, "<8h", (3, 1024, 1024, 400, 1, 1, 1, 1)))
    return gzip.compress(huge + bytes(64 * 2**20), 1)


# Inputs are written as (name, format, make, statuses).
FILES: list[tuple[str, str, Make, tuple[int, ...]]] = [
    ("npy of 40 TB", "numpy", lambda _: claims("(10000000000000,)"), (413,)),
    ("npy larger than its file", "numpy", lambda _: claims("(1, 6, 20)"), (422,)),
    ("npy of negative size", "numpy", lambda _: claims("(-1, 6, 20)"), (422,)),
    ("npy of zero size", "numpy", lambda _: claims("(0, 6, 20)"), (422,)),
    ("npy whose product overflows", "numpy", lambda _: claims("(4294967296, 4294967296, 4294967296)"), (413,)),
    ("npy of a million axes", "numpy", lambda _: claims("(" + "1," * 3000 + ")"), (422,)),
    ("npy of objects", "numpy", lambda _: npy(np.array([{"a": 1}], dtype=object), pickled=True), (422,)),
    ("npy of text", "numpy", lambda _: npy(np.array(["x"] * 6)), (422,)),
    ("npy of records", "numpy", lambda _: claims("(6,)", "[('a', '<f4'), ('b', '<f4')]"), (422,)),
    ("npy header of nested brackets", "numpy", lambda _: npy_header("(" * 9000), (422,)),
    ("npy header that calls", "numpy", lambda _: npy_header("__import__('os').system('true')"), (422,)),
    ("npy header of 4 GB", "numpy", lambda _: npy_header("{}", (2, 0), 2**32 - 1), (422,)),
    ("npy of another version", "numpy", lambda _: b"\x93NUMPY\x09\x00" + bytes(100), (422,)),
    ("npy of NaN", "numpy", lambda _: npy(np.full((1, 6, 20), np.nan, np.float32)), (422,)),
    ("npy of float64 infinities", "numpy", lambda _: npy(np.full((1, 6, 20), 1e300)), (422,)),
    ("npy cut short", "numpy", lambda _: npy(np.zeros((1, 6, 20), np.float32))[:-1], (422,)),
    ("random bytes as npy", "numpy", lambda _: np.random.default_rng(0).bytes(5000), (422,)),
    ("npz bomb", "htc", npz_bomb, (413, 422)),
    ("npz of pickles", "htc", npz_pickle, (422,)),
    ("npz that is no archive", "htc", lambda _: b"PK\x03\x04" + bytes(500), (422,)),
    ("nii of 32767 cubed", "nifti", lambda _: nifti_header(dim=(40, "<8h", (3, 32767, 32767, 32767, 1, 1, 1, 1))), (413,)),
    ("nii of seven axes", "nifti", lambda _: nifti_header(dim=(40, "<8h", (7, *[32767] * 7))), (422,)),
    ("nii of 99 axes", "nifti", lambda _: nifti_header(dim=(40, "<8h", (99, *[4] * 7))), (422,)),
    ("nii of negative size", "nifti", lambda _: nifti_header(dim=(40, "<8h", (3, -4, 4, 4, 1, 1, 1, 1))) + VOXELS, (422,)),
    ("nii of zero size", "nifti", lambda _: nifti_header(dim=(40, "<8h", (3, 0, 4, 4, 1, 1, 1, 1))) + VOXELS, (422,)),
    ("nii of NaN affine", "nifti", lambda _: nifti_header(srow=(280, "<12f", (np.nan,) * 12)) + VOXELS, (422,)),
    ("nii of NaN pixdim", "nifti", lambda _: nifti_header(codes=(252, "<2h", (1, 0)), pixdim=(76, "<8f", (np.nan,) * 8)) + VOXELS, (422,)),
    ("nii of singular affine", "nifti", lambda _: nifti_header(srow=(280, "<12f", (0.0,) * 12)) + VOXELS, (422,)),
    ("nii of unknown datatype", "nifti", lambda _: nifti_header(datatype=(70, "<2h", (9999, 32))) + VOXELS, (422,)),
    ("nii of RGB", "nifti", lambda _: nifti_header(datatype=(70, "<2h", (128, 24))) + VOXELS, (422,)),
    ("nii with an offset beyond its end", "nifti", lambda _: nifti_header(vox_offset=(108, "<f", (1e30,))) + VOXELS, (422,)),
    ("nii with a negative offset", "nifti", lambda _: nifti_header(vox_offset=(108, "<f", (-1e9,))) + VOXELS, (422,)),
    ("nii with NaN scaling", "nifti", lambda _: nifti_header(scaling=(112, "<2f", (np.inf, np.nan))) + bytes(256), (202, 422)),
    ("nii.gz bomb", "nifti", gz_bomb, (422,)),
    ("nii.gz cut short", "nifti", lambda _: gzip.compress(nifti_header() + VOXELS)[:-20], (422,)),
    ("nii.gz with a wrong checksum", "nifti", lambda _: gzip.compress(nifti_header() + VOXELS)[:-8] + b"\0" * 8, (422,)),
    ("gz of gz of nii", "nifti", lambda _: gzip.compress(gzip.compress(nifti_header() + VOXELS)), (422,)),
    ("hdf5 external link", "hdf5", link(h5py.ExternalLink("/etc/passwd", "/data")), (422,)),
    ("hdf5 soft link to itself", "hdf5", link(h5py.SoftLink("/data")), (422,)),
    ("hdf5 soft link to a dataset", "hdf5", hdf5(soft_linked), (422,)),
    ("hdf5 virtual dataset", "hdf5", hdf5(virtual), (422,)),
    ("hdf5 external storage", "hdf5", hdf5(external_storage), (422,)),
    ("hdf5 of 40 TB in chunks", "hdf5", hdf5(lambda f: f.create_dataset("data", (10**7, 1000, 1000), "f4", chunks=(1, 100, 100))), (413,)),
    ("hdf5 of text", "hdf5", hdf5(lambda f: f.__setitem__("data", ["a", "b"])), (422,)),
    ("hdf5 of records", "hdf5", hdf5(lambda f: f.create_dataset("data", (6,), [("a", "f4")])), (422,)),
    ("hdf5 of references", "hdf5", hdf5(lambda f: f.create_dataset("data", (6,), h5py.ref_dtype)), (422,)),
    ("hdf5 empty dataset", "hdf5", hdf5(lambda f: f.create_dataset("data", data=h5py.Empty("f4"))), (422,)),
    ("hdf5 of zero size", "hdf5", hdf5(lambda f: f.create_dataset("data", (0, 6, 20), "f4")), (422,)),
    ("hdf5 group for a dataset", "hdf5", hdf5(lambda f: f.create_group("data")), (422,)),
    ("hdf5 of ours with a lying attribute", "hdf5", hdf5(lambda f: f.attrs.update({"format": "diffusion-recon measurement 1", "acquisition": "[" * 5000})), (422,)),
    ("hdf5 whose format is an array", "hdf5", hdf5(format_is_an_array), (202, 422)),
    ("hdf5 cut short", "hdf5", lambda d: hdf5(good_hdf5)(d)[:900], (422,)),
    ("dxchange of one link", "dxchange", hdf5(lambda f: f.__setitem__("exchange", h5py.ExternalLink("/etc/passwd", "/"))), (422,)),
    *[(f"npy fuzzed {i}", "numpy", flipped(lambda _: npy(np.zeros((1, 6, 20), np.float32)), i), (422, 413)) for i in range(4)],
    *[(f"nii fuzzed {i}", "nifti", flipped(lambda _: nifti_header() + VOXELS, i, 60), (422, 413)) for i in range(6)],
    *[(f"nii.gz fuzzed {i}", "nifti", flipped(lambda _: gzip.compress(nifti_header() + VOXELS), i), (422, 413)) for i in range(3)],
    *[(f"hdf5 fuzzed {i}", "hdf5", flipped(hdf5(good_hdf5), i, 100), (422, 413)) for i in range(10)],
    *[(f"npz fuzzed {i}", "htc", flipped(npz_pickle, i), (422, 413)) for i in range(3)],
]  # fmt: skip
