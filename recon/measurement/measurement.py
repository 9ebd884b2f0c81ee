"""Measurement: the data array with its geometry, units and position in the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.spec.acquisitions import Acquisition
from recon.spec.report import Step


@dataclass(frozen=True)
class ScanFindings:
    """Findings of the preparation that hold for all rows of a scan.

    Parameters
    ----------
    kept
        Views that are left, as indices of the file.
    photons_per_ray
        Photons per ray in air that the flat fields show, if nothing else says how large the noise is.
    drift
        Line integral of the air, that is subtracted from all slices, ``(views, detectors)``; None if none is.
    rotation_center_column
        Rotation centre in columns of the file, if it was to be found.
    beam_hardening
        Coefficients of the polynomial, if there is one.
    """

    kept: NDArray[np.intp]
    photons_per_ray: float | None = None
    drift: NDArray[np.float32] | None = None
    rotation_center_column: float | None = None
    beam_hardening: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PreparationRecord:
    """Record of the preparation of measured data.

    Parameters
    ----------
    steps
        What each step found and changed.
    scan
        What of that holds for other rows of the same scan as well.
    before, after
        Sinogram ``(views, detectors)`` of the middle slice; before: with all its views and defects.
    """

    steps: list[Step]
    scan: ScanFindings
    before: NDArray[np.float32]
    after: NDArray[np.float32]


@dataclass(frozen=True)
class Measurement:
    """A measurement read from a file.

    Parameters
    ----------
    data
        CT: line integrals ``(slices, views, detectors)`` float32. MRI: k-space ``(slices, coils, rows,
        cols)`` complex64, or a low-resolution stack ``(slices, rows, cols)`` float32.
    acquisition
        Geometry, completed by what the file knew.
    affine
        Voxel ``(col, row, slice)`` of the result to patient millimetres (RAS), if the data came with one.
    in_patient
        Whether `affine` leads into the patient's RAS frame; false if the file did not say.
    codes
        NIfTI's codes of `affine`, for sform and qform, if the file has them.
    truth
        Known volume ``(slices, rows, cols)`` in the result's unit when the measurement was simulated. It
        is compared with the result and never given to a solver.
    coil_maps
        Coil sensitivities ``([slices,] coils, rows, cols)``, or ``(slices or 1, sets, coils, rows, cols)``, if given.
    noise_covariance
        Of k-space's noise between its coils, ``(coils, coils)``, per real channel: ``E[n n^H] / 2``, if the file has a
        noise scan.
    files
        Arrays of the other files that the acquisition names, by field.
    preparation
        Record of the preparation, of measured CT data.
    notes
        Remarks for the report.
    slices_in_file
        Slices that the file has, if its format reads some in the memory of these only, and each as it would be read
        with any others; None if not.
    part_of
        Slices of the job that these are a part of; None if they are all.
    read_bytes
        Most bytes that reading held, where these are more than the data's.
    source
        Patient and study of a DICOM or ISMRMRD file, in DICOM's JSON model (PS3.18 F); empty for any other. Kept in
        memory for results in DICOM, and in no other file.
    """

    data: NDArray[np.generic]
    acquisition: Acquisition
    affine: NDArray[np.float64] | None = None
    in_patient: bool = True
    codes: tuple[int, int] | None = None
    truth: NDArray[np.float32] | None = None
    noise_std: float | None = None
    noise_covariance: NDArray[np.complex128] | None = None
    mask: NDArray[np.bool_] | None = None
    coil_maps: NDArray[np.complex64] | None = None
    files: dict[str, NDArray[Any]] = field(default_factory=dict)
    preparation: PreparationRecord | None = None
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    slices_in_file: int | None = None
    part_of: int | None = None
    read_bytes: int = 0
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)
