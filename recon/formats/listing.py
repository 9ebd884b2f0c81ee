"""Listings: what lies in a container, by names, shapes, dtypes and units, without reading arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operators.errors import InputError, ReconError
from recon.formats import detect, detector_frames, hdf5, matlab, nifti, numpy_archives, numpy_files, tiff
from recon.spec.contents import DataSet

if TYPE_CHECKING:
    import h5py
    import numpy as np

MOST = 200
"""Entries of a listing, at most."""
_MOST_NODES = 100_000
_GZIP = b"\x1f\x8b"
_FIRST_BYTES = 16
_DEEPEST = 32
"""Levels of groups, which can hold each other."""
_LONGEST_TEXT = 100


def listing(path: Path) -> tuple[list[DataSet], int]:
    """List the data sets of a file, or the files of a folder, and how many more there are.

    Raises
    ------
    InputError
        If the file is a container that cannot be opened.
    """
    if path.is_dir():
        found = _files(path)
    else:
        with path.open("rb") as stream:
            first = stream.read(_FIRST_BYTES)
        found = next((of(path) for magic, of in _CONTAINERS.items() if first.startswith(magic)), iter(()))
    every = list(islice(found, _MOST_NODES))
    large = sorted(range(len(every)), key=lambda i: -math.prod(every[i].shape or [0]))  # where there are very many
    return [every[i] for i in sorted(large[:MOST])], max(0, len(every) - MOST)


def _files(folder: Path) -> Iterator[DataSet]:
    """Files of a folder, those whose names differ by numbers only in one line."""
    groups: dict[str, list[str]] = {}
    for name in sorted(detect.files(folder)):
        groups.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    for names in groups.values():
        size = sum((folder / name).stat().st_size for name in names)
        shown = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
        yield DataSet(name=shown, note=f"{len(names)} {'file' if len(names) == 1 else 'files'}, {size} bytes")


def _hdf5(path: Path) -> Iterator[DataSet]:
    """Data sets and links of the file itself, depth first; links are named, not followed."""
    with hdf5.opened(path) as file:
        yield from _nodes(file, "")


def _nodes(group: h5py.Group, place: str) -> Iterator[DataSet]:
    import h5py

    for name in group:
        link, full = group.get(name, getlink=True), f"{place}{name}"
        if isinstance(link, h5py.ExternalLink):
            yield DataSet(name=full, note=f"link to {link.filename}:{link.path}")
        elif isinstance(link, h5py.SoftLink):
            yield DataSet(name=full, note=f"link to {link.path}")
        else:
            try:
                node = group[name]
                shown = _dataset(node, full) if isinstance(node, h5py.Dataset) else None
            except (
                KeyError,
                TypeError,
                ValueError,
                ReconError,
            ):  # damaged, too large, or of a type or filter unknown here
                shown, node = DataSet(name=full, note="cannot be read"), None
            if shown is not None:
                yield shown
            elif isinstance(node, h5py.Group) and place.count("/") < _DEEPEST:
                yield from _nodes(node, f"{full}/")


def _dataset(node: h5py.Dataset, name: str) -> DataSet:
    word = None
    if node.shape is not None and math.prod(node.shape) == 1:
        word = detector_frames.word(node.parent, node.name.rpartition("/")[2])
    note = "pieces of other data sets" if node.is_virtual else None
    if word:
        note = f"= {' '.join(word.split())[:_LONGEST_TEXT]}"
    return DataSet(
        name=name,
        shape=None if node.shape is None else list(node.shape),
        dtype=str(node.dtype) if node.dtype.names is None else "table",
        unit=detector_frames.unit(node),
        note=note,
    )


def _npz(path: Path) -> Iterator[DataSet]:
    with numpy_archives.opened(path) as archive:
        for name in archive:
            yield _npy(name, partial(archive.header, name))


def _npy(name: str, header: Callable[[], tuple[tuple[int, ...], bool, np.dtype[np.generic]]]) -> DataSet:
    try:
        shape, _, dtype = header()
    except InputError:
        return DataSet(name=name, note="cannot be read")
    return DataSet(name=name, shape=list(shape), dtype=str(dtype))


def _array(path: Path) -> Iterator[DataSet]:
    with path.open("rb") as stream:
        yield _npy(path.name, partial(numpy_files.header, stream, path.name))


def _matlab(path: Path) -> Iterator[DataSet]:
    for name, shape, kind in matlab.listed(path):
        yield DataSet(name=name, shape=list(shape), dtype=kind)


def _images(path: Path) -> Iterator[DataSet]:
    images = tiff.headers([path])
    yield DataSet(name=path.name, shape=[images.count, *images.shape], dtype=str(images.dtype))


def _nifti(path: Path) -> Iterator[DataSet]:
    """Header of a volume, as it is stored: columns first."""
    import nibabel as nib

    try:
        header: Any = nib.load(path).header
        shape, dtype = list(header.get_data_shape()), header.get_data_dtype()
        codes = {name: int(header[name]) for name in ("sform_code", "qform_code", "intent_code") if name in header}
        slope, intercept = header.get_slope_inter()
        unit = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else None  # Analyze has none
    except Exception:  # noqa: BLE001 - the reader says what is wrong with it
        return
    scaled = "" if slope in (None, 1.0) and not intercept else f", value = {slope:g} * stored + {intercept or 0:g}"
    note = ", ".join(f"{name} {code}" for name, code in codes.items()) + scaled
    yield DataSet(name=path.name, shape=shape, dtype=str(dtype), unit=unit, note=note)


_CONTAINERS: dict[tuple[bytes, ...], Callable[[Path], Iterator[DataSet]]] = {
    (hdf5.MAGIC, b"MATLAB 7.3"): _hdf5,
    (b"MATLAB 5.0",): _matlab,
    (b"PK",): _npz,
    numpy_files.FORMAT.magic: _array,
    tiff.FORMAT.magic: _images,
    (*nifti.FORMAT.magic, _GZIP): _nifti,
}
"""Listings by the first bytes of files."""
