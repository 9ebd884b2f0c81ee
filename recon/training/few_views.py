"""Few-view CT scans of training slices."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.measurement import random_fields
from recon.measurement.detection import photon_noise
from recon.priors.card import IntensityRange
from recon.problem.ct import attenuation_map
from recon.problem.problem import IntensityMap, Problem
from recon.spec.acquisitions.ct import WATER_PER_MM

SCANS = 48
"""Number of geometries per image size; the system matrix of each is cached."""
FEWEST, MOST = 6, 64
"""Range of the number of views over half a turn, log-uniform."""
LIMITED = 0.25
"""Fraction of the scans with limited angular coverage."""
NOISELESS = 0.4
"""Fraction of the measurements without photon noise."""
FIELD_MM = 360.0
"""Side of a slice in mm, on which attenuation, and so photon noise, depends."""


@cache
def scan(number: int, size: int) -> Tomography:
    """Make one of the geometries, for slices of ``size * size`` pixels."""
    generator = torch.Generator().manual_seed(number)
    start = random_fields.uniform(generator, 0, math.pi)
    if random_fields.uniform(generator) < LIMITED:
        span = math.radians(random_fields.uniform(generator, 60, 170))
        views = 15 + random_fields.integer(generator, MOST - 14)
    else:
        span = math.pi
        views = round(math.exp(random_fields.uniform(generator, math.log(FEWEST), math.log(MOST))))
    pixel_mm = FIELD_MM / size
    angles = tuple(start + span * k / views for k in range(views))
    detectors = math.ceil(math.hypot(size, size)) + 2
    return Tomography(ParallelBeam(size, size, pixel_mm, angles, detectors, pixel_mm))


def scanned(images: Tensor, range_: IntensityRange, generator: torch.Generator) -> tuple[Problem, IntensityMap]:
    """Simulate a random scan of slices ``(slices, size, size)`` on the prior's scale."""
    operator, intensity = scan(random_fields.integer(generator, SCANS), images.shape[-1]), physical(range_)
    data, noise = operator.forward(intensity.to_physical(images).clamp(min=0)), 0.0
    if random_fields.uniform(generator) >= NOISELESS:
        photons = math.exp(random_fields.uniform(generator, math.log(2e4), math.log(1e6)))
        data, noise = photon_noise(data, photons, generator)
    return Problem(operator, data, noise), intensity


def evenly(images: Tensor, range_: IntensityRange, views: int = 8) -> tuple[Problem, IntensityMap]:
    """Simulate noiseless, evenly spaced views of slices ``(slices, rows, cols)``, with which priors are judged."""
    rows, cols = images.shape[1:]
    pixel_mm = FIELD_MM / max(rows, cols)
    angles = tuple(math.pi * k / views for k in range(views))
    geometry = ParallelBeam(rows, cols, pixel_mm, angles, math.ceil(math.hypot(rows, cols)) + 2, pixel_mm)
    operator, intensity = Tomography(geometry), physical(range_)
    return Problem(operator, operator.forward(intensity.to_physical(images))), intensity


def physical(range_: IntensityRange) -> IntensityMap:
    """Convert from the prior's scale, in HU, to attenuation in 1/mm."""
    return attenuation_map(range_, WATER_PER_MM)
