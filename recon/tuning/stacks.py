"""Stacks of low resolution as scanners give them, on which priors and settings are tuned and judged."""

from __future__ import annotations

from typing import Literal

from recon.spec.acquisitions.superresolution import MRISuperResolution

Direction = Literal["plane", "slices"]
DIRECTIONS: tuple[Direction, ...] = ("plane", "slices")
STACK_NOISE = 0.01
"""Noise of the stacks relative to their largest value, of CT to the 1000 HU between air and water."""


def usual_stack(factor: float, direction: Direction) -> MRISuperResolution:
    """Acquisition of a stack as scanners give it: k-space filtered, or slices of a Gaussian profile."""
    if direction == "plane":
        return MRISuperResolution(factor=factor, direction=direction, filter="tukey")
    return MRISuperResolution(factor=factor, direction=direction, profile="gaussian")
