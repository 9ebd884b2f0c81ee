"""RED-Diff: settings."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec.methods.base import Preset, refuse


class REDDiff(Preset):
    """RED-Diff: variational reconstruction regularised by a denoising diffusion process."""

    SOLVER = "recon.solvers.red_diff:solve"
    RENAMED: ClassVar[dict[str, str]] = {"turned": "equivariant", "skip": "skip_threshold", "polish": "pnp_steps"}

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "tuned": {},
        # The published defaults; 100 steps as its scripts have.
        "paper": {
            "update": "adam", "steps": 100, "schedule": "ddpm", "learning_rate": 0.1, "weight": 0.25, "decay": "none",
            "weighting": "linear", "data_weight": 1.0, "reduction": "mean", "average": 0.0, "start": "classical",
            "antithetic": False, "skip_threshold": 0.0, "equivariant": False,
        },
    }  # fmt: skip

    name: Literal["red-diff"] = "red-diff"
    preset: Literal["tuned", "paper"] = "tuned"
    """Set of defaults: ours, or the published constants."""
    update: Literal["proximal", "adam"] = "proximal"
    """Update of the image: a proximal data step by conjugate gradients, or an Adam step, as published."""
    antithetic: bool = True
    """Whether to evaluate each noise with both signs: twice the cost, but the noise left in the image cancels."""
    equivariant: bool = True
    """Whether to rotate or flip the image differently before each denoising step, so that orientation-dependent errors
    average out (equivariant plug-and-play)."""
    learning_rate: float | None = Field(None, gt=0, le=10)
    """Step size: fraction of the way to the data step (`proximal`), or Adam's learning rate on the prior's scale
    (`adam`). Default: 1 for `proximal`, 0.1 for `adam`."""
    decay: Literal["none", "cosine"] = "none"
    """Decay of the learning rate: none, or along half a cosine to 1 % (`adam`)."""
    weight: float = Field(1.0, ge=0, le=100)
    """Weight of the regulariser."""
    weighting: Literal["linear", "sqrt", "square", "log", "trunc-linear", "const"] = "linear"
    """Weighting of the regulariser by noise level (`adam`)."""
    data_weight: float = Field(1.0, gt=0, le=1e6)
    """Weight of the data term (`adam`)."""
    reduction: Literal["sum", "mean"] = "sum"
    """Reduction over measurements and pixels; with the mean, the balance of the two terms depends on their number
    (`adam`)."""
    sigma_x0: float = Field(0.0, ge=0, le=1)
    """Standard deviation of the variational distribution, on the prior's scale."""
    average: float = Field(0.2, ge=0, le=1)
    """Fraction of the iterates, the last ones, whose average is the result."""
    skip_threshold: float = Field(0.6, ge=0, le=10)
    """Relative change between two network evaluations below which the next one is extrapolated; 0 always evaluates."""
    pnp_steps: int = Field(0, ge=0, le=100)
    """Number of plug-and-play ADMM steps after the last noise level; they lead towards the posterior mean instead of
    the most likely image."""

    UNUSED: ClassVar[dict[str, set[str]]] = {
        "proximal": {"decay", "weighting", "data_weight", "reduction"},
        "adam": {"tv_z_weight", "cg_iterations", "min_noise_std", "noise_fraction", "pnp_steps"},
    }

    @model_validator(mode="after")
    def _one_update(self) -> Self:
        preset = self.PRESETS[self.preset]
        unused = {
            name for name in self.UNUSED[self.update] if name not in preset or getattr(self, name) != preset[name]
        }
        refuse(self, unused, f"update: {self.update}")
        return self

    @property
    def rate(self) -> float:
        """Learning rate as given, or the default of the kind of update."""
        return self.learning_rate or (0.1 if self.update == "adam" else 1.0)

    def evaluations(self) -> int:
        """Network evaluations per slice: both signs of the noise, and the plug-and-play steps."""
        return self.steps * (2 if self.antithetic else 1) + self.pnp_steps

    def data_steps(self) -> int:
        """One per noise level and per step of plug-and-play ADMM."""
        return self.steps + self.pnp_steps

    def tunable(self) -> bool:
        """Whether updates are proximal."""
        return super().tunable() and self.update != "adam"
