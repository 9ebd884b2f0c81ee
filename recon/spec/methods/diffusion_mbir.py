"""DiffusionMBIR."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec.methods.base import Preset, refuse


class DiffusionMBIR(Preset):
    """2D diffusion prior on slices with total variation between them, by ADMM that shares its variables."""

    SOLVER = "recon.solvers.diffusion_mbir:solve"

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "fast": {},
        # Published for images in [0, 1]; the prior's scale is twice as long, and the operator has norm one.
        "paper": {"steps": 2000, "sigma_first": 756.0, "sigma_last": 0.02, "cg_iterations": 1},
    }

    name: Literal["diffusion-mbir"] = "diffusion-mbir"
    preset: Literal["fast", "paper"] = "fast"
    """`fast`: the sweep acts on the denoised volume (DDS in 3D). `paper`: predictor and corrector as published."""
    sigma_first: float = Field(0.5, gt=0, le=1_000)
    eta: float = Field(1.0, ge=0, le=1)
    """Share of fresh noise in each step's noise (fast)."""
    tv_z_weight: float = Field(0.3, ge=0, le=100)
    snr: float = Field(0.16, gt=0, le=1)
    """Length of the Langevin step (paper)."""
    penalty: float | None = Field(None, gt=0, le=1e3)
    """ADMM's, beside the squared operator of norm one (paper)."""
    threshold: float | None = Field(None, ge=0, le=10)
    """Soft threshold of differences between slices (paper); both as published for CT or for MRI when not given."""
    consistency: bool = True
    """CT: end with one step of algebraic reconstruction (paper)."""

    UNUSED: ClassVar[dict[str, set[str]]] = {
        "fast": {"snr", "penalty", "threshold", "consistency"},
        "paper": {"tv_z_weight", "eta", "start", "min_noise_std", "noise_fraction"},
    }

    @model_validator(mode="after")
    def _one_sampler(self) -> Self:
        refuse(self, self.UNUSED[self.preset], f"preset: {self.preset}")
        return self

    def evaluations(self) -> int:
        """As published, predictor and corrector."""
        return self.steps * (2 if self.preset == "paper" else 1)

    def in_one_piece(self) -> bool:
        """As published: one conjugate gradient step at a time, whose length depends on the whole volume."""
        return self.preset == "paper"
