"""Training slices seen through undersampled k-space."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from operators.fourier import CartesianMRI
from operators.linear import random_element
from recon.measurement import random_fields
from recon.problem.mri_cartesian import birdcage_maps, sampling_mask
from recon.problem.problem import IntensityMap, Problem
from recon.spec.simulation import Simulation

SCANS = 48
"""Different samplings and coils of one image size."""
FEWEST, MOST = 3.0, 12.0
"""Times that k-space is undersampled, log-uniform."""
POINTS = 0.4
"""Share of the scans that sample points; the others sample lines, half of them at random distances."""
SMALLEST = 64
"""Size from which there are points around their centre of 16 x 16."""
COILS = 8
"""At most; at least half as many."""
MAP_ERROR = 0.03
"""Relative error, at most, of the sensitivities that a solver is given: they are estimates."""
CUT, SUPPORT = 0.7, 0.03
"""Share of the scans whose sensitivities are zero where a neighbourhood is darker than this, as ESPIRiT has them."""
NOISE = (0.001, 0.03)
"""Standard deviation, log-uniform, where the brightest tissue is 1."""


class Scan(NamedTuple):
    """What is measured, and what a solver takes that to be."""

    measured: CartesianMRI
    believed: CartesianMRI


@cache
def scan(number: int, size: int) -> Scan:
    """One of the scans, for slices of ``size * size`` pixels."""
    generator = torch.Generator().manual_seed(number)
    factor = round(math.exp(random_fields.uniform(generator, math.log(FEWEST), math.log(MOST))), 1)
    if random_fields.uniform(generator) < POINTS and size >= SMALLEST:
        wanted = {"pattern": "poisson", "acceleration": min(factor, 8.0 * size / SMALLEST), "seed": number}
        mask = sampling_mask(size, size, Simulation.model_validate(wanted))
    else:
        mask = _lines(size, factor, generator)[:, None].expand(size, size)
    mask = (mask.mT if random_fields.uniform(generator) < 0.5 else mask).contiguous()
    coils = COILS // 2 + random_fields.integer(generator, COILS // 2 + 1)
    maps = _coils(coils, size, generator)
    wrong = torch.complex(*(_fields(coils, size, 6, generator) for _ in range(2)))
    believed = maps * (1 + random_fields.uniform(generator, 0, MAP_ERROR) * wrong)
    return Scan(CartesianMRI(mask, maps), CartesianMRI(mask, _normalized(believed)))


def scanned(images: Tensor, generator: torch.Generator) -> tuple[Problem, IntensityMap]:
    """A random scan of complex slices ``(slices, size, size)`` on the prior's axis."""
    measured, believed = scan(random_fields.integer(generator, SCANS), images.shape[-1])
    noise = math.exp(random_fields.uniform(generator, *(math.log(end) for end in NOISE)))
    drawn = random_element(measured.range, len(images), generator)
    data = measured.forward(images) + noise * measured.mask * drawn
    if random_fields.uniform(generator) < CUT:
        inside = functional.avg_pool2d(images.abs()[:, None], 9, stride=1, padding=4) > SUPPORT
        cut = CartesianMRI(believed.mask[0], believed.maps * inside)
        cut.whole = believed  # whose norm it has, nearly
        believed = cut
    return Problem(believed, data, noise), IntensityMap(1.0, 0.0)


def evenly(images: Tensor, factor: int = 8) -> tuple[Problem, IntensityMap]:
    """Complex slices ``(slices, rows, cols)`` by every `factor`-th line without noise: what priors are judged with."""
    rows, cols = images.shape[1:]
    mask = sampling_mask(rows, cols, Simulation(acceleration=factor, center_fraction=0.04))
    operator = CartesianMRI(mask, birdcage_maps(COILS, rows, cols))
    return Problem(operator, operator.forward(images)), IntensityMap(1.0, 0.0)


def _lines(size: int, factor: float, generator: torch.Generator) -> Tensor:
    """Sampled rows: evenly spaced or at random, denser near the centre, which is sampled fully."""
    rows = torch.arange(size)
    if random_fields.uniform(generator) < 0.5:
        step = max(round(factor), 2)
        kept = rows % step == random_fields.integer(generator, step)
    else:
        density = (1 - (rows - size // 2).abs() / (size / 2 + 1)).square() + 0.1
        chosen = torch.multinomial(density, max(round(size / factor), 1), generator=generator)
        kept = torch.isin(rows, chosen)
    width = max(round(random_fields.uniform(generator, 0.04, 0.1) * size), 8)
    first = size // 2 - width // 2
    return kept | ((rows >= first) & (rows < first + width))


def _coils(coils: int, size: int, generator: torch.Generator) -> Tensor:
    """Sensitivities ``(coils, size, size)``: each falls off from a place near the edge and has a phase of its own."""
    grid = torch.linspace(-1, 1, size)
    turn = random_fields.uniform(generator, 0, 2 * math.pi)
    maps = []
    for index in range(coils):
        angle = turn + 2 * math.pi * (index + random_fields.uniform(generator, -0.2, 0.2)) / coils
        away, width = random_fields.uniform(generator, 0.8, 1.4), random_fields.uniform(generator, 0.6, 1.1)
        down, right = grid - away * math.sin(angle), grid - away * math.cos(angle)
        near = torch.exp(-(down[:, None].square() + right.square()) / (2 * width**2))
        phase = random_fields.smooth_field(size, size, 3, generator) + random_fields.uniform(generator, 0, 2 * math.pi)
        maps.append(torch.polar(near + 1e-3, phase))
    return _normalized(torch.stack(maps))


def _fields(count: int, size: int, knots: int, generator: torch.Generator) -> Tensor:
    return torch.stack([random_fields.smooth_field(size, size, knots, generator) for _ in range(count)])


def _normalized(maps: Tensor) -> Tensor:
    found: Tensor = maps / torch.linalg.vector_norm(maps, dim=0)
    return found
