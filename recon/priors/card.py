"""Model card of a prior: network, intensity scale, training data, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import yaml
from pydantic import AliasChoices, Field, model_validator

from recon.spec.base import Strict
from recon.spec.validation import read_yaml


class IntensityRange(Strict):
    """Intensity scale of a prior: physical `low` is -1 on it, `high` is +1."""

    unit: str
    low: float
    high: float

    @model_validator(mode="after")
    def _rising(self) -> IntensityRange:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self


class Data(Strict):
    """Source of training data: a file, or the generator of synthetic images."""

    file: str
    licence: str
    sha256: str
    """Hash of the file, or of the generator's name, version and seed."""


class Run(Strict):
    """Earlier training run, from whose weights a later one started."""

    name: str
    sha256: str
    """Hash of its weights."""
    command: str
    seed: int
    steps: int
    hours: float


class Familiarity(Strict):
    """Reference distribution for the familiarity score: logarithms of the denoiser's residuals on reference slices.

    A slice's distance from `mean` is measured in the units of their spread: ``|whitening @ (r - mean)|``.
    """

    sigmas: list[float]
    mean: list[float]
    whitening: list[list[float]]
    distances: list[float]
    """Sorted distances of the reference slices, each from the distribution of the other subjects."""
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
    """Drop the former field `neighbours` from a recipe or card as read from a file.

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


class Refining(Protocol):
    """Fields of a recipe or card that make it one for super-resolution."""

    @property
    def complex(self) -> bool: ...  # noqa: D102 - see Card

    @property
    def super_resolution(self) -> int | None: ...  # noqa: D102

    @property
    def factors(self) -> tuple[float, float] | None: ...  # noqa: D102

    @property
    def regression(self) -> bool: ...  # noqa: D102


def check_factors(given: Refining) -> None:
    """Raise `ValueError` unless the range of factors is one, and fits what else a recipe or card says."""
    if given.factors is not None:
        low, high = given.factors
        if not 1 <= low < high:
            raise ValueError(f"factors: {low:g} to {high:g} is no rising range from 1")
        if given.super_resolution is not None or not given.complex:
            raise ValueError("factors: for complex priors of no single factor; leave out super_resolution")
    elif given.regression:
        raise ValueError("regression: for super-resolution by a range of factors; give factors")


class Card(Strict):
    """Model card of a prior, read from the YAML file beside the weights."""

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
    """Factor of a super-resolution prior: its condition is the slice at this many times lower resolution."""
    factors: tuple[float, float] | None = None
    """Range of factors of a super-resolution prior that is told them, and the direction, in place of one factor."""
    regression: bool = False
    """Whether it is no prior but a regression network, which sees the condition alone, for comparison."""
    least_squares: bool = Field(False, validation_alias=AliasChoices("least_squares", "projections"))
    """Whether its condition is the least-squares image of the projections."""
    weights: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")
    """Name of the weights file beside the card."""
    sha256: str
    parameters: int
    data: list[Data]
    """Training data of this run and of earlier ones."""
    start: str | None
    """Prior from whose weights training started."""
    before: list[Run] = Field([])
    """Earlier runs that led to those weights, oldest first."""
    command: str
    seed: int
    steps: int
    hours: float
    denoising_psnr: dict[float, float]
    """Denoising PSNR in dB on the tuning set, never trained on, by sigma (for images that fill [-1, 1])."""
    jacobian_asymmetry: dict[float, float]
    """Sigma (as above) to ``|v^T J w - w^T J v| / (|v^T J w| + |w^T J v|)``; 0 for an exact posterior mean."""
    familiarity: Familiarity | None
    judge: str | None = None
    """Shipped prior that judges the familiarity of results, if this one cannot."""
    int8_ranges: list[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]] | None = None
    """Ranges of the inputs of each block's two convolutions, for 8-bit integers (`recon.priors.int8`)."""
    limits: list[str]

    @model_validator(mode="before")
    @classmethod
    def _older(cls, given: Any) -> Any:
        return without_neighbours(given)

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if self.super_resolution is not None and not self.complex:
            raise ValueError("super_resolution: for complex priors only")
        check_factors(self)
        blocks = self.blocks * (2 * len(self.channels) - 1)
        if self.int8_ranges is not None and len(self.int8_ranges) != blocks:
            raise ValueError(f"int8_ranges: {len(self.int8_ranges)} pairs, the network has {blocks} blocks")
        if self.least_squares and (self.complex or self.modality != "ct"):
            raise ValueError("least_squares: for real CT priors only; train a prior that is not given the scan")
        return self

    @property
    def total_hours(self) -> float:
        """Training hours of this run and of earlier ones."""
        return self.hours + sum(run.hours for run in self.before)

    @property
    def lineage(self) -> list[Run]:
        """All runs that led to these weights, this one last."""
        shared = self.model_dump(include=set(Run.model_fields))
        return [*self.before, Run(**shared)]

    @property
    def conditional(self) -> bool:
        """Whether the prior is conditional: given an image besides the noisy one."""
        return self.least_squares or self.refines

    @property
    def refines(self) -> bool:
        """Whether it is for super-resolution."""
        return self.super_resolution is not None or self.told

    @property
    def told(self) -> bool:
        """Whether it is told the super-resolution factors."""
        return self.factors is not None

    def for_factor(self, factor: float) -> bool:
        """Whether it is for super-resolution by `factor`."""
        return factor == self.super_resolution if self.factors is None else self.factors[0] <= factor <= self.factors[1]

    @property
    def factor_span(self) -> float:
        """Width of the range of super-resolution factors that it is for; 0 of one factor."""
        return 0.0 if self.factors is None else self.factors[1] - self.factors[0]

    @property
    def condition(self) -> str:
        """Condition in words."""
        if self.least_squares:
            return "the least-squares image of the projections"
        if self.factors is not None:
            return f"an image of x{self.factors[0]:g} to x{self.factors[1]:g} less resolution, and how much less"
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
