"""Training recipe: data and settings of a prior in one YAML file, which its card quotes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AliasChoices, Field, ValidationError, model_validator

from operators.errors import InputError
from recon.priors.card import IntensityRange, check_factors, without_neighbours
from recon.spec.base import Strict
from recon.spec.methods import PRIOR_NAME
from recon.spec.validation import read_yaml, reason

RECIPES = Path(__file__).parent / "recipes"
TEMPLATES = {"ct": "ct", "mri": "brain-mri"}
"""Shipped recipe by modality, whose settings a user's own prior is trained with."""


class Source(Strict):
    """Source of training data, ``.npz`` of slices or NIfTI volume: physical value = ``slope * stored + intercept``."""

    file: str
    slope: float = 1.0
    intercept: float = 0.0
    scaled: bool = False
    """Whether to divide a NIfTI volume by its 99.8th percentile first (MRI, whose unit is arbitrary)."""
    licence: str = "not stated"
    share: float = Field(1.0, ge=0)
    unknown_from: float | None = None
    """Stored value from which pixels count as saturated and are left out of the loss."""


class Synthetic(Strict):
    """Synthetic images, made on the fly by `recon.training.synthetic` in place of files."""

    seed: int = Field(ge=0)
    validation_seed: int = Field(ge=0)


class Training(Strict):
    """Optimisation settings; sigma is drawn as ``exp(N(log_sigma_mean, log_sigma_std))``."""

    batch: int = Field(ge=1)
    crop: int = Field(ge=16, multiple_of=16)
    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    optimizer: Literal["muon", "adamw"] = "muon"
    log_sigma_mean: float
    log_sigma_std: float = Field(gt=0)
    halve: float = Field(ge=0, le=1)
    """Fraction of crops taken at half resolution."""
    rotate: float = Field(0.0, ge=0, le=1)
    """Fraction of slices rotated and scaled at random, which smooths them."""
    tables: float = Field(0.0, ge=0, le=1)
    """Fraction of slices (CT in HU) to which a patient table, a head holder or the like is added."""
    intensity: float = Field(0.0, ge=0, lt=1)
    """Maximum relative change of intensity of real images, from the low end of the scale; complex ones always vary."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights (EMA) per step."""


class Recipe(Strict):
    """Recipe of a training run: everything that defines it except the seed."""

    RENAMED: ClassVar[dict[str, str]] = {"axis": "intensity_range"}

    name: str = Field(pattern=rf"^{PRIOR_NAME}$")
    modality: Literal["ct", "mri"]
    complex: bool
    intensity_range: IntensityRange
    largest: float = Field(gt=0)
    """Clipping limits on the prior's scale; values beyond them (metal) pass the prior unchanged."""
    sigma_data: float = Field(gt=0)
    channels: list[Annotated[int, Field(ge=1, le=4096)]] = Field(min_length=1, max_length=8)
    blocks: int = Field(ge=1, le=64)
    unshuffle: int = Field(2, ge=1, le=4)
    """Block size in pixels that the stem folds into channels (pixel unshuffle)."""
    super_resolution: int | None = Field(None, ge=2, le=8)
    """Factor of a super-resolution prior: conditions on the slice at so many times lower resolution (complex ones)."""
    factors: tuple[float, float] | None = None
    """Range of factors of a super-resolution prior that is told them; it conditions on stacks as scanners give them."""
    regression: bool = False
    """Whether to train a regression network, which sees the condition alone, to compare a prior with."""
    least_squares: bool = Field(False, validation_alias=AliasChoices("least_squares", "projections"))
    """Whether to condition on the least-squares image of a few projections of the slice (CT priors)."""
    solved: bool = False
    """Whether half of the images are a solver's iterates from a scan (CT priors); always with `least_squares`."""
    start: str | None = None
    """Prior from whose weights training starts. Default: random weights."""
    sources: list[Source] = Field([])
    validation: list[Source] = Field([])
    synthetic: Synthetic | None = None
    """Synthetic images, in place of sources and validation."""
    training: Training
    limits: list[str]

    @model_validator(mode="before")
    @classmethod
    def _older(cls, given: Any) -> Any:
        return without_neighbours(given)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.super_resolution is not None and not self.complex:
            raise ValueError("super_resolution: for complex priors only; set complex: true")
        check_factors(self)
        if self.scanned and (self.complex or self.modality != "ct"):
            raise ValueError("least_squares, solved: for real CT priors only; leave them out")
        if self.training.tables and self.intensity_range.unit != "HU":
            raise ValueError("training.tables: for priors in HU, whose slices are of patients; leave it out")
        if self.super_resolution is not None and self.training.crop % self.super_resolution:
            raise ValueError(
                f"training.crop: {self.training.crop} is no multiple of the factor {self.super_resolution}"
            )
        if self.synthetic is None:
            for part in ("sources", "validation"):
                if not getattr(self, part):
                    raise ValueError(f"{part}: Files are needed, at least one, or synthetic in place of all files")
        elif self.sources or self.validation:
            raise ValueError("synthetic: Images are made, so that there are no files: leave out sources and validation")
        elif self.synthetic.seed == self.synthetic.validation_seed:
            raise ValueError(f"synthetic.validation_seed: {self.synthetic.seed} is the seed of the images trained on")
        elif self.modality != "ct" or self.complex or self.scanned:
            raise ValueError("synthetic: For real CT priors that are given nothing but the image")
        elif self.training.halve:
            raise ValueError("training.halve: Synthetic images are made in the size of a crop; set it to 0")
        if self.sources and not any(source.share for source in self.sources):
            raise ValueError("sources: every share is 0, so that nothing would be drawn")
        multiple = self.unshuffle * 2 ** (len(self.channels) - 1)
        if self.training.crop % multiple:
            raise ValueError(
                f"training.crop: {self.training.crop} is no multiple of {multiple}, as unshuffle {self.unshuffle}"
                f" and {len(self.channels)} levels need"
            )
        return self

    @property
    def scanned(self) -> bool:
        """Whether training images are scanned, and the scans solved with the current network."""
        return self.least_squares or self.solved

    @property
    def conditional(self) -> bool:
        """Whether the prior is conditional: given an image besides the noisy one."""
        return self.least_squares or self.super_resolution is not None or self.told

    @property
    def told(self) -> bool:
        """Whether the prior is told the super-resolution factors."""
        return self.factors is not None

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe from a YAML file; `InputError` if the file is none."""
        return read_yaml(cls, path, "a recipe", field="recipe", remedy="recon/training/recipes has examples")

    @classmethod
    def for_volumes(cls, name: str, modality: str, folder: Path) -> Recipe:
        """Make a recipe for the NIfTI volumes of a folder: the shipped one's settings, the last volume held out.

        Raises
        ------
        InputError
            If `modality` is unknown, the name is no plain word, or there are fewer than two volumes.
        """
        if modality not in TEMPLATES:
            raise InputError(f"{modality!r} is not one of {', '.join(TEMPLATES)}", field="modality")
        if not re.fullmatch(PRIOR_NAME, name):
            raise InputError(f"{name!r} is no name for files", field="name", remedy="use letters, digits, . _ -")
        files = sorted(p.name for p in folder.glob("*.nii*") if p.name.endswith((".nii", ".nii.gz")))
        if len(files) < 2:
            raise InputError(
                f"{len(files)} NIfTI volumes in {folder}, at least 2 are needed: one is held out to judge by",
                field="data",
            )
        sources = [{"file": file, "scaled": modality == "mri", "licence": "the user's own"} for file in files]
        template = cls.named(TEMPLATES[modality]).model_dump()
        template["training"]["tables"] = 0.0  # one's own volumes have what they have
        limits = [f"trained on the {len(files) - 1} volumes named here; judged on one more"]
        own = {"name": name, "sources": sources[:-1], "validation": sources[-1:], "start": None, "limits": limits}
        return cls.model_validate(template | own)

    def with_settings(self, settings: list[str]) -> Recipe:
        """Change some settings, each given as ``name=value`` with dots for parts, value in YAML."""
        changed = self.model_dump()
        for setting in settings:
            path, equals, text = setting.partition("=")
            *parts, last = path.split(".")
            place: Any = changed
            for part in parts:
                place = _inside(place, part)
            if not equals or not isinstance(place, dict) or last not in place:
                raise InputError(
                    f"{setting!r} does not set anything of a recipe",
                    field="set",
                    remedy="write it as training.crop=64 or sources.1.share=0; recon/training/recipes shows the names",
                )
            try:
                place[last] = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise InputError(f"{setting!r} is not YAML after the equals sign", field="set") from error
        try:
            return type(self).model_validate(changed)
        except ValidationError as error:
            raise InputError(f"{', '.join(settings)}: {reason(error)}", field="set") from error

    @staticmethod
    def shipped() -> list[str]:
        """Names of the recipes that are shipped."""
        return sorted(path.stem for path in RECIPES.glob("*.yaml"))

    @classmethod
    def named(cls, name: str) -> Recipe:
        """Read the recipe shipped for prior `name`, or that of a YAML file."""
        path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(cls.shipped())
            raise InputError(
                f"there is no recipe {name!r}",
                field="name",
                remedy=f"choose one of: {known}; or add --modality to train on NIfTI volumes",
            )
        return cls.read(path)


def _inside(place: Any, part: str) -> Any:
    """Get an entry of a dictionary by name or of a list by number; None if there is none."""
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    return place.get(part) if isinstance(place, dict) else None
