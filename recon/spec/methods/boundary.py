"""Super-resolution by a diffusion ODE with optimal boundary conditions."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec import schedules
from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import Cost
from recon.spec.methods.base import VOLUMES, FrozenNoise, refuse


class Boundary(FrozenNoise):
    """Super-resolution by the ODE of a conditional prior, from one frozen starting noise x_T.

    `detail` chooses between the image to be expected (0), the nearest to the truth on average and soft, and one drawn
    to be as sharp as the truth (1), whose fine detail the data did not determine.
    """

    SOLVER = "recon.solvers.boundary:solve"
    CONDITIONS = "super-resolution"
    ALWAYS_FROZEN = True
    RENAMED: ClassVar[dict[str, str]] = {"data_sigma": "min_noise_std"}
    # The noise is searched for the sharp image; how the one to be expected comes about does not concern it.
    BESIDE_NOISE = FrozenNoise.BESIDE_NOISE | {
        "detail", "steps", "schedule", "sigma_last", "amplitude", "expected_error"
    }  # fmt: skip

    name: Literal["boundary"] = "boundary"
    detail: float = Field(0.0, ge=0, le=1)
    """Share of the detail that is drawn where the data do not determine it: 0 gives the expected image, which is soft,
    1 one as sharp as the truth, and values between mix the two. Above 0 the report says how much was drawn."""
    detail_steps: int = Field(8, ge=1, le=1_000)
    """Number of noise levels on the way to the sharp image. Only with `detail` above 0."""
    sigma_detail: float = Field(0.02, gt=0, le=1)
    """Last noise level on the way to the sharp image, on the prior's [-1, 1] scale. Only with `detail` above 0."""
    steps: int = Field(5, ge=1, le=1_000)
    """Number of noise levels on the way to the expected image."""
    sigma_first: float = Field(3.0, gt=0, le=1_000)
    """First and largest noise level, on the prior's [-1, 1] scale."""
    sigma_last: float = Field(1.0, gt=0, le=1)
    """Last and smallest noise level on the way to the expected image, on the prior's [-1, 1] scale."""
    start: Literal["interpolation", "noise"] = "interpolation"
    """Initial image that the starting noise is added to: the interpolated image, which saves steps, or none, as
    published."""
    amplitude: float | None = Field(None, ge=0, le=1)
    """Scale of the starting noise on the way to the expected image: 0 gives approximately the posterior mean, 1 leaves
    some of the noise's randomness in it. Default: 0; with `detail` 0 and random noise 1, as published. The sharp image
    always starts from 1."""
    order: Literal[1, 2] = 2
    """Order of the ODE solver: 1 is DDIM, 2 is a multistep method."""
    consistency: bool = True
    """Whether to fit the data in every step; otherwise data reach the image only through the network's condition."""
    expected_error: float = Field(0.05, gt=0, le=10)
    """Error that the network's estimate has at most where it is fitted to the data on the way to the expected image, on
    the prior's scale. At high noise levels the estimate, which knows the data, is far better than the level; with the
    level in its place all noise of the data would come into the image. Only with `consistency`."""
    min_noise_std: float = Field(5e-3, gt=0, le=1)
    """Lower bound on the noise that the data term assumes, on the prior's scale; larger measured noise replaces it."""
    cg_iterations: int = Field(10, ge=1, le=200)
    """Conjugate gradient iterations per data step."""

    @model_validator(mode="after")
    def _detail_is_drawn(self) -> Self:
        if self.detail == 0:
            refuse(self, {"detail_steps", "sigma_detail"}, "detail: 0")
        elif self.detail_steps > 1 and not self.sigma_detail < self.sigma_first:
            raise ValueError(f"sigma_detail {self.sigma_detail:g} must be below sigma_first {self.sigma_first:g}")
        if self.detail == 1:
            refuse(self, {"steps", "schedule", "sigma_last", "amplitude", "expected_error"}, "detail: 1")
        return self

    def detail_sigmas(self) -> list[float]:
        """Noise levels on the way to the sharp image, falling."""
        return schedules.geometric(self.sigma_first, self.sigma_detail, self.detail_steps)

    def evaluations(self) -> int:
        """Network evaluations per slice, on the way to both images where both are mixed."""
        return self.steps * self.uses_levels() + self.detail_steps * (self.detail > 0)

    def data_steps(self) -> int:
        """Number of data steps: one per evaluation."""
        return self.evaluations()

    def uses_levels(self) -> bool:
        """Whether the image to be expected has a share in the result."""
        return self.detail < 1

    def draws(self) -> bool:
        """Whether `detail` is above 0."""
        return self.detail > 0

    @property
    def noise_amplitude(self) -> float:
        """Scale of the noise that the sharp image starts from, or without one that of the image to be expected."""
        return 1.0 if self.detail > 0 else self.expected_amplitude

    @property
    def expected_amplitude(self) -> float:
        """Scale of the noise on the way to the image to be expected."""
        if self.amplitude is not None:
            return self.amplitude
        return 1.0 if self.frozen_noise == "random" and self.detail == 0 else 0.0

    def inner_iterations(self, *, preconditioned: bool) -> int:
        """Number as given."""
        del preconditioned
        return self.cg_iterations

    def cost(self, acquisition: Acquisition) -> Cost:
        """Cost of all steps, or of the network alone without `consistency`."""
        return super().cost(acquisition) if self.consistency else Cost(VOLUMES, 2, self.evaluations())
