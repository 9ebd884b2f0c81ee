"""Typed settings of every method. A method's name alone works: every setting has a default.

Lengths and intensities that depend on the prior are on its [-1, 1] axis; data weights refer to the
operator divided by its norm, so that they mean the same for every geometry.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

CARD_ENDINGS = (".yaml", ".yml")
PRIOR_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


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


class Diffusion(MethodSettings):
    """What every method with a diffusion prior has."""

    prior: str | None = Field(None, max_length=1_000)
    """A shipped prior, or the path of the card (``.yaml``) of one's own; chosen by modality when not given."""

    @field_validator("prior")
    @classmethod
    def _name_or_card(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(CARD_ENDINGS) and not re.fullmatch(PRIOR_NAME, value):
            raise ValueError("a prior is given by its name, or by the path of its card, which ends in .yaml")
        return value

    @property
    def prior_path(self) -> Path | None:
        """The card's path, if the prior is given by one."""
        return Path(self.prior) if self.prior is not None and self.prior.endswith(CARD_ENDINGS) else None


class Annealed(Diffusion):
    """Annealed half-quadratic splitting with a diffusion prior (DiffPIR without fresh noise)."""

    name: Literal["annealed"] = "annealed"
    steps: int = Field(30, ge=1, le=1_000)
    sigma_first: float = Field(0.2, gt=0, le=10)
    sigma_last: float = Field(0.005, gt=0, le=1)
    data_sigma: float = Field(5e-4, gt=0, le=1)
    """Noise the data term assumes at least, on the prior's axis; the measured noise is used when larger."""
    cg_iterations: int = Field(15, ge=1, le=200)
    start: Literal["tv", "classical"] = "tv"


class DDS(Diffusion):
    """Decomposed diffusion sampling in 2D with the proximal data step."""

    name: Literal["dds"] = "dds"
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
