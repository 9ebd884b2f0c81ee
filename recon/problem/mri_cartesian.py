"""Physics of Cartesian MRI: the inverse problem of k-space, and its simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from operators.coils import espirit_maps
from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.interrupt import checkpoint
from operators.linear import random_element
from recon.measurement import kspace, noise_estimate
from recon.measurement.measurement import Measurement
from recon.measurement.random_fields import smooth_phase
from recon.problem import mri_simulation
from recon.problem.inverse_problem import InverseProblem, placed_stack
from recon.problem.problem import Problem
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.affine import Affine, voxel_size
from recon.spec.simulation import Simulation

ATTEMPTS = 4
"""Maximum number of attempts to draw a Poisson disc."""
LEAST_POISSON = 2.0
"""Least acceleration of a Poisson disc: its corners are cut off, and the closest packing has gaps."""


def build(measurement: Measurement) -> InverseProblem:
    """Set up the inverse problem of k-space."""
    acquisition = measurement.acquisition
    assert isinstance(acquisition, MRICartesian)
    noise_known = (acquisition.noise_std if acquisition.noise_std is not None else measurement.noise_std) is not None
    looked_at = kspace.prepared(
        measurement.data.astype(np.complex64, copy=False),
        measurement.mask,
        measurement.coil_maps,
        placed=measurement.affine is not None,
        noise_known=noise_known,
    )
    measurement = replace(measurement, data=looked_at.data, mask=looked_at.mask, coil_maps=looked_at.maps)
    data = torch.from_numpy(looked_at.data)
    rows, cols = data.shape[2:]
    notes = [*measurement.notes, *looked_at.notes]
    sampled, everywhere = _sampling(measurement, data)
    if measurement.coil_maps is not None:
        maps = torch.from_numpy(measurement.coil_maps)
    else:
        maps = espirit_maps(data, everywhere, acquisition.acs_width)
        notes.append("coil maps by ESPIRiT from the fully sampled centre of k-space")
    noise = acquisition.noise_std if acquisition.noise_std is not None else measurement.noise_std
    noise_std: float | Tensor
    if noise is not None:
        noise_std = noise
    else:
        noise_std = noise_estimate.of_kspace(data, everywhere)
        notes.append(f"noise of k-space estimated from its outermost samples: {noise_estimate.spelled(noise_std)}")
    affine, in_patient, pixel_mm, slice_mm = placed_stack(measurement, rows, cols, notes)
    operator = CartesianMRI(sampled, maps)
    problem = Problem(operator, data * operator.mask[:, None], noise_std, slice_mm, pixel_mm)
    return InverseProblem(problem, affine, in_patient, "a.u.", "mri", notes)


def _sampling(measurement: Measurement, data: Tensor) -> tuple[Tensor, Tensor]:
    """Return the operator's mask, one for all slices or one per slice, and the points that every slice has."""
    if measurement.mask is not None:
        mask = torch.from_numpy(measurement.mask)
        return mask, mask
    sampled = (data != 0).any(dim=1)
    everywhere = sampled[sampled.any(dim=(1, 2))].all(0)
    if bool((sampled == everywhere).all(dim=(1, 2)).logical_or(~sampled.any(dim=(1, 2))).all()):
        return everywhere, everywhere
    return sampled, everywhere


def simulate(
    volume: Volume, affine: Affine, given: MRICartesian, settings: Simulation, first_slice: int = 0
) -> Measurement:
    """Measure a magnitude volume ``(slices, rows, cols)``; see `recon.measurement.simulate.simulate`."""
    col_mm, _, slice_mm = voxel_size(affine)
    acquisition = given.model_copy(update={"pixel_mm": col_mm, "slice_mm": slice_mm})
    provenance = {"simulated": settings.model_dump(mode="json")}
    size = (volume.shape[1], volume.shape[2])
    if settings.model == "ideal":
        mask = sampling_mask(*size, settings)
        data, noise_std = _ideal(volume, mask, settings)
        return Measurement(
            data=data.numpy(), acquisition=acquisition, affine=affine, truth=volume, noise_std=noise_std,
            mask=mask.numpy(), provenance=provenance,
        )  # fmt: skip
    rows, cols = settings.field_of_view(size[0]), size[1]
    mask = sampling_mask(rows, cols, settings)
    samples = mri_simulation.cartesian(size, (rows, cols), by_point=settings.pattern == "poisson")
    kspace_of_all, truth = mri_simulation.measured(volume, affine, settings, samples, samples, first_slice)
    return Measurement(
        data=kspace_of_all * mask.numpy(),
        acquisition=acquisition,
        affine=mri_simulation.result_affine(affine, size[0], rows),
        truth=truth,
        mask=mask.numpy(),
        notes=[mri_simulation.REALISTIC],
        provenance=provenance,
    )


def _ideal(volume: Volume, mask: Tensor, settings: Simulation) -> tuple[Tensor, float]:
    """K-space by the operator that reconstructs it, with birdcage maps, and its noise, which is known."""
    slices, rows, cols = volume.shape
    generator = torch.Generator().manual_seed(settings.seed)
    phase = smooth_phase(rows, cols, generator)
    image = torch.polar(torch.from_numpy(volume), phase.expand(slices, -1, -1).contiguous())
    operator = CartesianMRI(mask, birdcage_maps(settings.coils, rows, cols))
    noise_std = settings.noise_std * float(volume.max())
    noise = random_element(operator.range, slices, generator) * noise_std
    return operator.forward(image) + mask * noise, noise_std


def birdcage_maps(coils: int, rows: int, cols: int) -> Tensor:
    """Birdcage sensitivities ``(coils, rows, cols)`` complex64 with unit norm over coils."""
    from sigpy.mri.sim import birdcage_maps as sigpy_maps

    maps = torch.from_numpy(np.asarray(sigpy_maps((coils, rows, cols)), dtype=np.complex64))
    normalized: Tensor = maps / torch.linalg.vector_norm(maps, dim=0).clamp(min=1e-6)
    return normalized


def sampling_mask(rows: int, cols: int, settings: Simulation) -> Tensor:
    """Sampling mask ``(rows, cols)``: every R-th row or a Poisson disc, with a fully sampled centre.

    Raises
    ------
    InputError
        If no Poisson disc of that acceleration is found.
    """
    if settings.pattern == "equispaced":
        mask = torch.zeros(rows, dtype=torch.bool)
        mask[:: round(settings.acceleration)] = True
        width = max(round(settings.center_fraction * rows), 8)
        mask[rows // 2 - width // 2 : rows // 2 - width // 2 + width] = True
        return mask[:, None].expand(rows, cols).clone()
    from sigpy.mri import poisson

    if settings.acceleration < LEAST_POISSON:
        raise InputError(
            f"a Poisson disc is undersampled {LEAST_POISSON:g} times at least, got {settings.acceleration:g}",
            field="input.simulate.acceleration",
            remedy="take a higher acceleration, or the equispaced pattern",
        )
    width = max(round(settings.center_fraction * min(rows, cols)), 16)
    for attempt in range(ATTEMPTS):
        checkpoint()
        seed = settings.seed + attempt * 1_000_003
        try:
            drawn = poisson((rows, cols), settings.acceleration, calib=(width, width), seed=seed % 2**32)
        except ValueError:
            continue  # with some seeds sigpy's sampling ends with its first point
        return torch.from_numpy(np.abs(drawn) > 0)
    raise InputError(
        f"no Poisson disc of {rows} x {cols} points was found that is undersampled {settings.acceleration:g} times",
        field="input.simulate.acceleration",
        remedy="take another acceleration, or the equispaced pattern",
    )
