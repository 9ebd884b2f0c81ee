"""The job specification: one model for the command line, the API, the worker and Python.

Units are in the field names. Importing this module loads neither torch nor ASTRA.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from operators.errors import InputError
from recon.methods import METHODS, Diffusion, Method, REDDiff
from recon.reasons import reason

UPLOAD_ID = r"^[a-z2-7]{26}$"
MAX_SPEC_BYTES = 1_000_000
Size = Annotated[int, Field(ge=1, le=8192)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class File(_Part):
    """A file: a `path` on this machine (command line, Python) or the id of an `upload` (API)."""

    path: str | None = None
    upload: str | None = Field(None, pattern=UPLOAD_ID)

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_a_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> File:
        if (self.path is None) == (self.upload is None):
            raise ValueError("give either path or upload")
        return self


class Simulation(_Part):
    """Retrospective undersampling: measure a known volume as the acquisition says, with noise."""

    photons: float | None = Field(None, gt=0, le=1e12)
    """CT: photons a ray through air; None is noiseless."""
    noise_std: float = Field(0.0, ge=0)
    """MRI: standard deviation of the noise of k-space, or of a low-resolution stack, a share of the largest
    image value."""
    views: int = Field(60, ge=1, le=10_000)
    """CT: equally spaced over half a turn (parallel) or a whole one (fan) when no angles are given."""
    coils: int = Field(8, ge=1, le=128)
    acceleration: float = Field(4.0, ge=1, le=64)
    pattern: Literal["uniform", "poisson"] = "uniform"
    center_fraction: float = Field(0.08, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=2**32)


FORMATS = ("numpy", "hdf5", "dxchange", "htc", "nifti")


class Input(File):
    """What was measured, and in which format.

    ``numpy``: a sinogram ``(slices, angles, detectors)`` of line integrals, or k-space ``(slices, coils, rows,
    cols)``; the first axis may be missing. ``hdf5``: the same as a dataset. ``dxchange``: raw counts with flat
    and dark fields. ``htc``: Helsinki Tomography Challenge 2022. ``nifti``: a volume (CT in HU, MRI magnitude),
    measured retrospectively as the acquisition and `simulate` say.
    """

    format: Literal["numpy", "hdf5", "dxchange", "htc", "nifti"] | None = None
    dataset: str | None = Field(None, max_length=200)
    """HDF5: name of the dataset; ``data`` or ``kspace`` when not given."""
    scan: str | None = Field(None, max_length=200)
    """HTC: which of the file's scans."""
    slices: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    """Reconstruct only slices ``[first, last)``."""
    simulate: Simulation | None = None

    @model_validator(mode="after")
    def _complete(self) -> Input:
        if self.slices is not None and self.slices[0] >= self.slices[1]:
            raise ValueError(f"slices {list(self.slices)}: the first must be below the last")
        if self.simulate is not None and self.resolved_format() not in ("nifti", None):
            raise ValueError("simulate needs format nifti: a measurement is not simulated again")
        return self

    def resolved_format(self) -> str | None:
        """The format, guessed from the file name where that is unambiguous."""
        return self.format or (format_of(self.path) if self.path else None)


def format_of(name: str) -> str | None:
    """The format of a file name that leaves no doubt, else None."""
    endings = {".nii": "nifti", ".nii.gz": "nifti", ".npy": "numpy"}
    return next((kind for ending, kind in endings.items() if name.lower().endswith(ending)), None)


class AngleRange(_Part):
    """`count` equally spaced angles from `start_rad`, the end not included."""

    start_rad: float = 0.0
    stop_rad: float = math.pi
    count: int = Field(ge=1, le=20_000)

    def angles(self) -> tuple[float, ...]:
        """The angles in radians."""
        step = (self.stop_rad - self.start_rad) / self.count
        return tuple(self.start_rad + i * step for i in range(self.count))


class _CT(_Part):
    angles_rad: list[float] | AngleRange | None = None
    """Not needed when the file carries them."""
    detector_mm: float | None = Field(None, gt=0)
    detector_shift_mm: float | None = None
    """Detector position of its own centre; see `rotation_center_column` for the usual way to say it."""
    rotation_center_column: float | None = None
    """Detector column onto which the rotation axis projects; the middle, ``(n - 1) / 2``, when not given."""
    pixel_mm: float | None = Field(None, gt=0)
    rows: Size | None = None
    cols: Size | None = None
    slice_mm: float | None = Field(None, gt=0)
    mu_water_per_mm: float | None = Field(None, gt=0, le=10)
    """Attenuation of water; given, the result is in HU, else in 1/mm."""
    noise_std: float | None = Field(None, ge=0)
    """Noise of the line integrals; from `photons`, or else estimated, when not given."""
    photons: float | None = Field(None, ge=10, le=1e12)
    """A ray through air, where the noise is that of counting them: rays behind dense parts then count for less."""

    @field_validator("angles_rad")
    @classmethod
    def _plausible(cls, value: list[float] | AngleRange | None) -> list[float] | AngleRange | None:
        from operators.geometry import check_angles

        if value is not None:
            try:
                check_angles(value.angles() if isinstance(value, AngleRange) else tuple(value))
            except InputError as error:
                raise ValueError(f"{error.message}; {error.remedy}") from error
        return value

    @model_validator(mode="after")
    def _one_centre(self) -> _CT:
        if self.detector_shift_mm is not None and self.rotation_center_column is not None:
            raise ValueError("give detector_shift_mm or rotation_center_column, not both")
        return self

    def angles(self) -> tuple[float, ...] | None:
        """The angles in radians, if the specification has them."""
        if isinstance(self.angles_rad, AngleRange):
            return self.angles_rad.angles()
        return None if self.angles_rad is None else tuple(self.angles_rad)


class CTParallel(_CT):
    """Parallel-beam CT."""

    kind: Literal["ct-parallel"] = "ct-parallel"


class CTFan(_CT):
    """Flat-detector fan-beam CT."""

    kind: Literal["ct-fan"] = "ct-fan"
    source_origin_mm: float | None = Field(None, gt=0)
    origin_detector_mm: float | None = Field(None, ge=0)


class MRICartesian(_Part):
    """Cartesian multi-coil MRI; points of k-space that are exactly zero in every coil count as not sampled."""

    kind: Literal["mri-cartesian"] = "mri-cartesian"
    mask: File | None = None
    """Sampled points ``(rows, cols)`` as a .npy of bool or 0/1."""
    coil_maps: File | None = None
    """Sensitivities ``([slices,] coils, rows, cols)`` complex .npy; by ESPIRiT when not given."""
    calibration_width: int | None = Field(None, ge=8, le=128)
    pixel_mm: float | None = Field(None, gt=0)
    slice_mm: float | None = Field(None, gt=0)
    noise_std: float | None = Field(None, ge=0)
    """Noise of k-space a real channel; estimated when not given."""


class MRIResolution(_Part):
    """A magnitude MRI stack of too low a resolution: NIfTI, or an array ``(slices, rows, cols)``.

    ``plane``: truncated k-space, `factor` times fewer points in rows and in columns. ``slices``: thick slices
    without gaps, each the mean of `factor` thin ones.
    """

    kind: Literal["mri-resolution"] = "mri-resolution"
    factor: int = Field(2, ge=2, le=8)
    direction: Literal["plane", "slices"] = "plane"
    pixel_mm: float | None = Field(None, gt=0)
    """Of the stack as it is given; a NIfTI file has its own."""
    slice_mm: float | None = Field(None, gt=0)
    noise_std: float | None = Field(None, ge=0)
    """Of the stack, in its unit; taken as none when not given."""


AnyAcquisition = CTParallel | CTFan | MRICartesian | MRIResolution
Acquisition = Annotated[AnyAcquisition, Field(discriminator="kind")]


class Output(_Part):
    """What to write."""

    format: Literal["nifti", "numpy"] = "nifti"
    baselines: list[Literal["fbp", "sirt", "cgls", "tv", "zero-filled", "cg-sense", "interpolation"]] | None = None
    """Classical reconstructions beside the result; one quick one when not given."""
    montage: bool = True
    uncertainty: int = Field(0, ge=0, le=64)
    """Replicas from which a map of the errors to be expected is made, each as long as the job itself; 0 makes none."""


class JobSpec(_Part):
    """One reconstruction job."""

    input: Input
    acquisition: Acquisition | None = None
    """May be left out when the file carries it (files written by ``recon simulate``)."""
    method: Method = REDDiff()
    output: Output = Output()
    seed: int = Field(0, ge=0, lt=2**32)
    name: str = Field("", max_length=100)
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/=-]{1,64}$")]] = Field([], max_length=16)
    """For finding jobs again; a server filters by them."""
    priority: Literal["high", "normal", "low"] = "normal"
    """Of a server's queues: a job waits for those of a higher one only."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Which of a server's workers compute it; a worker uses whatever its machine has."""
    notify: str | None = Field(None, max_length=500, pattern=r"^https?://")
    """Address that a server tells of every change of state, signed; see docs/api.md."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            if isinstance(value.get("method"), str):
                value["method"] = {"name": value["method"]}
            if isinstance(value.get("acquisition"), str):
                value["acquisition"] = {"kind": value["acquisition"]}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> JobSpec:
        if self.acquisition is not None:
            check_method(self.acquisition, self.method.name)
            for baseline in self.output.baselines or []:
                check_method(self.acquisition, baseline)
            check_uncertainty(self.acquisition, self.output.uncertainty)
        return self

    @classmethod
    def parse(cls, value: Any, source: str = "specification") -> JobSpec:
        """Validate a dictionary; raises `InputError` that names the first offending field."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise invalid(error, source) from error

    @classmethod
    def read(cls, path: Path) -> JobSpec:
        """Read YAML or JSON; relative file paths in it are relative to its folder."""
        if not path.is_file():
            raise InputError(f"there is no file {path}", field="spec", remedy="give the path of a job specification")
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes, a specification has at most 1 MB", field="spec")
        try:
            text = path.read_text()
            value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (UnicodeDecodeError, yaml.YAMLError, json.JSONDecodeError) as error:
            kind = "JSON" if path.suffix == ".json" else "YAML"
            raise InputError(
                f"{path} is not valid {kind}: {reason(error)}",
                field="spec",
                remedy="give a job specification, as in docs/specification.md",
            ) from error
        spec = cls.parse(value, str(path))
        return spec.with_base(path.parent)

    def sha256(self) -> str:
        """Of the specification as it was written, whatever the order of its fields."""
        value = self.model_dump(mode="json", exclude_unset=True)
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def files(self) -> dict[str, File]:
        """Every file the job needs, by dotted field name."""
        found: dict[str, File] = {"input": self.input}
        if isinstance(self.acquisition, MRICartesian):
            for name in ("mask", "coil_maps"):
                file = getattr(self.acquisition, name)
                if file is not None:
                    found[f"acquisition.{name}"] = file
        return found

    def with_base(self, folder: Path) -> JobSpec:
        """The same job with relative paths resolved against `folder`."""
        data = self.model_dump(mode="json", exclude_unset=True)
        for name, file in self.files().items():
            if file.path is not None and not Path(file.path).is_absolute():
                part = data
                for key in name.split("."):
                    part = part[key]
                part["path"] = str((folder / file.path).resolve())
        if isinstance(self.method, Diffusion):
            for name, path in self.method.paths().items():
                data["method"][name] = str((folder / path).resolve())
        return JobSpec.model_validate(data)


def local_files(spec: JobSpec) -> dict[str, Path]:
    """The files of a job that runs on this machine; uploads exist on a server only."""
    found = {}
    for field, file in spec.files().items():
        if file.path is None:
            raise InputError("an upload id means nothing without a server", field=field, remedy="give a path")
        found[field] = Path(file.path)
    return found


def check_method(acquisition: AnyAcquisition, method: str) -> None:
    """Raise ValueError if a method does not fit the kind of acquisition."""
    allowed = METHODS[acquisition.kind]
    if method not in allowed:
        raise ValueError(f"method {method!r} does not fit {acquisition.kind}; use one of {', '.join(allowed)}")


def check_uncertainty(acquisition: AnyAcquisition, replicas: int) -> None:
    """Raise ValueError if replicas are asked for of a scan that has none."""
    if replicas and isinstance(acquisition, MRIResolution):
        raise ValueError("output.uncertainty: there is no other scan like this to compare with; leave it out")


def problems(error: ValidationError) -> list[dict[str, str]]:
    """Each validation failure as field, message and the value given."""
    found = []
    for item in error.errors(include_url=False):
        # Discriminated unions put the chosen tag into the path; the user never wrote it.
        parts = [str(p) for p in item["loc"] if str(p) not in _TAGS]
        value = repr(item.get("input"))
        found.append(
            {
                "field": ".".join(parts) or "specification",
                "message": item["msg"].removeprefix("Value error, "),
                "value": value if len(value) <= 100 else value[:97] + "...",
            }
        )
    return found


_TAGS = {"AngleRange", "list[float]", *METHODS, *(name for names in METHODS.values() for name in names)}


def invalid(error: ValidationError, source: str) -> InputError:
    """The first validation failure as an `InputError`."""
    found = problems(error)
    first = found[0]
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    return InputError(
        f"{first['message']}, got {first['value']} in {source}{more}",
        field=first["field"],
        remedy="see docs/specification.md for every field",
    )
