"""BART: pairs of ``.cfl`` and ``.hdr``, complex arrays of up to 16 named dimensions, the first varying fastest.

Among the three spatial dimensions, the first that has more than one point runs down the image and the next one across
it, as ``bart toimg`` shows it. The slices of 3D k-space are along its second phase encoding, those of 2D k-space in
dimension 13.

References
----------
https://bart-doc.readthedocs.io, "Data format", with the order of dimensions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from operators.errors import InputError
from recon.formats import kspace
from recon.formats.format import Format
from recon.formats.kspace import Complex
from recon.formats.safety import check_size, existing, slice_range
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.job import Input

DIMENSIONS = (
    "readout", "phase1", "phase2", "coils", "maps", "te", "coeff", "coeff2", "iter", "cshift", "time", "time2",
    "level", "slice", "average", "batch",
)  # fmt: skip
COILS, MAPS, SLICE = 3, 4, 13
MAX_HEADER_BYTES = 100_000


def read(path: Path, field: str = "input") -> Complex:
    """Read an array of 16 dimensions, memory-mapped.

    Raises
    ------
    InputError
        If one of the two files is missing, the header has no dimensions, or the data are shorter than it says.
    ResourceLimit
        If the header promises more than the limit.
    """
    data, header = path.with_suffix(".cfl"), path.with_suffix(".hdr")
    for part in (data, header):
        if not part.is_file():
            raise InputError(
                f"there is no file {part.name}",
                field=f"{field}.path",
                remedy="a BART array is two files of one name, .cfl and .hdr, in one folder",
            )
    shape = _shape(existing(header, field), field)
    promised = check_size(shape, 8, field)
    held = data.stat().st_size
    if held != promised:
        raise InputError(
            f"{header.name} promises {promised} bytes ({' x '.join(map(str, _short(shape)))} complex numbers), "
            f"{data.name} holds {held}",
            field=field,
            remedy="the file is truncated, or its header belongs to another one; copy both again",
        )
    return np.memmap(data, dtype="<c8", mode="r", shape=shape, order="F")


def _shape(header: Path, field: str) -> tuple[int, ...]:
    with header.open("rb") as stream:
        lines = stream.read(MAX_HEADER_BYTES).decode("ascii", "replace").splitlines()
    after = next((i for i, line in enumerate(lines) if line.strip().lower() == "# dimensions"), None)
    words = [] if after is None or after + 1 >= len(lines) else lines[after + 1].split()
    if not words or len(words) > len(DIMENSIONS) or not all(w.isdecimal() and len(w) < 10 for w in words):
        raise InputError(
            f"{header.name} has no line of dimensions",
            field=field,
            remedy="its lines should be '# Dimensions' and then up to 16 numbers",
        )
    return tuple(map(int, words)) + (1,) * (len(DIMENSIONS) - len(words))


def _short(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out the last dimensions of one."""
    last = max((i for i, n in enumerate(shape) if n > 1), default=0)
    return shape[: last + 1]


def coil_maps(path: Path, field: str) -> Complex:
    """Read coil sensitivities ``(slices, sets, coils, rows, cols)`` as ``bart ecalib`` writes them."""
    array = read(path, field)
    other = [name for i, name in enumerate(DIMENSIONS) if i > MAPS and i != SLICE and array.shape[i] > 1]
    deep = min(array.shape[:3]) > 1
    if other or (deep and array.shape[SLICE] > 1):
        raise InputError(
            f"{path.name} has dimensions {' x '.join(map(str, _short(array.shape)))}, expected spatial ones, "
            "coils, sets of maps and, of two spatial ones, slices",
            field=field,
            remedy="write the maps of one scan, as bart ecalib does",
        )
    sets = [array[(slice(None),) * MAPS + (slice(i, i + 1),)] for i in range(array.shape[MAPS])]
    return np.stack([_volume(one) if deep else _sliced(one) for one in sets], axis=1)


def _sliced(array: Complex) -> Complex:
    """Order 2D k-space or maps as ``(slices, coils, rows, cols)``."""
    flat = array.reshape(*array.shape[:4], array.shape[SLICE], order="F")
    single = next(i for i in (2, 0, 1) if array.shape[i] == 1)
    plane = flat[(slice(None),) * single + (0,)]
    return np.ascontiguousarray(np.moveaxis(plane, (3, 2), (0, 1)), dtype=np.complex64)


def _volume(array: Complex) -> Complex:
    """Order 3D k-space or maps as ``(slices, coils, rows, cols)``: second phase encoding, readout, first one."""
    flat = array.reshape(array.shape[:4], order="F")
    return np.ascontiguousarray(flat.transpose(2, 3, 0, 1), dtype=np.complex64)


def _read(path: Path, given: Input) -> Measurement:
    notes: list[str] = []
    array = read(path)
    if array.shape[MAPS] > 1:
        raise InputError(f"{path.name} has {array.shape[MAPS]} sets of maps: it is no k-space", field="input")
    present = {
        name: range(array.shape[i])
        for i, name in enumerate(DIMENSIONS)
        if i > MAPS and i != SLICE and array.shape[i] > 1
    }
    numbers = kspace.chosen(given.scan, {name: list(values) for name, values in present.items()}, notes)
    for name, number in numbers.items():
        axis = DIMENSIONS.index(name)
        array = array[(slice(None),) * axis + (slice(number, number + 1),)]
    if min(array.shape[:3]) > 1:
        if array.shape[SLICE] > 1:
            raise InputError(
                f"{array.shape[SLICE]} slabs of 3D k-space; one is read",
                field="input",
                remedy="write them apart, by bart slice 13",
            )
        return kspace.measurement_3d(
            _volume(array), None, (None, None, None), kept=array.shape[2], notes=notes, readout="rows"
        )
    within = slice(*slice_range(given.slices, array.shape[SLICE]))
    data = _sliced(array[(slice(None),) * SLICE + (within,)])
    notes.append("BART files have no geometry: give acquisition.pixel_mm and slice_mm")
    return Measurement(data, MRICartesian(), in_patient=False, notes=notes)


FORMAT = Format(name="bart", endings=(".cfl",), certain=True, read=_read, selects=True)
