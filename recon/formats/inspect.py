"""Inspection: what a file holds, what of its geometry is missing, and a specification to start from.

Of formats that read single slices one slice is read, the middle one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError, ReconError
from recon.formats import detect, hdf5, reader
from recon.formats.detect import Found
from recon.formats.format import Content, Incomplete, KnownVolume, PlainArray, RawCounts, StoredArray
from recon.formats.listing import listing
from recon.formats.safety import TooFewSlices
from recon.measurement.coils import described
from recon.measurement.measurement import Measurement
from recon.measurement.preparation.fields import line_integrals
from recon.spec.acquisitions import Acquisition
from recon.spec.acquisitions.ct import CT, AngleRange
from recon.spec.affine import Affine, voxel_size
from recon.spec.contents import Angles, Contents, DataSet, Missing, ValueRange
from recon.spec.job import Input
from recon.spec.preparation import Preparation
from recon.spec.registry import ACQUISITIONS, FORMATS
from recon.storage.patterns import gathered, is_pattern

Shown = PlainArray | KnownVolume | Measurement
"""Data that are shown of a file: of raw counts their line integrals."""
_QUESTIONS = "input."
"""Fields of an input are what a user is asked about a file that is well; all else is wrong with the file."""
_BEYOND = (10**9, 10**9 + 1)
"""Slices that no file has: who is asked for them says how many there are, before anything is read."""
_STAND_INS: dict[str, Any] = {
    "detector_mm": 1.0, "source_origin_mm": 1000.0, "origin_detector_mm": 1000.0, "rows": 64,
}  # fmt: skip
"""Values of missing fields with which the next missing one is found."""
_NOT_SHOWN = {"kind", "angles_rad"}


def inspect(path: Path, given: Input) -> Contents:
    """Inspect the file or folder at `path`.

    Parameters
    ----------
    given
        The input as far as it is known: path or upload, and what was chosen.

    Raises
    ------
    InputError, ResourceLimit
        If the file is damaged, or refused by its reader for any reason but a question that the input can answer.
    """
    if given.path is not None and is_pattern(path):
        path = gathered(path)
    if not path.exists():
        raise InputError(
            f"there is no file {path.name} in {path.parent.resolve()}", field="input.path", remedy="check the path"
        )
    try:
        found = _located(path, given)
    except InputError as error:
        return _asked(error, given, None, _outside(path, None))
    outside = _outside(path, found)
    try:
        found = _with_dataset(found, outside["datasets"])
        content, slices, count = _read(found)
    except InputError as error:
        return _asked(error, given, found, outside)
    return _Inspection(found, content, slices, count).contents(outside)


def _located(path: Path, given: Input) -> Found:
    """The file and its format; HDF5 that no format recognises is a choice among its data sets."""
    try:
        return detect.locate(path, given)
    except InputError as error:
        inside = path if given.file is None else path / given.file
        if error.field != "input.format" or not inside.is_file() or not hdf5.is_hdf5(inside):
            raise
        return Found(inside, given, FORMATS["hdf5"], "its first bytes")


def _asked(error: InputError, given: Input, found: Found | None, outside: dict[str, Any]) -> Contents:
    """Contents of what is not read before a question is answered; raises `error` if it is none.

    Of a measurement that lacks something its geometry is shown.
    """
    field = error.field or ""
    if not (field.startswith(_QUESTIONS) or isinstance(error, Incomplete)):
        raise error
    missing = Missing(field=field, why=error.message, remedy=error.remedy)
    known: dict[str, Any] = {}
    if isinstance(error, Incomplete):
        known = {
            "holds": "measurement",
            "kind": error.stated.kind,
            "shape": list(error.shape),
            "axes": list(error.stated.AXES),
            "angles": _angles(error.stated, error.notes),
            "geometry": _geometry(error.stated),
            "notes": error.notes,
        }
    specification = _specification(given, found, [missing])
    return Contents(**outside, **known, missing=[missing], specification=specification)


def _with_dataset(found: Found, datasets: list[DataSet]) -> Found:
    """Choose the only data set of an HDF5 file without a layout; raises `InputError` if there are several."""
    if found.format.name != "hdf5" or found.given.dataset is not None or hdf5.is_measurement(found.path):
        return found
    fits = [d.name for d in datasets if d.shape is not None and len(d.shape) > 1 and d.note is None]
    if {"data", "kspace"} & set(fits):
        return found
    if len(fits) != 1:
        raise InputError(
            f"the file holds {len(fits)} arrays that could be meant",
            field="input.dataset",
            remedy=f"choose one of: {', '.join(fits[:20])}" if fits else "give another file",
        )
    return replace(found, given=found.given.model_copy(update={"dataset": fits[0]}))


def _read(found: Found) -> tuple[Shown, tuple[int, int] | None, int | None]:
    """Read the middle slice, or all if the format cannot; returns the slices that were read and their number."""
    if found.format.read is None:
        raise InputError(f"{found.format.name} is a format of results only", field="input.format")
    content, slices, count = _selected(found, found.format.read)
    if isinstance(content, RawCounts):
        return _shown(content), slices, count
    if not (isinstance(content, PlainArray) and isinstance(content.data, StoredArray)):
        return content, slices, count
    stored = content.data
    if stored.nbytes <= reader.SAMPLED_BYTES or len(stored.shape) < 3:
        return replace(content, data=stored.read(0, stored.shape[0])), None, None
    middle = (stored.shape[0] // 2, stored.shape[0] // 2 + 1)
    return replace(content, data=stored.read(*middle)), middle, stored.shape[0]


def _shown(content: RawCounts) -> Measurement | PlainArray:
    """Line integrals of raw counts."""
    content.counts.check()
    seen = line_integrals(content.counts, Preparation())
    notes = [*content.notes, *(f"{step.name}: {step.text}" for step in seen.steps)]
    if isinstance(content.stated, Acquisition):
        return Measurement(seen.data, content.stated, noise_std=seen.noise_std, notes=notes)
    return PlainArray(seen.data, content.stated, seen.noise_std, notes)


def _selected(
    found: Found, read: Callable[[Path, Input], Content]
) -> tuple[Content, tuple[int, int] | None, int | None]:
    """Let the format read the middle slice, or what it must."""
    if not found.format.selects or found.given.slices is not None:
        wanted = found.given.slices if found.format.selects else None
        return read(found.path, found.given), wanted, None
    try:
        return read(found.path, found.given.model_copy(update={"slices": _BEYOND})), None, None
    except TooFewSlices as error:
        middle = (error.count // 2, error.count // 2 + 1)
        try:
            content = read(found.path, found.given.model_copy(update={"slices": middle}))
        except InputError as refused:
            if refused.field != "input.slices":
                raise
            # A thick slice in the middle may begin in the middle of a thin one; the first does not.
            middle = (0, 1)
            content = read(found.path, found.given.model_copy(update={"slices": middle}))
        return content, middle, error.count
    except InputError as refused:  # what it has are no slices: rows of a cone beam
        if refused.field != "input.slices":
            raise
        return read(found.path, found.given), None, None


def _outside(path: Path, found: Found | None) -> dict[str, Any]:
    """Facts that are known without reading the numbers: format, sizes, and names inside."""
    datasets, more = listing(path if found is None else found.path)
    names = list(detect.files(path)) if path.is_dir() else []
    return {
        "file": None if found is None else found.given.file,
        "format": None if found is None else found.format.name,
        "told_by": None if found is None else found.how,
        "bytes": sum((path / name).stat().st_size for name in names) if path.is_dir() else path.stat().st_size,
        "files": len(names) if path.is_dir() else 1,
        "datasets": datasets,
        "datasets_left_out": more,
    }


def _specification(given: Input, found: Found | None, missing: list[Missing], **more: Any) -> dict[str, Any]:
    """Specification to start from: what is known, and a place for each missing field."""
    known = given if found is None else found.given
    data = known.model_dump(mode="json", exclude_none=True, exclude={"simulate"})
    if found is not None:
        data["format"] = found.format.name
    value: dict[str, Any] = {"input": data, **more, "method": "auto"}
    for item in missing:
        if item.field == "input":  # no field, but the file itself lacks something
            continue
        *parents, last = item.field.split(".")
        place = value
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = item.suggestion
    order = ("input", "acquisition", "method")
    return {name: value[name] for name in order if name in value}


class _Inspection:
    """Content of a file with what can be said of it."""

    def __init__(self, found: Found, content: Shown, slices: tuple[int, int] | None, count: int | None) -> None:
        assert not isinstance(content.data, StoredArray)  # see `_read`
        self.found, self.content, self.data = found, content, content.data
        self.missing: list[Missing] = []
        self.acquisition, self.suggested = self._acquisition()
        shape = self.data.shape
        axes = None if self.acquisition is None or isinstance(content, KnownVolume) else self.acquisition.AXES
        missing_axis = axes is not None and len(shape) == len(axes) - 1
        self.count = (1 if missing_axis else shape[0]) if count is None else count
        self.slices = slices or (0, self.count)
        self.shape = shape if missing_axis or count is None else (count, *shape[1:])

    def contents(self, outside: dict[str, Any]) -> Contents:
        """Collect everything, with what was said without reading."""
        content, acquisition = self.content, self.acquisition
        if acquisition is not None and not isinstance(content, KnownVolume):
            self._find_missing(acquisition)
        affine = content.affine if isinstance(content, Measurement | KnownVolume) else None
        in_patient = content.in_patient if affine is not None and not isinstance(content, PlainArray) else None
        return Contents(
            **outside,
            holds=self._holds(),
            kind=None if acquisition is None or self.suggested else acquisition.kind,
            shape=list(self.shape),
            axes=self._axes(),
            values=self._values(),
            angles=None if acquisition is None else _angles(acquisition, content.notes),
            geometry=self._geometry(affine),
            affine=None if affine is None else [[float(v) for v in row] for row in affine],
            in_patient=in_patient,
            orientation=_orientation(affine) if affine is not None and in_patient else None,
            notes=[*content.notes, *self._noise()],
            missing=self.missing,
            specification=_specification(self.found.given, self.found, self.missing, **self._more()),
        )

    def _holds(self) -> Literal["measurement", "volume", "array"]:
        match self.content:
            case Measurement():
                return "measurement"
            case KnownVolume():
                return "volume"
            case PlainArray():
                return "array"

    def _acquisition(self) -> tuple[Acquisition | None, bool]:
        """The acquisition that the file states, or the first that fits its values, and whether it is the latter."""
        content = self.content
        if isinstance(content, Measurement):
            return content.acquisition, False
        if isinstance(content, KnownVolume):
            why = "a known volume: say how its measurement is simulated"
            fits, refused = _kinds_of_volume(content, self.found.given)
        else:
            why = "the file does not say how it was measured"
            fits, refused = _kinds_of_array(content, self.data)
        suggestion = fits[0] if fits else None
        why = "; ".join([why, *refused])
        remedy = f"give {' or '.join(fits)}" if fits else "no kind of acquisition fits"
        self.missing.append(Missing(field="acquisition.kind", why=why, remedy=remedy, suggestion=suggestion))
        if suggestion is None:
            return None, True
        stated = content.stated if isinstance(content, PlainArray) else {}
        return reader.with_stated(ACQUISITIONS[suggestion](), stated), True

    def _find_missing(self, acquisition: Acquisition) -> None:
        """Ask the acquisition for the result's shape, again and again, each time with one answer more."""
        shape = self.shape
        if len(shape) == len(acquisition.AXES) - 1:
            if isinstance(self.content, PlainArray) and not self.content.order_known:
                try:
                    acquisition.check_missing_axis(shape)
                except InputError as error:
                    self._note_missing(error, acquisition)
                    return
            at = acquisition.missing_axis()
            shape = (*shape[:at], 1, *shape[at:])
        if len(shape) != len(acquisition.AXES):
            raise InputError(f"shape {shape}, expected {acquisition.axes}", field="input")
        stand_ins = {**_STAND_INS, "angles_rad": AngleRange(count=max(1, shape[1]))}
        while (complaint := _complaint(acquisition, shape, self.data if self.suggested else None)) is not None:
            name = (complaint.field or "").removeprefix("acquisition.")
            if getattr(acquisition, name, 0) is not None:
                if not self.missing:
                    raise complaint
                return  # the stand-ins contradict each other
            self._note_missing(complaint, acquisition, shape)
            if name not in stand_ins:
                return
            acquisition = acquisition.model_copy(update={name: stand_ins[name]})

    def _note_missing(self, error: ReconError, acquisition: Acquisition, shape: tuple[int, ...] = ()) -> None:
        field, remedy = error.field or "", error.remedy
        described = type(acquisition).model_fields[field.removeprefix("acquisition.")].description or ""
        if field == "acquisition.angles_rad":
            turn_rad, turn = (math.pi, "half a turn") if acquisition.kind == "ct-parallel" else (2 * math.pi, "a turn")
            evenly = f"{{start_rad: 0, stop_rad: {turn_rad:.7f}, count: {shape[1]}}}"
            remedy = f"give them, or for {turn}, its end not measured: {evenly}"
        why = f"{described.partition('.')[0]}: {error.message}"
        self.missing.append(Missing(field=field, why=why, remedy=remedy))

    def _axes(self) -> list[str] | None:
        if isinstance(self.content, KnownVolume):
            return ["slices", "rows", "cols"]
        if self.acquisition is None:
            return None
        axes = list(self.acquisition.AXES)
        if len(self.shape) == len(axes) - 1:
            del axes[self.acquisition.missing_axis()]
            if any(item.field == "acquisition.first_axis" for item in self.missing):
                return None
        return axes if len(axes) == len(self.shape) else None

    def _values(self) -> ValueRange | None:
        values = np.abs(self.data) if self.data.dtype.kind == "c" else self.data
        lowest, highest = float(values.min()), float(values.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            return None  # and the reader of the job names the value
        first, last = self.slices
        return ValueRange(lowest=lowest, highest=highest, slices=(first, last))

    def _geometry(self, affine: Affine | None) -> dict[str, float | int | str]:
        found: dict[str, float | int | str] = {}
        if self.acquisition is not None and not isinstance(self.content, KnownVolume):
            found = _geometry(self.acquisition)
        if isinstance(self.content, KnownVolume) and affine is not None:
            col_mm, row_mm, slice_mm = voxel_size(affine)
            found = {"pixel_mm": round(col_mm, 6), "row_mm": round(row_mm, 6), "slice_mm": round(slice_mm, 6)}
            if math.isclose(col_mm, row_mm, rel_tol=1e-6):
                del found["row_mm"]
        noise = None if isinstance(self.content, KnownVolume) else self.content.noise_std
        return found if noise is None else {**found, "noise_std": noise}

    def _noise(self) -> list[str]:
        """Findings of noise readouts about the coils."""
        covariance = self.content.noise_covariance if isinstance(self.content, Measurement) else None
        return [] if covariance is None else [described(covariance)]

    def _more(self) -> dict[str, Any]:
        """The kind of acquisition, where the specification has an acquisition at all."""
        asked = any(item.field.startswith("acquisition.") for item in self.missing)
        if self.acquisition is None or not (asked or isinstance(self.content, PlainArray)):
            return {}
        return {"acquisition": {"kind": self.acquisition.kind}}


def _angles(acquisition: Acquisition, notes: list[str]) -> Angles | None:
    """Angles that are known of an acquisition, and the note that says where they come from."""
    if not isinstance(acquisition, CT) or not (angles := acquisition.angles()):
        return None
    degrees = np.rad2deg(np.asarray(angles))
    steps = np.diff(degrees)
    step = float(np.median(steps)) if len(steps) else None
    even = step is None or bool(np.abs(steps - step).max() <= 0.1 * abs(step))
    named = [note for note in notes if "angle" in note]
    return Angles(
        count=len(degrees),
        first_deg=round(float(degrees[0]), 6),
        last_deg=round(float(degrees[-1]), 6),
        step_deg=None if step is None else round(step, 6),
        equispaced=even,
        source=named[0] if named else "the file",
    )


def _geometry(acquisition: Acquisition) -> dict[str, float | int | str]:
    """Fields of an acquisition that are known, besides the angles."""
    fields = acquisition.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_SHOWN)
    return {name: value for name, value in fields.items() if isinstance(value, float | int | str)}


def _kinds_of_volume(volume: KnownVolume, given: Input) -> tuple[list[str], list[str]]:
    """Kinds of acquisition that can measure a volume, and why others cannot."""
    fits, refused = [], []
    for kind, of in ACQUISITIONS.items():
        try:
            reader.check_volume(volume, of(), given)
            fits.append(kind)
        except InputError as error:
            refused.append(f"{kind} does not fit: {error.message}")
    return fits, refused[:1]


def _kinds_of_array(array: PlainArray, data: NDArray[np.generic]) -> tuple[list[str], list[str]]:
    """Kinds of acquisition whose measurement an array can be, and why others cannot."""
    fits, refused = [], []
    for kind, of in ACQUISITIONS.items():
        given = {name for name, value in array.stated.items() if value is not None}
        axes = len(of.AXES) - data.ndim
        if (data.dtype.kind == "c") != of.COMPLEX_DATA or axes not in (0, 1) or given - of.model_fields.keys():
            continue
        try:
            of().check(_stacked(data, of()))
        except InputError as error:
            if error.field == "input":
                refused.append(f"{kind} does not fit: {error.message}")
                continue
        fits.append(kind)
    return fits, refused[:1]


def _complaint(acquisition: Acquisition, shape: tuple[int, ...], data: NDArray[np.generic] | None) -> ReconError | None:
    """Complaint of an acquisition about a measurement of `shape`, and about its `data`."""
    try:
        acquisition.result_shape(shape)
        if data is not None:
            acquisition.check(_stacked(data, acquisition))
    except ReconError as error:
        return error
    return None


def _stacked(data: NDArray[np.generic], acquisition: Acquisition) -> NDArray[np.generic]:
    missing = data.ndim == len(acquisition.AXES) - 1
    return np.expand_dims(data, acquisition.missing_axis()) if missing else data


def _orientation(affine: Affine) -> str:
    from nibabel.orientations import aff2axcodes

    return "".join(cast(tuple[str, ...], aff2axcodes(affine)))
