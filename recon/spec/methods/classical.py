"""Classical methods, which use no diffusion prior."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import Cost
from recon.spec.methods.base import MethodSettings, refuse


class FBP(MethodSettings):
    """Filtered back-projection (parallel and fan beam)."""

    SOLVER = "recon.solvers.fbp:solve"
    FITS_DATA = False

    name: Literal["fbp"] = "fbp"
    window: Literal["ram-lak", "hann"] = "ram-lak"
    """Window of the ramp filter: none (Ram-Lak) or Hann."""

    def cost(self, acquisition: Acquisition) -> Cost:
        """One filtering, one back-projection."""
        del acquisition
        return Cost(volumes=6, products=2)


class SIRT(MethodSettings):
    """Simultaneous iterative reconstruction (ASTRA), non-negative."""

    SOLVER = "recon.solvers.astra_iterative:solve"

    name: Literal["sirt"] = "sirt"
    iterations: int = Field(150, ge=1, le=10_000)
    """SIRT iterations."""

    def cost(self, acquisition: Acquisition) -> Cost:
        """Two products per iteration."""
        del acquisition
        return Cost(volumes=5, products=2 * (self.iterations + 1))


class CGLS(MethodSettings):
    """Conjugate gradients for least squares (ASTRA); stopping early is its only regularisation."""

    SOLVER = "recon.solvers.astra_iterative:solve"

    name: Literal["cgls"] = "cgls"
    iterations: int = Field(15, ge=1, le=1_000)
    """Conjugate gradient iterations."""

    def cost(self, acquisition: Acquisition) -> Cost:
        """Two products per iteration."""
        del acquisition
        return Cost(volumes=6, products=2 * (self.iterations + 1))


class TV(MethodSettings):
    """Isotropic total variation by ADMM, in the volume or slice by slice."""

    SOLVER = "recon.solvers.tv:solve"
    ERRORS_LIKE = "regularised"
    RENAMED: ClassVar[dict[str, str]] = {"least_weight": "min_weight", "noise_share": "weight_per_noise"}
    INNER_ITERATIONS: ClassVar[dict[bool, int]] = {True: 5, False: 10}
    """Conjugate gradient iterations per ADMM iteration, with a preconditioner (CT) and without."""

    name: Literal["tv"] = "tv"
    weight: float | None = Field(None, gt=0, le=10)
    """Weight of the TV term, for an image scaled to its robust maximum and an operator scaled to norm one. Default:
    `weight_per_noise` times the noise of the data, at least `min_weight`."""
    min_weight: float = Field(3e-5, gt=0, le=10)
    """Lower bound on the automatic weight. Raise it when few views leave much to the regulariser."""
    weight_per_noise: float | None = Field(None, gt=0, le=100)
    """Automatic weight per unit of noise, with noise scaled as the image is. Default: 0.03 for CT, 0.3 for MRI, since a
    projector of norm one damps fine detail and a coil-combined Fourier transform does not."""
    iterations: int = Field(100, ge=1, le=5_000)
    """ADMM iterations."""
    cg_iterations: int | None = Field(None, ge=1, le=200)
    """Conjugate gradient iterations per ADMM iteration. Default: 5 with a preconditioner (CT), 10 without."""
    dimensions: Literal[2, 3] = 3
    """Dimensions of the total variation: 3 couples slices, 2 leaves them independent."""

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.weight is not None:
            refuse(self, {"min_weight", "weight_per_noise"}, "a weight")
        return self

    def inner_iterations(self, *, preconditioned: bool) -> int:
        """Conjugate gradient iterations per ADMM iteration."""
        return self.cg_iterations or self.INNER_ITERATIONS[preconditioned]

    def couples_slices(self) -> bool:
        """Whether total variation is 3D."""
        return self.dimensions == 3

    def tunable(self) -> bool:
        """Whether the weight is automatic."""
        return self.weight is None

    def cost(self, acquisition: Acquisition) -> Cost:
        """Conjugate gradient iterations in every ADMM iteration."""
        inner = self.inner_iterations(preconditioned=acquisition.PRECONDITIONED)
        return Cost(volumes=22, products=2 * self.iterations * (inner + 1))


class L1Wavelet(MethodSettings):
    """Sparsity of the image's wavelets, slice by slice (MRI)."""

    SOLVER = "recon.solvers.wavelet:solve"
    ERRORS_LIKE = "regularised"

    name: Literal["l1-wavelet"] = "l1-wavelet"
    weight: float | None = Field(None, gt=0, le=10)
    """Weight of the wavelets' magnitudes, for an image scaled to its robust maximum and an operator scaled to norm one.
    Default: `weight_per_noise` times the noise of the data, at least `min_weight`."""
    min_weight: float = Field(1e-4, gt=0, le=10)
    """Lower bound on the automatic weight."""
    weight_per_noise: float = Field(0.15, gt=0, le=100)
    """Automatic weight per unit of noise, with noise scaled as the image is."""
    iterations: int = Field(60, ge=1, le=5_000)
    """Accelerated proximal gradient iterations."""

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.weight is not None:
            refuse(self, {"min_weight", "weight_per_noise"}, "a weight")
        return self

    def tunable(self) -> bool:
        """Whether the weight is automatic."""
        return self.weight is None

    def cost(self, acquisition: Acquisition) -> Cost:
        """Two products per iteration."""
        del acquisition
        return Cost(volumes=14, products=2 * (self.iterations + 8))


class LowRank(MethodSettings):
    """Locally low rank of the coils' images, slice by slice (MRI with several coils)."""

    SOLVER = "recon.solvers.low_rank:solve"
    ERRORS_LIKE = "regularised"

    name: Literal["low-rank"] = "low-rank"
    weight: float | None = Field(None, gt=0, le=10)
    """Threshold of a block's singular values, relative to the threshold that removes noise of unit standard deviation,
    for an image scaled to its robust maximum and an operator scaled to norm one. Default: `weight_per_noise` times the
    noise of the data, at least `min_weight`."""
    min_weight: float = Field(1e-4, gt=0, le=10)
    """Lower bound on the automatic weight."""
    weight_per_noise: float = Field(0.1, gt=0, le=100)
    """Automatic weight per unit of noise, with noise scaled as the image is."""
    block_width: int = Field(8, ge=2, le=64)
    """Rows and columns of a block in pixels."""
    iterations: int = Field(100, ge=1, le=5_000)
    """Accelerated proximal gradient iterations."""

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.weight is not None:
            refuse(self, {"min_weight", "weight_per_noise"}, "a weight")
        return self

    def tunable(self) -> bool:
        """Whether the weight is automatic."""
        return self.weight is None

    def cost(self, acquisition: Acquisition) -> Cost:
        """Two products per iteration, and singular values, which take the time of eight."""
        del acquisition
        return Cost(volumes=8, products=10 * self.iterations + 24, coil_volumes=9)


class ZeroFilled(MethodSettings):
    """Zero-filled reconstruction: coil-combined inverse Fourier transform of the sampled points."""

    SOLVER = "recon.solvers.sense:solve"
    FITS_DATA = False

    name: Literal["zero-filled"] = "zero-filled"

    def cost(self, acquisition: Acquisition) -> Cost:
        """One adjoint."""
        del acquisition
        return Cost(volumes=4, products=2)


class Gridding(MethodSettings):
    """Gridding of non-Cartesian k-space: coil-combined adjoint of samples weighted by their density."""

    SOLVER = "recon.solvers.sense:grid"
    FITS_DATA = False

    name: Literal["gridding"] = "gridding"

    def cost(self, acquisition: Acquisition) -> Cost:
        """One adjoint."""
        del acquisition
        return Cost(volumes=4, products=2)


class Interpolation(MethodSettings):
    """Interpolation of low-resolution images: zero-filled k-space, or linear between thick slices."""

    SOLVER = "recon.solvers.interpolation:solve"
    FITS_DATA = False

    name: Literal["interpolation"] = "interpolation"

    def cost(self, acquisition: Acquisition) -> Cost:
        """One interpolation."""
        del acquisition
        return Cost(volumes=4, products=2)


class CGSense(MethodSettings):
    """Iterative SENSE by conjugate gradients with Tikhonov regularisation."""

    SOLVER = "recon.solvers.sense:solve"

    name: Literal["cg-sense"] = "cg-sense"
    iterations: int = Field(30, ge=1, le=1_000)
    """Conjugate gradient iterations."""
    weight: float = Field(1e-3, ge=0, le=10)
    """Weight of the Tikhonov term, for an operator scaled to norm one."""

    def cost(self, acquisition: Acquisition) -> Cost:
        """Two products per iteration."""
        del acquisition
        return Cost(volumes=8, products=2 * (self.iterations + 1))
