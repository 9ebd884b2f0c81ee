"""Settings of retrospective undersampling."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from recon.spec.base import Strict

RENAMED_PATTERNS = {"uniform": "equispaced"}
"""New names by old ones."""


class Simulation(Strict):
    """Retrospective undersampling: measure a known volume as the acquisition says, with noise."""

    RENAMED: ClassVar[dict[str, str]] = {"photons": "photons_per_ray"}

    photons_per_ray: float | None = Field(None, gt=0, le=1e12)
    """CT: photons per ray in air (I0). Default: no noise."""
    noise_std: float = Field(0.0, ge=0)
    """MRI: standard deviation of the noise of k-space, or of a low-resolution stack, as a share of the largest image
    value."""
    views: int = Field(60, ge=1, le=10_000)
    """CT: number of views, equally spaced over half a turn (parallel) or a whole one (fan), if no angles are given."""
    coils: int = Field(8, ge=1, le=128)
    """MRI: number of receive coils."""
    acceleration: float = Field(4.0, ge=1, le=64)
    """MRI: points of k-space per sampled point, outside the centre."""
    pattern: Literal["equispaced", "poisson"] = "equispaced"
    """MRI: every R-th row of k-space, or a Poisson disc."""
    center_fraction: float = Field(0.08, gt=0, le=1)
    """MRI: share of the rows in the middle of k-space that is fully sampled."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of noise and sampling."""

    @field_validator("pattern", mode="before")
    @classmethod
    def _new_name(cls, value: object) -> object:
        if isinstance(value, str) and value in RENAMED_PATTERNS:
            raise ValueError(f"the pattern {value} is now called {RENAMED_PATTERNS[value]}")
        return value
