"""MetaImage volumes of ITK: ``.mha``, or ``.mhd`` with the numbers in a file beside it.

References
----------
https://itk.org/Wiki/ITK/MetaIO/Documentation: tags, and physical points in the patient's LPS frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from operators.errors import InputError
from recon.formats import volumes
from recon.formats.format import Format, KnownVolume
from recon.formats.kspace import LPS_TO_RAS
from recon.formats.safety import existing
from recon.formats.volumes import Words
from recon.spec.affine import Affine
from recon.spec.job import Input

_ENDINGS = (".mha", ".mhd")
_MOST_HEADER_BYTES = 100_000
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_UNORIENTED = "the MetaImage has no TransformMatrix: it does not say how it lies in the patient"


def _read(path: Path, given: Input) -> KnownVolume:
    words, begin = _header(path)
    axes = int(words.numbers("NDims", 1)[0])
    shape = tuple(int(n) for n in words.numbers("DimSize", axes))
    if not 2 <= axes <= 5 or min(shape) < 1:
        raise InputError(f"{path.name} has sizes {shape}, expected two axes or three", field="input")
    if words.get("ElementNumberOfChannels", "1") != "1":
        raise InputError(f"{path.name} has several values per voxel, expected one", field="input")
    kind = words.get("ElementType", "")
    if kind not in _TYPES:
        raise InputError(f"{path.name} holds {kind or 'no ElementType'}, expected numbers", field="input")
    if not words.true("BinaryData"):
        raise InputError(
            f"{path.name} holds its numbers as text", field="input", remedy="save it with BinaryData = True"
        )
    big = words.true("BinaryDataByteOrderMSB") or words.true("ElementByteOrderMSB")
    dtype = np.dtype((">" if big else "<") + _TYPES[kind])
    cols, rows, slices = (*shape, 1)[:3]
    number = volumes.which(given, volumes.product(shape[3:]))
    each = cols * rows * slices * dtype.itemsize
    place, at = _numbers(path, words, begin, given)
    if at < 0:  # as long as the file is: the numbers are its end
        at = place.stat().st_size - each * volumes.product(shape[3:])
    stored = volumes.numbers(
        place, (slices, rows, cols), dtype, at=at, skip=number * each, compressed=words.true("CompressedData")
    )
    affine, known = _affine(words, axes, path)
    return KnownVolume(volumes.scaled(stored), affine, in_patient=known, notes=[] if known else [_UNORIENTED])


def _header(path: Path) -> tuple[Words, int]:
    """Tags up to ElementDataFile, which is the last, and the byte behind it."""
    with existing(path).open("rb") as stream:
        block = stream.read(_MOST_HEADER_BYTES)
    found: dict[str, str] = {}
    begin = 0
    for line in block.splitlines(keepends=True):
        begin += len(line)
        name, sign, value = line.decode("latin-1").partition("=")
        if not sign:
            break
        found[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            return Words(found, path.name), begin
    raise InputError(
        f"{path.name} is not a MetaImage: there is no ElementDataFile in its header",
        field="input",
        remedy="give a .mha or .mhd file",
    )


def _numbers(header: Path, words: Words, begin: int, given: Input) -> tuple[Path, int]:
    """File of the numbers and the byte where they begin; below 0 if they are its end."""
    name = words["ElementDataFile"]
    if name.upper() == "LOCAL":
        return header, begin
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(
            f"{header.name} has its slices in a file each", field="input", remedy="save it as one file, .mha"
        )
    return volumes.beside(header, name, given), int(words.numbers("HeaderSize", 1, [0.0])[0])


def _affine(words: Words, axes: int, path: Path) -> tuple[Affine, bool]:
    """Affine to RAS, and whether the file says how the volume lies in the patient."""
    spacing = np.ones(3)
    name = words.first("ElementSpacing", "ElementSize")
    spacing[: min(axes, 3)] = words.numbers(name, axes)[:3] if name else 1.0
    if axes == 2:
        spacing[2] = spacing[0]
    name = words.first("TransformMatrix", "Rotation", "Orientation")
    known = name is not None and axes >= 3
    directions = np.eye(3)
    if name is not None and known:
        # One axis of the image after the other, each as a direction in LPS.
        directions = np.array(words.numbers(name, axes * axes)).reshape(axes, axes)[:3, :3].T
    origin = np.zeros(3)
    name = words.first("Offset", "Position", "Origin")
    origin[: min(axes, 3)] = words.numbers(name, axes)[:3] if name else 0.0
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = LPS_TO_RAS @ directions * spacing, LPS_TO_RAS @ origin
    return volumes.check_affine(found, path.name), known


FORMAT = Format(
    name="metaimage",
    endings=_ENDINGS,
    magic=(b"ObjectType", b"NDims = "),
    certain=True,
    volumes=True,
    read=_read,
    names_others=True,
)
