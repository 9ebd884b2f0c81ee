"""Diffusion posterior sampling."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recon.spec.methods.base import Levels


class DPS(Levels):
    """Diffusion posterior sampling, a point of reference: the data's gradient goes through the network."""

    SOLVER = "recon.solvers.dps:solve"
    CONDITIONS = "none"

    name: Literal["dps"] = "dps"
    steps: int = Field(1000, ge=1, le=10_000)
    sigma_first: float = Field(20.0, gt=0, le=1_000)
    sigma_last: float = Field(0.01, gt=0, le=1)
    scale: float = Field(1.0, gt=0, le=1e3)
    """Step along the gradient of the norm of the residual."""
