"""Diffusion posterior sampling (DPS): settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recon.spec.methods.base import Levels


class DPS(Levels):
    """Diffusion posterior sampling, for comparison: the data term's gradient is taken through the network."""

    SOLVER = "recon.solvers.dps:solve"
    CONDITIONS = "none"

    name: Literal["dps"] = "dps"
    steps: int = Field(1000, ge=1, le=10_000)
    """Number of noise levels."""
    sigma_first: float = Field(20.0, gt=0, le=1_000)
    """First and largest noise level, on the prior's [-1, 1] scale."""
    sigma_last: float = Field(0.01, gt=0, le=1)
    """Last and smallest noise level, on the prior's [-1, 1] scale."""
    scale: float = Field(1.0, gt=0, le=1e3)
    """Step size along the gradient of the residual's norm, on the prior's scale and with the operator of norm one."""
