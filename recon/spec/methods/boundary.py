"""Super-resolution by a diffusion ODE with optimal boundary conditions."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import Cost
from recon.spec.methods.base import DEFAULT_PRIOR, VOLUMES, FrozenNoise


class Boundary(FrozenNoise):
    """Super-resolution by the ODE of a conditional prior, from one frozen starting noise x_T, searched for once."""

    SOLVER = "recon.solvers.boundary:solve"
    CONDITIONS = "super-resolution"
    ALWAYS_FROZEN = True
    RENAMED: ClassVar[dict[str, str]] = {"data_sigma": "min_noise_std"}

    name: Literal["boundary"] = "boundary"
    steps: int = Field(5, ge=1, le=1_000)
    """Number of noise levels."""
    sigma_first: float = Field(3.0, gt=0, le=1_000)
    """First and largest noise level, on the prior's [-1, 1] scale."""
    sigma_last: float = Field(1.0, gt=0, le=1)
    """Last and smallest noise level, on the prior's [-1, 1] scale. Lower is sharper, but more of the detail is
    generated rather than measured."""
    start: Literal["interpolation", "noise"] = "interpolation"
    """Initial image that the starting noise is added to: the interpolated image, which saves steps, or none, as
    published."""
    amplitude: float | None = Field(None, ge=0, le=1)
    """Scale of the starting noise: 1 (as published) draws a plausible sample, 0 gives approximately the posterior mean.
    Default: that of the frozen noise."""
    order: Literal[1, 2] = 2
    """Order of the ODE solver: 1 is DDIM, 2 is a multistep method."""
    consistency: bool = True
    """Whether to fit the data in every step; otherwise data reach the image only through the network's condition."""
    min_noise_std: float = Field(5e-3, gt=0, le=1)
    """Lower bound on the noise that the data term assumes, on the prior's scale; larger measured noise replaces it."""
    cg_iterations: int = Field(10, ge=1, le=200)
    """Conjugate gradient iterations per data step."""

    @property
    def noise_amplitude(self) -> float | None:
        """Scale of the starting noise, if it is given."""
        return self.amplitude

    def prior_for(self, modality: str, refined: float | None) -> str:
        """The conditional prior of the factor."""
        usual = DEFAULT_PRIOR[modality]
        return self.prior or (usual if refined is None else f"{usual}-x{refined:g}")

    def inner_iterations(self, *, preconditioned: bool) -> int:
        """Number as given."""
        del preconditioned
        return self.cg_iterations

    def cost(self, acquisition: Acquisition) -> Cost:
        """Cost of all steps, or of the network alone without `consistency`."""
        return super().cost(acquisition) if self.consistency else Cost(VOLUMES, 2, self.evaluations())
