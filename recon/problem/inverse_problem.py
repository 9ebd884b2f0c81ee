"""From a measurement to the inverse problem: operator, noise level, the prior's axis, display units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.coils import espirit_maps
from operators.fourier import CartesianMRI
from operators.tomography import Tomography
from recon.measurement import noise_estimate
from recon.measurement.geometry import ct_geometry, finer_shape, scanner_affine, voxel_size
from recon.measurement.measurement import Measurement
from recon.measurement.planes import from_planes, in_planes, resolution_operator
from recon.priors.card import Card
from recon.problem.problem import Axis, Problem
from recon.spec.job import CTFan, CTParallel, MRICartesian, MRIResolution

BRIGHTEST = 0.6
"""Where the robust maximum of a CT scan without a water value is put on the prior's axis: dense bone."""


@dataclass(frozen=True)
class Model:
    """An inverse problem and how its solution is expressed.

    Parameters
    ----------
    problem
        Operator, data and noise; volumes in 1/mm (CT) or the k-space's unit (MRI).
    affine
        Voxel ``(col, row, slice)`` to millimetres, of the patient or of the scanner.
    in_patient
        Whether `affine` leads into the patient's RAS frame.
    unit
        Of the written result: ``HU``, ``1/mm`` or ``a.u.``.
    mu_water
        Attenuation of water, when the unit is HU.
    """

    problem: Problem
    affine: NDArray[np.float64]
    in_patient: bool
    unit: str
    mu_water: float | None
    notes: list[str]
    refined: MRIResolution | None = None
    """What super-resolution refines: its planes may lie across the volume."""

    def arranged(self, volume: Tensor) -> Tensor:
        """A solver's volume as ``(slices, rows, cols)`` of the result."""
        return volume if self.refined is None else from_planes(volume, self.refined)

    def display(self, volume: Tensor) -> NDArray[np.float32]:
        """A solution in the result's unit: HU, 1/mm, or the magnitude."""
        if volume.is_complex():
            return volume.abs().numpy()
        if self.mu_water is not None:
            volume = (volume / self.mu_water - 1) * 1000
        return volume.numpy()

    def prior_axis(self, card: Card) -> Axis:
        """The affine map from the prior's axis to this problem's unit."""
        if card.modality == "mri":
            return Axis(self.problem.scale, 0.0)
        if self.mu_water is not None:
            half = (card.axis.high - card.axis.low) / 2
            return Axis(self.mu_water * half / 1000, self.mu_water * (1 + (card.axis.low + half) / 1000))
        scale = self.problem.scale / (1 + BRIGHTEST)
        return Axis(scale, scale)


def build(measurement: Measurement) -> Model:
    """Set up the inverse problem of a measurement."""
    match measurement.acquisition:
        case MRICartesian():
            return _mri(measurement, measurement.acquisition)
        case MRIResolution():
            return _low_resolution(measurement, measurement.acquisition)
        case CTParallel() | CTFan():
            return _ct(measurement, measurement.acquisition)


def _ct(measurement: Measurement, acquisition: CTParallel | CTFan) -> Model:
    data = torch.from_numpy(measurement.data)
    geometry = ct_geometry(acquisition, data.shape[2])
    notes = list(measurement.notes)
    noise = acquisition.noise_std if acquisition.noise_std is not None else measurement.noise_std
    weights = None
    if acquisition.photons is not None:
        counted, weights = noise_estimate.of_photons(data, acquisition.photons)
        noise = counted if noise is None else noise
    if noise is None:
        noise = noise_estimate.of_sinogram(data)
        notes.append(
            f"noise of the line integrals estimated from the sinogram: {noise:.2e}"
            if noise > 0
            else "rays through air show no noise: the data count as free of it; if their air was set to one value, give"
            " photons or noise_std"
        )
    slice_mm = acquisition.slice_mm or geometry.pixel_mm
    affine, in_patient = measurement.affine, measurement.in_patient and measurement.affine is not None
    if affine is None:
        affine = scanner_affine(geometry.rows, geometry.cols, geometry.pixel_mm, slice_mm)
        notes.append("no patient coordinates in the input: the affine is the scanner's frame")
    problem = Problem(Tomography(geometry), data, noise, slice_mm, geometry.pixel_mm, weights)
    mu_water = acquisition.mu_water_per_mm
    return Model(problem, affine, in_patient, "HU" if mu_water else "1/mm", mu_water, notes)


def _mri(measurement: Measurement, acquisition: MRICartesian) -> Model:
    data = torch.from_numpy(measurement.data)
    rows, cols = data.shape[2:]
    notes = list(measurement.notes)
    sampled, everywhere = _sampling(measurement, data)
    if measurement.coil_maps is not None:
        maps = torch.from_numpy(measurement.coil_maps)
    else:
        maps = espirit_maps(data, everywhere, acquisition.calibration_width)
        notes.append("coil maps by ESPIRiT from the fully sampled centre of k-space")
    noise = acquisition.noise_std if acquisition.noise_std is not None else measurement.noise_std
    if noise is None:
        noise = noise_estimate.of_kspace(data, everywhere)
        notes.append(f"noise of k-space estimated from its outermost samples: {noise:.2e}")
    affine, in_patient = measurement.affine, measurement.in_patient and measurement.affine is not None
    pixel_mm, slice_mm = acquisition.pixel_mm or 1.0, acquisition.slice_mm or acquisition.pixel_mm or 1.0
    if affine is None:
        affine = scanner_affine(rows, cols, pixel_mm, slice_mm)
        notes.append("no patient coordinates in the input: the affine is the scanner's frame")
        if acquisition.pixel_mm is None:
            notes.append("no pixel size in the input: voxels are written as 1 mm")
    else:
        pixel_mm, _, slice_mm = voxel_size(affine)
    operator = CartesianMRI(sampled, maps)
    problem = Problem(operator, data * operator.mask[:, None], noise, slice_mm, pixel_mm)
    return Model(problem, affine, in_patient, "a.u.", None, notes)


def _low_resolution(measurement: Measurement, acquisition: MRIResolution) -> Model:
    stack = torch.from_numpy(measurement.data)
    notes = list(measurement.notes)
    noise = acquisition.noise_std if acquisition.noise_std is not None else measurement.noise_std
    if noise is None:
        noise = 0.0
        notes.append("noise of the stack not given: taken as none")
    factor = acquisition.factor
    plane = acquisition.direction == "plane"
    shape = finer_shape(stack.shape, acquisition)
    pixel_mm, slice_mm = acquisition.pixel_mm or 1.0, acquisition.slice_mm or acquisition.pixel_mm or 1.0
    pixel_mm, slice_mm = (pixel_mm / factor, slice_mm) if plane else (pixel_mm, slice_mm / factor)
    affine, in_patient = measurement.affine, measurement.in_patient and measurement.affine is not None
    if affine is None:
        affine = scanner_affine(shape[1], shape[2], pixel_mm, slice_mm)
        notes.append("no patient coordinates in the input: the affine is the scanner's frame")
        if acquisition.pixel_mm is None:
            notes.append("no pixel size in the input: pixels of the stack count as 1 mm")
    across, along, between_mm = voxel_size(affine)
    sides = (across, along) if plane else (along, between_mm)
    if max(sides) > 1.2 * min(sides):
        notes.append(
            f"the refined planes have pixels of {sides[0]:.2f} x {sides[1]:.2f} mm: priors were trained on square ones"
        )
    operator = resolution_operator(acquisition, shape)
    # Magnitudes have lost their phase; the solvers' images are complex, and get theirs from the data: none.
    data = in_planes(stack.to(torch.complex64), acquisition)
    between = slice_mm if plane else pixel_mm
    problem = Problem(operator, data, noise, between, pixel_mm)
    return Model(problem, affine, in_patient, "a.u.", None, notes, acquisition)


def _sampling(measurement: Measurement, data: Tensor) -> tuple[Tensor, Tensor]:
    """The operator's mask, one for all slices or one each, and the points that every slice has."""
    if measurement.mask is not None:
        mask = torch.from_numpy(measurement.mask)
        return mask, mask
    sampled = (data != 0).any(dim=1)
    everywhere = sampled[sampled.any(dim=(1, 2))].all(0)
    if bool((sampled == everywhere).all(dim=(1, 2)).logical_or(~sampled.any(dim=(1, 2))).all()):
        return everywhere, everywhere
    return sampled, everywhere
