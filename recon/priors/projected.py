"""Training slices seen through few projections: what a prior that is given them is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon import conditions
from recon.geometry import WATER_PER_MM
from recon.priors import augment
from recon.priors.recipe import Axis as Intensity
from recon.simulate import photon_noise
from recon.solvers.data_step import DataStep
from recon.solvers.problem import Axis, Problem

SCANS = 48
"""Different geometries of one image size; the system matrix of each is kept."""
FEWEST, MOST = 6, 64
"""Views of a scan from all sides, log-uniform."""
LIMITED = 0.25
"""Share of the scans that miss directions."""
NOISELESS = 0.4
"""Share of the measurements without photon noise."""
LEVELS = (0.4, 0.25, 0.16, 0.1, 0.063, 0.04)
"""Noise levels of the solver's steps; after the last one the image is as good as it gets."""
DATA_SIGMA = 1e-3
"""Noise that its data steps assume at least, on the prior's axis."""
FIELD_MM = 360.0
"""Side of a slice: how much a ray is attenuated, and so its noise, depends on it."""


@cache
def scan(number: int, size: int) -> Tomography:
    """One of the geometries, for slices of ``size * size`` pixels."""
    generator = torch.Generator().manual_seed(number)
    start = augment.uniform(generator, 0, math.pi)
    if augment.uniform(generator) < LIMITED:
        span = math.radians(augment.uniform(generator, 60, 170))
        views = 15 + augment.integer(generator, MOST - 14)
    else:
        span = math.pi
        views = round(math.exp(augment.uniform(generator, math.log(FEWEST), math.log(MOST))))
    pixel_mm = FIELD_MM / size
    angles = tuple(start + span * k / views for k in range(views))
    detectors = math.ceil(math.hypot(size, size)) + 2
    return Tomography(ParallelBeam(size, size, pixel_mm, angles, detectors, pixel_mm))


Denoise = Callable[[Tensor, float, Tensor], Tensor]
"""Of noisy slices ``(slices, rows, cols)``, their noise level and their condition."""


class Scanned(NamedTuple):
    """What is known of slices ``(slices, size, size)`` from one scan, on the prior's axis."""

    condition: Tensor
    iterate: Tensor
    """What a solver has made of it so far."""
    sigma: float
    """Noise level of the solver's next step."""


def scanned(images: Tensor, intensity: Intensity, generator: torch.Generator, denoise: Denoise) -> Scanned:
    """Slices seen by a random scan, and solved with `denoise` for a random number of steps.

    The errors of a solver's images are no white noise: they are what the scan leaves open, and what the network made
    of it. A network that is trained on them, as it makes them itself, learns to mend them.

    References
    ----------
    Mardani et al. 2024 (arXiv 2305.04391) for the steps: `denoise` with fresh noise, then the data's proximal step.
    Aggarwal et al. 2019, MoDL (arXiv 1712.02862): one network for all steps, trained on the images it is given there.
    Ross et al. 2011, DAgger (arXiv 1011.0686): trained on what it does itself, without going back through the steps.
    """
    operator, axis = scan(augment.integer(generator, SCANS), images.shape[-1]), physical(intensity)
    data, noise = operator.forward(axis.to_physical(images).clamp(min=0)), 0.0
    if augment.uniform(generator) >= NOISELESS:
        photons = math.exp(augment.uniform(generator, math.log(2e4), math.log(1e6)))
        data, noise = photon_noise(data, photons, generator)
    problem = Problem(operator, data, noise)
    condition = found = conditions.least_squares(problem, axis)
    fit = DataStep(problem, axis, DATA_SIGMA, None, noise_share=0.6)
    steps = augment.integer(generator, len(LEVELS))
    for sigma in LEVELS[:steps]:
        noisy = found + sigma * torch.randn(found.shape, generator=generator)
        found = fit(denoise(noisy, sigma, condition), sigma)
    return Scanned(condition, found, LEVELS[steps])


def few_views(images: Tensor, intensity: Intensity, views: int = 8) -> Tensor:
    """Least-squares images of slices ``(slices, rows, cols)`` by evenly spaced views without noise."""
    rows, cols = images.shape[1:]
    pixel_mm = FIELD_MM / max(rows, cols)
    angles = tuple(math.pi * k / views for k in range(views))
    geometry = ParallelBeam(rows, cols, pixel_mm, angles, math.ceil(math.hypot(rows, cols)) + 2, pixel_mm)
    operator, axis = Tomography(geometry), physical(intensity)
    return conditions.least_squares(Problem(operator, operator.forward(axis.to_physical(images))), axis)


def physical(intensity: Intensity) -> Axis:
    """From the prior's axis, in HU, to attenuation in 1/mm."""
    half = (intensity.high - intensity.low) / 2
    return Axis(WATER_PER_MM * half / 1000, WATER_PER_MM * (1 + (intensity.low + half) / 1000))
