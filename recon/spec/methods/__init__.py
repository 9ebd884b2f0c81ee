"""Typed settings of every method. A method's name alone works: every setting has a default.

Lengths and intensities that depend on the prior are on its [-1, 1] axis; data weights refer to the
operator divided by its norm, so that they mean the same for every geometry.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recon.spec import schedules

CARD_ENDINGS = (".yaml", ".yml")
PRIOR_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class MethodSettings(BaseModel):
    """Base of all settings: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _refuse(settings: MethodSettings, unused: set[str], mode: str) -> None:
    """Refuse settings that the chosen mode would ignore, unless they have their default value."""
    fields = type(settings).model_fields
    for name in sorted(unused & settings.model_fields_set):
        if getattr(settings, name) != fields[name].default:
            raise ValueError(f"{name} has no effect with {mode}; leave it out")


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
    of the data when not given, as the next two say."""
    least_weight: float = Field(3e-5, gt=0, le=10)
    """The least that is chosen: the fewer data, the more they leave to smoothness, with noise or without."""
    noise_share: float | None = Field(None, gt=0, le=100)
    """The weight over the noise of the data, scaled as the weight is. A projector of norm one damps fine detail, a
    coil-combined Fourier transform does not, hence 0.03 for CT and 0.3 for MRI when not given."""
    iterations: int = Field(100, ge=1, le=5_000)
    cg_iterations: int | None = Field(None, ge=1, le=200)
    """Of each ADMM iteration; 5 with a preconditioner (CT), 10 without, when not given."""
    dimensions: Literal[2, 3] = 3
    """In 2 dimensions slices are independent of each other."""

    @model_validator(mode="after")
    def _one_weight(self) -> Self:
        if self.weight is not None:
            _refuse(self, {"least_weight", "noise_share"}, "a weight")
        return self


class ZeroFilled(MethodSettings):
    """Coil-combined inverse Fourier transform of what was measured."""

    name: Literal["zero-filled"] = "zero-filled"


class Interpolation(MethodSettings):
    """Low-resolution images interpolated: zero-filled k-space, or linear between thick slices."""

    name: Literal["interpolation"] = "interpolation"


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

    def paths(self) -> dict[str, Path]:
        """Settings that name a file of this machine, by field."""
        values = {name: getattr(self, name, None) for name in ("prior", "calibration")}
        return {k: Path(v) for k, v in values.items() if v is not None and v.endswith(CARD_ENDINGS)}


class _Levels(Diffusion):
    """What the methods share that go down a series of noise levels."""

    steps: int = Field(30, ge=1, le=10_000)
    schedule: Literal["geometric", "ddpm"] = "geometric"
    """Noise levels: a geometric series, or the times of the DDPM schedule, which has `sigma_first` 157."""
    sigma_first: float = Field(0.2, gt=0, le=1_000)
    sigma_last: float = Field(0.005, gt=0, le=1)

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if self.schedule == "geometric" and self.steps > 1 and not self.sigma_last < self.sigma_first:
            raise ValueError(f"sigma_last {self.sigma_last:g} must be below sigma_first {self.sigma_first:g}")
        if self.schedule == "ddpm":
            if self.steps > schedules.DDPM_TIMES:
                raise ValueError(f"steps: {self.steps}, the ddpm schedule has {schedules.DDPM_TIMES} times")
            _refuse(self, {"sigma_first", "sigma_last"}, "schedule: ddpm")
        return self

    def sigmas(self) -> list[float]:
        """The noise levels, falling."""
        if self.schedule == "ddpm":
            return schedules.ddpm(self.steps)
        return schedules.geometric(self.sigma_first, self.sigma_last, self.steps)


class Splitting(_Levels):
    """What the methods share whose data step is a proximal one."""

    data_sigma: float = Field(5e-4, gt=0, le=1)
    """Noise the data term assumes at least, on the prior's axis; the measured noise is used when larger."""
    noise_share: float = Field(0.6, gt=0, le=10)
    """Of the measured noise, how much the data term assumes: the prior takes out what is left in."""
    cg_iterations: int | None = Field(None, ge=1, le=200)
    """Of each data step; as many as the operator needs when not given: 3 with a preconditioner (CT), 8 without."""
    z_weight: float = Field(0.0, ge=0, le=100)
    """Of total variation between slices, in units of each step's noise level; 0 leaves slices independent."""
    start: Literal["tv", "classical", "zero"] = "classical"
    """Where it begins: the quick classical image, a short TV reconstruction, or nothing."""


class Annealed(Splitting):
    """Annealed half-quadratic splitting with a diffusion prior (DiffPIR without fresh noise)."""

    name: Literal["annealed"] = "annealed"
    skip: float = Field(0.0, ge=0, le=10)
    """Relative change between two evaluations below which the next one is extrapolated instead; 0 evaluates always."""


class _Frozen(BaseModel):
    """Methods whose noise can be chosen once and frozen."""

    calibration: str | None = Field(None, max_length=1_000)
    """Noise that is the same in every slice: that of a file which ``recon calibrate`` wrote (``.yaml``), or ``random``
    for the job's seed. When not given every slice has its own, or for `boundary` what was shipped for the prior."""

    @field_validator("calibration")
    @classmethod
    def _random_or_file(cls, value: str | None) -> str | None:
        if value is not None and value != "random" and not value.endswith(CARD_ENDINGS):
            raise ValueError("a calibration is a file that ends in .yaml, or the word random")
        return value


class _Preset(_Frozen, Splitting):
    """A method with published constants: `preset` sets every default, what is given beside it wins."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        preset = value.get("preset", cls.model_fields["preset"].default)
        return {**cls.PRESETS.get(preset, {}), **value} if isinstance(preset, str) else value


# Of the paper: 0.15, 0.5 and 0.8 for 19, 49 and 99 evaluations; the published code has 0.85 for 50.
_DDS_PAPER = {"steps": 50, "schedule": "ddpm", "eta": 0.5, "gamma": 1.0, "cg_iterations": 5, "start": "zero"}


class DDS(_Preset):
    """Decomposed diffusion sampling with the proximal data step; in 3D with a `z_weight`."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "tuned": {},
        "paper": _DDS_PAPER,
        "paper-3d": {k: v for k, v in _DDS_PAPER.items() if k != "gamma"},
    }

    name: Literal["dds"] = "dds"
    preset: Literal["tuned", "paper", "paper-3d"] = "tuned"
    """`paper` holds on to the estimate only where there is noise, `paper-3d` has the published total variation."""
    sigma_first: float = Field(0.5, gt=0, le=1_000)
    eta: float = Field(1.0, ge=0, le=1)
    """Share of fresh noise in each step's noise; 0 is deterministic. With less than 1 some of what the prior took for
    noise stays, and with it what was wrong in the image; 1 ends nearer to the mean: half as much spread, in power."""
    gamma: float | None = Field(None, gt=0, le=1e9)
    """Fixed weight of the data in each step, as published (`paper`: where there is noise); from the noise and sigma
    when not given."""

    UNUSED: ClassVar[dict[str, set[str]]] = {
        "tuned": set(),
        "paper": {"z_weight", "data_sigma", "noise_share"},
        "paper-3d": {"z_weight", "data_sigma", "noise_share", "gamma"},
    }

    @model_validator(mode="after")
    def _one_data_step(self) -> Self:
        _refuse(self, self.UNUSED[self.preset], f"preset: {self.preset}")
        return self


class REDDiff(_Preset):
    """Variational reconstruction regularised by a denoising diffusion process."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "tuned": {},
        # The published defaults; 100 steps as its scripts have.
        "paper": {
            "update": "adam", "steps": 100, "schedule": "ddpm", "learning_rate": 0.1, "weight": 0.25, "decay": "none",
            "weighting": "linear", "data_weight": 1.0, "reduction": "mean", "average": 0.0, "start": "classical",
            "antithetic": False, "skip": 0.0, "turned": False,
        },
    }  # fmt: skip

    name: Literal["red-diff"] = "red-diff"
    preset: Literal["tuned", "paper"] = "tuned"
    update: Literal["proximal", "adam"] = "proximal"
    antithetic: bool = True
    """Evaluate each noise with both signs: twice the cost, and what noise would leave in the image cancels."""
    turned: bool = True
    """Show the prior the image turned or mirrored, each step another way: what it errs in one orientation cancels."""
    learning_rate: float | None = Field(None, gt=0, le=10)
    """Share of the way to the data step (proximal; 1 when not given), or Adam's step on the prior's axis (0.1)."""
    decay: Literal["none", "cosine"] = "none"
    """Of the learning rate, to 1 % (adam)."""
    weight: float = Field(1.0, ge=0, le=100)
    """Of the regulariser."""
    weighting: Literal["linear", "sqrt", "square", "log", "trunc-linear", "const"] = "linear"
    """How the regulariser's weight follows the noise level (adam)."""
    data_weight: float = Field(1.0, gt=0, le=1e6)
    reduction: Literal["sum", "mean"] = "sum"
    """Sum or mean over measurements and pixels: with means the balance depends on their number (adam)."""
    sigma_x0: float = Field(0.0, ge=0, le=1)
    """Spread of the variational distribution."""
    average: float = Field(0.2, ge=0, le=1)
    """Share of the last iterates that is averaged."""
    skip: float = Field(0.6, ge=0, le=10)
    """Relative change between two evaluations below which the next one is extrapolated instead; 0 evaluates always."""
    polish: int = Field(0, ge=0, le=100)
    """Steps of plug-and-play ADMM at one level after the last: towards the expected image, not the likeliest one."""

    UNUSED: ClassVar[dict[str, set[str]]] = {
        "proximal": {"decay", "weighting", "data_weight", "reduction"},
        "adam": {"z_weight", "cg_iterations", "data_sigma", "noise_share", "polish"},
    }

    @model_validator(mode="after")
    def _one_update(self) -> Self:
        preset = self.PRESETS[self.preset]
        unused = {
            name for name in self.UNUSED[self.update] if name not in preset or getattr(self, name) != preset[name]
        }
        _refuse(self, unused, f"update: {self.update}")
        return self

    @property
    def rate(self) -> float:
        """The learning rate, or that of the kind of update."""
        return self.learning_rate or (0.1 if self.update == "adam" else 1.0)


class DiffusionMBIR(_Preset):
    """2D diffusion prior on slices with total variation between them, by ADMM that shares its variables."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "fast": {},
        # Published for images in [0, 1]; the prior's axis is twice as long, and the operator has norm one.
        "paper": {"steps": 2000, "sigma_first": 756.0, "sigma_last": 0.02, "cg_iterations": 1},
    }

    name: Literal["diffusion-mbir"] = "diffusion-mbir"
    preset: Literal["fast", "paper"] = "fast"
    """`fast`: the sweep acts on the denoised volume (DDS in 3D). `paper`: predictor and corrector as published."""
    sigma_first: float = Field(0.5, gt=0, le=1_000)
    eta: float = Field(1.0, ge=0, le=1)
    """Share of fresh noise in each step's noise (fast)."""
    z_weight: float = Field(0.3, ge=0, le=100)
    snr: float = Field(0.16, gt=0, le=1)
    """Length of the Langevin step (paper)."""
    penalty: float | None = Field(None, gt=0, le=1e3)
    """ADMM's, beside the squared operator of norm one (paper)."""
    threshold: float | None = Field(None, ge=0, le=10)
    """Soft threshold of differences between slices (paper); both as published for CT or for MRI when not given."""
    consistency: bool = True
    """CT: end with one step of algebraic reconstruction (paper)."""

    UNUSED: ClassVar[dict[str, set[str]]] = {
        "fast": {"snr", "penalty", "threshold", "consistency"},
        "paper": {"z_weight", "eta", "start", "data_sigma", "noise_share"},
    }

    @model_validator(mode="after")
    def _one_sampler(self) -> Self:
        _refuse(self, self.UNUSED[self.preset], f"preset: {self.preset}")
        return self


class Boundary(_Frozen, _Levels):
    """Super-resolution by the ODE of a conditional prior from one starting noise x_T, searched for and then frozen."""

    name: Literal["boundary"] = "boundary"
    steps: int = Field(5, ge=1, le=1_000)
    sigma_first: float = Field(3.0, gt=0, le=1_000)
    sigma_last: float = Field(1.0, gt=0, le=1)
    """The lower, the sharper, and the more of what is shown was drawn and not measured."""
    start: Literal["interpolation", "noise"] = "interpolation"
    """What the starting noise is added to: the interpolated image, which saves the steps that would find it again, or
    nothing, as published."""
    amplitude: float | None = Field(None, ge=0, le=1)
    """Of the starting noise: 1 as published, for an image that might have been; 0, the centre of the noise, for the one
    to be expected. The calibration's when not given."""
    order: Literal[1, 2] = 2
    """Of the ODE solver: DDIM, or second-order multistep."""
    consistency: bool = True
    """Fit the data in every step; without it the network alone answers for them."""
    data_sigma: float = Field(5e-3, gt=0, le=1)
    cg_iterations: int = Field(10, ge=1, le=200)


class DPS(_Levels):
    """Diffusion posterior sampling, a point of reference: the data's gradient goes through the network."""

    name: Literal["dps"] = "dps"
    steps: int = Field(1000, ge=1, le=10_000)
    sigma_first: float = Field(20.0, gt=0, le=1_000)
    sigma_last: float = Field(0.01, gt=0, le=1)
    scale: float = Field(1.0, gt=0, le=1e3)
    """Step along the gradient of the norm of the residual."""


Method = Annotated[
    FBP
    | SIRT
    | CGLS
    | TV
    | ZeroFilled
    | CGSense
    | Interpolation
    | Annealed
    | DDS
    | REDDiff
    | DiffusionMBIR
    | DPS
    | Boundary,
    Field(discriminator="name"),
]


def in_one_piece(method: Method) -> bool:
    """Whether a method has to see the whole volume at once; others may be cut into slabs, with halos if need be."""
    published = {DiffusionMBIR: "paper", DDS: "paper-3d"}
    return any(isinstance(method, kind) and method.preset == preset for kind, preset in published.items())


DIFFUSION_METHODS = ("annealed", "dds", "red-diff", "diffusion-mbir", "dps")
CT_METHODS = ("fbp", "sirt", "cgls", "tv", *DIFFUSION_METHODS)
METHODS: dict[str, tuple[str, ...]] = {
    "ct-parallel": CT_METHODS,
    "ct-fan": CT_METHODS,
    "mri-cartesian": ("zero-filled", "cg-sense", "tv", *DIFFUSION_METHODS),
    "mri-resolution": ("interpolation", "tv", "boundary", *DIFFUSION_METHODS),
}
"""Methods by kind of acquisition."""
QUICK = {"ct-parallel": "fbp", "ct-fan": "fbp", "mri-cartesian": "zero-filled", "mri-resolution": "interpolation"}
"""The quick method of each kind of acquisition, shown beside every result."""
DEFAULT_PRIOR = {"ct": "ct", "mri": "brain-mri"}
