"""Simulation of CT measurements: ideal ones, and ones with what a real scanner does to its line integrals."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from operators.geometry import ParallelBeam
from operators.interrupt import checkpoint
from operators.tomography import Tomography
from recon.measurement.detection import counted, photon_noise
from recon.measurement.fine_grid import refined
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import SAME_OPERATOR
from recon.measurement.spectrum import Spectrum, bone_fraction
from recon.priors.noise import key
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.ct import CT, WATER_PER_MM
from recon.spec.affine import Affine
from recon.spec.simulation import Simulation

FINER = 2
"""Pixels of the object along a pixel of the result."""
ELEMENT_RAYS, VIEW_RAYS = 3, 3
"""Rays across a detector element, and positions of the scanner during a view."""
USUAL_MOTION_RAD = 2 * math.pi / 1000
"""Motion during a view of a scanner with a thousand views a turn."""
REALISTIC = (
    f"simulated from a known volume as a scanner would measure it: an object {FINER} times as fine, beams of finite"
    " width, intensities averaged; its geometry is exact all the same, and that of measured data never is"
)


def simulate(volume: Volume, affine: Affine, given: CT, settings: Simulation, first_slice: int = 0) -> Measurement:
    """Measure a volume ``(slices, rows, cols)`` in HU; see `recon.measurement.simulate.simulate`.

    Noise and errors of the detector are keyed by (seed, slice): a slice is measured alike alone and in any stack.
    """
    acquisition, shape = given.simulated(volume.shape, affine, settings)
    mu_water = acquisition.mu_water_per_mm or WATER_PER_MM
    attenuation = torch.from_numpy(mu_water * (1 + volume / 1000)).clamp(min=0)
    geometry = acquisition.geometry(shape[2])
    seeds = [key(settings.seed, first_slice + index) for index in range(len(volume))]
    ideal = settings.model == "ideal"
    if ideal:
        data = _ideal(attenuation, geometry, settings, seeds)
    else:
        data = _realistic(attenuation, mu_water, geometry, settings, seeds)
    return Measurement(
        data=data.numpy(),
        acquisition=acquisition,
        affine=affine,
        truth=((attenuation / mu_water - 1) * 1000).numpy(),
        # Only of ideal data without photons it is known; of others it has to be found out, as of any scan.
        noise_std=0.0 if ideal and settings.photons_per_ray is None else None,
        notes=[SAME_OPERATOR if ideal else REALISTIC],
        provenance={"simulated": settings.model_dump(mode="json")},
    )


def _ideal(attenuation: Tensor, geometry: ParallelBeam, settings: Simulation, seeds: list[int]) -> Tensor:
    """Line integrals by the operator that reconstructs them."""
    clean = Tomography(geometry).forward(attenuation)
    photons = settings.photons_per_ray
    if photons is None:
        return clean
    generators = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([photon_noise(one, photons, each)[0] for one, each in zip(clean, generators, strict=True)])


def _realistic(
    attenuation: Tensor, mu_water: float, geometry: ParallelBeam, settings: Simulation, seeds: list[int]
) -> Tensor:
    """Line integrals as from the counts of a scanner, a few slices at a time."""
    fine = sub_rays(geometry, settings)
    operator = Tomography(fine, "astra")  # a matrix of so many rays would not be used again
    spectrum = None if settings.tube_voltage_kv is None else Spectrum.of_tube(settings.tube_voltage_kv)
    together = torch.get_num_threads()
    data = torch.empty((len(attenuation), len(geometry.angles_rad), geometry.detectors))
    for first in range(0, len(attenuation), together):
        checkpoint()
        exact = attenuation[first : first + together]
        finer = refined(exact, FINER)
        if spectrum is None:
            rays = torch.exp(-operator.forward(finer).double())
        else:
            bone = bone_fraction((finer / mu_water - 1) * 1000) * finer
            rays = spectrum.transmission(operator.forward(finer - bone).double(), operator.forward(bone).double())
        views = rays.reshape(len(exact), data.shape[1], VIEW_RAYS, data.shape[2], ELEMENT_RAYS)
        for index, transmission in enumerate(views.mean(dim=(2, 4)), start=first):
            integrals = -torch.log(detected(transmission, settings, seeds[index]))
            data[index] = integrals if spectrum is None else spectrum.corrected(integrals)
    return data


def sub_rays(geometry: ParallelBeam, settings: Simulation) -> ParallelBeam:
    """Geometry of the rays of all detector elements and views, through an object `FINER` times as fine.

    Rays of an element are neighbours, and so are the `VIEW_RAYS` angles of a view.
    """
    motion = settings.view_motion_rad
    if motion is None:
        gaps = [later - earlier for earlier, later in pairwise(sorted(geometry.angles_rad))]
        motion = min(USUAL_MOTION_RAD, median(gaps)) if gaps else USUAL_MOTION_RAD
    within = [motion * ((index + 0.5) / VIEW_RAYS - 0.5) for index in range(VIEW_RAYS)]
    return replace(
        geometry,
        rows=geometry.rows * FINER,
        cols=geometry.cols * FINER,
        pixel_mm=geometry.pixel_mm / FINER,
        angles_rad=tuple(angle + offset for angle in geometry.angles_rad for offset in within),
        detectors=geometry.detectors * ELEMENT_RAYS,
        detector_mm=geometry.detector_mm / ELEMENT_RAYS,
    )


def detected(transmission: Tensor, settings: Simulation, seed: int, of_gain: int | None = None) -> Tensor:
    """Reading of a detector for a transmission ``(..., detectors)``: scatter, noise, errors of its elements' gain.

    Noise follows `seed`, and so do the errors unless they have a seed of their own, `of_gain`: those of a panel, whose
    rows ``(rows, detectors)`` are seen again in other views.
    """
    generator = torch.Generator().manual_seed(seed)
    found = transmission + settings.scatter
    if settings.photons_per_ray is not None:
        found = counted(found, settings.photons_per_ray, generator, settings.electronic_noise_photons)
    if of_gain is None:
        return found * _gain(found.shape[-1], settings, generator)
    generator = torch.Generator().manual_seed(of_gain)
    return found * torch.stack([_gain(found.shape[-1], settings, generator) for _ in range(found.shape[-2])])


def _gain(detectors: int, settings: Simulation, generator: torch.Generator) -> Tensor:
    """Relative gain of the elements of a detector row."""
    gain = 1 + settings.gain_std * torch.randn(detectors, generator=generator, dtype=torch.float64)
    off = torch.randperm(detectors, generator=generator)[: settings.rings]
    sign = torch.randint(2, off.shape, generator=generator) * 2 - 1
    gain[off] *= 1 + settings.ring_gain * sign
    return gain.clamp(min=0.1)
