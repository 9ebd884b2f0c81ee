"""The card of a weights file: what the prior is, what it was trained on, what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AliasChoices, Field, model_validator

from recon.spec.base import Strict
from recon.spec.validation import read_yaml


class IntensityRange(Strict):
    """The intensity scale of a prior: physical `low` is -1 on it, `high` is +1."""

    unit: str
    low: float
    high: float

    @model_validator(mode="after")
    def _rising(self) -> IntensityRange:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self


class Data(Strict):
    """One file trained on, or the generator of synthetic images."""

    file: str
    licence: str
    sha256: str
    """Of the file; of the generator's name, version and seed."""


class Run(Strict):
    """A training run that ended with the weights from which a later one started."""

    name: str
    sha256: str
    """Of those weights."""
    command: str
    seed: int
    steps: int
    hours: float


class Familiarity(Strict):
    """Where the logarithms of the denoiser's residuals lie for slices of the kind trained on.

    A slice's distance from `mean` is measured in the units of their spread: ``|whitening @ (r - mean)|``.
    """

    sigmas: list[float]
    mean: list[float]
    whitening: list[list[float]]
    distances: list[float]
    """Distances of the reference slices, each from the distribution of the other subjects; sorted."""
    reference: list[str]

    @model_validator(mode="after")
    def _shapes(self) -> Familiarity:
        levels = len(self.sigmas)
        if not levels or len(self.mean) != levels or [len(row) for row in self.whitening] != [levels] * levels:
            raise ValueError(f"{levels} sigmas need as many means and a square whitening matrix of that size")
        if not self.distances or self.distances != sorted(self.distances):
            raise ValueError("distances must be sorted, and there must be some")
        return self


def without_neighbours(given: Any) -> Any:
    """A recipe or card as read from a file, which may still say that its prior sees no neighbouring slices.

    Raises
    ------
    ValueError
        If it says that the prior sees some.
    """
    if not isinstance(given, dict) or "neighbours" not in given:
        return given
    if given["neighbours"] != 0:
        raise ValueError(
            f"neighbours: {given['neighbours']!r}, but priors see one slice at a time; leave it out and train anew"
        )
    return {name: value for name, value in given.items() if name != "neighbours"}


class Card(Strict):
    """The card of a prior, read from the YAML file beside the weights."""

    RENAMED: ClassVar[dict[str, str]] = {"axis": "intensity_range"}

    name: str
    modality: Literal["ct", "mri"]
    complex: bool
    intensity_range: IntensityRange
    largest: float = Field(gt=0)
    sigma_data: float = Field(gt=0)
    channels: list[Annotated[int, Field(ge=1, le=4096)]] = Field(min_length=1, max_length=8)
    blocks: int = Field(ge=1, le=64)
    unshuffle: int = Field(2, ge=1, le=4)
    super_resolution: int | None = Field(ge=2, le=8)
    """Conditional: needs the same slice with this factor less resolution in plane."""
    least_squares: bool = Field(False, validation_alias=AliasChoices("least_squares", "projections"))
    """Conditional: needs the least-squares image of the projections."""
    weights: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")
    """A file beside the card."""
    sha256: str
    parameters: int
    data: list[Data]
    """Of this run and of those before it."""
    start: str | None
    """Prior whose weights training started from."""
    before: list[Run] = Field([])
    """How those weights came about, the first run first."""
    command: str
    seed: int
    steps: int
    hours: float
    denoising_psnr: dict[float, float]
    """Sigma (for images that fill [-1, 1]) to PSNR in dB on the tuning set, never trained on."""
    jacobian_asymmetry: dict[float, float]
    """Sigma (as above) to ``|v^T J w - w^T J v| / (|v^T J w| + |w^T J v|)``; 0 for an exact posterior mean."""
    familiarity: Familiarity | None
    judge: str | None = None
    """Shipped prior that tells how familiar a result of this one is, if it cannot itself."""
    limits: list[str]

    @model_validator(mode="before")
    @classmethod
    def _older(cls, given: Any) -> Any:
        return without_neighbours(given)

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if self.super_resolution is not None and not self.complex:
            raise ValueError("super_resolution: for complex priors only")
        if self.least_squares and (self.complex or self.modality != "ct"):
            raise ValueError("least_squares: for real CT priors only; train a prior that is not given the scan")
        return self

    @property
    def total_hours(self) -> float:
        """Of this run and of those before it."""
        return self.hours + sum(run.hours for run in self.before)

    @property
    def lineage(self) -> list[Run]:
        """The runs that led to these weights, this one last."""
        shared = self.model_dump(include=set(Run.model_fields))
        return [*self.before, Run(**shared)]

    @property
    def conditional(self) -> bool:
        """Whether the prior is given something beside the noisy image."""
        return self.least_squares or self.super_resolution is not None

    @property
    def condition(self) -> str:
        """What it is given beside the noisy image, in words."""
        if self.least_squares:
            return "the least-squares image of the projections"
        return "nothing" if self.super_resolution is None else f"an image of x{self.super_resolution} less resolution"

    @classmethod
    def read(cls, path: Path, field: str = "prior") -> Card:
        """Read a card.

        Raises
        ------
        InputError
            If the file is missing or is not a card.
        """
        remedy = "give the YAML file that `recon export` wrote"
        return read_yaml(cls, path, "a prior's card", field=field, remedy=remedy)

    def write(self, path: Path) -> None:
        """Write the card."""
        path.write_text(yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True, width=120))
