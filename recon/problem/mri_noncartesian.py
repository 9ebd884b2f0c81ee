"""Physics of non-Cartesian MRI: the inverse problem of samples along a trajectory, and its simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from operators.coils import espirit_maps, shaded_as_measured
from operators.errors import InputError
from operators.linear import random_element
from operators.noncartesian import NonCartesianMRI, cell_areas, central_kspace
from recon.measurement import coils, noise_estimate
from recon.measurement.coils import Coils
from recon.measurement.measurement import Measurement
from recon.measurement.random_fields import smooth_phase
from recon.problem import mri_simulation
from recon.problem.inverse_problem import InverseProblem, placed_stack
from recon.problem.mri_cartesian import birdcage_maps, measured_noise
from recon.problem.problem import Problem
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.kspace import transformed
from recon.spec.acquisitions.mri_noncartesian import MRINonCartesian, radial_size
from recon.spec.affine import Affine
from recon.spec.preparation import CoilPreparation
from recon.spec.simulation import Simulation

GOLDEN_RAD = math.pi * (math.sqrt(5) - 1) / 2
"""Golden angle between spokes, 111.25 degrees (Winkelmann et al. 2007, IEEE Trans. Med. Imaging 26, 68-76)."""


def build(measurement: Measurement) -> InverseProblem:
    """Set up the inverse problem of samples along a trajectory, of a stack after the transform along partitions.

    That is unitary: noise stays white and has the same level.
    """
    acquisition, of_slices = measurement.acquisition.of_slices(measurement.data, 0, len(measurement.data))
    measurement = replace(measurement, acquisition=acquisition, data=of_slices)
    assert isinstance(acquisition, MRINonCartesian)
    rows, cols = acquisition.matrix()
    points = acquisition.points(measurement.files)
    trajectory = torch.from_numpy(np.ascontiguousarray(points[:, ::-1]))  # the operator's rows come first
    covariance, level = measured_noise(measurement)
    samples = measurement.data.astype(np.complex64, copy=False)
    alike = coils.prepared(
        Coils(samples, measurement.coil_maps, covariance, level, list(measurement.notes)),
        np.hypot(*(points / (np.array([cols, rows]) / 2)).T),
        acquisition.preparation or CoilPreparation(),
        noise_known=level is not None,
    )
    data, notes = torch.from_numpy(alike.data), alike.notes
    density = cell_areas(trajectory, acquisition.density)
    if "density_weights" in measurement.files:
        given = torch.from_numpy(measurement.files["density_weights"])
        density = given * (float(density.sum()) / float(given.sum()))
    if alike.maps is not None:
        maps = torch.from_numpy(alike.maps)
    elif data.shape[1] == 1:
        maps = torch.ones((1, rows, cols), dtype=torch.complex64)
    else:
        centre, near = central_kspace(trajectory, data, (rows, cols))
        maps = espirit_maps(centre, near, acquisition.acs_width)
        maps = shaded_as_measured(maps, alike.unmixing)
        notes.append("coil maps by ESPIRiT from the densely sampled centre of k-space")
    level = level if acquisition.noise_std is not None or covariance is None else alike.noise_std
    noise_std: float | Tensor
    if level is not None:
        noise_std = level
    else:
        noise_std = noise_estimate.of_samples(data, torch.linalg.vector_norm(trajectory, dim=1))
        if acquisition.partition_encoding:
            noise_std = noise_estimate.in_common(noise_std, data)
        notes.append(f"noise of k-space estimated from its outermost samples: {noise_estimate.spelled(noise_std)}")
    affine, in_patient, pixel_mm, slice_mm = placed_stack(measurement, rows, cols, notes)
    problem = Problem(NonCartesianMRI(trajectory, maps, density), data, noise_std, slice_mm, pixel_mm)
    return InverseProblem(problem, affine, in_patient, "a.u.", "mri", notes, steps=alike.steps)


def simulate(
    volume: Volume, affine: Affine, given: MRINonCartesian, settings: Simulation, first_slice: int = 0
) -> Measurement:
    """Measure a magnitude volume along spokes at golden angles; see `recon.measurement.simulate.simulate`."""
    if given.partition_encoding and settings.motion_pixels:
        raise InputError(
            "stacks are simulated without motion", field="input.simulate.motion_pixels", remedy="leave it out"
        )
    size = (volume.shape[1], volume.shape[2])
    ideal = settings.model == "ideal"
    rows, cols = settings.field_of_view(size[0]), size[1]
    acquisition, _ = given.simulated(volume.shape, affine, settings)
    trajectory = radial(rows, cols, settings.acceleration)
    noise_std: float | None = None
    if ideal:
        data, noise_std = _ideal(volume, trajectory, settings)
        kspace, truth = data.numpy(), volume
    else:
        _, spoke_samples = radial_size(max(rows, cols), settings.acceleration)
        samples = mri_simulation.along_spokes(size, (rows, cols), trajectory, spoke_samples)
        whole = mri_simulation.cartesian(size, (rows, cols), by_point=True)
        kspace, truth = mri_simulation.measured(volume, affine, settings, samples, whole, first_slice)
    return Measurement(
        data=transformed(kspace, 0, inverse=False) if given.partition_encoding else kspace,
        acquisition=acquisition,
        affine=affine if ideal else mri_simulation.result_affine(affine, size[0], rows),
        truth=truth,
        noise_std=noise_std,
        files={"trajectory_cycles_per_fov": np.ascontiguousarray(trajectory.numpy()[:, ::-1])},
        notes=[] if ideal else [mri_simulation.REALISTIC],
        provenance={"simulated": settings.model_dump(mode="json")},
    )


def _ideal(volume: Volume, trajectory: Tensor, settings: Simulation) -> tuple[Tensor, float]:
    """Samples by the operator that reconstructs them, with birdcage maps, and their noise, which is known."""
    slices, rows, cols = volume.shape
    generator = torch.Generator().manual_seed(settings.seed)
    phase = smooth_phase(rows, cols, generator)
    image = torch.polar(torch.from_numpy(volume), phase.expand(slices, -1, -1).contiguous())
    operator = NonCartesianMRI(trajectory, birdcage_maps(settings.coils, rows, cols), torch.ones(len(trajectory)))
    noise_std = settings.noise_std * float(volume.max())
    return operator.forward(image) + random_element(operator.range, slices, generator) * noise_std, noise_std


def radial(rows: int, cols: int, acceleration: float) -> Tensor:
    """Radial trajectory ``(samples, 2)`` at golden angles, in cycles per field of view, rows before columns."""
    spokes, samples = radial_size(max(rows, cols), acceleration)
    angles = torch.arange(spokes, dtype=torch.float64) * GOLDEN_RAD
    along = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    return torch.stack(
        [torch.outer(angles.sin(), along).flatten() * rows, torch.outer(angles.cos(), along).flatten() * cols], 1
    )
