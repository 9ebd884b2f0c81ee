"""Typed settings of every method. A method's name alone works: every setting has a default.

Lengths and intensities that depend on the prior are on its [-1, 1] axis; data weights refer to the
operator divided by its norm, so that they mean the same for every geometry.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class MethodSettings(BaseModel):
    """Base of all settings: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FBP(MethodSettings):
    """Filtered back-projection (parallel and fan beam)."""

    name: Literal["fbp"] = "fbp"
    window: Literal["ram-lak", "hann"] = "ram-lak"


class SIRT(MethodSettings):
    """Simultaneous iterative reconstruction (ASTRA), non-negative."""

    name: Literal["sirt"] = "sirt"
    iterations: int = Field(150, ge=1, le=10_000)


class CGLS(MethodSettings):
    """Conjugate gradients for least squares (ASTRA); stopping early is its only regularisation."""

    name: Literal["cgls"] = "cgls"
    iterations: int = Field(15, ge=1, le=1_000)


class TV(MethodSettings):
    """Isotropic total variation by ADMM, in the volume or slice by slice."""

    name: Literal["tv"] = "tv"
    weight: float | None = Field(None, gt=0, le=10)
    """Of the TV term, for an image scaled to its robust maximum and the operator to norm one; from the noise
    of the data when not given."""
    iterations: int = Field(100, ge=1, le=5_000)
    cg_iterations: int = Field(10, ge=1, le=200)
    dimensions: Literal[2, 3] = 3
    """In 2 dimensions slices are independent of each other."""


class ZeroFilled(MethodSettings):
    """Coil-combined inverse Fourier transform of what was measured."""

    name: Literal["zero-filled"] = "zero-filled"


class CGSense(MethodSettings):
    """Iterative SENSE by conjugate gradients with Tikhonov regularisation."""

    name: Literal["cg-sense"] = "cg-sense"
    iterations: int = Field(30, ge=1, le=1_000)
    weight: float = Field(1e-3, ge=0, le=10)


class Annealed(MethodSettings):
    """Annealed half-quadratic splitting with a diffusion prior (DiffPIR without fresh noise)."""

    name: Literal["annealed"] = "annealed"
    prior: str | None = None
    """Name of the prior; chosen by modality when not given."""
    steps: int = Field(30, ge=1, le=1_000)
    sigma_first: float = Field(0.2, gt=0, le=10)
    sigma_last: float = Field(0.005, gt=0, le=1)
    data_sigma: float = Field(5e-4, gt=0, le=1)
    """Noise the data term assumes at least, on the prior's axis; the measured noise is used when larger."""
    cg_iterations: int = Field(15, ge=1, le=200)
    start: Literal["tv", "classical"] = "tv"


class DDS(MethodSettings):
    """Decomposed diffusion sampling in 2D with the proximal data step."""

    name: Literal["dds"] = "dds"
    prior: str | None = None
    steps: int = Field(30, ge=1, le=1_000)
    sigma_first: float = Field(0.5, gt=0, le=50)
    sigma_last: float = Field(0.005, gt=0, le=1)
    eta: float = Field(0.8, ge=0, le=1)
    """Share of fresh noise in each step's noise; 0 is deterministic."""
    data_sigma: float = Field(5e-4, gt=0, le=1)
    cg_iterations: int = Field(15, ge=1, le=200)
    start: Literal["tv", "classical"] = "tv"


Method = Annotated[
    FBP | SIRT | CGLS | TV | ZeroFilled | CGSense | Annealed | DDS,
    Field(discriminator="name"),
]

CT_METHODS = ("fbp", "sirt", "cgls", "tv", "dds", "annealed")
MRI_METHODS = ("zero-filled", "cg-sense", "tv", "dds", "annealed")
DEFAULT_PRIOR = {"ct": "ct", "mri": "brain-mri"}
