"""RED-Diff."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec.methods.base import Preset, refuse


class REDDiff(Preset):
    """Variational reconstruction regularised by a denoising diffusion process."""

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
    update: Literal["proximal", "adam"] = "proximal"
    antithetic: bool = True
    """Evaluate each noise with both signs: twice the cost, and what noise would leave in the image cancels."""
    equivariant: bool = True
    """Show the prior the image turned or mirrored, each step another way: what it errs in one orientation cancels."""
    learning_rate: float | None = Field(None, gt=0, le=10)
    """Share of the way to the data step (proximal; 1 when not given), or Adam's step on the prior's scale (0.1)."""
    decay: Literal["none", "cosine"] = "none"
    """Of the learning rate, to 1 % (adam)."""
    weight: float = Field(1.0, ge=0, le=100)
    """Of the regulariser."""
    weighting: Literal["linear", "sqrt", "square", "log", "trunc-linear", "const"] = "linear"
    """How the regulariser's weight follows the noise level (adam)."""
    data_weight: float = Field(1.0, gt=0, le=1e6)
    reduction: Literal["sum", "mean"] = "sum"
    """Sum or mean over measurements and pixels: with means the balance depends on their number (adam)."""
    sigma_x0: float = Field(0.0, ge=0, le=1)
    """Spread of the variational distribution."""
    average: float = Field(0.2, ge=0, le=1)
    """Share of the last iterates that is averaged."""
    skip_threshold: float = Field(0.6, ge=0, le=10)
    """Relative change between two evaluations below which the next one is extrapolated instead; 0 evaluates always."""
    pnp_steps: int = Field(0, ge=0, le=100)
    """Steps of plug-and-play ADMM at one level after the last: towards the expected image, not the likeliest one."""

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
        """The learning rate, or that of the kind of update."""
        return self.learning_rate or (0.1 if self.update == "adam" else 1.0)

    def evaluations(self) -> int:
        """Both signs of the noise, and the steps of plug-and-play ADMM."""
        return self.steps * (2 if self.antithetic else 1) + self.pnp_steps

    def data_steps(self) -> int:
        """One per noise level and per step of plug-and-play ADMM."""
        return self.steps + self.pnp_steps

    def tunable(self) -> bool:
        """With proximal steps."""
        return super().tunable() and self.update != "adam"
