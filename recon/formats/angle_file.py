"""Angle files beside images: numbers as text, CSV, JSON, or ``.tlt`` as electron microscopes write them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from operators.errors import InputError
from recon.formats.detector_frames import angles_rad
from recon.spec.validation import reason

_ENDINGS = (".txt", ".csv", ".json", ".tlt", ".rawtlt")
_NAMED = re.compile(r"angle|theta|tilt|tlt", re.IGNORECASE)
_MOST_BYTES = 10_000_000
_ANGLES = "give one angle per line, or give acquisition.angles_rad and take the file away"


def beside(folder: Path) -> Path | None:
    """Find the angle file of a folder: the only one that is called so.

    Raises
    ------
    InputError
        If there are several.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS and _NAMED.search(p.name))
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise InputError(f"there are several files of angles: {names}", field="input", remedy="leave one there")
    return found[0] if found else None


def read(path: Path, notes: list[str]) -> list[float]:
    """Read angles in radians; the unit is that of the column, of the file's name, or told by the range.

    Raises
    ------
    InputError
        If the file is large, or holds something else.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{path.name} has {path.stat().st_size} bytes: these are no angles", field="input", remedy=_ANGLES
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        name, values = _of_json(json.loads(text)) if path.suffix.lower() == ".json" else _of_text(text)
        angles = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path.name} holds no list of angles: {reason(error)}",
            field="input",
            remedy=_ANGLES,
        ) from error
    if not angles.size:
        raise InputError(f"{path.name} holds no angles", field="input", remedy=_ANGLES)
    unit = unit_in(name) or unit_in(path.stem) or ("deg" if path.suffix.lower() in (".tlt", ".rawtlt") else None)
    before = len(notes)
    found = angles_rad(angles, unit, path.name, notes)
    if len(notes) == before:
        notes.append(f"{len(found)} angles in {'degrees' if unit != 'rad' else 'radians'} from {path.name}")
    return found


def unit_in(name: str) -> str | None:
    """Unit of angles, ``deg`` or ``rad``, if it is a word of their name: of ``theta_rad`` or ``thetaRad``."""
    words = re.findall(r"[a-z°]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    for unit, spellings in (("deg", ("deg", "degree", "degrees", "°")), ("rad", ("rad", "radian", "radians"))):
        if any(word in spellings for word in words):
            return unit
    return None


def _of_json(value: Any) -> tuple[str, list[Any]]:
    """Name and values of the list of angles."""
    if isinstance(value, dict):
        names = [name for name, held in value.items() if isinstance(held, list) and _NAMED.search(name)]
        if len(names) != 1:
            raise ValueError("no entry, or several, with a list of angles")
        return names[0], value[names[0]]
    if not isinstance(value, list):
        raise ValueError("expected a list")
    return "", value


def _of_text(text: str) -> tuple[str, list[float]]:
    """Heading and values of the column of angles, or of the only one."""
    lines = [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")]
    rows = [[cell.strip() for cell in re.split(r"[,;\t]|\s+", line) if cell.strip()] for line in lines]
    heading: list[str] = []
    if rows and any(re.search("[a-df-zA-DF-Z]", cell) for cell in rows[0]):
        heading, rows = [lines[0]], rows[1:]
    if len(rows) == 1 and not heading:
        return "", [float(cell) for cell in rows[0]]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError("rows of different lengths")
    if heading and widths:
        heading = _cells(heading[0], widths.pop())
    named = [i for i, name in enumerate(heading) if _NAMED.search(name)]
    column = named[0] if len(named) == 1 else 0
    if not named and any(len(row) != 1 for row in rows):
        raise ValueError("several columns, and none is called angle")
    return heading[column] if heading else "", [float(row[column]) for row in rows]


def _cells(heading: str, width: int) -> list[str]:
    """Names of the columns: what stands between commas, or else between spaces; a unit in brackets is no column."""
    for separator in (r"[,;\t]", r"\s+(?![(\[])"):
        cells = [cell.strip() for cell in re.split(separator, heading.strip())]
        if len(cells) == width:
            return cells
    raise ValueError(f"a heading of {len(cells)} columns over rows of {width}")
