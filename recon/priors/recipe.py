"""What a prior is trained on and how: one YAML file a prior, read by training and quoted by the card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from operators.errors import InputError

RECIPES = Path(__file__).parent / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Axis(_Strict):
    """The intensity axis: physical `low` is -1 on it, `high` is +1."""

    unit: str
    low: float
    high: float


class Source(_Strict):
    """One ``.npz`` of slices: physical value = ``slope * stored + intercept``."""

    file: str
    slope: float
    intercept: float
    share: float = 1.0
    unknown_from: float | None = None
    """Stored values from here on are saturated and do not count in the loss."""


class Training(_Strict):
    """Optimisation settings; sigma is drawn as ``exp(N(log_sigma_mean, log_sigma_std))``."""

    batch: int = Field(ge=1)
    crop: int = Field(ge=16, multiple_of=16)
    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    log_sigma_mean: float
    log_sigma_std: float = Field(gt=0)
    halve: float = Field(ge=0, le=1)
    """Share of crops taken at half resolution."""


class Recipe(_Strict):
    """Everything that defines a training run but the seed."""

    name: str
    modality: Literal["ct", "mri"]
    complex: bool
    axis: Axis
    sigma_data: float = Field(gt=0)
    channels: list[int]
    sources: list[Source]
    validation: list[Source]
    training: Training
    limits: list[str]

    @classmethod
    def named(cls, name: str) -> Recipe:
        """The recipe shipped for prior `name`."""
        path = RECIPES / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
            raise InputError(f"there is no recipe {name!r}", field="prior", remedy=f"choose one of: {known}")
        return cls.model_validate(yaml.safe_load(path.read_text()))
