"""Decomposed diffusion sampling (DDS): settings."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec.methods.base import Preset, refuse

# In the paper eta is 0.15, 0.5 and 0.8 for 19, 49 and 99 evaluations; the published code has 0.85 for 50.
_DDS_PAPER = {"steps": 50, "schedule": "ddpm", "eta": 0.5, "gamma": 1.0, "cg_iterations": 5, "start": "zero"}


class DDS(Preset):
    """Decomposed diffusion sampling with the proximal data step; in 3D with a `tv_z_weight`."""

    SOLVER = "recon.solvers.dds:solve"

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "tuned": {},
        "paper": _DDS_PAPER,
        "paper-3d": {k: v for k, v in _DDS_PAPER.items() if k != "gamma"},
    }

    name: Literal["dds"] = "dds"
    preset: Literal["tuned", "paper", "paper-3d"] = "tuned"
    """Set of defaults: `tuned` is ours, `paper` the published 2D method, `paper-3d` the published one with total
    variation between slices."""
    sigma_first: float = Field(0.5, gt=0, le=1_000)
    """First and largest noise level, on the prior's [-1, 1] scale."""
    eta: float = Field(1.0, ge=0, le=1)
    """Fraction of fresh noise in each step's noise; 0 is deterministic. Below 1, part of the noise that the prior
    removed is added back, with the image's errors in it; 1 ends nearer to the posterior mean."""
    gamma: float | None = Field(None, gt=0, le=1e9)
    """Fixed weight of the data in each step, as published (`paper`: only if the data are noisy). Default: from the
    noise and sigma."""

    UNUSED: ClassVar[dict[str, set[str]]] = {
        "tuned": set(),
        "paper": {"tv_z_weight", "min_noise_std", "noise_fraction"},
        "paper-3d": {"tv_z_weight", "min_noise_std", "noise_fraction", "gamma"},
    }

    @model_validator(mode="after")
    def _one_data_step(self) -> Self:
        refuse(self, self.UNUSED[self.preset], f"preset: {self.preset}")
        return self

    def in_one_piece(self) -> bool:
        """Whether it is the published 3D method, whose few conjugate gradient steps depend on the whole volume."""
        return self.preset == "paper-3d"
