"""Detection of transmitted intensity: photon and electronic noise."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_COUNT = 1.0
"""Smallest count, of which the logarithm is taken where noise leaves fewer."""


def counted(
    transmission: Tensor, photons_per_ray: float, generator: torch.Generator, electronic_noise: float = 0.0
) -> Tensor:
    """Count photons behind the object: Poisson, with electronic noise of that standard deviation in photons.

    Returns the measured transmission, as float64.
    """
    counts = torch.poisson(photons_per_ray * transmission.double(), generator=generator)
    if electronic_noise:
        counts += electronic_noise * torch.randn(counts.shape, generator=generator, dtype=torch.float64)
    return counts.clamp(min=LEAST_COUNT) / photons_per_ray


def photon_noise(line_integrals: Tensor, photons_per_ray: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """Add photon noise to line integrals; also returns the noise's root mean square over the rays."""
    transmission = torch.exp(-line_integrals.double())
    noisy = -torch.log(counted(transmission, photons_per_ray, generator))
    expected = (photons_per_ray * transmission).clamp(min=LEAST_COUNT)
    return noisy.float(), float((1 / expected).mean().sqrt())
