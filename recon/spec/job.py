"""The job specification: one model for the command line, the API, the worker and Python.

Units are in the field names. Importing this module loads neither torch nor ASTRA.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import yaml
from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from operators.errors import InputError
from recon.spec.acquisitions import Acquisition, AnyAcquisition, check_method
from recon.spec.base import Strict
from recon.spec.files import File
from recon.spec.job_states import Device, Priority
from recon.spec.methods import Diffusion, Method, REDDiff
from recon.spec.registry import FORMATS, METHODS, OUTPUT_FORMATS, RENAMED_KINDS, RENAMED_METHODS
from recon.spec.simulation import Simulation
from recon.spec.validation import invalid, reason

MAX_SPEC_BYTES = 1_000_000


def _one_of(names: Callable[[], list[str]]) -> Any:
    """Annotation of a string that names a row of a registry."""

    def known(value: str) -> str:
        if value not in names():
            raise ValueError(f"{value!r} is not one of {', '.join(names())}")
        return value

    return Annotated[str, AfterValidator(known), WithJsonSchema({"type": "string", "enum": names()})]


def classical_methods() -> list[str]:
    """Names of the methods without a prior."""
    return [name for name, method in METHODS.items() if not issubclass(method, Diffusion)]


if TYPE_CHECKING:
    InputFormat: TypeAlias = str
    OutputFormat: TypeAlias = str
    Baseline: TypeAlias = str
else:
    InputFormat = _one_of(lambda: list(FORMATS))
    OutputFormat = _one_of(lambda: list(OUTPUT_FORMATS))
    Baseline = _one_of(classical_methods)


def format_of(name: str) -> str | None:
    """The format of a file name that leaves no doubt, else None."""
    fits = [kind for kind, row in FORMATS.items() if name.lower().endswith(row.certain_endings)]
    return fits[0] if len(fits) == 1 else None


class Input(File):
    """What was measured, and in which format.

    ``numpy``: a sinogram ``(slices, views, detectors)`` of line integrals, or k-space ``(slices, coils, rows,
    cols)``; the first axis may be missing. ``hdf5``: the same as a dataset. ``dxchange``: raw counts with flat
    and dark fields. ``nxtomo``: the same in NeXus. ``htc``: Helsinki Tomography Challenge 2022. ``nifti``: a volume
    (CT in HU, MRI magnitude), measured retrospectively as the acquisition and `simulate` say.
    """

    format: InputFormat | None = None
    """Format of the file. Default: told from its name or its first bytes where these leave no doubt."""
    dataset: str | None = Field(None, max_length=200)
    """HDF5: name of the dataset. Default: ``data`` or ``kspace``. NeXus: frames of one of several scans."""
    scan: str | None = Field(None, max_length=200)
    """HTC: which of the file's scans."""
    slices: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    """Reconstruct only slices ``[first, last)``."""
    simulate: Simulation | None = None
    """Settings by which a known volume is measured."""

    @model_validator(mode="after")
    def _complete(self) -> Input:
        if self.slices is not None and self.slices[0] >= self.slices[1]:
            raise ValueError(f"slices {list(self.slices)}: the first must be below the last")
        if self.simulate is not None:
            kind = self.resolved_format()
            if kind is not None and not FORMATS[kind].volumes:
                usual = " or ".join(name for name, row in FORMATS.items() if row.volumes)
                raise ValueError(f"simulate needs format {usual}: a measurement is not simulated again")
        return self

    def resolved_format(self) -> str | None:
        """The format, guessed from the file name where that is unambiguous."""
        return self.format or (format_of(self.path) if self.path else None)


class Output(Strict):
    """What to write."""

    format: OutputFormat = "nifti"
    """Format of volumes."""
    baselines: list[Baseline] | None = None
    """Classical reconstructions beside the result. Default: the quick one of the acquisition."""
    montage: bool = True
    """Write pictures of the middle slices."""
    uncertainty: int = Field(0, ge=0, le=64)
    """Bootstrap replicates from which a map of the errors to be expected is made, each as long as the job itself; 0
    makes none."""


class JobSpec(Strict):
    """One reconstruction job."""

    input: Input
    acquisition: AnyAcquisition | None = None
    """May be left out when the file carries it (files written by ``recon simulate``)."""
    method: Method = REDDiff()
    output: Output = Output()
    seed: int = Field(0, ge=0, lt=2**32)
    name: str = Field("", max_length=100)
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/=-]{1,64}$")]] = Field([], max_length=16)
    """For finding jobs again; a server filters by them."""
    priority: Priority = "normal"
    """Queue of a server: a job waits for those of a higher priority only."""
    device: Device = "cpu"
    """Which of a server's workers compute it; a worker uses whatever its machine has."""
    webhook_url: str | None = Field(None, max_length=500, pattern=r"^https?://")
    """Address to which a server posts every change of state, signed; see docs/api.md."""

    RENAMED: ClassVar[dict[str, str]] = {"notify": "webhook_url"}

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            if isinstance(value.get("method"), str):
                value["method"] = {"name": value["method"]}
            if isinstance(value.get("acquisition"), str):
                value["acquisition"] = {"kind": value["acquisition"]}
            _refuse_old_names(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> JobSpec:
        if self.acquisition is not None:
            check_method(self.acquisition, self.method.name)
            for baseline in self.output.baselines or []:
                check_method(self.acquisition, baseline)
            check_uncertainty(self.acquisition, self.output.uncertainty)
        return self

    def baselines(self, acquisition: Acquisition) -> list[str]:
        """Names of the classical methods computed beside the result; a method is no baseline of itself."""
        wanted = [acquisition.BASELINE] if self.output.baselines is None else self.output.baselines
        return [name for name in wanted if name != self.method.name]

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
        if self.acquisition is not None:
            found |= {f"acquisition.{name}": file for name, file in self.acquisition.files().items()}
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


def check_uncertainty(acquisition: Acquisition, replicates: int) -> None:
    """Raise ValueError if bootstrap replicates are asked for of a scan that has none."""
    if replicates and not acquisition.RESAMPLES:
        raise ValueError("output.uncertainty: there is no other scan like this to compare with; leave it out")


def _refuse_old_names(value: dict[str, Any]) -> None:
    """Refuse the old name of a kind or method, with the new one."""
    for part, key, renamed in (("acquisition", "kind", RENAMED_KINDS), ("method", "name", RENAMED_METHODS)):
        given = value.get(part)
        old = given.get(key) if isinstance(given, dict) else None
        if isinstance(old, str) and old in renamed:
            raise PydanticCustomError(
                "renamed",
                "{old} is now called {new}",
                {"field": f"{part}.{key}", "old": old, "new": renamed[old], "value": old},
            )
