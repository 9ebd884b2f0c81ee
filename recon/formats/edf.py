"""EDF of the ESRF: radiographs or sinograms, one per file or several, with the ESRF's flat and dark fields.

Files called ``ref`` or ``flat`` are flat fields, ``dark`` dark ones. Angles are those of a file of angles beside them,
of the motor that turns the sample, or of the scan's ``.info`` file, whose pixel size is read, too. Integers are counts,
floats are as in TIFF. Images whose name says ``sino`` are sinograms ``(views, detectors)``.

References
----------
Boesecke 2007, J. Appl. Cryst. 40, s423 (ESRF data format); PyHST: ``ref0000_0000.edf`` are flats, ``refHST0000.edf``
their medians, ``darkend0000.edf`` is the sum of ``DARK_N`` darks, ``dark.edf`` their mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError
from recon.formats import angle_file, detect, detector_frames, tiff
from recon.formats.format import Format, PlainArray, RawCounts
from recon.formats.safety import check_size, existing, slice_range
from recon.measurement.counts import Counts
from recon.spec.job import Input

_MOST_HEADER_BYTES = 2**20
_MOST_FRAMES = 200_000
_MOST_INFO_BYTES = 100_000
_TYPES = {
    "unsignedbyte": "u1", "signedbyte": "i1", "unsignedshort": "u2", "signedshort": "i2", "unsignedinteger": "u4",
    "signedinteger": "i4", "unsignedlong": "u4", "signedlong": "i4", "unsigned64": "u8", "signed64": "i8",
    "floatvalue": "f4", "float": "f4", "real": "f4", "doublevalue": "f8", "double": "f8",
}  # fmt: skip
_KINDS = {"darks": re.compile(r"(^|[^a-z])dark"), "flats": re.compile(r"(^|[^a-z])(ref|flat|white)")}
_TURNS = re.compile(r"rot|^pmo$|omega|theta|angle", re.IGNORECASE)
"""Mnemonics of motors that turn the sample."""
_SINOGRAM = re.compile(r"(^|[^a-z])sino", re.IGNORECASE)
_Header = dict[str, str]


@dataclass(frozen=True)
class Frame:
    """An image in a file: its header, with names in lower case, its numbers, and where these begin."""

    path: Path
    header: _Header
    shape: tuple[int, int]
    dtype: np.dtype[np.generic]
    offset: int


def _read(path: Path, given: Input) -> PlainArray | RawCounts:
    notes: list[str] = []
    kinds = {kind: [frame for file in files for frame in frames(file)] for kind, files in _files(path, given).items()}
    images = kinds.pop("projections")
    if not images:
        raise InputError(f"{path.name} holds no projections in EDF", field="input", remedy="give a folder of EDF files")
    for kind, those in (("projections", images), *kinds.items()):
        for frame in those:
            if frame.shape != images[0].shape:
                raise InputError(
                    f"{frame.path.name} holds images of {frame.shape}, {images[0].path.name} of {images[0].shape}",
                    field="input",
                    remedy="give the images of one scan, all of one size",
                )
        if those and kind != "projections":
            notes.append(f"{len(those)} {kind} from {those[0].path.name}")
    info = _info(images[0].path)
    if len(images) == 1 or _SINOGRAM.search(images[0].path.stem):
        return _sinograms(images, given, notes)
    angles = _angles(images, info, given, path, notes)
    if angles is not None and len(angles) < len(images) and "tomo_n" in info:
        # After half a turn some views are taken again, to see whether the sample has moved.
        notes.append(f"{len(images) - len(angles)} images after the {len(angles)} of the scan are left out")
        images = images[: len(angles)]
    rows = slice_range(given.slices, images[0].shape[0])
    stated = {"angles_rad": angles, "detector_mm": _pixel_mm(images[0].header, info, notes)}
    projections = _pixels(images, rows)
    if not kinds["flats"]:
        if images[0].dtype.kind != "f":
            raise InputError(
                f"projections of {images[0].dtype} are counts, and there are no flat fields",
                field="input",
                remedy="put them beside the projections, with ref in their names (dark for dark fields)",
            )
        return PlainArray(tiff._as_line_integrals(projections, notes).transpose(1, 0, 2), stated, notes=notes)
    flats, darks = _pixels(kinds["flats"], rows), None
    if kinds["darks"]:
        darks = _pixels(kinds["darks"], rows) / _summed(kinds["darks"][0].path, info, notes)
    counts = Counts(projections, flats, darks, names=("projections", "flats", "darks"))
    return RawCounts(counts, stated, notes, slices_in_file=images[0].shape[0])


def _files(path: Path, given: Input) -> dict[str, list[Path]]:
    """Files of projections, flats and darks."""
    folder = path if path.is_dir() else path.parent
    known = detect.around(path, given) is not None
    every = sorted((p for p in folder.iterdir() if p.suffix.lower() == ".edf"), key=_natural) if known else []
    found: dict[str, list[Path]] = {kind: [p for p in every if _kind(p) == kind] for kind in _KINDS}
    # What ref and darkend are made into is better, and lies beside them.
    for kind, better in (("flats", "refhst"), ("darks", "dark.edf")):
        best = [p for p in found[kind] if p.name.lower().startswith(better)]
        found[kind] = best or found[kind]
    found["projections"] = [p for p in every if _kind(p) is None] if path.is_dir() else [existing(path)]
    return found


def _kind(path: Path) -> str | None:
    return next((kind for kind, known in _KINDS.items() if known.search(path.stem.lower())), None)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def frames(path: Path) -> list[Frame]:
    """Read the headers of all images in a file.

    Raises
    ------
    InputError
        If it is no EDF, compressed, or shorter than its headers say.
    """
    found: list[Frame] = []
    size = existing(path).stat().st_size
    with path.open("rb") as stream:
        while (begin := stream.tell()) < size:
            block = stream.read(_MOST_HEADER_BYTES)
            header = _header(block)
            if header is None:
                if found and not block.strip(b"\0 \r\n"):
                    break  # padding
                raise InputError(
                    f"{path.name} has no EDF header at byte {begin}",
                    field="input",
                    remedy="copy it again, or give a .edf",
                )
            frame = _frame(path, header[0], begin + header[1])
            end = frame.offset + frame.shape[0] * frame.shape[1] * frame.dtype.itemsize
            if end > size or len(found) >= _MOST_FRAMES:
                raise InputError(
                    f"{path.name} is truncated: image {len(found)} ends at byte {end}, the file at {size}",
                    field="input",
                    remedy="copy it again",
                )
            found.append(frame)
            stream.seek(end)
    if not found:
        raise InputError(f"{path.name} is empty", field="input", remedy="copy it again")
    return found


def _header(block: bytes) -> tuple[_Header, int] | None:
    """Entries of a header and its length; None if there is none."""
    end = re.search(rb"\}\s?\n", block)
    if not block.lstrip().startswith(b"{") or end is None:
        return None
    text = block[: end.start()].decode("latin-1").lstrip().removeprefix("{")
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, sign, value in pairs if sign}, end.end()


def _frame(path: Path, header: _Header, offset: int) -> Frame:
    columns, rows, deep = (_whole(header, f"dim_{n}", path, None if n == 1 else 1) for n in (1, 2, 3))
    kind = header.get("datatype", "").lower()
    if kind not in _TYPES:
        raise InputError(f"{path.name} holds {kind or 'no DataType'}, expected numbers", field="input")
    if deep != 1 or header.get("compression", "none").lower() not in ("", "none", "nocompression"):
        raise InputError(
            f"{path.name} holds images that are compressed, or of three axes", field="input", remedy="save it plain"
        )
    order = ">" if header.get("byteorder", "").lower().startswith("high") else "<"
    shape, dtype = (rows, columns), np.dtype(order + _TYPES[kind])
    check_size(shape, dtype.itemsize)
    return Frame(path, header, shape, dtype, offset)


def _whole(header: _Header, name: str, path: Path, default: int | None) -> int:
    text = header.get(name, "" if default is None else str(default))
    if not text.isdecimal() or not 1 <= int(text[:10]) <= 10**6:
        raise InputError(f"{path.name} says {name} = {text[:40]!r}, expected a size", field="input")
    return int(text)


def _pixels(images: list[Frame], rows: tuple[int, int]) -> NDArray[np.float32]:
    """Read some rows of all images, one at a time."""
    columns = images[0].shape[1]
    check_size((len(images), rows[1] - rows[0], columns), 4)
    found = np.empty((len(images), rows[1] - rows[0], columns), np.float32)
    for index, frame in enumerate(images):
        stored = np.memmap(frame.path, dtype=frame.dtype, mode="r", offset=frame.offset, shape=frame.shape)
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is found
            found[index] = stored[slice(*rows)]
    return found


def _sinograms(images: list[Frame], given: Input, notes: list[str]) -> PlainArray:
    """Images that are sinograms of line integrals, one per slice."""
    if images[0].dtype.kind != "f":
        raise InputError(
            f"sinograms of {images[0].dtype} hold counts, not line integrals", field="input", remedy="take -log(I / I0)"
        )
    first, last = slice_range(given.slices, len(images))
    notes.append(f"{len(images)} images are taken as sinograms (views, detectors), one per slice")
    data = _pixels(images[first:last], (0, images[0].shape[0]))
    return PlainArray(tiff._as_line_integrals(data, notes), notes=notes)


def _info(image: Path) -> _Header:
    """Entries of the scan's ``.info`` file, the only one beside the images."""
    found = list(image.parent.glob("*.info"))
    if len(found) != 1 or found[0].stat().st_size > _MOST_INFO_BYTES:
        return {}
    lines = found[0].read_text("latin-1").splitlines()
    return {
        name.strip().lower(): value.strip() for line in lines for name, sign, value in [line.partition("=")] if sign
    }


def _number(held: _Header, name: str) -> float | None:
    try:
        value = float(held.get(name, ""))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _angles(images: list[Frame], info: _Header, given: Input, path: Path, notes: list[str]) -> list[float] | None:
    """Angles of the images, as many as the scan has."""
    known = detect.around(path, given) is not None
    beside = angle_file.beside(path if path.is_dir() else path.parent) if known else None
    if beside is not None:
        return angle_file.read(beside, notes)
    motor = _motor(images)
    if motor is not None:
        notes.append(f"angles in degrees from the motor {motor[0]}")
        return detector_frames.angles_rad(motor[1], "deg", motor[0], notes)
    count, span = _number(info, "tomo_n"), _number(info, "scanrange")
    if not count or not span:
        return None
    if count > len(images):
        raise GeometryError(
            f"the .info file says {count:g} images of the scan, {len(images)} are there",
            field="input",
            remedy="copy the missing ones, or give acquisition.angles_rad and take the .info file away",
        )
    notes.append(f"angles are {span:g} degrees in {count:g} steps, from the .info file")
    return detector_frames.angles_rad(np.arange(int(count)) * span / count, "deg", "ScanRange", notes)


def _motor(images: list[Frame]) -> tuple[str, NDArray[np.float64]] | None:
    """Mnemonic and positions of the only motor that turns the sample and moves from image to image."""
    places: dict[str, list[float]] = {}
    for frame in images:
        names = frame.header.get("motor_mne", "").split()
        try:
            values = [float(word) for word in frame.header.get("motor_pos", "").split()]
        except ValueError:
            return None
        for name, value in zip(names, values, strict=False):
            if _TURNS.search(name):
                places.setdefault(name, []).append(value)
    moving = {n: v for n, v in places.items() if len(v) == len(images) and all(a != b for a, b in pairwise(v))}
    return next(((n, np.array(v)) for n, v in moving.items()), None) if len(moving) == 1 else None


def _pixel_mm(header: _Header, info: _Header, notes: list[str]) -> float | None:
    """Pixel size: in micrometres in the scan's file, in metres in the images'."""
    for held, name, unit in ((info, "pixelsize", "um"), (header, "psize_1", "m")):
        value = _number(held, name)
        found = None if value is None else detector_frames.length_mm(value, unit)
        if found is not None:
            notes.append(f"pixel size {found:.6g} mm, from {name}")
            return found
    return None


def _summed(dark: Path, info: _Header, notes: list[str]) -> float:
    """Frames that a dark field is the sum of."""
    count = _number(info, "dark_n")
    if not dark.stem.lower().startswith("darkend") or count is None or count <= 1:
        return 1.0
    notes.append(f"{dark.name} is divided by the {count:g} dark frames that it is the sum of")
    return count


FORMAT = Format(
    name="edf",
    endings=(".edf",),
    certain=True,
    media_type="image/x-edf",
    read=_read,
    selects=True,
    folders=True,
    slicewise=True,
)
