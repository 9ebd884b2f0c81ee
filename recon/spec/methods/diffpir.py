"""DiffPIR."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from recon.spec.methods.base import Splitting


class DiffPIR(Splitting):
    """Half-quadratic splitting with a diffusion prior while the noise level falls."""

    SOLVER = "recon.solvers.diffpir:solve"
    RENAMED: ClassVar[dict[str, str]] = {"skip": "skip_threshold"}

    name: Literal["diffpir"] = "diffpir"
    zeta: float = Field(0.0, ge=0, le=1)
    """Share of fresh noise, in power, that is added before each step: 0 adds none and is deterministic, 1 all of the
    step's noise level, as published."""
    skip_threshold: float = Field(0.0, ge=0, le=10)
    """Relative change between two evaluations below which the next one is extrapolated instead; 0 evaluates always."""
