"""CTSimU (``.json``): metadata of projections in files without headers, and the scenario that says the geometry.

In the scenario's world the stage turns about its axis ``w``; here the stage stays, and source and detector go the other
way round. A detector's rows go along ``v = w x u``, its columns along ``u``.

References
----------
CTSimU scenario descriptions and metadata files, file format 1.2 (BAM, https://bamresearch.github.io/ctsimu-scenarios).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError
from recon.formats import detect
from recon.formats.format import Format, RawCounts
from recon.formats.safety import check_size, existing
from recon.measurement.counts import Counts, Frames
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.job import Input
from recon.spec.validation import invalid, reason
from recon.storage.patterns import lies_in

_FIRST_BYTES = 2000
_MOST_BYTES = 10_000_000
_MOST_FRAMES = 100_000
_LENGTHS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "nm": 1e-6, "deg": math.pi / 180, "rad": 1.0, "px": 1.0}
_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
Place = NDArray[np.float64]


def _read(path: Path, given: Input) -> RawCounts:
    metadata = _json(path)
    around = detect.around(path, given)
    if around is None:
        raise InputError(
            f"{path.name} names files beside it, and the upload is one file",
            field="input",
            remedy="upload the folder with all of them (input.path a folder), and name this one in input.file",
        )
    output = _at(metadata, "output.projections", path)
    frames = _Frames(output, path, around)
    scenario_path = _named(path, around, str(_at(metadata, "acquisition_geometry.path_to_CTSimU_JSON", path)))
    scenario = _json(scenario_path)
    count = int(_number(output, "number", path))
    notes: list[str] = []
    try:
        stated = CTCone(vectors=_vectors(scenario, scenario_path, count, frames.shape).tolist())
    except ValidationError as error:
        raise invalid(error, scenario_path.name) from error
    projections = frames.read(str(_at(output, "filename", path)), count)
    return RawCounts(_counts(projections, output, frames, path, notes), stated, notes)


def _counts(projections: Frames, output: Any, frames: _Frames, path: Path, notes: list[str]) -> Counts:
    """Projections with their flat and dark fields, or with the white level where they are corrected already."""
    flat, dark = (_at(output, f"{name}_field", path) for name in ("flat", "dark"))
    if flat.get("projections_corrected") or not flat.get("filename"):
        white = _number(output, "max_intensity", path)
        notes.append(f"the projections are divided by {white:g}, the highest intensity that {path.name} says")
        flats = np.full_like(projections[:1], white)
    else:
        flats = frames.read(str(flat["filename"]), int(_number(flat, "number", path)))
    darks = None
    if not dark.get("projections_corrected") and dark.get("filename"):
        darks = frames.read(str(dark["filename"]), int(_number(dark, "number", path)))
    names = ("projections", "flat_field", "dark_field")
    # Detector rows go down: a frame's first one is the highest.
    return Counts(projections, flats, darks, names=names)


class _Frames:
    """Frames in files without headers, as the metadata describe them."""

    def __init__(self, output: Any, path: Path, around: Path) -> None:
        self.path, self.around = path, around
        name = str(_at(output, "datatype", path))
        if name not in _DTYPES:
            raise InputError(f"datatype {name!r} is none of {', '.join(_DTYPES)}", field="input", remedy="correct it")
        self.dtype = np.dtype(name).newbyteorder(">" if output.get("byteorder") == "big" else "<")
        self.shape = (int(_length(output, "dimensions.y", path)), int(_length(output, "dimensions.x", path)))
        header = output.get("headersize") or {}
        self.skipped = int(header.get("file") or 0), int(header.get("image") or 0)
        if min(*self.shape, *(size + 1 for size in self.skipped)) < 1:
            raise InputError(f"{path.name} says frames of {self.shape}", field="input", remedy="correct it")

    def read(self, name: str, count: int) -> Frames:
        """Read so many frames: of one file, or of numbered ones."""
        if not 0 < count <= _MOST_FRAMES:
            raise InputError(f"{self.path.name} says {count} frames of {name}", field="input", remedy="correct it")
        check_size((count, *self.shape), 4)
        if "%" not in name:
            return self._of_file(name, count)
        try:
            names = [name % number for number in range(count)]
        except (TypeError, ValueError) as error:
            raise InputError(f"{name!r} is no pattern of numbered files", field="input", remedy="correct it") from error
        return np.concatenate([self._of_file(one, 1) for one in names])

    def _of_file(self, name: str, count: int) -> Frames:
        place = existing(_named(self.path, self.around, name))
        if place.suffix.lower() != ".raw":
            raise InputError(
                f"{place.name} is not .raw: of CTSimU's files those without headers are read",
                field="input",
                remedy="give the scan as one raw file, or its TIFFs with vectors of ct-cone",
            )
        each = self.shape[0] * self.shape[1] * self.dtype.itemsize
        needed = self.skipped[0] + count * (self.skipped[1] + each)
        if place.stat().st_size != needed:
            raise InputError(
                f"{place.name} has {place.stat().st_size} bytes, {count} frames of {self.shape} {self.dtype} have"
                f" {needed}",
                field="input",
                remedy="copy it again, or correct number, dimensions or datatype in the metadata",
            )
        found = np.empty((count, *self.shape), np.float32)
        with place.open("rb") as stream:
            stream.seek(self.skipped[0])
            for index in range(count):
                stream.seek(self.skipped[1], 1)
                found[index] = np.frombuffer(stream.read(each), self.dtype).reshape(self.shape)
        return found


def _vectors(scenario: Any, path: Path, count: int, shape: tuple[int, int]) -> Place:
    """Twelve numbers per view in the stage's frame: its ``u`` along x, its ``w`` along z."""
    geometry = _at(scenario, "geometry", path)
    for part in ("source", "detector", "stage"):
        if _at(geometry, part, path).get("deviations"):
            raise GeometryError(
                f"{path.name} says deviations of the {part}, which are not read",
                field="input",
                remedy="give the places of source and detector as acquisition.vectors",
            )
    detector = _at(scenario, "detector", path)
    size = tuple(int(_length(detector, name, path)) for name in ("rows", "columns"))
    if size != shape:
        raise GeometryError(
            f"{path.name} says a detector of {size}, the projections have {shape}",
            field="input",
            remedy="give the scenario of these projections",
        )
    source = _place(geometry, "source.center", path)
    centre, stage = _place(geometry, "detector.center", path), _place(geometry, "stage.center", path)
    across, normal = (_unit(_place(geometry, f"detector.vector_{name}", path)) for name in "uw")
    u = across * _length(detector, "pixel_pitch.u", path)
    v = np.cross(normal, across) * _length(detector, "pixel_pitch.v", path)
    first, axis = (_unit(_place(geometry, f"stage.vector_{name}", path)) for name in "uw")
    frame = np.stack([first, np.cross(axis, first), axis])
    seen = np.stack([frame @ (source - stage), frame @ (centre - stage), frame @ u, frame @ v])
    return np.stack([(seen @ _about_z(-angle).T).reshape(-1) for angle in _angles(scenario, path, count)])


def _angles(scenario: Any, path: Path, count: int) -> Place:
    """Angles of the stage in radians, counterclockwise about its axis."""
    taken = _at(scenario, "acquisition", path)
    start, stop = (_length(taken, f"{end}_angle", path) for end in ("start", "stop"))
    wanted = int(_number(taken, "number_of_projections", path))
    if wanted != count:
        raise GeometryError(
            f"{path.name} says {wanted} projections, the metadata {count}",
            field="input",
            remedy="give the scenario of these projections",
        )
    steps = wanted - 1 if taken.get("include_final_angle") else wanted
    sign = -1.0 if str(taken.get("direction", "CCW")).upper() == "CW" else 1.0
    return np.asarray(start + sign * (stop - start) / max(steps, 1) * np.arange(wanted))


def _about_z(angle: float) -> Place:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _unit(vector: Place) -> Place:
    length = float(np.linalg.norm(vector))
    if not length > 0:
        raise GeometryError("a vector of the scenario is zero", field="input", remedy="correct it in the file")
    return np.asarray(vector / length)


def _place(value: Any, name: str, path: Path) -> Place:
    return np.array([_length(value, f"{name}.{axis}", path) for axis in "xyz"])


def _length(value: Any, name: str, path: Path) -> float:
    """Number with a unit, in mm or radians; without one if it has none."""
    found = _at(value, name, path)
    unit = str(found.get("unit", "px")) if isinstance(found, dict) else "px"
    if unit not in _LENGTHS_MM:
        raise InputError(f"{path.name}: the unit of {name} is {unit!r}", field="input", remedy="give mm or deg")
    return _number(found, "value", path) * _LENGTHS_MM[unit]


def _number(value: Any, name: str, path: Path) -> float:
    found = _at(value, name, path)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise InputError(f"{path.name}: {name} is {found!r}, no number", field="input", remedy="correct it in the file")
    return float(found)


def _at(value: Any, name: str, path: Path) -> Any:
    """Entry of nested objects by its dotted name."""
    for part in name.split("."):
        if not isinstance(value, dict) or value.get(part) is None:
            raise InputError(
                f"{path.name} lacks {name}", field="input", remedy="give CTSimU's files as they were written"
            )
        value = value[part]
    return value


def _named(path: Path, around: Path, name: str) -> Path:
    """File that a file names, relative to itself."""
    place = (path.parent / name.replace("\\", "/")).resolve()
    if not lies_in(place, around):
        raise InputError(
            f"{path.name} names {name}, outside what is given",
            field="input",
            remedy="give the folder that holds both as input.path, and this file in input.file",
        )
    return place


def _json(path: Path) -> Any:
    if existing(path).stat().st_size > _MOST_BYTES:
        raise InputError(f"{path.name} is too long for a description", field="input", remedy="give CTSimU's JSON")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is no JSON: {reason(error)}", field="input", remedy="copy it again") from error


def _is_ctsimu(path: Path) -> bool:
    """Whether JSON is CTSimU's metadata of projections."""
    with path.open("rb") as stream:
        return b'"CTSimU Metadata"' in stream.read(_FIRST_BYTES)


FORMAT = Format(
    name="ctsimu",
    endings=(".json",),
    magic=(b"{",),
    read=_read,
    recognises=_is_ctsimu,
    names_others=True,
)
