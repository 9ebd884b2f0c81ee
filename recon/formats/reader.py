"""From a job's input to a `Measurement`: one function a format, then the checks every measurement passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError, ResourceLimit
from recon.formats import dxchange, hdf5, htc, nifti, numpy_files
from recon.formats.safety import check_finite, check_size, real, stack
from recon.measurement.geometry import (
    check_divisible,
    ct_geometry,
    finer_affine,
    finer_shape,
    shifted_affine,
    simulated,
    voxel_size,
)
from recon.measurement.header import Outline
from recon.measurement.measurement import Measurement
from recon.spec.job import (
    FORMATS,
    AnyAcquisition,
    CTFan,
    CTParallel,
    JobSpec,
    MRICartesian,
    MRIResolution,
    Simulation,
    check_method,
    format_of,
    invalid,
)

_CT_AXES = "(slices, angles, detectors)"
_MRI_AXES = "(slices, coils, rows, cols)"
_STACK_AXES = "(slices, rows, cols)"
LARGEST_LINE_INTEGRAL = 50.0
"""exp(-50) of the photons arrive: nobody measured that, so the array holds something else."""
LARGEST_SIDE = 8192
"""Of a result, in voxels."""


def read(spec: JobSpec, files: Mapping[str, Path]) -> Measurement:
    """Read and check what a job measured.

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
    if _is_known_volume(spec, files):
        from recon.measurement.simulate import simulate

        volume, affine, acquisition = _known_volume(files["input"], spec)
        _check_methods(spec, acquisition)
        measurement = simulate(volume, affine, acquisition, spec.input.simulate or Simulation())
        known = nifti.orientation_known(files["input"])
        return replace(measurement, in_patient=known, notes=[SIMULATED] + ([] if known else [UNORIENTED]))
    return _measured(spec, files)


def check(spec: JobSpec, files: Mapping[str, Path]) -> Outline:
    """Everything `read` would refuse, and an impossible geometry, found without torch: for the API and for plans."""
    if _is_known_volume(spec, files):
        volume, affine, acquisition = _known_volume(files["input"], spec)
        _check_methods(spec, acquisition)
        acquisition, shape = simulated(volume.shape, affine, acquisition, spec.input.simulate or Simulation())
        return Outline(
            acquisition=acquisition,
            shape=shape,
            source_bytes=max(_source_bytes(files["input"]), volume.nbytes),
            known=True,
        )
    measurement = _measured(spec, files)
    if isinstance(measurement.acquisition, CTParallel | CTFan):
        ct_geometry(measurement.acquisition, measurement.data.shape[2])
    return outline(measurement, files)


def outline(measurement: Measurement, files: Mapping[str, Path]) -> Outline:
    """The outline of a measurement that was read."""
    return Outline(
        acquisition=measurement.acquisition,
        shape=measurement.data.shape,
        source_bytes=max(_source_bytes(files["input"]), measurement.data.nbytes),
        known=measurement.truth is not None,
        coil_maps=measurement.coil_maps is not None,
    )


def _source_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


SIMULATED = "simulated from a known volume with the operator that reconstructs it: expect less from measured data"


UNORIENTED = "the NIfTI file does not say how it lies in the patient (sform and qform codes are 0)"


def _is_known_volume(spec: JobSpec, files: Mapping[str, Path]) -> bool:
    """Whether the input is a volume to be measured here; a low-resolution stack only is when that is asked for."""
    if _kind(spec, files) != "nifti":
        return False
    return not isinstance(spec.acquisition, MRIResolution) or spec.input.simulate is not None


def _kind(spec: JobSpec, files: Mapping[str, Path]) -> str:
    kind = spec.input.format or format_of(files["input"].name)
    if kind is None:
        raise InputError(
            f"the format cannot be told from the name {files['input'].name!r}",
            field="input.format",
            remedy=f"choose one of: {', '.join(FORMATS)}",
        )
    return kind


def _measured(spec: JobSpec, files: Mapping[str, Path]) -> Measurement:
    path = files["input"]
    if spec.input.simulate is not None:
        raise InputError(
            "a measurement is not simulated again",
            field="input.simulate",
            remedy="leave simulate out, or give a known volume as NIfTI",
        )
    match _kind(spec, files):
        case "nifti":
            measurement = _low_resolution(path, spec)
        case "numpy":
            measurement = _plain(numpy_files.read(path), spec)
        case "dxchange":
            measurement = _dxchange(path, spec)
        case "htc":
            measurement = _htc(path, spec)
        case _ if hdf5.is_measurement(path):
            measurement = _own(path, spec)
        case _:
            measurement = _plain(hdf5.read_array(path, spec.input.dataset), spec)
    if isinstance(measurement.acquisition, MRICartesian):
        measurement = _with_mri_files(measurement, files)
    _check(measurement)
    measurement = _selected(measurement, spec)
    _check_methods(spec, measurement.acquisition)
    return measurement


def _plain(data: NDArray[np.generic], spec: JobSpec) -> Measurement:
    acquisition = _required_acquisition(spec)
    if isinstance(acquisition, MRICartesian):
        if data.dtype.kind != "c":
            raise InputError(f"dtype {data.dtype}, k-space must be complex", field="input")
        return Measurement(stack(data, 4, _MRI_AXES).astype(np.complex64), acquisition)
    if isinstance(acquisition, MRIResolution):
        return Measurement(stack(real(data), 3, _STACK_AXES), acquisition)
    return Measurement(stack(real(data), 3, _CT_AXES), acquisition)


def _low_resolution(path: Path, spec: JobSpec) -> Measurement:
    acquisition = _required_acquisition(spec)
    assert isinstance(acquisition, MRIResolution)
    data, affine = nifti.read(path)
    col_mm, _, slice_mm = voxel_size(affine)
    known = nifti.orientation_known(path)
    return Measurement(
        data,
        acquisition.model_copy(update={"pixel_mm": col_mm, "slice_mm": slice_mm}),
        affine=finer_affine(affine, data.shape, acquisition),
        in_patient=known,
        notes=[] if known else [UNORIENTED],
    )


def _own(path: Path, spec: JobSpec) -> Measurement:
    measurement = hdf5.read_measurement(path)
    if spec.acquisition is None:
        return measurement
    acquisition = _completed(spec.acquisition, measurement.acquisition)
    stated = measurement.acquisition
    grid = ("pixel_mm", "slice_mm", "rows", "cols", "factor", "direction")
    if all(getattr(acquisition, k, None) == getattr(stated, k, None) for k in grid):
        return replace(measurement, acquisition=acquisition)
    note = "another voxel grid than the file's: its affine and its known volume do not apply"
    return replace(measurement, acquisition=acquisition, affine=None, truth=None, notes=[note])


def _dxchange(path: Path, spec: JobSpec) -> Measurement:
    data, angles, noise, notes = dxchange.read(path)
    try:
        stated = CTParallel(angles_rad=None if angles is None else list(angles))
    except ValidationError as error:
        raise invalid(error, path.name) from error
    acquisition = _completed(spec.acquisition or CTParallel(), stated)
    return Measurement(data, acquisition, noise_std=noise, notes=notes)


def _htc(path: Path, spec: JobSpec) -> Measurement:
    data, stated = htc.read(path, spec.input.scan)
    return Measurement(data, _completed(spec.acquisition or CTFan(), stated))


def _known_volume(path: Path, spec: JobSpec) -> tuple[NDArray[np.float32], NDArray[np.float64], AnyAcquisition]:
    """The volume that a retrospective job measures, if it can be."""
    acquisition = _required_acquisition(spec)
    volume, affine = nifti.read(path)
    if spec.input.slices is not None:
        first, last = _range(spec.input.slices, len(volume))
        volume, affine = volume[first:last], shifted_affine(affine, first)
    if isinstance(acquisition, MRICartesian | MRIResolution):
        _check_magnitudes(volume)
        if isinstance(acquisition, MRIResolution):
            check_divisible(volume.shape, acquisition)
        return volume, affine, acquisition
    lowest = float(volume.min())
    if lowest >= 0:
        raise InputError(
            f"the lowest value is {lowest:g}, a CT volume in HU has air near -1000",
            field="input",
            remedy="give CT volumes in HU; for MRI use acquisition kind mri-cartesian",
        )
    col_mm, row_mm, _ = voxel_size(affine)
    if abs(col_mm - row_mm) > 0.01 * col_mm:
        raise InputError(
            f"pixels are {col_mm:.3f} x {row_mm:.3f} mm, projection needs square ones",
            field="input",
            remedy="resample the volume to square pixels",
        )
    return volume, affine, acquisition


def _check_magnitudes(volume: NDArray[np.generic]) -> None:
    lowest = float(volume.min())
    if lowest < 0:
        raise InputError(
            f"magnitudes are negative, the lowest is {lowest:g}", field="input", remedy="is this a CT volume?"
        )


def _with_mri_files(measurement: Measurement, files: Mapping[str, Path]) -> Measurement:
    """Add the mask and coil maps that the acquisition names."""
    if "acquisition.mask" in files:
        mask = numpy_files.read(files["acquisition.mask"], "acquisition.mask")
        values = np.unique(mask)
        if mask.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
            raise InputError("a mask holds only 0 and 1", field="acquisition.mask")
        measurement = replace(measurement, mask=mask.astype(bool))
    if "acquisition.coil_maps" in files:
        maps = numpy_files.read(files["acquisition.coil_maps"], "acquisition.coil_maps")
        if maps.dtype.kind != "c" or maps.ndim not in (3, 4):
            raise InputError(
                f"shape {maps.shape} {maps.dtype}, expected complex ([slices,] coils, rows, cols)",
                field="acquisition.coil_maps",
            )
        check_finite(maps, "acquisition.coil_maps")
        measurement = replace(measurement, coil_maps=maps.astype(np.complex64))
    return measurement


def _selected(measurement: Measurement, spec: JobSpec) -> Measurement:
    if spec.input.slices is None:
        return measurement
    first, last = _range(spec.input.slices, len(measurement.data))
    maps, acquisition = measurement.coil_maps, measurement.acquisition
    thin = isinstance(acquisition, MRIResolution) and acquisition.direction == "slices"
    finer = acquisition.factor if thin and isinstance(acquisition, MRIResolution) else 1
    truth, affine = measurement.truth, measurement.affine
    return replace(
        measurement,
        data=measurement.data[first:last],
        truth=None if truth is None else truth[first * finer : last * finer],
        affine=None if affine is None else shifted_affine(affine, first * finer),
        coil_maps=maps[first:last] if maps is not None and maps.ndim == 4 and len(maps) > 1 else maps,
    )


def _range(slices: tuple[int, int], count: int) -> tuple[int, int]:
    if slices[1] > count:
        raise InputError(f"slices {list(slices)}, the input has {count}", field="input.slices")
    return slices


def _required_acquisition(spec: JobSpec) -> AnyAcquisition:
    if spec.acquisition is None:
        raise InputError(
            "needed: the file does not say how it was measured",
            field="acquisition",
            remedy="give kind (ct-parallel, ct-fan, mri-cartesian or mri-resolution) and its sizes",
        )
    return spec.acquisition


def _completed(given: AnyAcquisition, stated: AnyAcquisition) -> AnyAcquisition:
    """What the file states, with what the user gives on top."""
    if given.kind != stated.kind:
        raise InputError(f"{given.kind!r}, the file holds {stated.kind}", field="acquisition.kind")
    if {"detector_shift_mm", "rotation_center_column"} & given.model_fields_set:
        # Two ways to say one thing: what the user says replaces both.
        stated = stated.model_copy(update={"detector_shift_mm": None, "rotation_center_column": None})
    wanted = {k: getattr(given, k) for k in given.model_fields_set if getattr(given, k) is not None}
    return stated.model_copy(update=wanted)


def _check_methods(spec: JobSpec, acquisition: AnyAcquisition) -> None:
    """A file may carry the acquisition, so that the specification alone could not be checked."""
    methods = (("method.name", [spec.method.name]), ("output.baselines", spec.output.baselines or []))
    for field, names in methods:
        for name in names:
            try:
                check_method(acquisition, name)
            except ValueError as error:
                raise InputError(str(error), field=field) from error


def _check(measurement: Measurement) -> None:
    """Finite, sensibly sized and plausible in unit."""
    acquisition = measurement.acquisition
    axes = {"mri-cartesian": _MRI_AXES, "mri-resolution": _STACK_AXES}.get(acquisition.kind, _CT_AXES)
    ndim = axes.count(",") + 1
    if measurement.data.ndim != ndim:
        raise InputError(f"shape {measurement.data.shape}, expected {axes}", field="input")
    check_finite(measurement.data)
    if isinstance(acquisition, MRICartesian):
        _check_mri_shapes(measurement)
        return
    if isinstance(acquisition, MRIResolution):
        _check_magnitudes(measurement.data)
        if not np.any(measurement.data):
            raise InputError("every value of the stack is zero", field="input")
        _check_finer_size(measurement.data.shape, acquisition)
        return
    angles = acquisition.angles()
    if angles is not None and measurement.data.shape[1] != len(angles):
        raise GeometryError(
            f"{len(angles)} angles for a sinogram of shape {measurement.data.shape} {_CT_AXES}",
            field="acquisition.angles_rad",
            remedy="give one angle a projection; transpose the array if its axes are in another order",
        )
    largest, lowest = float(measurement.data.max()), float(measurement.data.min())
    if largest > LARGEST_LINE_INTEGRAL:
        raise InputError(
            f"line integrals reach {largest:g}: these look like counts or HU, not -log(I / I0)",
            field="input",
            remedy="take -log(I / I0), or use format dxchange for raw counts",
        )
    if lowest < -1.0:
        raise InputError(
            f"line integrals reach {lowest:g}: more photons behind the object than without it",
            field="input",
            remedy="check the flat-field correction and the sign of the logarithm",
        )


def _check_finer_size(shape: tuple[int, ...], acquisition: MRIResolution) -> None:
    """The result, not the stack, has to fit."""
    finer = finer_shape(shape, acquisition)
    if max(finer) > LARGEST_SIDE:
        raise ResourceLimit(
            f"the result would be {finer}, a side has at most {LARGEST_SIDE}",
            field="acquisition.factor",
            remedy="choose a smaller factor or fewer slices",
        )
    check_size(finer, 8, "acquisition.factor")


def _check_mri_shapes(measurement: Measurement) -> None:
    shape = measurement.data.shape
    if measurement.mask is not None and measurement.mask.shape != shape[2:]:
        raise GeometryError(f"shape {measurement.mask.shape}, k-space is {shape[2:]}", field="acquisition.mask")
    if not np.any(measurement.data):
        raise InputError("every sample of k-space is zero", field="input")
    maps = measurement.coil_maps
    if maps is not None and (maps.shape[-3:] != shape[1:] or maps.shape[:-3] not in ((), (1,), shape[:1])):
        raise GeometryError(f"shape {maps.shape}, k-space is {shape} {_MRI_AXES}", field="acquisition.coil_maps")
