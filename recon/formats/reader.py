"""Reader: turns a job's input into a `Measurement`. The format reads, the acquisition checks plausibility."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import InputError, ReconError
from recon.formats import bart, nifti, numpy_files
from recon.formats.detect import Found, inner, locate
from recon.formats.format import Content, KnownVolume, PlainArray, RawCounts, StoredArray
from recon.formats.safety import check_axes, check_finite, check_size, no_real_numbers, slice_range
from recon.measurement.counts import Counts
from recon.measurement.header import Header
from recon.measurement.measurement import Measurement, ScanFindings
from recon.measurement.sampled import sampled
from recon.measurement.simulate import simulate
from recon.spec.acquisitions import Acquisition, check_method
from recon.spec.acquisitions.kspace import maps_by_set
from recon.spec.affine import Affine, shear_rad, shifted_affine, voxel_size
from recon.spec.files import File
from recon.spec.job import Input, JobSpec, check_output
from recon.spec.registry import ACQUISITIONS, resolve
from recon.spec.simulation import Simulation
from recon.spec.validation import invalid

STRAIGHT_RAD = 0.01
"""Shear of voxels up to which they count as straight: under a voxel over the height of any stack that is usual."""
SAMPLED_BYTES = 256 * 2**20
"""Size of a measurement up to which a check reads all of it."""
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
        return replace(measurement, in_patient=volume.in_patient, codes=volume.codes, notes=notes, source=volume.source)
    return _completed_from(_measured(spec, files, found, content))


def read_part(
    spec: JobSpec, files: Mapping[str, Path], first: int, last: int, like: ScanFindings | None = None
) -> Measurement:
    """Read slices ``[first, last)`` of those that are asked for, as `read` does; errors name them as the file does.

    What `like` says, of the sample, holds for these as well and is not told again from their data.
    """
    begin = _first(spec) + first
    part = _of_slices(spec, begin, begin + last - first)
    with _among(begin, begin + last - first):
        found = locate(files["input"], part.input)
        raw = _assembled(part, files, found, _content(part, found))
        return _completed_from(_plausible(part, raw, like=like))


def read_sample(spec: JobSpec, files: Mapping[str, Path], head: Header) -> Measurement:
    """Read evenly spaced slices of a measurement, the first among them, and complete its acquisition by them."""
    parts, begin = [], _first(spec)
    for number in sampled(head.shape[0]):
        part = _of_slices(spec, begin + int(number), begin + int(number) + 1)
        with _among(begin + int(number), begin + int(number) + 1):
            found = locate(files["input"], part.input)
            parts.append(_assembled(part, files, found, _content(part, found)))
            _check_values(parts[-1], begin + int(number))
    return _completed_from(_plausible(spec, _together(parts)))


def _together(parts: list[_Raw]) -> _Raw:
    """Measurement of slices that were read one by one."""
    measurements, counts = [part.measurement for part in parts], [part.counts for part in parts]
    noise = [one.noise_std for one in measurements if one.noise_std is not None]
    arrays = dict(measurements[0].files)
    if "preparation.mask" in arrays:
        arrays["preparation.mask"] = np.concatenate([one.files["preparation.mask"] for one in measurements])
    together = replace(
        measurements[0],
        data=np.concatenate([one.data for one in measurements]),
        truth=None,
        noise_std=math.sqrt(float(np.mean(np.square(noise)))) if len(noise) == len(parts) else None,
        files=arrays,
        notes=list(dict.fromkeys(note for one in measurements for note in one.notes)),
    )
    return _Raw(together, Counts.joined([one for one in counts if one is not None]) if counts[0] is not None else None)


@contextmanager
def _among(first: int, last: int) -> Iterator[None]:
    """Say in errors which slices they are of."""
    try:
        yield
    except ReconError as error:
        raise error.among(f"slices {first} to {last - 1}") from error


def _completed_from(measurement: Measurement) -> Measurement:
    """Complete the acquisition by what the data tell; a simulated measurement shows no more than its volume."""
    if measurement.truth is not None:
        return measurement
    acquisition, notes = measurement.acquisition.completed_from(measurement.data)
    return replace(measurement, acquisition=acquisition, notes=[*measurement.notes, *notes])


def check(spec: JobSpec, files: Mapping[str, Path]) -> Header:
    """Check without torch for everything that `read` would refuse, and for impossible geometries; for API and plans.

    Of more than `SAMPLED_BYTES` whose slices can be read apart, a sample is checked: the
    others are checked when they are read.
    """
    found = locate(files["input"], spec.input)
    content = _content(spec, found) if _source_bytes(found.path) <= SAMPLED_BYTES else None
    if content is None or (isinstance(content.data, StoredArray) and content.data.nbytes > SAMPLED_BYTES):
        head = apart(spec, files)
        if head is not None and head.data_bytes > SAMPLED_BYTES:
            head = as_sampled(head, read_sample(spec, files, head))
            head.acquisition.result_shape(head.shape)
            return head
    content = content or _content(spec, found)
    if _to_be_measured(content, spec):
        volume, given = _known_volume(content, spec)
        settings = spec.input.simulate or Simulation()
        acquisition, shape = given.simulated(volume.data.shape, volume.affine, settings)
        size = max(_unselected_bytes(found), volume.data.nbytes, acquisition.data_bytes(shape))
        return Header(acquisition=acquisition, shape=shape, source_bytes=size, known=True)
    measurement = _completed_from(_measured(spec, files, found, content, planning=True))
    measurement.acquisition.result_shape(measurement.data.shape)
    head = apart(spec, files)
    return header(measurement, spec, files) if head is None else as_sampled(head, measurement)


def as_sampled(head: Header, sample: Measurement) -> Header:
    """Header with what a sample of the measurement has shown: geometry and views that are left."""
    return head.model_copy(update={"acquisition": sample.acquisition, "shape": (head.shape[0], *sample.data.shape[1:])})


def apart(spec: JobSpec, files: Mapping[str, Path]) -> Header | None:
    """Make the header of a measurement whose slices can be read apart, from its first; None if it is read as a whole.

    What is asked for may be larger than the limit for arrays, but then no larger than the file: a small
    file cannot make the reader compute what it only promises.
    """
    first = _first(spec)
    probe = _of_slices(spec, first, first + 1)
    found = locate(files["input"], probe.input)
    if not found.format.slicewise:
        return None
    content = _content(probe, found)
    if isinstance(content, KnownVolume):
        return None
    measurement = _assembled(probe, files, found, content).measurement
    acquisition, count = measurement.acquisition, measurement.slices_in_file
    if count is None or not acquisition.slices_apart():
        return None
    begin, end = slice_range(spec.input.slices, count)
    shape = (end - begin, *measurement.data.shape[1:])
    each = max(measurement.data.nbytes, content.data.nbytes // count if isinstance(content.data, StoredArray) else 0)
    if each * (end - begin) > _source_bytes(found.path):
        check_size(shape, measurement.data.itemsize)
    least = max(each, measurement.read_bytes, 0 if measurement.truth is None else measurement.truth.nbytes)
    return Header(
        acquisition=acquisition.planned(),
        shape=shape,
        source_bytes=max(least, each * (end - begin)),
        slice_bytes=least,
        known=measurement.truth is not None,
    )


def header(measurement: Measurement, spec: JobSpec, files: Mapping[str, Path]) -> Header:
    """Make the header of a job's measurement that was read as a whole."""
    whole = _unselected_bytes(locate(files["input"], spec.input))
    truth = 0 if measurement.truth is None else measurement.truth.nbytes
    return Header(
        acquisition=measurement.acquisition,
        shape=measurement.data.shape,
        source_bytes=max(whole, measurement.data.nbytes, measurement.read_bytes, truth),
        known=measurement.truth is not None,
        coil_maps=measurement.coil_maps is not None,
    )


def _first(spec: JobSpec) -> int:
    """Number of the first slice that is asked for."""
    return 0 if spec.input.slices is None else spec.input.slices[0]


def _of_slices(spec: JobSpec, first: int, last: int) -> JobSpec:
    """The job of slices ``[first, last)`` alone."""
    return spec.model_copy(update={"input": spec.input.model_copy(update={"slices": (first, last)})})


def _source_bytes(path: Path) -> int:
    """Size of a file, or of the files in a folder."""
    if path.is_dir():
        return sum(child.stat().st_size for child in path.rglob("*") if child.is_file())
    return path.stat().st_size if path.is_file() else 0


def _unselected_bytes(found: Found) -> int:
    """Size of a file that is read as a whole before slices are selected."""
    return 0 if found.format.selects else _source_bytes(found.path)


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


class _Raw(NamedTuple):
    """Measurement before anything of it is prepared, with the counts that its data are, if these are what was read."""

    measurement: Measurement
    counts: Counts | None


def _assembled(spec: JobSpec, files: Mapping[str, Path], found: Found, content: Content) -> _Raw:
    """Measurement of a content, with its files, of the slices that are asked for; its values may be anything."""
    match content:
        case Measurement():
            measurement = _completed(content, spec)
        case KnownVolume():
            measurement = _stack(content, spec)
        case RawCounts():
            measurement = _of_counts(content, spec)
        case PlainArray():
            acquisition = with_stated(_required_acquisition(spec), content.stated)
            measurement = replace(
                _plain(content, acquisition, spec.input.slices),
                noise_std=content.noise_std,
                notes=list(content.notes),
            )
    measurement = _with_files(measurement, spec, files)
    encoded = measurement.acquisition.slices_encoded
    if measurement.data.ndim != len(measurement.acquisition.AXES):
        expected = measurement.acquisition.axes
        raise InputError(f"shape {measurement.data.shape}, expected {expected}", field="input")
    if not found.format.selects or encoded:
        measurement = _selected(measurement, spec)
    return _Raw(measurement, content.counts if isinstance(content, RawCounts) else None)


def _measured(
    spec: JobSpec, files: Mapping[str, Path], found: Found, content: Content, *, planning: bool = False
) -> Measurement:
    """Measurement of a content, prepared and plausible."""
    raw = _assembled(spec, files, found, content)
    if spec.input.slices is not None:
        raw.measurement.acquisition.check_selection()
    return _plausible(spec, raw, planning=planning)


def _plausible(spec: JobSpec, raw: _Raw, *, planning: bool = False, like: ScanFindings | None = None) -> Measurement:
    """Prepare a measurement, and check that it can be one."""
    measurement = raw.measurement
    _check_values(raw, _first(spec))
    prepare = measurement.acquisition.PREPARE
    if prepare is not None:
        measurement = resolve(prepare)(measurement, raw.counts, planning=planning, like=like)
    acquisition = measurement.acquisition
    acquisition.check(measurement.data, mask=measurement.mask, coil_maps=measurement.coil_maps, **measurement.files)
    if acquisition.refined is not None:
        check_size(acquisition.result_shape(measurement.data.shape), 8, "acquisition.factor")
    _check_methods(spec, measurement.acquisition)
    return measurement


def _check_values(raw: _Raw, first: int) -> None:
    """Raise `InputError` for values that are not finite, `first` being the number of the first slice."""
    if raw.counts is None:  # of counts, views may be left out before
        check_finite(raw.measurement.data, first=first)


def _of_counts(content: RawCounts, spec: JobSpec) -> Measurement:
    """Frames with their acquisition."""
    stated, notes = content.stated, list(content.notes)
    if isinstance(stated, dict):
        acquisition = with_stated(_required_acquisition(spec), stated)
        if acquisition.PREPARE is None:
            raise InputError(
                f"the input holds raw counts of a CT detector, {acquisition.kind} has none",
                field="acquisition.kind",
                remedy="give ct-parallel or ct-fan",
            )
        return Measurement(content.data, acquisition, notes=notes, slices_in_file=content.slices_in_file)
    return _completed(Measurement(content.data, stated, notes=notes, slices_in_file=content.slices_in_file), spec)


def _plain(array: PlainArray, acquisition: Acquisition, slices: tuple[int, int] | None) -> Measurement:
    """Measurement of an array, in the acquisition's dtype and with all of its axes."""
    shape, dtype, held = array.data.shape, array.data.dtype, 0
    check_axes(shape, acquisition)
    missing = acquisition.missing_axis() if len(shape) < len(acquisition.AXES) else None
    if dtype.kind not in ("c" if acquisition.COMPLEX_DATA else "iuf"):
        if acquisition.COMPLEX_DATA:
            raise InputError(
                f"dtype {dtype}, k-space must be complex",
                field="input",
                remedy="export both parts: without the phase there is no image",
            )
        raise no_real_numbers(dtype)
    if acquisition.COMPLEX_DATA and missing is not None and not array.order_known:
        acquisition.check_missing_axis(shape)
    data, count = array.data, array.slices_in_file
    slices = None if acquisition.slices_encoded else slices
    if isinstance(data, StoredArray):
        count = 1 if missing == 0 else shape[0]
        first, last = slice_range(slices, count)
        held = data.least_bytes
        data = data.read(0, shape[0]) if missing == 0 else data.read(first, last)
    held = max(held, data.nbytes)
    data = data if missing is None else np.expand_dims(data, missing)
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is found
        data = np.ascontiguousarray(data, dtype=np.complex64 if acquisition.COMPLEX_DATA else np.float32)
    return Measurement(data, acquisition, slices_in_file=count, read_bytes=held)


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
    acquisition.check_unit(volume.data, spec.input.unit or volume.unit)
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
        source=volume.source,
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
    if spec.input.slices is not None and content.slices_in_file is None:
        first, last = slice_range(spec.input.slices, len(content.data))
        content = replace(content, data=content.data[first:last], affine=shifted_affine(content.affine, first))
    check_finite(content.data, first=_first(spec))
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
    volumes = measurement.acquisition.VOLUME_FILES
    arrays: dict[str, NDArray[Any]] = {}
    for name, file in named.items():
        path, field = files[f"acquisition.{name}"], f"acquisition.{name}"
        if name in volumes:
            arrays[name], arrays[f"{name}.affine"] = nifti.read(inner(path, file, field), field)
        else:
            arrays[name] = _array(path, file, field)
    found: dict[str, Any] = measurement.acquisition.read_files(arrays)
    for name, array in found.items():
        check_finite(array, f"acquisition.{name}")
    if "coil_maps" in found:
        slices, chosen = len(measurement.data), spec.input.slices
        read_all = chosen is None or slices > chosen[1] - chosen[0]  # else only those that were asked for
        count = measurement.slices_in_file or (slices if read_all else None)
        found["coil_maps"] = maps_by_set(found["coil_maps"], count, None if read_all else chosen)
    bad = found.get("preparation.mask")
    if bad is not None:
        found["preparation.mask"] = _of_rows(bad, len(measurement.data), spec.input.slices)
    own = {name: found.pop(name) for name in ("mask", "coil_maps") if name in found}
    replaced = set().union(*(group for group in measurement.acquisition.ALTERNATIVES if group & found.keys()))
    kept = {name: array for name, array in measurement.files.items() if name not in replaced}
    return replace(measurement, **own, files={**kept, **found})


def _of_rows(mask: NDArray[np.bool_], rows: int, slices: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Mask of bad elements of the rows that were read, from that of one row or of all rows of the file."""
    if mask.ndim == 1 or len(mask) == 1:
        return np.broadcast_to(mask.reshape(1, -1), (rows, mask.shape[-1]))
    return mask[slice(*slices)] if slices is not None and len(mask) > rows else mask


def _array(path: Path, given: File, field: str) -> NDArray[np.generic]:
    """Read an array that an acquisition names."""
    path = inner(path, given, field)
    return bart.coil_maps(path, field) if path.suffix == ".cfl" else numpy_files.read(path, field)


def _selected(measurement: Measurement, spec: JobSpec) -> Measurement:
    if spec.input.slices is None:
        return measurement
    first, last = slice_range(spec.input.slices, len(measurement.data))
    begin = measurement.acquisition.first_of_result(first)
    maps, truth, affine = measurement.coil_maps, measurement.truth, measurement.affine
    acquisition, data = measurement.acquisition.of_slices(measurement.data, first, last)
    return replace(
        measurement,
        data=data,
        acquisition=acquisition,
        truth=None if truth is None else truth[slice(*measurement.acquisition.slices_of_result(first, last))],
        affine=None if affine is None else shifted_affine(affine, begin),
        coil_maps=maps[first:last]
        if maps is not None and maps.ndim > 3 and len(maps) == len(measurement.data)
        else maps,
        files={n: a[first:last] if n == "preparation.mask" else a for n, a in measurement.files.items()},
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
    check_method(acquisition, spec.method.name)
    for name in spec.output.baselines or []:
        check_method(acquisition, name, "output.baselines")
    check_output(acquisition, spec.output)
