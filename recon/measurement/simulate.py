"""Retrospective undersampling: measure a known volume, so that anyone can judge a method on their own data.

The projector that makes the data also reconstructs it, so results are better than on measured data (an
"inverse crime"); the report of such a job says that it was simulated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.interrupt import checkpoint
from operators.linear import random_element
from operators.tomography import Tomography
from recon.measurement.geometry import WATER_PER_MM, check_divisible, ct_geometry, simulated_ct, voxel_size
from recon.measurement.measurement import Measurement
from recon.measurement.planes import from_planes, in_planes, resolution_operator
from recon.spec.job import AnyAcquisition, CTFan, CTParallel, MRICartesian, MRIResolution, Simulation

ATTEMPTS = 4
"""To draw a Poisson disc."""
LEAST_POISSON = 2.0
"""Its corners are cut off, and the closest packing has gaps."""
Volume = NDArray[np.float32]
Affine = NDArray[np.float64]


def simulate(volume: Volume, affine: Affine, acquisition: AnyAcquisition, settings: Simulation) -> Measurement:
    """Measure `volume` ``(slices, rows, cols)``: CT in HU, MRI in any magnitude.

    Parameters
    ----------
    volume, affine
        The object and its place in the patient.
    acquisition
        What to measure; missing sizes are taken from the volume.
    settings
        Noise, sampling and seed.

    Returns
    -------
    Measurement
        With `truth` set, in HU or in the magnitude's unit.
    """
    provenance = {"simulated": settings.model_dump(mode="json")}
    if isinstance(acquisition, MRICartesian):
        return _mri(volume, affine, acquisition, settings, provenance)
    if isinstance(acquisition, MRIResolution):
        return _low_resolution(volume, affine, acquisition, settings, provenance)
    return _ct(volume, affine, acquisition, settings, provenance)


def _ct(
    volume: Volume, affine: Affine, given: CTParallel | CTFan, settings: Simulation, provenance: dict[str, Any]
) -> Measurement:
    acquisition, detectors = simulated_ct(volume.shape, affine, given, settings)
    mu_water = acquisition.mu_water_per_mm or WATER_PER_MM
    attenuation = torch.from_numpy(mu_water * (1 + volume / 1000)).clamp(min=0)
    line_integrals = Tomography(ct_geometry(acquisition, detectors)).forward(attenuation)
    noise_std = 0.0
    if settings.photons is not None:
        generator = torch.Generator().manual_seed(settings.seed)
        line_integrals, noise_std = photon_noise(line_integrals, settings.photons, generator)
    return Measurement(
        data=line_integrals.numpy(),
        acquisition=acquisition,
        affine=affine,
        truth=((attenuation / mu_water - 1) * 1000).numpy(),
        noise_std=noise_std,
        provenance=provenance,
    )


def photon_noise(line_integrals: Tensor, photons: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Line integrals with photon noise, and the root mean square of that over the rays."""
    expected = photons * torch.exp(-line_integrals.double())
    counts = torch.poisson(expected, generator=generator).clamp(min=1.0)
    noisy = -torch.log(counts / photons)
    return noisy.float(), float((1 / expected.clamp(min=1.0)).mean().sqrt())


def _mri(
    volume: Volume, affine: Affine, given: MRICartesian, settings: Simulation, provenance: dict[str, Any]
) -> Measurement:
    from recon.training.augment import smooth_phase

    slices, rows, cols = volume.shape
    col_mm, _, slice_mm = voxel_size(affine)
    acquisition = given.model_copy(update={"pixel_mm": col_mm, "slice_mm": slice_mm})
    generator = torch.Generator().manual_seed(settings.seed)
    phase = smooth_phase(rows, cols, generator)
    image = torch.polar(torch.from_numpy(volume), phase.expand(slices, -1, -1).contiguous())
    mask = sampling_mask(rows, cols, settings)
    operator = CartesianMRI(mask, birdcage_maps(settings.coils, rows, cols))
    noise_std = settings.noise_std * float(volume.max())
    kspace = operator.forward(image)
    noise = random_element(operator.range, slices, generator) * noise_std
    return Measurement(
        data=(kspace + mask * noise).numpy(),
        acquisition=acquisition,
        affine=affine,
        truth=volume,
        noise_std=noise_std,
        mask=mask.numpy(),
        provenance=provenance,
    )


def _low_resolution(
    volume: Volume, affine: Affine, given: MRIResolution, settings: Simulation, provenance: dict[str, Any]
) -> Measurement:
    """The magnitude of the low-resolution image, with complex noise in it: what a scanner exports."""
    factor = given.factor
    col_mm, _, slice_mm = voxel_size(affine)
    plane = given.direction == "plane"
    acquisition = given.model_copy(
        update={
            "pixel_mm": col_mm * (factor if plane else 1),
            "slice_mm": slice_mm * (1 if plane else factor),
        }
    )
    check_divisible(volume.shape, given)
    lower = resolution_operator(given, volume.shape)
    planes = in_planes(torch.from_numpy(volume).to(torch.complex64), given)
    low = lower.forward(planes)
    noise_std = settings.noise_std * float(volume.max())
    low = low + noise_std * random_element(lower.range, len(low), torch.Generator().manual_seed(settings.seed))
    return Measurement(
        data=from_planes(low, given).abs().numpy(),
        acquisition=acquisition,
        affine=affine,
        truth=volume,
        noise_std=noise_std,
        provenance=provenance,
    )


def birdcage_maps(coils: int, rows: int, cols: int) -> Tensor:
    """Birdcage sensitivities ``(coils, rows, cols)`` complex64 with unit norm over coils."""
    from sigpy.mri.sim import birdcage_maps as sigpy_maps

    maps = torch.from_numpy(np.asarray(sigpy_maps((coils, rows, cols)), dtype=np.complex64))
    normalized: Tensor = maps / torch.linalg.vector_norm(maps, dim=0).clamp(min=1e-6)
    return normalized


def sampling_mask(rows: int, cols: int, settings: Simulation) -> Tensor:
    """Sampled points ``(rows, cols)``: every R-th row or a Poisson disc, with a fully sampled centre.

    Raises
    ------
    InputError
        If no Poisson disc of that acceleration is found.
    """
    if settings.pattern == "uniform":
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
            remedy="take a higher acceleration, or the uniform pattern",
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
        remedy="take another acceleration, or the uniform pattern",
    )
