"""A corpus of hostile files: lying headers, bombs, links out of the file, and damage at random."""

# ruff: noqa: E501 - the table has one input a line

from __future__ import annotations

import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import tifffile
from scipy import io as io_matlab

from tests.recon.formats import dicom_files, mrd_files, ole_files, test_edf, test_volumes, test_zeiss

Make = Callable[[Path], bytes]
Filters = tuple[int, ...]
_RESOLUTION = "measurement/instrument/detection_system/objective/resolution"
_PARALLEL = {"kind": "ct-parallel", "detector_mm": 1.0}
ACQUISITIONS: dict[str, Any] = {
    **{kind: {**_PARALLEL, "angles_rad": {"count": 6}} for kind in ("numpy", "hdf5")},
    **dict.fromkeys(("nifti", "dicom", "metaimage", "nrrd"), "ct-parallel"),
    **dict.fromkeys(("matlab", "tiff", "dxchange", "nxtomo", "edf"), _PARALLEL),
}
"""Acquisition that a specification gives for a format, if it gives one."""


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


def challenge(compression: int = zipfile.ZIP_DEFLATED, **changed: bytes) -> Make:
    """The challenge's archive, some of its members exchanged."""
    scanner = {"distanceSourceOrigin_mm": 410.0, "distanceSourceDetector_mm": 553.0, "detectorPixel_mm": 0.2}
    arrays = {**{n: np.array(v) for n, v in scanner.items()}, "a__sino": np.zeros((6, 20)), "a__deg": np.arange(6.0)}
    members = {**{name: npy(array) for name, array in arrays.items()}, **changed}

    def make(folder: Path) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression, compresslevel=1) as archive:
            for name, content in members.items():
                archive.writestr(f"{name}.npy", content)
        return stream.getvalue()

    return make


def gz_bomb(folder: Path) -> bytes:
    huge = nifti_header(dim=(40, "<8h", (3, 1024, 1024, 400, 1, 1, 1, 1)))
    return gzip.compress(huge + bytes(64 * 2**20), 1)


def written(write: Callable[[Path], Any], name: str) -> Make:
    """What a writer of other tests makes in a folder, as one file."""

    def make(folder: Path) -> bytes:
        write(folder / name)
        return (folder / name).read_bytes()

    return make


def cut(make: Make, length: int) -> Make:
    """The first bytes of a file; of a negative length all but the last."""
    return lambda folder: make(folder)[:length]


def inflating(file: h5py.Group, name: str, shape: tuple[int, ...], *, filters: Filters = (), skipped: int = 0) -> None:
    """A gzip chunk of 268 MB of zeros where the data set has a few kilobytes, which HDF5 would inflate whole.

    With two deflate filters it is deflated twice; `skipped` marks filters that HDF5 leaves out.
    """
    filters = filters or (h5py.h5z.FILTER_DEFLATE,)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(shape)
    for code in filters:
        creation.set_filter(code, 0, (9,) if code == h5py.h5z.FILTER_DEFLATE else ())
    space = h5py.h5s.create_simple(shape)
    node = h5py.h5d.create(file.id, None, h5py.h5t.IEEE_F32LE, space, creation)
    file[name] = h5py.Dataset(node)
    held = bytes(2**28)
    for _ in range(filters.count(h5py.h5z.FILTER_DEFLATE)):
        held = zlib.compress(held, 9)
    node.write_direct_chunk((0,) * len(shape), held, skipped)


def inflating_lzf(file: h5py.File) -> None:
    """An LZF chunk of 4.4 MB that becomes 384 MB, of a data set with chunks of 4 MB."""
    node = file.create_dataset("data", (1, 1000, 1000), "f4", chunks=(1, 1000, 1000), compression="lzf")
    node.id.write_direct_chunk((0, 0, 0), b"\0\0" + b"\xe0\xff\0" * 1_450_000)


def honest_chunk(group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    """A few numbers in one compressed chunk of 268 MB, which is what the file says."""
    sides = (2**26 // 2 ** (len(shape) - 1), *[2] * (len(shape) - 1))
    node = group.create_dataset(name, shape, "f4", chunks=sides, maxshape=(None,) * len(shape), compression="gzip")
    node.id.write_direct_chunk((0,) * len(shape), zlib.compress(bytes(2**28), 9))


def inflating_readouts(file: h5py.File) -> None:
    file.create_dataset("dataset/xml", data=[b"x"])
    inflating(file["dataset"], "data", (6,))


def scale_offset(file: h5py.File) -> None:
    file.create_dataset("data", (1, 6, 20), "i4", chunks=(1, 6, 20), scaleoffset=4)


def elsewhere(group: h5py.Group, name: str) -> None:
    """A text that HDF5 reads from another file."""
    group.create_dataset(name, (1,), "S30", external=[("/etc/passwd", 0, 30)])


def with_scalar(make_scalar: Callable[[h5py.Group, str], None], name: str) -> Make:
    """DXchange that is well but for a single number."""

    def write(file: h5py.File) -> None:
        for field, value in DXCHANGE.items():
            file[f"exchange/{field}"] = value
        group = file.require_group(f"{name.rpartition('/')[0] or '/'}")
        make_scalar(group, name.rpartition("/")[2])

    return hdf5(write)


def matlab_73(write: Callable[[h5py.File], Any]) -> Make:
    """MATLAB's version 7.3: HDF5 behind a header of 512 bytes."""

    def make(folder: Path) -> bytes:
        with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
            write(file)
        content = (folder / "a.mat").read_bytes()
        return b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0") + content[512:]

    return make


DXCHANGE: dict[str, np.ndarray] = {
    "data": np.full((6, 2, 20), 500, "u2"), "data_white": np.full((2, 2, 20), 1000, "u2"),
    "data_dark": np.zeros((2, 2, 20), "u2"), "theta": np.arange(6) * 30.0,
}  # fmt: skip


def dxchange(**changed: Any) -> Make:
    def write(file: h5py.File) -> None:
        values = {**DXCHANGE, **changed}
        for name, value in values.items():
            if callable(value):
                value(file, f"exchange/{name}")
            elif value is not None:
                file[f"exchange/{name}"] = value

    return hdf5(write)


def nexus(**changed: Any) -> Make:
    def write(file: h5py.File) -> None:
        detector = file.create_group("entry/instrument/detector")
        file["entry"].attrs["NX_class"], detector.attrs["NX_class"] = "NXentry", "NXdetector"
        values = {"data": np.full((8, 2, 20), 500, "u2"), "image_key": np.array([1, 2, 0, 0, 0, 0, 0, 0]), **changed}
        for name, value in values.items():
            if callable(value):
                value(detector, name)
            elif value is not None:
                detector[name] = value

    return hdf5(write)


def bomb(group: h5py.Group, name: str) -> None:
    inflating(group, name, (6, 2, 20))


def outside(group: h5py.Group, name: str) -> None:
    group[name] = h5py.ExternalLink("/etc/passwd", "/data")


def mat(**variables: Any) -> Make:
    def make(folder: Path) -> bytes:
        io_matlab.savemat(folder / "a.mat", variables, do_compression=True)
        return (folder / "a.mat").read_bytes()

    return make


def tif(array: np.ndarray, **options: Any) -> Make:
    def make(folder: Path) -> bytes:
        tifffile.imwrite(folder / "a.tif", array, **options)
        return (folder / "a.tif").read_bytes()

    return make


def inflating_strip(compression: str, compress: Callable[[bytes], bytes]) -> Make:
    """A strip of 268 MB of zeros, which is compressed less than the image of 1 MB that it should be."""

    def make(folder: Path) -> bytes:
        held = iter([compress(bytes(2**28))])
        options: dict[str, Any] = {"shape": (512, 512), "dtype": "f4", "compression": compression, "rowsperstrip": 512}
        tifffile.imwrite(folder / "a.tif", held, **options)
        return (folder / "a.tif").read_bytes()

    return make


def nifti_2(**changed: Any) -> bytes:
    """Header of NIfTI-2."""
    header = nib.Nifti2Header()
    header.set_data_dtype("<f4")
    header.set_data_shape((4, 4, 4))
    header["vox_offset"] = 544
    for name, value in changed.items():
        header[name] = value
    return bytes(header.binaryblock) + b"\0\0\0\0"


def analyze(**changed: Any) -> bytes:
    """Header of Analyze, whose numbers are in another file."""
    header = nib.AnalyzeHeader()
    header.set_data_dtype("<f4")
    header.set_data_shape((4, 4, 4))
    for name, value in changed.items():
        header[name] = value
    return bytes(header.binaryblock)


def mri_scan(**xml: Any) -> Make:
    def make(folder: Path) -> bytes:
        scan = mrd_files.Scan()
        scan.add_image(mrd_files.fourier(mrd_files.phantom()[0]))
        return scan.write(folder / "a.h5", mrd_files.header(**xml)).read_bytes()

    return make


def dicom(**changed: Any) -> Make:
    return written(lambda path: dicom_files.slice_file(path, dicom_files.body()[0], 0, **changed), "a.dcm")


def zeiss(**changed: Any) -> Make:
    return lambda _: ole_files.container(test_zeiss.streams(**{n.replace("__", "/"): v for n, v in changed.items()}))


def teem(numbers: bytes, **changed: Any) -> Make:
    return written(lambda path: test_volumes.teem(path, numbers, **changed), "a.nrrd")


def meta(numbers: bytes, **changed: Any) -> Make:
    return written(lambda path: test_volumes.meta(path, numbers, **changed), "a.mha")


STORED = test_volumes.VOLUME.astype("<i2").tobytes()
VOLUME_BOMB = STORED[:100] + bytes(2**28)
"""268 MB, fewer bytes than the header promises of which are numbers."""

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
    ("npz of an array of 40 TB", "htc", challenge(a__sino=claims("(10000000, 1000000)")), (413,)),
    ("npz of angles of 40 TB", "htc", challenge(a__deg=claims("(10000000000000,)")), (413,)),
    ("npz of an array of 1.2 GB", "htc", challenge(a__sino=claims("(6, 50000000)")), (413, 422)),
    ("npz of an array larger than it is", "htc", challenge(a__sino=claims("(6, 20)")), (422,)),
    ("npz of an array smaller than it is", "htc", challenge(a__sino=claims("(6, 1)") + bytes(64)), (422,)),
    ("npz header of 268 MB", "htc", challenge(a__sino=npy_header("{}", (2, 0), 2**28) + bytes(2**28)), (422,)),
    ("npz of texts", "htc", challenge(detectorPixel_mm=npy(np.array("x"))), (422,)),
    ("npz of another compression", "htc", challenge(zipfile.ZIP_BZIP2), (422,)),
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
    ("hdf5 gzip chunk of 268 MB", "hdf5", hdf5(lambda f: inflating(f, "data", (1, 6, 20))), (422,)),
    ("hdf5 deflated twice", "hdf5", hdf5(lambda f: inflating(f, "data", (1, 6, 20), filters=(h5py.h5z.FILTER_DEFLATE,) * 2)), (422,)),
    ("hdf5 gzip chunk whose first filter is skipped", "hdf5", hdf5(lambda f: inflating(f, "data", (1_000, 6, 20), filters=(h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE), skipped=1)), (202, 422)),
    ("hdf5 LZF chunk of 384 MB", "hdf5", hdf5(inflating_lzf), (202, 422)),
    ("hdf5 of another filter", "hdf5", hdf5(scale_offset), (422,)),
    ("hdf5 chunk of 268 MB that is what it says", "hdf5", hdf5(lambda f: honest_chunk(f, "data", (1, 6, 20))), (202, 413, 422)),
    ("hdf5 chunks of 40 TB", "hdf5", hdf5(lambda f: f.create_dataset("data", (1, 6, 20), "f4", chunks=(10**4, 10**4, 10**4), maxshape=(None,) * 3)), (202, 413, 422)),
    ("dxchange gzip chunk of 268 MB", "dxchange", dxchange(data=bomb), (422,)),
    ("dxchange flats of a gzip chunk of 268 MB", "dxchange", dxchange(data_white=bomb), (422,)),
    ("dxchange whose pixel size is a gzip chunk of 268 MB", "dxchange", with_scalar(lambda g, n: inflating(g, n, (1,)), _RESOLUTION), (422,)),
    ("dxchange whose pixel size is deflated twice", "dxchange", with_scalar(lambda g, n: inflating(g, n, (1,), filters=(h5py.h5z.FILTER_DEFLATE,) * 2), _RESOLUTION), (422,)),
    ("dxchange whose pixel size is a chunk of 268 MB", "dxchange", with_scalar(lambda g, n: honest_chunk(g, n, (1,)), _RESOLUTION), (202, 413, 422)),
    ("dxchange with a number that nobody reads, of 268 MB", "dxchange", with_scalar(lambda g, n: inflating(g, n, (1,)), "notes/a"), (202, 422)),
    ("dxchange whose pixel size is in another file", "dxchange", with_scalar(elsewhere, _RESOLUTION), (202, 422)),
    ("dxchange cut short", "dxchange", cut(dxchange(), 3000), (422,)),
    ("dxchange of text", "dxchange", dxchange(data=np.array([b"x"] * 6)), (422,)),
    ("dxchange of complex counts", "dxchange", dxchange(data=np.ones((6, 2, 20), "c8")), (422,)),
    ("dxchange without angles", "dxchange", dxchange(theta=None), (422,)),
    ("dxchange with too few angles", "dxchange", dxchange(theta=np.arange(5.0)), (422,)),
    ("dxchange whose flats are elsewhere", "dxchange", dxchange(data_white=outside), (422,)),
    ("nxtomo gzip chunk of 268 MB", "nxtomo", nexus(data=lambda g, n: inflating(g, n, (8, 2, 20))), (422,)),
    ("nxtomo cut short", "nxtomo", cut(nexus(), 3000), (422,)),
    ("nxtomo of text", "nxtomo", nexus(data=np.array([b"x"] * 8)), (422,)),
    ("nxtomo without angles", "nxtomo", nexus(), (422,)),
    ("nxtomo with a link to elsewhere", "nxtomo", nexus(data=outside), (422,)),
    ("nxtomo with too few keys", "nxtomo", nexus(image_key=np.zeros(3)), (422,)),
    ("tiff of 40 TB", "tiff", lambda d: tif(np.zeros((8, 20), "f4"))(d).replace(struct.pack("<HHIHH", 256, 3, 1, 20, 0), struct.pack("<HHII", 256, 4, 1, 2**31)).replace(struct.pack("<HHIHH", 257, 3, 1, 8, 0), struct.pack("<HHII", 257, 4, 1, 5000)), (413, 422)),
    ("tiff strip of 268 MB", "tiff", inflating_strip("zlib", lambda b: zlib.compress(b, 9)), (413, 422)),
    ("tiff LZMA strip of 268 MB", "tiff", inflating_strip("lzma", lambda b: lzma.compress(b, preset=0)), (413, 422)),
    ("tiff of another compression", "tiff", lambda d: tif(np.zeros((512, 512), "f4"), compression="zlib")(d).replace(struct.pack("<HHIHH", 259, 3, 1, 8, 0), struct.pack("<HHIHH", 259, 3, 1, 50000, 0)), (422,)),
    ("tiff cut short", "tiff", cut(tif(np.zeros((8, 20), "f4")), -400), (422,)),
    ("tiff of colours", "tiff", tif(np.zeros((8, 20, 3), "u1"), photometric="rgb"), (422,)),
    ("tiff without angles", "tiff", tif(np.zeros((6, 8, 20), "f4"), photometric="minisblack"), (422,)),
    ("matlab bomb", "matlab", mat(p=np.zeros((8192, 4096), "u1")), (202, 413, 422)),
    ("matlab 7.3 gzip chunk of 268 MB", "matlab", matlab_73(lambda f: inflating(f, "p", (20, 6))), (422,)),
    ("matlab 7.3 deflated twice", "matlab", matlab_73(lambda f: inflating(f, "p", (20, 6), filters=(h5py.h5z.FILTER_DEFLATE,) * 2)), (422,)),
    ("matlab 7.3 chunk of 268 MB", "matlab", matlab_73(lambda f: honest_chunk(f, "p", (20, 6))), (202, 413, 422)),
    ("matlab 7.3 cut short", "matlab", cut(matlab_73(lambda f: f.create_dataset("p", data=np.zeros((20, 6)))), 1500), (422,)),
    ("matlab 7.3 of text", "matlab", matlab_73(lambda f: f.create_dataset("p", data=[b"a", b"b"])), (422,)),
    ("matlab cut short", "matlab", cut(mat(p=np.random.default_rng(0).random((6, 20))), 400), (422,)),
    ("matlab of text", "matlab", mat(p="hello"), (422,)),
    ("matlab without angles", "matlab", mat(p=np.zeros((6, 20))), (422,)),
    ("nikon alone", "nikon", lambda _: b"[XTekCT]\nSrcToObject=10\nSrcToDetector=20\nDetectorPixelsX=20\nDetectorPixelsY=1\nAngularStep=1\nInitialAngle=0\nProjections=6\n", (422,)),
    ("nikon cut short", "nikon", lambda _: b"[XTekCT]\nSrcToObject=10\n", (422,)),
    ("zeiss cut short", "zeiss", cut(zeiss(), 9000), (422,)),
    ("zeiss without angles", "zeiss", zeiss(ImageInfo__Angles=None), (422,)),
    ("zeiss of another type", "zeiss", zeiss(ImageInfo__DataType=np.int32(12)), (422,)),
    ("zeiss of 65536 squared", "zeiss", zeiss(ImageInfo__ImageWidth=np.int32(65536), ImageInfo__ImageHeight=np.int32(65536)), (413,)),
    ("zeiss without a reference", "zeiss", zeiss(ReferenceData__Image=None), (422,)),
    ("edf cut short", "edf", cut(written(lambda path: path.write_bytes(test_edf.image(test_edf.FLAT)), "a.edf"), -9), (422,)),
    ("edf of counts alone", "edf", lambda _: test_edf.image(test_edf.FLAT) * 6, (422,)),
    ("edf without angles", "edf", lambda _: test_edf.image(np.zeros((8, 20), "<f4")) * 6, (422,)),
    ("edf of text", "edf", lambda _: test_edf.image(test_edf.FLAT, DataType="Text"), (422,)),
    ("edf of 40 TB", "edf", lambda _: test_edf.image(test_edf.FLAT, Dim_1=10**6, Dim_2=10**6), (413,)),
    ("dicom cut short", "dicom", cut(dicom(), -10), (422,)),
    ("dicom of 65535 squared", "dicom", lambda d: dicom(NumberOfFrames=9)(d).replace(b"US\2\0\x14\0", b"US\2\0\xff\xff").replace(b"US\2\0\x18\0", b"US\2\0\xff\xff"), (413, 422)),
    ("dicom of colours", "dicom", dicom(SamplesPerPixel=3), (422,)),
    ("dicom of a plan", "dicom", dicom(Modality="RTPLAN"), (422,)),
    ("dicom that is deflated", "dicom", lambda d: dicom()(d).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.99"), (422,)),
    ("metaimage bomb", "metaimage", meta(zlib.compress(VOLUME_BOMB, 1), CompressedData=True, DimSize="5000 5000 5000"), (413,)),
    ("metaimage that inflates to less", "metaimage", meta(zlib.compress(STORED[:100]), CompressedData=True), (422,)),
    ("metaimage cut short", "metaimage", meta(STORED[:-1]), (422,)),
    ("metaimage of strings", "metaimage", meta(STORED, ElementType="MET_STRING"), (422,)),
    ("metaimage of a file elsewhere", "metaimage", meta(b"", name="/etc/passwd"), (422,)),
    ("metaimage of the store's file", "metaimage", meta(b"", name="meta.json"), (422,)),
    ("metaimage of a million axes", "metaimage", meta(STORED, NDims=10**6), (422,)),
    ("nrrd bomb", "nrrd", teem(gzip.compress(VOLUME_BOMB, 1), encoding="gzip", sizes="5000 5000 5000"), (413,)),
    ("nrrd that inflates to less", "nrrd", teem(gzip.compress(STORED[:100]), encoding="gzip"), (422,)),
    ("nrrd cut short", "nrrd", teem(STORED[:-1]), (422,)),
    ("nrrd of blocks", "nrrd", teem(STORED, type="block"), (422,)),
    ("nrrd of a file elsewhere", "nrrd", teem(b"", data_file="/etc/passwd"), (422,)),
    ("nrrd of the store's file", "nrrd", teem(b"", data_file="meta.json"), (422,)),
    ("nii of version 2 and 32767 cubed", "nifti", lambda _: nifti_2(dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)), (413,)),
    ("nii of version 2 whose product overflows", "nifti", lambda _: nifti_2(dim=(3, 2**40, 2**40, 2**40, 1, 1, 1, 1)), (413, 422)),
    ("nii of version 2 of negative size", "nifti", lambda _: nifti_2(dim=(3, -4, 4, 4, 1, 1, 1, 1)) + VOXELS, (422,)),
    ("nii of version 2 cut short", "nifti", lambda _: nifti_2() + VOXELS[:-1], (422,)),
    ("nii of version 2 with an offset beyond its end", "nifti", lambda _: nifti_2(vox_offset=2**62) + VOXELS, (422,)),
    ("nii.gz of version 2, a bomb", "nifti", lambda _: gzip.compress(nifti_2(dim=(3, 1024, 1024, 400, 1, 1, 1, 1)) + bytes(2**26), 1), (413, 422)),
    ("nii pair without its numbers", "nifti", lambda _: nifti_header(magic=(344, "4s", (b"ni1\0",))), (422,)),
    ("nii.gz that skips 40 TB", "nifti", lambda _: gzip.compress(nifti_header(vox_offset=(108, "<f", (4e13,))) + VOXELS), (422,)),
    ("ismrmrd cut short", "ismrmrd", cut(mri_scan(), 4000), (422,)),
    ("ismrmrd of a spiral", "ismrmrd", mri_scan(trajectory="spiral"), (422,)),
    ("ismrmrd of 40 TB", "ismrmrd", mri_scan(encoded=(32, 65536, 65536)), (413,)),
    ("fastmri of text", "fastmri", hdf5(lambda f: f.__setitem__("kspace", ["a"])), (422,)),
    ("fastmri header of 268 MB", "fastmri", hdf5(lambda f: (f.create_dataset("kspace", data=np.ones((1, 2, 8, 8), "c8")), f.create_dataset("ismrmrd_header", (1,), "S1000000000", chunks=(1,), compression="gzip"))), (413, 422)),
    ("ismrmrd gzip chunk of 268 MB", "ismrmrd", hdf5(inflating_readouts), (422,)),
    ("fastmri gzip chunk of 268 MB", "fastmri", hdf5(lambda f: inflating(f, "kspace", (1, 2, 8, 8))), (422,)),
    ("bart data without a header", "bart", lambda _: bytes(800), (422,)),
    ("twix of nothing", "twix", lambda _: bytes(20_000), (422,)),
    ("bruker of one file", "bruker", lambda _: bytes(1000), (422,)),
    *[(f"{name} is refused", name, lambda _: bytes(1000), (422,)) for name in ("ge", "gatan", "raw")],
    ("dxchange of one link", "dxchange", hdf5(lambda f: f.__setitem__("exchange", h5py.ExternalLink("/etc/passwd", "/"))), (422,)),
    *[(f"npy fuzzed {i}", "numpy", flipped(lambda _: npy(np.zeros((1, 6, 20), np.float32)), i), (422, 413)) for i in range(4)],
    *[(f"nii fuzzed {i}", "nifti", flipped(lambda _: nifti_header() + VOXELS, i, 60), (422, 413)) for i in range(6)],
    *[(f"nii.gz fuzzed {i}", "nifti", flipped(lambda _: gzip.compress(nifti_header() + VOXELS), i), (422, 413)) for i in range(3)],
    *[(f"hdf5 fuzzed {i}", "hdf5", flipped(hdf5(good_hdf5), i, 100), (422, 413)) for i in range(10)],
    *[(f"dicom fuzzed {i}", "dicom", flipped(dicom(), i, 60), (422, 413)) for i in range(4)],
    *[(f"metaimage fuzzed {i}", "metaimage", flipped(meta(STORED), i), (202, 422, 413)) for i in range(3)],
    *[(f"nrrd fuzzed {i}", "nrrd", flipped(teem(STORED), i), (202, 422, 413)) for i in range(3)],
    *[(f"zeiss fuzzed {i}", "zeiss", flipped(zeiss(), i, 100), (422, 413)) for i in range(3)],
    *[(f"npz fuzzed {i}", "htc", flipped(npz_pickle, i), (422, 413)) for i in range(3)],
]  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """Files that are one input together.

    Parameters
    ----------
    name
        What is wrong with them.
    kind, file
        Format, and the file to read.
    files
        Contents by name.
    """

    name: str
    kind: str
    file: str
    files: dict[str, bytes]

    def write(self, place: Path) -> Path:
        """Write the files into a new folder."""
        place.mkdir()
        for name, content in self.files.items():
            (place / name).write_bytes(content)
        return place


_PAIR = nifti_header(magic=(344, "4s", (b"ni1\0",)), vox_offset=(108, "<f", (0.0,)))[:348]
_HUGE_PAIR = nifti_header(
    magic=(344, "4s", (b"ni1\0",)), vox_offset=(108, "<f", (0.0,)), dim=(40, "<8h", (3, 1024, 1024, 400, 1, 1, 1, 1))
)[:348]
FOLDERS = [
    Folder("Analyze cut short", "nifti", "a.hdr", {"a.hdr": analyze(), "a.img": VOXELS[:-1]}),
    Folder("Analyze of 32767 cubed", "nifti", "a.hdr", {"a.hdr": analyze(dim=(3, *[32767] * 3, 1, 1, 1, 1)), "a.img": VOXELS}),
    Folder("Analyze of which the header is cut short", "nifti", "a.hdr", {"a.hdr": analyze()[:300], "a.img": VOXELS}),
    Folder("pair whose numbers are a bomb", "nifti", "a.hdr.gz", {"a.hdr.gz": gzip.compress(_HUGE_PAIR), "a.img.gz": gzip.compress(bytes(2**28), 1)}),
    Folder("pair whose header is a bomb", "nifti", "a.hdr.gz", {"a.hdr.gz": gzip.compress(bytes(2**28), 1), "a.img.gz": gzip.compress(VOXELS)}),
    Folder("pair whose numbers are cut short", "nifti", "a.hdr", {"a.hdr": _PAIR, "a.img.gz": gzip.compress(VOXELS)[:-12]}),
    Folder("pair of version 2 whose numbers are cut short", "nifti", "a.hdr", {"a.hdr": nifti_2(magic=b"ni2\0\r\n\x1a\n", vox_offset=0)[:540], "a.img": VOXELS[:-1]}),
    Folder("nrrd whose numbers are elsewhere", "nrrd", "a.nhdr", {"a.nhdr": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\ndata file: ../../meta.json\n\n"}),
]  # fmt: skip
"""Hostile folders, all refused."""
