"""Report of a job, ``report.json``: typed, versioned, and light to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from operators.errors import InputError
from recon.spec.validation import reason

SCHEMA_VERSION: Literal[1] = 1
_BEFORE_VERSIONS = {
    "prior_axis": "intensity_map",
    "starting_noise": "frozen_noise",
    "slabs_resumed": "chunks_resumed",
    "slabs_by_other_workers": "chunks_by_other_workers",
}
"""New names of fields by those in reports without a version."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Scores(_Part):
    """Quality scores against a known volume; null where that volume is constant."""

    psnr: float | None
    """Peak signal-to-noise ratio in dB."""
    ssim: float | None
    """Structural similarity."""
    nrmse: float | None
    """Root mean square error over the root mean square of the known volume."""


class Familiarity(_Part):
    """Familiarity (out-of-distribution score) of the result: percentiles among slices like those trained on."""

    median: float
    """Percentile of the median slice; near 0 the prior has not seen such images."""
    lowest: float
    """Percentile of the least familiar slice."""
    judge: str
    """Name of the prior that gave the score."""


class Uncertainty(_Part):
    """Summary of expected errors and 90 % intervals, with their calibration where the true volume is known."""

    replicates: int
    """Number of bootstrap replicates."""
    rms: float | None
    """Root mean square of the expected errors, in the result's unit."""
    interval: float | None = None
    """Mean width of the 90 % intervals in the object, in the result's unit."""
    rms_error: float | None = None
    """Root mean square of the true errors, in the result's unit."""
    held: float | None = None
    """Share of the object's voxels whose true value lies in the interval."""
    within_two: float | None = None
    """Share of the voxels whose error is below twice the map; only in reports from before there were intervals."""


class Undetermined(_Part):
    """Root mean square of what no sample determined, over that of the result in the object.

    For CT both are taken of the attenuation, which is zero in air.
    """

    inside: float
    """Share that lies in the object."""
    beside: float
    """Share that lies beside the object, over the result in the object."""


class FrozenNoise(_Part):
    """Starting noise that was the same in every slice."""

    seed: int
    """Seed of the noise."""
    amplitude: float
    """Scale with which it entered the result; 0 where none of it did."""
    source: str
    """``shipped``, ``usual`` (none was searched for), ``random``, or the file's name."""


class Intensity(_Part):
    """Affine map from the prior's scale to physical intensity: ``physical = scale * u + offset``.

    One number each, or one per slice.
    """

    scale: float | list[float]
    """Physical intensity per unit of the prior's scale."""
    offset: float | list[float]
    """Physical intensity at 0 of the prior's scale."""


class Duration(_Part):
    """Seconds of the final reconstruction and of the whole job."""

    solve: float
    """Seconds of the final reconstruction, without reading, baselines and writing."""
    total: float
    """Seconds of the whole job."""


class Memory(_Part):
    """Resident memory in bytes: measured peak, planned total, and planned parts."""

    peak_bytes: int
    """Largest resident memory that was measured."""
    planned_bytes: int
    """Memory that the plan foresaw, in all."""
    planned: dict[str, int]
    """Memory that the plan foresaw, by part."""


class Candidate(_Part):
    """Candidate of an automatic choice, as withheld samples judge it."""

    method: dict[str, Any]
    """Complete settings."""
    gain_db: float
    """Gain over the best classical candidate in dB: that one's squared residuals over its own, mean of the judged
    slices."""
    weight: float
    """Weight in the result, mean of the judged slices."""


class Selection(_Part):
    """Automatic choice of the method: what was judged, and what was found."""

    candidates: list[Candidate]
    """Methods that were compared."""
    judged_slices: list[int]
    """Indices of the slices whose withheld samples were compared; of a whole volume, whose slices are judged
    together, the middle one of those, counted from the first slice that is solved."""
    folds: int
    """Number of times that other samples were withheld, in the first slice that was judged; 0 where nothing was
    judged."""
    weights: list[list[list[float]]]
    """Weights of the candidates, by judged slice and by region, the object and what is beside it; between slices they
    are interpolated."""
    gain_db: float
    """Gain of the mixture over the best classical candidate at the withheld samples, in dB."""
    confidence: float
    """Ratio of the gain to its standard error, the smallest of the judged slices; 0 where there is no gain."""
    seconds: float
    """Seconds that the choice took."""
    text: str
    """The reason in a sentence."""


class Step(_Part):
    """Step of the preparation of measured data: what it found, and what it changed."""

    name: str
    """Field of ``acquisition.preparation`` that sets it; or what it is about, as ``rotation_center_column``."""
    changed: bool
    """Whether it changed the data or the geometry."""
    warning: bool = False
    """Whether it found what it leaves as it is, and may be wrong."""
    text: str
    """Finding in a sentence."""
    numbers: dict[str, int | float | list[int]]
    """Figures by name; indices of views are those of the file."""


class Report(_Part):
    """Report of a job: settings, quality figures, provenance."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of this layout."""
    name: str
    """Name of the job."""
    spec_sha256: str
    """Hash of the specification as it was written."""
    method: dict[str, Any]
    """Complete settings of the method as used."""
    acquisition: dict[str, Any]
    """Acquisition, completed from the file."""
    preparation: list[Step] = []
    """Steps of the preparation of measured data, in their order."""
    selection: Selection | None = None
    """Automatic choice of the method; null where a method is named."""
    seed: int
    """Seed of all random numbers."""
    unit: str
    """Unit of the volume's values: ``HU``, ``1/mm``, or ``a.u.`` (MRI)."""
    shape: tuple[int, int, int]
    """Number of slices, rows and columns of the volume."""
    axes: tuple[str, str, str] = ("slices", "rows", "cols")
    """Names of the axes of `shape`."""
    data_misfit: dict[str, float]
    """Relative data misfit ``|A x - y| / |y|`` of the result and of each baseline, by method."""
    noise_std: float
    """Noise standard deviation of the measurement, per real channel, root mean square; 0 if noiseless or unknown."""
    noise_std_range: tuple[float, float] | None = None
    """Lowest and highest noise standard deviation of a slice; null in older reports."""
    expected_misfit: float | None
    """Relative data misfit that the noise alone would leave; null if the noise is unknown."""
    against_truth: dict[str, Scores] | None
    """Scores of the result and of each baseline against the true volume, where it is known, by method."""
    prior: dict[str, Any] | None
    """Card of the prior, with its limits; null for a method without one."""
    intensity_map: Intensity | None
    """Map from the prior's scale to the unit of the volume."""
    familiarity: Familiarity | None
    """Familiarity of the result to a prior; null without one."""
    uncertainty: Uncertainty | None
    """Summary of the uncertainty maps, if ``output.uncertainty`` asked for them."""
    undetermined: Undetermined | None = None
    """Size of the part of the result that no sample determined, if ``output.undetermined`` asked for it."""
    frozen_noise: FrozenNoise | None
    """Starting noise that all slices shared; null where each had its own."""
    network_evaluations: int
    """Number of evaluations of the network, all slices together."""
    network_arithmetic: str | None = None
    """Arithmetic of the network: ``bfloat16`` or ``float32``, with ``, blocks in int8`` where most of it was in 8-bit
    integers; null without one."""
    chunks_resumed: int
    """Number of chunks taken over from an earlier attempt."""
    chunks_by_other_workers: int
    """Number of chunks that other workers computed."""
    notes: list[str]
    """Sentences about what the reader of the result should know, such as guessed units or slices that fit badly."""
    provenance: dict[str, Any]
    """Settings of the simulation, where the data were simulated; else empty."""
    seconds: Duration
    """Computing time."""
    peak_memory_bytes: int
    """Largest resident memory of the process in bytes."""
    memory: Memory
    """Memory: measured and planned."""
    versions: dict[str, str]
    """Versions of this software and of what it computes with."""

    @model_validator(mode="before")
    @classmethod
    def _before_versions(cls, value: Any) -> Any:
        """Read reports that were written before they had a version."""
        if not isinstance(value, dict) or "schema_version" in value:
            return value
        renamed = {_BEFORE_VERSIONS.get(name, name): found for name, found in value.items()}
        if isinstance(renamed.get("frozen_noise"), dict):
            noise = dict(renamed["frozen_noise"])
            renamed["frozen_noise"] = {**noise, "source": noise.get("source", noise.get("calibration"))}
        if isinstance(renamed.get("uncertainty"), dict):
            found = dict(renamed["uncertainty"])
            renamed["uncertainty"] = {**found, "replicates": found.get("replicates", found.get("replicas"))}
        return renamed

    @property
    def misfit(self) -> float:
        """Relative data misfit of the result."""
        return self.data_misfit[self.method["name"]]

    @property
    def scores(self) -> Scores | None:
        """Agreement of the result with the known volume, where there is one."""
        return None if self.against_truth is None else self.against_truth[self.method["name"]]

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read ``report.json``.

        Raises
        ------
        InputError
            If the file is no report, or one of a newer version.
        """
        try:
            value = json.loads(path.read_text())
            version = value.get("schema_version", SCHEMA_VERSION) if isinstance(value, dict) else None
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise InputError(
                    f"{path.name} has schema version {version}, this program knows up to {SCHEMA_VERSION}",
                    field="schema_version",
                    remedy="update diffusion-recon",
                )
            return cls.model_validate(value)
        except (OSError, ValueError) as error:
            text = reason(error) if isinstance(error, ValidationError) else str(error)
            raise InputError(
                f"{path.name} is not a report: {text}", field="report", remedy="give the report.json of a job"
            ) from error

    def json_text(self) -> str:
        """JSON text as written to disk."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
