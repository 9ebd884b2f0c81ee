"""Base classes of method settings. A method's name alone works: every setting has a default.

Lengths and intensities that depend on the prior are on its [-1, 1] scale; data weights refer to the
operator divided by its norm, so that they mean the same for every geometry.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from recon.spec import schedules
from recon.spec.acquisitions.base import Acquisition
from recon.spec.base import Strict
from recon.spec.costs import DATA_STEPS, Cost

CARD_ENDINGS = (".yaml", ".yml")
PRIOR_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
DEFAULT_PRIOR = {"ct": "ct", "mri": "brain-mri"}
"""The usual prior of each modality."""


class MethodSettings(Strict, ABC):
    """Settings of a reconstruction method; a method is one subclass here and one solver module, `SOLVER`."""

    name: str

    SOLVER: ClassVar[str]
    """Where the solver is, ``module:function``; resolved in the process that computes. See `recon.solvers.registry`."""
    REMOVES_TEXTURE: ClassVar[bool] = False
    """Whether fine texture is taken for noise, so that bootstrap replicates cannot lose it again."""
    FOR: ClassVar[tuple[str, ...]] = ()
    """Kinds of acquisition that the method fits, beside those that list it themselves."""

    @abstractmethod
    def cost(self, acquisition: Acquisition) -> Cost:
        """Work that the method takes on a measurement of `acquisition`."""

    def couples_slices(self) -> bool:
        """Whether slices depend on their neighbours, so that a chunk is solved with some of those around it."""
        return False

    def in_one_piece(self) -> bool:
        """Whether the method has to see the whole volume at once."""
        return False

    def tunable(self) -> bool:
        """Whether settings that are left open are taken from the table of tuned ones."""
        return True

    def paths(self) -> dict[str, Path]:
        """Settings that name a file of this machine, by field."""
        return {}


def refuse(settings: MethodSettings, unused: set[str], mode: str) -> None:
    """Refuse settings that the chosen mode would ignore, unless they have their default value."""
    fields = type(settings).model_fields
    for name in sorted(unused & settings.model_fields_set):
        if getattr(settings, name) != fields[name].default:
            raise ValueError(f"{name} has no effect with {mode}; leave it out")


class Diffusion(MethodSettings):
    """Base class of methods with a diffusion prior."""

    REMOVES_TEXTURE = True
    CONDITIONS: ClassVar[Literal["none", "any", "super-resolution"]] = "any"
    """Which conditional priors the method takes: none, all, or those for super-resolution only."""

    prior: str | None = Field(None, max_length=1_000)
    """A shipped prior, or the path of the card (``.yaml``) of one's own. Default: the modality's."""

    @field_validator("prior")
    @classmethod
    def _name_or_card(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(CARD_ENDINGS) and not re.fullmatch(PRIOR_NAME, value):
            raise ValueError("a prior is given by its name, or by the path of its card, which ends in .yaml")
        return value

    def prior_for(self, modality: str, refined: int | None) -> str:
        """Name or path of the prior for a modality, and for super-resolution by a factor."""
        del refined
        return self.prior or DEFAULT_PRIOR[modality]

    def paths(self) -> dict[str, Path]:
        """The card of a prior of one's own."""
        return {} if self.prior is None or not self.prior.endswith(CARD_ENDINGS) else {"prior": Path(self.prior)}


VOLUMES = 24
"""Copies of the volume that a method with a diffusion prior holds at its peak: it may start by TV."""
START_PRODUCTS = 120
"""Products with the operator that the start and the operator's norm take, about."""


class Levels(Diffusion):
    """Methods that go down a series of noise levels."""

    steps: int = Field(30, ge=1, le=10_000)
    """Number of noise levels."""
    schedule: Literal["geometric", "ddpm"] = "geometric"
    """Noise levels: a geometric series, or the times of the DDPM schedule, which has `sigma_first` 157."""
    sigma_first: float = Field(0.2, gt=0, le=1_000)
    """First and largest noise level, on the prior's scale."""
    sigma_last: float = Field(0.005, gt=0, le=1)
    """Last noise level."""

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if self.schedule == "geometric" and self.steps > 1 and not self.sigma_last < self.sigma_first:
            raise ValueError(f"sigma_last {self.sigma_last:g} must be below sigma_first {self.sigma_first:g}")
        if self.schedule == "ddpm":
            if self.steps > schedules.DDPM_TIMES:
                raise ValueError(f"steps: {self.steps}, the ddpm schedule has {schedules.DDPM_TIMES} times")
            refuse(self, {"sigma_first", "sigma_last"}, "schedule: ddpm")
        return self

    def sigmas(self) -> list[float]:
        """The noise levels, falling."""
        if self.schedule == "ddpm":
            return schedules.ddpm(self.steps)
        return schedules.geometric(self.sigma_first, self.sigma_last, self.steps)

    def evaluations(self) -> int:
        """Network evaluations per slice."""
        return self.steps

    def data_steps(self) -> int:
        """Number of data steps."""
        return self.steps

    def inner_iterations(self, *, preconditioned: bool) -> int:
        """Conjugate gradient iterations per data step."""
        return DATA_STEPS[preconditioned]

    def cost(self, acquisition: Acquisition) -> Cost:
        """Data steps and network evaluations."""
        preconditioned = acquisition.PRECONDITIONED
        # The last of preconditioned iterations, and the misfit of steps that nobody looks at, take none.
        per_step = 2 * self.inner_iterations(preconditioned=preconditioned) + (1 if preconditioned else 2)
        return Cost(VOLUMES, self.data_steps() * per_step + START_PRODUCTS, self.evaluations())


class Splitting(Levels):
    """Methods whose data step is a proximal one."""

    RENAMED: ClassVar[dict[str, str]] = {
        "data_sigma": "min_noise_std",
        "noise_share": "noise_fraction",
        "z_weight": "tv_z_weight",
    }

    min_noise_std: float = Field(5e-4, gt=0, le=1)
    """Least noise that the data term assumes, on the prior's scale; the measured noise is used when larger."""
    noise_fraction: float = Field(0.6, gt=0, le=10)
    """Fraction of the measured noise that the data term assumes; the prior removes the rest."""
    cg_iterations: int | None = Field(None, ge=1, le=200)
    """Conjugate gradient iterations per data step. Default: 3 with a preconditioner (CT), 8 without."""
    tv_z_weight: float = Field(0.0, ge=0, le=100)
    """Weight of total variation between slices, in units of each step's noise level; 0 leaves slices independent."""
    start: Literal["tv", "classical", "zero"] = "classical"
    """Where it begins: a short TV reconstruction, the quick classical image, or nothing."""

    def couples_slices(self) -> bool:
        """With total variation between slices."""
        return self.tv_z_weight > 0

    def inner_iterations(self, *, preconditioned: bool) -> int:
        """As given, or as many as the operator needs."""
        return self.cg_iterations or DATA_STEPS[preconditioned]

    def tunable(self) -> bool:
        """With noise levels of our own."""
        return self.schedule != "ddpm"


class FrozenNoise(Levels):
    """Methods whose noise can be chosen once and frozen."""

    RENAMED: ClassVar[dict[str, str]] = {"calibration": "frozen_noise"}
    ALWAYS_FROZEN: ClassVar[bool] = False
    """Whether noise is frozen, by what was shipped for the prior, also when nothing is said."""

    frozen_noise: str | None = Field(None, max_length=1_000)
    """Noise that is the same in every slice: that of a file which ``recon search-noise`` wrote (``.yaml``), or
    ``random`` for the job's seed. Default: every slice has its own; for `boundary`, what was shipped for the prior."""

    @field_validator("frozen_noise")
    @classmethod
    def _random_or_file(cls, value: str | None) -> str | None:
        if value is not None and value != "random" and not value.endswith(CARD_ENDINGS):
            raise ValueError("frozen noise is a file that ends in .yaml, or the word random")
        return value

    def paths(self) -> dict[str, Path]:
        """The card of a prior of one's own, and the file of the noise."""
        found = super().paths()
        if self.frozen_noise is not None and self.frozen_noise.endswith(CARD_ENDINGS):
            found["frozen_noise"] = Path(self.frozen_noise)
        return found

    @property
    def noise_amplitude(self) -> float | None:
        """Scale of the starting noise, where a method has one and it is given."""
        return None


class Preset(FrozenNoise, Splitting):
    """A method with published constants: `preset` sets every default, what is given beside it wins."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        preset = value.get("preset", cls.model_fields["preset"].default)
        return {**cls.PRESETS.get(preset, {}), **value} if isinstance(preset, str) else value

    @property
    def published(self) -> bool:
        """Whether the constants are those of the paper."""
        return bool(self.PRESETS[getattr(self, "preset")])  # noqa: B009 - every subclass has the field

    def tunable(self) -> bool:
        """Without a preset of published constants."""
        return super().tunable() and not self.published
