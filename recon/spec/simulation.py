"""Settings of simulation: retrospective undersampling of a known volume."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from recon.spec.base import Strict
from recon.spec.old_names import still_accepted

RENAMED_PATTERNS: dict[str, str] = {"uniform": "equispaced"}
"""New names by old ones, plain or `Renamed`."""
TubeVoltage = Literal[80, 100, 120, 140]
ONLY_REALISTIC = (
    "view_motion_rad", "electronic_noise", "tube_voltage_kv", "scatter", "gain_std", "rings", "phase_fov",
    "motion_pixels",
)  # fmt: skip
"""Fields that an ideal simulation does not have."""
ELECTRONIC_NOISE = 3.0
"""Standard deviation of the electronic noise in photons, unless given: a variance of about ten, as in clinical CT."""


class Simulation(Strict):
    """Simulation of a measurement: measure a known volume as the acquisition says, with noise."""

    RENAMED: ClassVar[dict[str, str]] = {"photons": "photons_per_ray"}

    model: Literal["realistic", "ideal"] = "realistic"
    """Model of the measurement. ``realistic``, CT: the object is twice as fine as the result, beams are as wide as a
    detector element and move during a view, intensities are averaged and photons counted. ``realistic``, k-space: the
    object is twice as fine and has sharp edges, coils are loops with correlated noise, air, tissue and fat are off
    resonance; the truth is a fully sampled scan without noise. ``ideal``: data come from the operator that
    reconstructs, which flatters every method."""
    photons_per_ray: float | None = Field(None, gt=0, le=1e12)
    """Photons per ray in air, I0 (CT). Default: no noise."""
    electronic_noise: float | None = Field(None, ge=0, le=1e6)
    """Standard deviation of the electronic noise in photons (CT). Default: 3 where photons are counted realistically,
    else none."""
    view_motion_rad: float | None = Field(None, ge=0, le=1)
    """Angle in radians by which the scanner turns during a view (CT). Default: a thousandth of a turn, as when views of
    a full scan are left out, but at most the angle between views."""
    tube_voltage_kv: TubeVoltage | None = None
    """X-ray tube voltage in kV, 80, 100, 120 or 140: beams have a spectrum, which dense objects harden, and data are
    corrected for water, so that water keeps 0 HU (CT). Default: monochromatic beams."""
    scatter: float = Field(0.0, ge=0, le=1)
    """Scattered intensity, the same at every element, as a fraction of the beam's in air (CT)."""
    gain_std: float = Field(0.0, ge=0, le=0.1)
    """Standard deviation of the relative errors of the elements' gain, the same in every view (CT)."""
    rings: int = Field(0, ge=0, le=1000)
    """Number of elements in each detector row that are miscalibrated by `ring_gain`, which draw rings (CT)."""
    ring_gain: float = Field(0.02, gt=0, le=0.5)
    """Relative error of the gain of elements that draw rings, of either sign (CT)."""
    noise_std: float = Field(0.0, ge=0)
    """Standard deviation of the noise in k-space or in a low-resolution stack, as a fraction of the largest image value
    (MRI), or of the 1000 HU between air and water (CT stacks)."""
    views: int = Field(60, ge=1, le=10_000)
    """Number of views, equally spaced over half a turn (parallel) or a full turn (all others); ignored if angles are
    given (CT)."""
    coils: int = Field(8, ge=1, le=128)
    """Number of receive coils (MRI)."""
    acceleration: float = Field(4.0, ge=1, le=64)
    """Undersampling factor outside the centre: points of k-space per sampled point (MRI)."""
    pattern: Literal["equispaced", "poisson"] = "equispaced"
    """Sampling pattern: every R-th row of k-space, or a Poisson disc (MRI)."""
    center_fraction: float = Field(0.08, gt=0, le=1)
    """Fraction of the rows, in the centre of k-space, that is fully sampled (MRI)."""
    phase_fov: float = Field(1.0, ge=0.5, le=2)
    """Field of view along the rows' index (phase encoding), as a fraction of the volume's at the same pixel size: the
    number of rows of the result changes by this factor. An object larger than it wraps (k-space)."""
    motion_pixels: float = Field(0.0, ge=0, le=10)
    """Standard deviation of the object's displacement from readout to readout, along rows and columns, in pixels
    (k-space)."""
    fat_shift_pixels: float = Field(1.0, ge=-10, le=10)
    """Chemical shift of fat along the columns' index in pixels, where lines are read out and the scan is realistic
    (k-space). Bright voxels near the outside of the head count as fat."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the noise, of errors of the detector, of coils, phase and motion, and of the sampling pattern."""

    @field_validator("pattern", mode="before")
    @classmethod
    def _new_name(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str) or value not in RENAMED_PATTERNS:
            return value
        new = RENAMED_PATTERNS[value]
        if not still_accepted(value, new, info.context):
            raise ValueError(f"the pattern {value} is now called {new}")
        return str(new)

    @model_validator(mode="after")
    def _fields_of_the_model(self) -> Self:
        fields = type(self).model_fields
        given = [name for name in ONLY_REALISTIC if getattr(self, name) not in (0, fields[name].default)]
        if self.model == "ideal" and given:
            raise ValueError(f"an ideal simulation has no {given[0]}; leave it out, or set model: realistic")
        if self.electronic_noise and self.photons_per_ray is None:
            raise ValueError("electronic_noise is in photons, give photons_per_ray too")
        return self

    @property
    def electronic_noise_photons(self) -> float:
        """Standard deviation of the electronic noise in photons, none without photons."""
        if self.photons_per_ray is None or self.model == "ideal":
            return 0.0
        return ELECTRONIC_NOISE if self.electronic_noise is None else self.electronic_noise

    def field_of_view(self, rows: int) -> int:
        """Number of rows of the result of a volume of `rows`."""
        return max(round(rows * self.phase_fov), 1)
