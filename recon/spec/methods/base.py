"""Base classes of method settings. A method's name alone works: every setting has a default.

Lengths and intensities that depend on the prior are on its [-1, 1] scale; data weights refer to the
operator divided by its norm, so that they mean the same for every geometry.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from recon.spec import schedules
from recon.spec.acquisitions.base import Acquisition
from recon.spec.base import Strict
from recon.spec.costs import Cost, data_step_iterations

CARD_ENDINGS = (".yaml", ".yml")
PRIOR_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
DEFAULT_PRIOR = {"ct": "ct", "mri": "brain-mri"}
"""The usual prior of each modality."""


class MethodSettings(Strict, ABC):
    """Settings of a reconstruction method; a method is one subclass here and one solver module, `SOLVER`."""

    name: str
    """Name of the method; selects the other fields."""

    SOLVER: ClassVar[str]
    """Solver function as ``module:function``, imported in the process that computes; see `recon.solvers.registry`."""
    ERRORS_LIKE: ClassVar[Literal["linear", "regularised", "prior"]] = "linear"
    """Kind of its errors: noise that it lets through, fine texture that it takes for noise, or what it draws."""
    FITS_DATA: ClassVar[bool] = True
    """Whether the method looks for an image that fits the data, so that a misfit beyond their noise means a fault."""
    FOR: ClassVar[tuple[str, ...]] = ()
    """Kinds of acquisition that the method fits, in addition to those that list it."""

    @abstractmethod
    def cost(self, acquisition: Acquisition) -> Cost:
        """Work that the method takes on a measurement of `acquisition`."""

    def parts(self, acquisition: Acquisition) -> list[MethodSettings]:
        """Methods that it runs, all of them on everything: itself, unless it is made of others."""
        del acquisition
        return [self]

    def rehearsals(self, slices: int, acquisition: Acquisition) -> int:
        """Slices that are reconstructed beforehand, so that the method is chosen by them."""
        del slices, acquisition
        return 0

    def draws(self) -> bool:
        """Whether it draws detail that no sample determined, on purpose, so that the report says how much."""
        return False

    def couples_slices(self) -> bool:
        """Whether slices depend on their neighbours, so that a chunk is solved with a halo of slices around it."""
        return False

    def in_one_piece(self) -> bool:
        """Whether the method needs the whole volume at once and cannot be solved in chunks."""
        return False

    def tunable(self) -> bool:
        """Whether settings that are left open are taken from the table of tuned settings."""
        return True

    def paths(self) -> dict[str, Path]:
        """Paths of local files that settings name, by field."""
        return {}


def refuse(settings: MethodSettings, unused: set[str], mode: str) -> None:
    """Refuse settings that the chosen mode would ignore, unless they have their default value."""
    fields = type(settings).model_fields
    for name in sorted(unused & settings.model_fields_set):
        if getattr(settings, name) != fields[name].default:
            raise ValueError(f"{name} has no effect with {mode}; leave it out")


class Diffusion(MethodSettings):
    """Base class of methods with a diffusion prior."""

    ERRORS_LIKE = "prior"
    CONDITIONS: ClassVar[Literal["none", "any", "super-resolution"]] = "any"
    """Conditional priors that the method accepts: none, any, or only those for super-resolution."""

    prior: str | None = Field(None, max_length=1_000)
    """Diffusion prior: name of a shipped one, or path of your own card (``.yaml``; command line and Python only).
    Default: the modality's; for super-resolution one that covers the factor."""

    @field_validator("prior")
    @classmethod
    def _name_or_card(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(CARD_ENDINGS) and not re.fullmatch(PRIOR_NAME, value):
            raise ValueError("a prior is given by its name, or by the path of its card, which ends in .yaml")
        return value

    def paths(self) -> dict[str, Path]:
        """Path of the prior's card, if it is your own."""
        return {} if self.prior is None or not self.prior.endswith(CARD_ENDINGS) else {"prior": Path(self.prior)}


Effort = Literal["draft", "standard", "best"]
"""Work that a method puts into a result: `draft` for a quick look, `standard`, or `best` at any price."""
VOLUMES = 24
"""Peak number of volume copies in memory for a method with a diffusion prior, which may start by TV."""
START_PRODUCTS = 120
"""Approximate number of products with the operator that the start and the operator's norm take."""


class Levels(Diffusion):
    """Base class of methods that step down a series of noise levels."""

    steps: int = Field(30, ge=1, le=10_000)
    """Number of noise levels."""
    schedule: Literal["geometric", "ddpm"] = "geometric"
    """Noise schedule: a geometric series, or the times of the DDPM schedule, which starts at sigma 157."""
    sigma_first: float = Field(0.2, gt=0, le=1_000)
    """First and largest noise level, on the prior's [-1, 1] scale."""
    sigma_last: float = Field(0.005, gt=0, le=1)
    """Last and smallest noise level, on the prior's [-1, 1] scale."""

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if not self.uses_levels():
            return self
        if self.schedule == "geometric" and self.steps > 1 and not self.sigma_last < self.sigma_first:
            raise ValueError(f"sigma_last {self.sigma_last:g} must be below sigma_first {self.sigma_first:g}")
        if self.schedule == "ddpm":
            if self.steps > schedules.DDPM_TIMES:
                raise ValueError(f"steps: {self.steps}, the ddpm schedule has {schedules.DDPM_TIMES} times")
            refuse(self, {"sigma_first", "sigma_last"}, "schedule: ddpm")
        return self

    def uses_levels(self) -> bool:
        """Whether the method goes through these noise levels at all."""
        return True

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
        return data_step_iterations(preconditioned=preconditioned, coupled=False)

    def cost(self, acquisition: Acquisition) -> Cost:
        """Cost of data steps and network evaluations."""
        preconditioned = acquisition.PRECONDITIONED
        # The last preconditioned iteration takes none, nor does a step's misfit, computed only to be shown.
        per_step = 2 * self.inner_iterations(preconditioned=preconditioned) + (1 if preconditioned else 2)
        return Cost(VOLUMES, self.data_steps() * per_step + START_PRODUCTS, self.evaluations())


class Splitting(Levels):
    """Base class of methods with a proximal data step."""

    RENAMED: ClassVar[dict[str, str]] = {
        "data_sigma": "min_noise_std",
        "noise_share": "noise_fraction",
        "z_weight": "tv_z_weight",
    }

    effort: Effort = "standard"
    """Effort: `draft` takes a few network evaluations, `standard` the tuned number, `best` several times that. The
    plan says what was measured to be lost or gained; a setting that is given wins."""
    min_noise_std: float = Field(5e-4, gt=0, le=1)
    """Lower bound on the noise that the data term assumes, on the prior's scale; larger measured noise replaces it."""
    noise_fraction: float = Field(0.6, gt=0, le=10)
    """Fraction of the measured noise that the data term assumes; the prior removes the rest."""
    cg_iterations: int | None = Field(None, ge=1, le=200)
    """Conjugate gradient iterations per data step. Default: with a preconditioner (CT) 3, or 4 if slices are coupled;
    8 without."""
    tv_z_weight: float = Field(0.0, ge=0, le=100)
    """Weight of total variation between slices, in units of each step's noise level; 0 leaves slices independent."""
    start: Literal["tv", "classical", "zero"] = "classical"
    """Initial image: a short TV reconstruction, the quick classical image, or zero."""
    int8: bool = False
    """Whether the network computes in 8-bit integers where the processor multiplies those natively (AVX-512 VNNI); the
    report says which arithmetic it was."""

    @model_validator(mode="after")
    def _effort_of_what_is_tuned(self) -> Self:
        if self.effort != "standard" and not self.tunable():
            raise ValueError(f"effort: {self.effort} has no effect with published constants; leave it out")
        return self

    def couples_slices(self) -> bool:
        """Whether total variation between slices is on."""
        return self.tv_z_weight > 0

    def inner_iterations(self, *, preconditioned: bool) -> int:
        """Number as given, or as many as the operator needs."""
        coupled = self.couples_slices()
        return self.cg_iterations or data_step_iterations(preconditioned=preconditioned, coupled=coupled)

    def tunable(self) -> bool:
        """Whether the noise levels are not those of the DDPM schedule."""
        return self.schedule != "ddpm"


class FrozenNoise(Levels):
    """Base class of methods whose noise can be searched for once and frozen."""

    RENAMED: ClassVar[dict[str, str]] = {"calibration": "frozen_noise"}
    ALWAYS_FROZEN: ClassVar[bool] = False
    """Whether noise is frozen by default, to the file shipped with the prior."""
    BESIDE_NOISE: ClassVar[frozenset[str]] = frozenset({"name", "prior", "frozen_noise"})
    """Settings that say nothing of how the noise becomes an image."""

    frozen_noise: str | None = Field(None, max_length=1_000)
    """Frozen noise, the same in every slice: a file (``.yaml``) that ``recon search-noise`` wrote, or ``random`` for
    the job's seed. A file is used with any settings; the report says which differ from those of the search. Default:
    every slice has its own noise; for `boundary`, the file shipped with the prior, else the usual noise."""

    @field_validator("frozen_noise")
    @classmethod
    def _random_or_file(cls, value: str | None) -> str | None:
        if value is not None and value != "random" and not value.endswith(CARD_ENDINGS):
            raise ValueError("frozen noise is a file that ends in .yaml, or the word random")
        return value

    def paths(self) -> dict[str, Path]:
        """Paths of your own prior's card and of the noise file."""
        found = super().paths()
        if self.frozen_noise is not None and self.frozen_noise.endswith(CARD_ENDINGS):
            found["frozen_noise"] = Path(self.frozen_noise)
        return found

    @property
    def noise_amplitude(self) -> float:
        """Scale with which the frozen noise enters; 0 where none of it does."""
        return 1.0


class Preset(FrozenNoise, Splitting):
    """Base class of methods with published constants: `preset` sets the defaults, settings given beside it win."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        value = cls.in_new_names(value, info.context)  # else a preset would set the field that an old name means
        preset = value.get("preset", cls.model_fields["preset"].default)
        return {**cls.PRESETS.get(preset, {}), **value} if isinstance(preset, str) else value

    @property
    def published(self) -> bool:
        """Whether the constants are those of the paper."""
        return bool(self.PRESETS[getattr(self, "preset")])  # noqa: B009 - every subclass has the field

    def tunable(self) -> bool:
        """Whether no preset of published constants is chosen."""
        return super().tunable() and not self.published
