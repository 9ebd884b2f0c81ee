"""DiffusionMBIR: settings."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec.methods.base import Preset, refuse


class DiffusionMBIR(Preset):
    """DiffusionMBIR: 2D diffusion prior on slices and total variation between them, by ADMM with shared variables."""

    SOLVER = "recon.solvers.diffusion_mbir:solve"

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "fast": {},
        # Published for images in [0, 1]; the prior's scale is twice as long, and the operator has norm one.
        "paper": {"steps": 2000, "sigma_first": 756.0, "sigma_last": 0.02, "cg_iterations": 1},
    }

    name: Literal["diffusion-mbir"] = "diffusion-mbir"
    preset: Literal["fast", "paper"] = "fast"
    """Set of defaults and sampler: `fast` applies the ADMM sweep to the denoised volume (DDS in 3D), `paper` is the
    published predictor and corrector."""
    sigma_first: float = Field(0.5, gt=0, le=1_000)
    """First and largest noise level, on the prior's [-1, 1] scale."""
    eta: float = Field(1.0, ge=0, le=1)
    """Fraction of fresh noise in each step's noise (`fast`)."""
    tv_z_weight: float = Field(0.3, ge=0, le=100)
    """Weight of total variation between slices, in units of each step's noise level (`fast`)."""
    snr: float = Field(0.16, gt=0, le=1)
    """Signal-to-noise ratio that sets the length of the Langevin step (`paper`)."""
    penalty: float | None = Field(None, gt=0, le=1e3)
    """Penalty of ADMM, relative to the squared operator of norm one (`paper`). Default: as published, 0.025 for CT,
    0.01 for MRI."""
    threshold: float | None = Field(None, ge=0, le=10)
    """Soft threshold for differences between slices, on the prior's scale (`paper`). Default: as published, 0.008 for
    CT, 0.5 for MRI."""
    consistency: bool = True
    """Whether to end with one step of algebraic reconstruction (`paper`, CT)."""

    UNUSED: ClassVar[dict[str, set[str]]] = {
        "fast": {"snr", "penalty", "threshold", "consistency"},
        "paper": {"tv_z_weight", "eta", "start", "min_noise_std", "noise_fraction"},
    }

    @model_validator(mode="after")
    def _one_sampler(self) -> Self:
        refuse(self, self.UNUSED[self.preset], f"preset: {self.preset}")
        return self

    def evaluations(self) -> int:
        """Network evaluations per slice: one per step, or two (predictor and corrector) as published."""
        return self.steps * (2 if self.preset == "paper" else 1)

    def in_one_piece(self) -> bool:
        """Whether it is the published sampler, whose conjugate gradient step depends on the whole volume."""
        return self.preset == "paper"
