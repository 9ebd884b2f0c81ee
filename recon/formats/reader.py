"""Reader: turns a job's input into a `Measurement`. The format reads, the acquisition checks plausibility."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import InputError
from recon.formats import bart, numpy_files
from recon.formats.detect import Found, inner, locate
from recon.formats.format import Content, KnownVolume, PlainArray
from recon.formats.safety import check_finite, check_size, real, slice_range, stack
from recon.measurement.header import Header
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.spec.acquisitions import Acquisition, check_method
from recon.spec.affine import Affine, shear_rad, shifted_affine, voxel_size
from recon.spec.files import File
from recon.spec.job import Input, JobSpec
from recon.spec.registry import ACQUISITIONS
from recon.spec.simulation import Simulation
from recon.spec.validation import invalid

STRAIGHT_RAD = 0.01
"""Shear of voxels up to which they count as straight: under a voxel over the height of any stack that is usual."""
OTHER_GRID = "another voxel grid than the file's: its affine and its known volume do not apply"


def read(spec: JobSpec, files: Mapping[str, Path]) -> Measurement:
    """Read and check a job's measurement.

    Parameters
    ----------
    spec
        The job.
    files
        Local path of each file of ``spec.files()``.

    Raises
    ------
    InputError
        Whatever is wrong, with the field.
    """
    found = locate(files["input"], spec.input)
    content = _content(spec, found)
    if _to_be_measured(content, spec):
        volume, acquisition = _known_volume(content, spec)
        first, _ = spec.input.slices or (0, 0)
        measurement = simulate(volume.data, volume.affine, acquisition, spec.input.simulate or Simulation(), first)
        notes = [*measurement.notes, *volume.notes]
        return replace(measurement, in_patient=volume.in_patient, codes=volume.codes, notes=notes)
    return _measured(spec, files, found, content)


def check(spec: JobSpec, files: Mapping[str, Path]) -> Header:
    """Check without torch for everything that `read` would refuse, and for impossible geometries; for API and plans."""
    found = locate(files["input"], spec.input)
    content = _content(spec, found)
    if _to_be_measured(content, spec):
        volume, given = _known_volume(content, spec)
        settings = spec.input.simulate or Simulation()
        acquisition, shape = given.simulated(volume.data.shape, volume.affine, settings)
        size = max(_source_bytes(found.path), volume.data.nbytes, acquisition.data_bytes(shape))
        return Header(acquisition=acquisition, shape=shape, source_bytes=size, known=True)
    measurement = _measured(spec, files, found, content)
    measurement.acquisition.result_shape(measurement.data.shape)
    return header(measurement, spec, files)


def header(measurement: Measurement, spec: JobSpec, files: Mapping[str, Path]) -> Header:
    """Make the header of a job's measurement that was read."""
    found = locate(files["input"], spec.input)
    whole = 0 if found.format.selects else _source_bytes(found.path)
    return Header(
        acquisition=measurement.acquisition,
        shape=measurement.data.shape,
        source_bytes=max(whole, measurement.data.nbytes, 0 if measurement.truth is None else measurement.truth.nbytes),
        known=measurement.truth is not None,
        coil_maps=measurement.coil_maps is not None,
    )


def _source_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _content(spec: JobSpec, found: Found) -> Content:
    """Read the content of the input file."""
    if found.format.read is None:
        raise InputError(
            f"{found.format.name} is a format of results only", field="input.format", remedy="give another file"
        )
    if spec.input.simulate is not None and not found.format.volumes:
        raise InputError(
            "a measurement is not simulated again",
            field="input.simulate",
            remedy="leave simulate out, or give a known volume as NIfTI",
        )
    if found.format.volumes:
        _required_acquisition(spec)
    return found.format.read(found.path, found.given)


def _to_be_measured(content: Content, spec: JobSpec) -> TypeGuard[KnownVolume]:
    """Whether the input is a known volume whose measurement is simulated."""
    if not isinstance(content, KnownVolume):
        return False
    return not _required_acquisition(spec).MEASURES_VOLUMES or spec.input.simulate is not None


def _measured(spec: JobSpec, files: Mapping[str, Path], found: Found, content: Content) -> Measurement:
    match content:
        case Measurement():
            measurement = _completed(content, spec)
        case KnownVolume():
            measurement = _stack(content, spec)
        case PlainArray():
            acquisition = with_stated(_required_acquisition(spec), content.stated)
            measurement = _plain(content, acquisition)
            measurement = replace(measurement, noise_std=content.noise_std, notes=list(content.notes))
    measurement = _with_files(measurement, spec, files)
    acquisition = measurement.acquisition
    if measurement.data.ndim != len(acquisition.AXES):
        raise InputError(f"shape {measurement.data.shape}, expected {acquisition.axes}", field="input")
    if not found.format.selects:
        measurement = _selected(measurement, spec)
    check_finite(measurement.data)
    acquisition.check(measurement.data, mask=measurement.mask, coil_maps=measurement.coil_maps, **measurement.files)
    if acquisition.refined is not None:
        check_size(acquisition.result_shape(measurement.data.shape), 8, "acquisition.factor")
    if measurement.truth is None:  # a simulated measurement shows no more than its volume
        acquisition, notes = acquisition.completed_from(measurement.data)
        measurement = replace(measurement, acquisition=acquisition, notes=[*measurement.notes, *notes])
    _check_methods(spec, measurement.acquisition)
    return measurement


def _plain(array: PlainArray, acquisition: Acquisition) -> Measurement:
    data = array.data
    if not acquisition.COMPLEX_DATA:
        return Measurement(stack(real(data), acquisition), acquisition)
    if data.dtype.kind != "c":
        raise InputError(
            f"dtype {data.dtype}, k-space must be complex",
            field="input",
            remedy="export both parts: without the phase there is no image",
        )
    if not array.order_known and data.ndim == len(acquisition.AXES) - 1:
        acquisition.check_missing_axis(data.shape)
    return Measurement(stack(data, acquisition).astype(np.complex64), acquisition)


def with_stated(acquisition: Acquisition, stated: dict[str, Any]) -> Acquisition:
    """Add what the file states to what the user gives; the user's values win."""
    wanted = {
        k: v for k, v in stated.items() if k in type(acquisition).model_fields and getattr(acquisition, k) is None
    }
    try:
        return type(acquisition).model_validate({**acquisition.model_dump(exclude_unset=True), **wanted})
    except ValidationError as error:
        raise invalid(error, "the input") from error


def _stack(volume: KnownVolume, spec: JobSpec) -> Measurement:
    acquisition = _required_acquisition(spec)
    _check_straight(volume.affine)
    col_mm, _, slice_mm = voxel_size(volume.affine)
    stated = {"pixel_mm": col_mm, "slice_mm": slice_mm}
    for name, size_mm in stated.items():
        given = getattr(acquisition, name, None)
        if given is not None and not math.isclose(given, size_mm, rel_tol=1e-3):
            raise InputError(
                f"{given:g} mm, but the file's header says {size_mm:g} mm",
                field=f"acquisition.{name}",
                remedy="leave it out, or correct the header, which also places the result",
            )
    return Measurement(
        volume.data,
        acquisition.model_copy(update=stated),
        affine=acquisition.result_affine(volume.affine, volume.data.shape),
        in_patient=volume.in_patient,
        codes=volume.codes,
        notes=list(volume.notes),
    )


def _completed(measurement: Measurement, spec: JobSpec) -> Measurement:
    """Combine what the file states with what the user gives; the user's values win."""
    if spec.acquisition is None:
        return measurement
    stated = measurement.acquisition
    acquisition = stated.completed_by(spec.acquisition)
    if acquisition.same_grid(stated) or (measurement.affine is None and measurement.truth is None):
        return replace(measurement, acquisition=acquisition)
    notes = [*measurement.notes, OTHER_GRID]
    return replace(measurement, acquisition=acquisition, affine=None, truth=None, notes=notes)


def _known_volume(content: KnownVolume, spec: JobSpec) -> tuple[KnownVolume, Acquisition]:
    """Cut the part of the volume whose measurement is simulated, and check it."""
    acquisition = _required_acquisition(spec)
    if spec.input.slices is not None:
        first, last = slice_range(spec.input.slices, len(content.data))
        content = replace(content, data=content.data[first:last], affine=shifted_affine(content.affine, first))
    for name in acquisition.files():
        raise InputError(
            "has no effect on a measurement that is simulated",
            field=f"acquisition.{name}",
            remedy="leave it out; input.simulate says how the samples are chosen",
        )
    check_volume(content, acquisition, spec.input)
    _check_methods(spec, acquisition)
    return content, acquisition


def check_volume(volume: KnownVolume, acquisition: Acquisition, given: Input) -> None:
    """Raise `InputError` unless an acquisition can measure a volume: its unit, its voxels, its values."""
    _check_straight(volume.affine)
    acquisition.check_unit(volume.data, given.unit or volume.unit)
    acquisition.check_volume(volume.data, volume.affine)


def _check_straight(affine: Affine) -> None:
    """Refuse slices that are sheared against each other, as a tilted gantry leaves them, or pixels in themselves."""
    angle = shear_rad(affine)
    if angle > STRAIGHT_RAD:
        raise InputError(
            f"the voxels are sheared by {math.degrees(angle):.1f} degrees, as those of a tilted gantry",
            field="input",
            remedy="resample the volume to axes at right angles",
        )


def _with_files(measurement: Measurement, spec: JobSpec, files: Mapping[str, Path]) -> Measurement:
    """Add the arrays in the files that the acquisition names."""
    named = {name: file for name, file in measurement.acquisition.files().items() if f"acquisition.{name}" in files}
    arrays = {name: _array(files[f"acquisition.{name}"], file, f"acquisition.{name}") for name, file in named.items()}
    found: dict[str, Any] = measurement.acquisition.read_files(arrays)
    for name, array in found.items():
        check_finite(array, f"acquisition.{name}")
    maps = found.get("coil_maps")
    if maps is not None and maps.ndim == 4 and len(maps) > len(measurement.data) and spec.input.slices is not None:
        found["coil_maps"] = maps[slice(*spec.input.slices)]  # the file's reader has selected slices already
    own = {name: found.pop(name) for name in ("mask", "coil_maps") if name in found}
    replaced = set().union(*(group for group in measurement.acquisition.ALTERNATIVES if group & found.keys()))
    kept = {name: array for name, array in measurement.files.items() if name not in replaced}
    return replace(measurement, **own, files={**kept, **found})


def _array(path: Path, given: File, field: str) -> NDArray[np.generic]:
    """Read an array that an acquisition names."""
    path = inner(path, given, field)
    return bart.coil_maps(path, field) if path.suffix == ".cfl" else numpy_files.read(path, field)


def _selected(measurement: Measurement, spec: JobSpec) -> Measurement:
    if spec.input.slices is None:
        return measurement
    first, last = slice_range(spec.input.slices, len(measurement.data))
    begin, end = measurement.acquisition.slices_of_result(first, last)
    maps, truth, affine = measurement.coil_maps, measurement.truth, measurement.affine
    return replace(
        measurement,
        data=measurement.data[first:last],
        truth=None if truth is None else truth[begin:end],
        affine=None if affine is None else shifted_affine(affine, begin),
        coil_maps=maps[first:last] if maps is not None and len(maps) == len(measurement.data) else maps,
    )


def _required_acquisition(spec: JobSpec) -> Acquisition:
    if spec.acquisition is None:
        raise InputError(
            "needed: the file does not say how it was measured",
            field="acquisition",
            remedy=f"give kind ({', '.join(ACQUISITIONS)}) and its sizes",
        )
    return spec.acquisition


def _check_methods(spec: JobSpec, acquisition: Acquisition) -> None:
    """Check what the specification alone does not show, since a file may carry the acquisition."""
    methods = (("method.name", [spec.method.name]), ("output.baselines", spec.output.baselines or []))
    for field, names in methods:
        for name in names:
            try:
                check_method(acquisition, name)
            except ValueError as error:
                raise InputError(str(error), field=field) from error
