"""DiffPIR: settings."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from recon.spec.methods.base import Splitting


class DiffPIR(Splitting):
    """DiffPIR: half-quadratic splitting with a diffusion prior while the noise level falls."""

    SOLVER = "recon.solvers.diffpir:solve"
    RENAMED: ClassVar[dict[str, str]] = {"skip": "skip_threshold"}

    name: Literal["diffpir"] = "diffpir"
    zeta: float = Field(0.0, ge=0, le=1)
    """Fraction of fresh noise, in power, added before each step: 0 adds none and is deterministic, 1 adds the step's
    full noise level, as published."""
    skip_threshold: float = Field(0.0, ge=0, le=10)
    """Relative change between two network evaluations below which the next one is extrapolated; 0 always evaluates."""
