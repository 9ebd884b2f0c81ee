"""NRRD volumes of Teem: ``.nrrd``, or ``.nhdr`` with the numbers in a file beside it.

References
----------
https://teem.sourceforge.net/nrrd/format.html: fields, and the spaces whose axes have anatomical names.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from operators.errors import InputError
from recon.formats import volumes
from recon.formats.format import Format, KnownVolume
from recon.formats.safety import existing
from recon.formats.volumes import Words
from recon.spec.affine import Affine
from recon.spec.job import Input

_ENDINGS = (".nrrd", ".nhdr")
_MOST_HEADER_BYTES = 1_000_000
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"), "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"), "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",), "f8": ("double",),
}  # fmt: skip
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
}
"""Signs that turn the axes of a space to RAS."""
_DOMAIN = ("domain", "space")
"""Kinds of an axis along which voxels lie."""
_UNITS = {"mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "cm": 10.0, "m": 1e3, "um": 1e-3, "µm": 1e-3, "micron": 1e-3}
_UNORIENTED = "the NRRD's space has no anatomical axes: it does not say how it lies in the patient"


def _read(path: Path, given: Input) -> KnownVolume:
    words, begin = _header(path)
    axes = int(words.numbers("dimension", 1)[0])
    sizes = tuple(int(n) for n in words.numbers("sizes", axes))
    if not 2 <= axes <= 5 or min(sizes) < 1:
        raise InputError(f"{path.name} has sizes {sizes}, expected two axes or three", field="input")
    found = next((code for code, names in _TYPES.items() if words["type"].lower() in names), None)
    if found is None:
        raise InputError(f"{path.name} holds {words['type']!r}, expected numbers", field="input")
    if found[1] != "1" and words.get("endian", "") not in ("little", "big"):
        raise InputError(f"{path.name} lacks endian, little or big", field="input")
    dtype = np.dtype((">" if words.get("endian") == "big" else "<") + found)
    encoding = words["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(
            f"the encoding of {path.name} is {encoding!r}, and raw and gzip are read",
            field="input",
            remedy="save it again as gzip",
        )
    place, at = _numbers(path, words, begin, given)
    skip = int(words.numbers("byte skip", 1, [0.0])[0])
    if skip == -1 and encoding == "raw":
        at, skip = place.stat().st_size - volumes.product(sizes) * dtype.itemsize, 0
    stored = volumes.numbers(place, sizes[::-1], dtype, at=at, skip=skip, compressed=encoding != "raw")
    spatial = _spatial(words, sizes, path)
    inner = [axes - 1 - axis for axis in spatial]  # the first axis is the last of the array
    others = [axis for axis in range(axes) if axis not in inner]
    ordered = stored.transpose(*others, *inner[::-1]).reshape(-1, *(sizes[axis] for axis in spatial[::-1]))
    chosen = ordered[volumes.which(given, len(ordered))]
    affine, known = _affine(words, spatial, path)
    data = volumes.scaled(chosen.reshape((1,) * (3 - chosen.ndim) + chosen.shape))
    return KnownVolume(data, affine, in_patient=known, notes=[] if known else [_UNORIENTED])


def _header(path: Path) -> tuple[Words, int]:
    """Fields up to the first empty line, names in lower case, and the byte behind it."""
    with existing(path).open("rb") as stream:
        block = stream.read(_MOST_HEADER_BYTES)
    if not block.startswith(b"NRRD000"):
        raise InputError(f"{path.name} is not a NRRD file", field="input", remedy="give a .nrrd or .nhdr file")
    found: dict[str, str] = {}
    begin = 0
    for raw in block.splitlines(keepends=True):
        begin += len(raw)
        line = raw.decode("latin-1").strip()
        if not line:
            break
        name, sign, value = line.partition(":")
        if sign and not line.startswith("#") and not value.startswith("="):
            found[name.strip().lower()] = value.strip()
    for short, name in (("datafile", "data file"), ("byteskip", "byte skip"), ("lineskip", "line skip")):
        if short in found:
            found[name] = found.pop(short)
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in found:
            raise InputError(f"{path.name} lacks {name}", field="input", remedy="copy it again")
    return Words(found, path.name), begin


def _numbers(header: Path, words: Words, begin: int, given: Input) -> tuple[Path, int]:
    """File of the numbers, and the byte behind the lines that are left out."""
    name = words.get("data file")
    lines = int(words.numbers("line skip", 1, [0.0])[0])
    if name is not None and (re.match(r"LIST\b", name) or "%" in name):
        raise InputError(
            f"{header.name} has its slices in a file each", field="input", remedy="save it as one file, .nrrd"
        )
    place = header if name is None else volumes.beside(header, name, given)
    with place.open("rb") as stream:
        stream.seek(begin if name is None else 0)
        for _ in range(min(lines, _MOST_HEADER_BYTES)):
            stream.readline(_MOST_HEADER_BYTES)
        return place, stream.tell()


def _spatial(words: Words, sizes: tuple[int, ...], path: Path) -> list[int]:
    """The two axes or three along which voxels lie: what has a direction, or is of that kind."""
    axes = range(len(sizes))
    directions = words.get("space directions")
    kinds = words.get("kinds", "").lower().split()
    if directions is not None:
        parts = re.findall(r"none|\([^)]*\)", directions.lower())
        found = [axis for axis, part in enumerate(parts) if part != "none"]
        if len(parts) != len(sizes):
            raise InputError(f"{path.name}: space directions are {directions[:80]!r}", field="input")
    elif len(kinds) == len(sizes) and any(kind in _DOMAIN for kind in kinds):
        found = [axis for axis, kind in enumerate(kinds) if kind in _DOMAIN]
    else:
        found = list(axes)[:3]
    if not 2 <= len(found) <= 3:
        raise InputError(f"{path.name} has {len(found)} spatial axes, expected two or three", field="input")
    return found


def _affine(words: Words, spatial: list[int], path: Path) -> tuple[Affine, bool]:
    """Affine to RAS, and whether the space has anatomical axes."""
    space = words.get("space", "").lower().removesuffix("-time").removesuffix("t")
    signs = _SPACES.get(space)
    known = signs is not None and "space directions" in words and len(spatial) == 3
    steps = np.eye(3)
    if "space directions" in words:
        parts = re.findall(r"\(([^)]*)\)", words["space directions"])
        vectors = [_vector(part, path) for part in parts]
        for index, vector in enumerate(vectors[:3]):
            steps[: len(vector), index] = vector[:3]
    elif "spacings" in words:
        lengths = words["spacings"].split()
        for index, axis in enumerate(spatial):
            steps[index, index] = _vector(lengths[axis] if axis < len(lengths) else "nan", path)[0]
    if len(spatial) == 2:
        steps[:, 2] = np.cross(steps[:, 0], steps[:, 1]) / np.linalg.norm(steps[:, 1])
    origin = np.zeros(3)
    if "space origin" in words:
        place = _vector(words["space origin"].strip("() "), path)
        origin[: len(place)] = place[:3]
    unit = (words.get("space units") or words.get("units") or '"mm"').replace('"', " ").split()
    scale = _UNITS.get(unit[0].lower() if unit else "mm", 1.0)
    found = np.eye(4)
    turn = np.diag(signs or (1.0, 1.0, 1.0)) * scale
    found[:3, :3], found[:3, 3] = turn @ steps, turn @ origin
    return volumes.check_affine(found, path.name), known


def _vector(text: str, path: Path) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not 1 <= len(found) <= 3:
        raise InputError(f"{path.name}: {text[:40]!r} is no direction or place", field="input")
    return found


FORMAT = Format(
    name="nrrd", endings=_ENDINGS, magic=(b"NRRD000",), certain=True, volumes=True, read=_read, names_others=True
)
