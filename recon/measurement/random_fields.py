"""Random numbers and smooth random fields, drawn from a given generator only."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """Draw a number, uniform in ``[low, high)``."""
    return low + (high - low) * float(torch.rand(1, generator=generator))


def integer(generator: torch.Generator, below: int) -> int:
    """Draw an integer, uniform in ``[0, below)``."""
    return int(torch.randint(below, (1,), generator=generator))


def smooth_field(rows: int, cols: int, knots: int, generator: torch.Generator) -> Tensor:
    """Draw a smooth random field ``(rows, cols)`` of about unit variance, with `knots` support points each way."""
    field = torch.randn(1, 1, knots, knots, generator=generator)
    return functional.interpolate(field, size=(rows, cols), mode="bicubic", align_corners=True)[0, 0]


def smooth_phase(rows: int, cols: int, generator: torch.Generator) -> Tensor:
    """Draw a smooth phase map in radians, ``(rows, cols)``, with a uniform global phase.

    Measured phase is smooth where the field is (coils, shim) and turns fast near air. A low-resolution
    Gaussian field of random roughness and strength, interpolated, covers both.
    """
    knots, strength = 2 + integer(generator, 9), uniform(generator, 0.0, 2.5)
    return smooth_field(rows, cols, knots, generator) * strength + uniform(generator, 0.0, 2 * math.pi)
