"""Settings of simulation: retrospective undersampling of a known volume."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from recon.spec.base import Strict

RENAMED_PATTERNS = {"uniform": "equispaced"}
"""New names by old ones."""


class Simulation(Strict):
    """Simulation of a measurement: measure a known volume as the acquisition says, with noise."""

    RENAMED: ClassVar[dict[str, str]] = {"photons": "photons_per_ray"}

    photons_per_ray: float | None = Field(None, gt=0, le=1e12)
    """Photons per ray in air, I0 (CT). Default: no noise."""
    noise_std: float = Field(0.0, ge=0)
    """Standard deviation of the noise in k-space or in a low-resolution stack, as a fraction of the largest image value
    (MRI)."""
    views: int = Field(60, ge=1, le=10_000)
    """Number of views, equally spaced over half a turn (parallel) or a full turn (fan); ignored if angles are given
    (CT)."""
    coils: int = Field(8, ge=1, le=128)
    """Number of receive coils (MRI)."""
    acceleration: float = Field(4.0, ge=1, le=64)
    """Undersampling factor outside the centre: points of k-space per sampled point (MRI)."""
    pattern: Literal["equispaced", "poisson"] = "equispaced"
    """Sampling pattern: every R-th row of k-space, or a Poisson disc (MRI)."""
    center_fraction: float = Field(0.08, gt=0, le=1)
    """Fraction of the rows, in the centre of k-space, that is fully sampled (MRI)."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the noise and of the sampling pattern."""

    @field_validator("pattern", mode="before")
    @classmethod
    def _new_name(cls, value: object) -> object:
        if isinstance(value, str) and value in RENAMED_PATTERNS:
            raise ValueError(f"the pattern {value} is now called {RENAMED_PATTERNS[value]}")
        return value
