"""Super-resolution by a diffusion ODE with optimal boundary conditions."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import Cost
from recon.spec.methods.base import DEFAULT_PRIOR, VOLUMES, FrozenNoise


class Boundary(FrozenNoise):
    """Super-resolution by the ODE of a conditional prior from one starting noise x_T, searched for and then frozen."""

    SOLVER = "recon.solvers.boundary:solve"
    CONDITIONS = "super-resolution"
    ALWAYS_FROZEN = True
    RENAMED: ClassVar[dict[str, str]] = {"data_sigma": "min_noise_std"}

    name: Literal["boundary"] = "boundary"
    steps: int = Field(5, ge=1, le=1_000)
    sigma_first: float = Field(3.0, gt=0, le=1_000)
    sigma_last: float = Field(1.0, gt=0, le=1)
    """The lower, the sharper, and the more of what is shown was drawn and not measured."""
    start: Literal["interpolation", "noise"] = "interpolation"
    """What the starting noise is added to: the interpolated image, which saves the steps that would find it again, or
    nothing, as published."""
    amplitude: float | None = Field(None, ge=0, le=1)
    """Of the starting noise: 1 as published, for an image that might have been; 0, the centre of the noise, for the one
    to be expected. The calibration's when not given."""
    order: Literal[1, 2] = 2
    """Of the ODE solver: DDIM, or second-order multistep."""
    consistency: bool = True
    """Fit the data in every step; without it the network alone answers for them."""
    min_noise_std: float = Field(5e-3, gt=0, le=1)
    cg_iterations: int = Field(10, ge=1, le=200)

    @property
    def noise_amplitude(self) -> float | None:
        """The amplitude, if it is given."""
        return self.amplitude

    def prior_for(self, modality: str, refined: int | None) -> str:
        """The conditional prior of the factor."""
        usual = DEFAULT_PRIOR[modality]
        return self.prior or (usual if refined is None else f"{usual}-x{refined}")

    def inner_iterations(self, *, preconditioned: bool) -> int:
        """As given."""
        del preconditioned
        return self.cg_iterations

    def cost(self, acquisition: Acquisition) -> Cost:
        """Without consistency the network alone."""
        return super().cost(acquisition) if self.consistency else Cost(VOLUMES, 2, self.evaluations())
