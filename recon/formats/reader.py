"""From a job's input to a `Measurement`: one function a format, then the checks every measurement passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from operators.errors import GeometryError, InputError
from recon.formats import dxchange, hdf5, htc, nifti, numpy_files
from recon.formats.safety import check_finite, real, stack
from recon.geometry import ct_geometry, shifted_affine, voxel_size
from recon.job import FORMATS, CTFan, CTParallel, JobSpec, MRICartesian, Simulation, check_method, format_of, invalid
from recon.measurement import Measurement

_CT_AXES = "(slices, angles, detectors)"
_MRI_AXES = "(slices, coils, rows, cols)"
LARGEST_LINE_INTEGRAL = 50.0
"""exp(-50) of the photons arrive: nobody measured that, so the array holds something else."""


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
    if _kind(spec, files) == "nifti":
        from recon.simulate import simulate

        volume, affine, acquisition = _known_volume(files["input"], spec)
        _check_methods(spec, acquisition)
        measurement = simulate(volume, affine, acquisition, spec.input.simulate or Simulation())
        known = nifti.orientation_known(files["input"])
        return replace(measurement, in_patient=known, notes=[SIMULATED] + ([] if known else [UNORIENTED]))
    return _measured(spec, files)


def check(spec: JobSpec, files: Mapping[str, Path]) -> None:
    """Everything `read` would refuse, and an impossible geometry, found without torch: for the API."""
    if _kind(spec, files) == "nifti":
        _check_methods(spec, _known_volume(files["input"], spec)[2])
        return
    measurement = _measured(spec, files)
    if not isinstance(measurement.acquisition, MRICartesian):
        ct_geometry(measurement.acquisition, measurement.data.shape[2])


SIMULATED = "simulated from a known volume with the operator that reconstructs it: expect less from measured data"


UNORIENTED = "the NIfTI file does not say how it lies in the patient (sform and qform codes are 0)"


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
    match _kind(spec, files):
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
    return Measurement(stack(real(data), 3, _CT_AXES), acquisition)


def _own(path: Path, spec: JobSpec) -> Measurement:
    measurement = hdf5.read_measurement(path)
    if spec.acquisition is None:
        return measurement
    acquisition = _completed(spec.acquisition, measurement.acquisition)
    stated = measurement.acquisition
    if all(getattr(acquisition, k, None) == getattr(stated, k, None) for k in ("pixel_mm", "slice_mm", "rows", "cols")):
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


def _known_volume(
    path: Path, spec: JobSpec
) -> tuple[NDArray[np.float32], NDArray[np.float64], CTParallel | CTFan | MRICartesian]:
    """The volume that a retrospective job measures, if it can be."""
    acquisition = _required_acquisition(spec)
    volume, affine = nifti.read(path)
    if spec.input.slices is not None:
        first, last = _range(spec.input.slices, len(volume))
        volume, affine = volume[first:last], shifted_affine(affine, first)
    lowest = float(volume.min())
    if isinstance(acquisition, MRICartesian):
        if lowest < 0:
            raise InputError(
                f"magnitudes are negative, the lowest is {lowest:g}", field="input", remedy="is this a CT volume?"
            )
        return volume, affine, acquisition
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
    maps = measurement.coil_maps
    return replace(
        measurement,
        data=measurement.data[first:last],
        truth=None if measurement.truth is None else measurement.truth[first:last],
        affine=None if measurement.affine is None else shifted_affine(measurement.affine, first),
        coil_maps=maps[first:last] if maps is not None and maps.ndim == 4 and len(maps) > 1 else maps,
    )


def _range(slices: tuple[int, int], count: int) -> tuple[int, int]:
    if slices[1] > count:
        raise InputError(f"slices {list(slices)}, the input has {count}", field="input.slices")
    return slices


def _required_acquisition(spec: JobSpec) -> CTParallel | CTFan | MRICartesian:
    if spec.acquisition is None:
        raise InputError(
            "needed: the file does not say how it was measured",
            field="acquisition",
            remedy="give kind (ct-parallel, ct-fan or mri-cartesian) and its sizes",
        )
    return spec.acquisition


def _completed(
    given: CTParallel | CTFan | MRICartesian, stated: CTParallel | CTFan | MRICartesian
) -> CTParallel | CTFan | MRICartesian:
    """What the file states, with what the user gives on top."""
    if given.kind != stated.kind:
        raise InputError(f"{given.kind!r}, the file holds {stated.kind}", field="acquisition.kind")
    if {"detector_shift_mm", "rotation_center_column"} & given.model_fields_set:
        # Two ways to say one thing: what the user says replaces both.
        stated = stated.model_copy(update={"detector_shift_mm": None, "rotation_center_column": None})
    wanted = {k: getattr(given, k) for k in given.model_fields_set if getattr(given, k) is not None}
    return stated.model_copy(update=wanted)


def _check_methods(spec: JobSpec, acquisition: CTParallel | CTFan | MRICartesian) -> None:
    """A file may carry the acquisition, so that the specification alone could not be checked."""
    for name in (spec.method.name, *(spec.output.baselines or [])):
        try:
            check_method(acquisition, name)
        except ValueError as error:
            raise InputError(str(error), field="method.name") from error


def _check(measurement: Measurement) -> None:
    """Finite, sensibly sized and plausible in unit."""
    acquisition = measurement.acquisition
    ndim, axes = (4, _MRI_AXES) if isinstance(acquisition, MRICartesian) else (3, _CT_AXES)
    if measurement.data.ndim != ndim:
        raise InputError(f"shape {measurement.data.shape}, expected {axes}", field="input")
    check_finite(measurement.data)
    if isinstance(acquisition, MRICartesian):
        _check_mri_shapes(measurement)
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


def _check_mri_shapes(measurement: Measurement) -> None:
    shape = measurement.data.shape
    if measurement.mask is not None and measurement.mask.shape != shape[2:]:
        raise GeometryError(f"shape {measurement.mask.shape}, k-space is {shape[2:]}", field="acquisition.mask")
    if not np.any(measurement.data):
        raise InputError("every sample of k-space is zero", field="input")
    maps = measurement.coil_maps
    if maps is not None and (maps.shape[-3:] != shape[1:] or maps.shape[:-3] not in ((), (1,), shape[:1])):
        raise GeometryError(f"shape {maps.shape}, k-space is {shape} {_MRI_AXES}", field="acquisition.coil_maps")
