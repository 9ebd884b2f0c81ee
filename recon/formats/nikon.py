"""Nikon (X-Tek) ``.xtekct``: geometry as text, projections as TIFFs beside it.

The scanner is a cone beam; its middle row alone is a fan beam, and that row is read where it is asked for as a slice.
Columns run from right to left as the source sees them, rows from top to bottom, and angles begin half a turn before the
file's, as CIL reads them.

References
----------
Jørgensen et al. 2021, Phil. Trans. R. Soc. A 379, 20200192 (the Core Imaging Library).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from operators.errors import GeometryError, InputError
from recon.formats import detect, tiff
from recon.formats.detector_frames import angles_rad
from recon.formats.format import Format, Incomplete, RawCounts
from recon.formats.safety import existing
from recon.measurement.counts import Counts
from recon.spec.acquisitions.ct import CTFan
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.job import Input
from recon.spec.validation import invalid
from recon.storage.patterns import lies_in

_MOST_BYTES = 1_000_000
_MOST_PROJECTIONS = 1_000_000
_MOST_TRANSMISSION = 2.0
"""Floats up to here have been divided by the white level already."""


def _read(path: Path, given: Input) -> RawCounts:
    header = _header(path)
    rows, columns = (int(_number(header, f"DetectorPixels{axis}", path)) for axis in "YX")
    source, detector = (_number(header, f"SrcTo{end}", path) for end in ("Object", "Detector"))
    if not 0 < source < detector:
        raise GeometryError(
            f"SrcToObject is {source:g}, SrcToDetector {detector:g}",
            field="input",
            remedy="correct the distances in the file: the detector is farther from the source than the object",
        )
    step, start = _number(header, "AngularStep", path), _number(header, "InitialAngle", path)
    wanted = int(_number(header, "Projections", path))
    if not 0 < wanted <= _MOST_PROJECTIONS:
        raise InputError(f"{path.name} says {wanted} projections", field="input", remedy="correct it in the file")
    geometry_notes: list[str] = []
    cone = rows > 1 and given.slices is None
    places: dict[str, Any] = {
        "angles_rad": angles_rad(start - 180 + step * np.arange(wanted), "deg", "AngularStep", geometry_notes),
        "detector_mm": _number(header, "DetectorPixelSizeX", path),
        "detector_shift_mm": _shift_mm(header, detector / source, path, geometry_notes),
        "source_origin_mm": source,
        "origin_detector_mm": detector - source,
    }
    try:
        stated: CTFan | CTCone = CTFan(**places)
        if cone:
            stated = CTCone(**places, row_mm=_number(header, "DetectorPixelSizeY", path))
    except ValidationError as error:
        raise invalid(error, path.name) from error
    try:
        row, paths = (0, rows) if cone else _row(rows, given), _projections(path, header, given)
    except InputError as error:
        raise Incomplete(error, stated, (rows, wanted, columns), geometry_notes) from error
    images = tiff.headers(paths)
    if images.count != wanted:
        raise GeometryError(
            f"{path.name} says {wanted} projections, {images.count} are there",
            field="input",
            remedy="put all projections of the scan beside it, and no others; or correct Projections",
        )
    if images.shape != (rows, columns):
        raise GeometryError(
            f"{path.name} says ({rows}, {columns}), projections are {images.shape}",
            field="input",
            remedy="give the projections as the scanner wrote them",
        )
    one_row = rows > 1 and not cone
    notes = [f"the fan beam of row {row[0]} of {rows}; the other rows of the cone beam are left out"] if one_row else []
    projections = tiff.pixels(images, row)[:, ::-1, ::-1]
    white = _number(header, "WhiteLevel", path)
    if images.dtype.kind == "f" and float(projections.max()) <= _MOST_TRANSMISSION:
        white = 1.0
        notes.append("the projections have been divided by the white level already")
    # The scanner corrects for the dark signal.
    flats, darks = np.full_like(projections[:1], white), np.zeros_like(projections[:1])
    counts = Counts(projections, flats, darks, names=("projections", "WhiteLevel", "dark signal"))
    return RawCounts(counts, stated, [*notes, *geometry_notes])


def _row(rows: int, given: Input) -> tuple[int, int]:
    """The middle row, if it is all there is or what is asked for: a fan beam."""
    middle = {(rows - 1) // 2, rows // 2}
    if rows == 1 and given.slices in (None, (0, 1)):
        return 0, 1
    if given.slices is not None and given.slices[1] - given.slices[0] == 1 and given.slices[0] in middle:
        return given.slices
    first = max(middle)
    raise InputError(
        f"the {rows} rows of a cone beam's detector are no slices of the volume",
        field="input.slices",
        remedy=f"leave it out; or give [{first}, {first + 1}], the middle row, which is a fan beam",
    )


def _shift_mm(header: dict[str, str], magnification: float, path: Path, notes: list[str]) -> float | None:
    """Position of the detector's middle against the rotation axis, on the detector."""
    if "objectoffsetx" in header:
        shift = _number(header, "ObjectOffsetX", path) * magnification
    else:
        names = [f"CentreOfRotation{end}" for end in ("Top", "Bottom")]
        shift = sum(_number(header, name, path) for name in names if name.lower() in header) / 2
    if shift:
        notes.append(f"the rotation axis is {shift:g} mm off the middle of the detector")
    return shift or None


def _projections(path: Path, header: dict[str, str], given: Input) -> list[Path]:
    """TIFFs of the scan, in the folder that the file names, or beside it."""
    around = detect.around(path, given)
    if around is None:
        raise InputError(
            f"{path.name} names projections beside it, and the upload is one file",
            field="input",
            remedy="upload the folder with all of them (input.path a folder)",
        )
    named = header.get("inputfoldername", "").replace("\\", "/")
    folder = (path.parent / named).resolve()
    if not folder.is_dir() or not lies_in(folder, around):
        folder = path.parent
    found = tiff.tiff_files(folder)
    scan = [p for p in found if p.stem.lower().startswith(header.get("name", "").lower())]
    if not (scan or found):
        raise InputError(
            f"there are no projections in TIFF beside {path.name}",
            field="input",
            remedy="put them beside it, or into the folder that InputFolderName says",
        )
    return scan or found


def _header(path: Path) -> dict[str, str]:
    """Entries ``name=value``, names in lower case."""
    if existing(path).stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{path.name} is no .xtekct file: it is too long", field="input", remedy="give the file of CT Pro"
        )
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(line.strip().lower() == "[xtekct]" for line in lines):
        raise InputError(f"{path.name} has no section [XTekCT]", field="input", remedy="give the file of CT Pro")
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _number(header: dict[str, str], name: str, path: Path) -> float:
    try:
        value = float(header[name.lower()])
    except KeyError as error:
        raise InputError(
            f"{path.name} lacks {name}", field="input", remedy="give the file as CT Pro or the scanner wrote it"
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path.name}: {name} is {header[name.lower()]!r}, no number",
            field="input",
            remedy="correct it in the file, with a point as decimal separator",
        ) from error
    if not math.isfinite(value):
        raise InputError(f"{path.name}: {name} is {value}", field="input", remedy="correct it in the file")
    return value


FORMAT = Format(
    name="nikon",
    endings=(".xtekct",),
    certain=True,
    media_type="text/plain",
    read=_read,
    selects=True,
    names_others=True,
)
