"""The job specification: one model for the command line, the API, the worker and Python.

Units are in the field names. Importing this module loads neither torch nor ASTRA.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from operators.errors import InputError
from recon.spec.acquisitions import Acquisition, AnyAcquisition, check_method
from recon.spec.base import Strict
from recon.spec.files import File
from recon.spec.job_states import Device, Priority
from recon.spec.methods import Auto, Diffusion, Method
from recon.spec.old_names import still_accepted
from recon.spec.registry import FORMATS, METHODS, OUTPUT_FORMATS, RENAMED_KINDS, RENAMED_METHODS
from recon.spec.simulation import Simulation
from recon.spec.validation import invalid, reason
from recon.storage.patterns import gathered, is_pattern

MAX_SPEC_BYTES = 1_000_000
LONGEST_JOB_NAME = 100


def _one_of(names: Callable[[], list[str]]) -> Any:
    """Annotation of a string that names a row of a registry."""

    def known(value: str) -> str:
        if value not in names():
            raise ValueError(f"{value!r} is not one of {', '.join(names())}")
        return value

    return Annotated[str, AfterValidator(known), WithJsonSchema({"type": "string", "enum": names()})]


def classical_methods() -> list[str]:
    """Names of the methods without a prior."""
    return [name for name, method in METHODS.items() if not issubclass(method, Diffusion | Auto)]


if TYPE_CHECKING:
    InputFormat: TypeAlias = str
    OutputFormat: TypeAlias = str
    Baseline: TypeAlias = str
else:
    InputFormat = _one_of(lambda: list(FORMATS))
    OutputFormat = _one_of(lambda: list(OUTPUT_FORMATS))
    Baseline = _one_of(classical_methods)


Part: TypeAlias = Literal["magnitude", "phase", "complex"]
"""Part of a complex volume."""


def format_of(name: str) -> str | None:
    """Format of a file, if its name leaves no doubt; else None."""
    fits = [kind for kind, row in FORMATS.items() if name.lower().endswith(row.certain_endings)]
    return fits[0] if len(fits) == 1 else None


class Input(File):
    """Input file of a job, and how to read it.

    ``numpy``: a sinogram ``(slices, views, detectors)`` of line integrals, or k-space ``(slices, coils, rows,
    cols)``; the first axis may be missing. ``hdf5``: the same as a dataset. ``dxchange``: raw counts with flat and
    dark fields. ``nxtomo``: the same in NeXus. ``tiff``, ``edf``: images in a file or a folder. ``matlab``:
    sinograms. ``nikon``, ``zeiss``: scans of these makers. ``htc``: Helsinki Tomography Challenge 2022.
    ``ismrmrd``, ``fastmri``, ``bart``, ``twix``, ``bruker``: raw data of MRI scanners. ``nifti``, ``dicom``,
    ``metaimage``, ``nrrd``: a volume (CT in HU, MRI magnitude), measured retrospectively as the acquisition and
    `simulate` say.
    """

    format: InputFormat | None = None
    """File format. Default: detected from the name or the first bytes where these leave no doubt."""
    dataset: str | None = Field(None, max_length=200)
    """Name of what to read in the file. ``hdf5``: the dataset; default ``data`` or ``kspace``. ``nxtomo``: the dataset
    with the frames of one of several scans. ``matlab``: the variable. Default of these two: the only one there is."""
    scan: str | None = Field(None, max_length=200)
    """Scan in the file. ``htc``: its name; default, the only one there is. Raw data of MRI scanners: counters, as
    ``repetition=1, contrast=0``; default, the first. Formats of volumes: which of several, as ``series=3, volume=0``;
    default, the only one there is."""
    slices: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    """Range of slices ``[first, last)`` to reconstruct. Default: all."""
    unit: Literal["HU"] | None = None
    """Unit of a known CT volume; needed where neither the file nor air near -1000 in it says that it is HU."""
    simulate: Simulation | None = None
    """Simulation of a measurement from a known volume (``nifti``, ``dicom``, ``metaimage``, ``nrrd``). Default: the
    file is the measurement."""

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
        name = self.file or self.path
        return self.format or (format_of(name) if name else None)


class Output(Strict):
    """Output of a job: formats and additional results."""

    format: OutputFormat = "nifti"
    """File format of the volumes. ``dicom`` is an archive with one file per slice, ``dicom-enhanced`` one file."""
    parts: list[Part] | None = Field(None, min_length=1, max_length=3)
    """Parts of a complex volume (MRI) to write, each as a volume of its own. Default: ``complex`` with ``numpy`` and
    ``ismrmrd``, else magnitude and phase; of baselines the magnitude."""
    baselines: list[Baseline] | None = None
    """Classical methods to compute for comparison. Default: the acquisition's quick one."""
    montage: bool = True
    """Whether to write pictures of the middle slices, and of a sinogram before and after its preparation."""
    uncertainty: int = Field(0, ge=0, le=64)
    """Number of bootstrap replicates for a map of expected errors; 0 makes none. Each takes as long as the job."""
    undetermined: bool = False
    """Whether to write the part of the result that no sample determined: the result minus the smallest image that has
    the same samples."""

    @model_validator(mode="after")
    def _writable(self) -> Output:
        if "complex" in (self.parts or ()) and not OUTPUT_FORMATS[self.format].holds_complex:
            able = " or ".join(name for name, row in OUTPUT_FORMATS.items() if row.holds_complex)
            raise ValueError(f"{self.format} holds no complex numbers: ask for magnitude and phase, or use {able}")
        return self


class JobSpec(Strict):
    """Specification of one reconstruction job."""

    input: Input
    """Measurement to reconstruct."""
    acquisition: AnyAcquisition | None = None
    """Acquisition: kind of scan and geometry. Default: that of the file, if ``recon simulate`` wrote it."""
    method: Method = Auto()
    """Reconstruction method: a name, or a name with settings. Default: the automatic choice."""
    output: Output = Output()
    """Results to write."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of all random numbers of the reconstruction."""
    name: str = Field("", max_length=LONGEST_JOB_NAME)
    """Name of the job, for people. Default: none; on a server the name of its upload."""
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/=-]{1,64}$")]] = Field([], max_length=16)
    """Tags by which a server filters jobs."""
    priority: Priority = "normal"
    """Priority of the job in a server's queue: it waits only for jobs of the same or a higher priority."""
    device: Device = "cpu"
    """Kind of workers of a server that compute the job, those with or without a GPU. `recon run` uses what its machine
    has."""
    webhook_url: str | None = Field(None, max_length=500, pattern=r"^https?://")
    """Webhook URL to which a server posts every change of state, signed; its signature is checked by
    `recon.client.webhook_signature`. Default: none."""

    RENAMED: ClassVar[dict[str, str]] = {"notify": "webhook_url"}

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            if isinstance(value.get("method"), str):
                value["method"] = {"name": value["method"]}
            if isinstance(value.get("acquisition"), str):
                value["acquisition"] = {"kind": value["acquisition"]}
            _rename_kinds(value, info.context)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> JobSpec:
        if self.acquisition is not None:
            for part in (self.method, *self.method.parts(self.acquisition)):
                check_method(self.acquisition, part.name)
            for baseline in self.output.baselines or []:
                check_method(self.acquisition, baseline, "output.baselines")
            check_uncertainty(self.acquisition, self.output.uncertainty)
            check_output(self.acquisition, self.output)
        return self

    @property
    def says_undetermined(self) -> bool:
        """Whether the part of the result that no sample determined is found: asked for, or drawn on purpose."""
        return self.output.undetermined or self.method.draws()

    def baselines(self, acquisition: Acquisition, shape: tuple[int, ...]) -> list[str]:
        """Names of the classical methods computed beside the result; a method is no baseline of itself."""
        wanted = [acquisition.baseline(shape)] if self.output.baselines is None else self.output.baselines
        return [name for name in wanted if name != self.method.name]

    @classmethod
    def parse(cls, value: Any, source: str | None = None, *, notes: list[str] | None = None) -> JobSpec:
        """Validate a dictionary.

        Parameters
        ----------
        value
            The specification.
        source
            Document that holds it, for errors where there are several.
        notes
            List that receives a sentence about every old name that is still accepted. Default: an `OldName` warning.

        Raises
        ------
        InputError
            If it is invalid, with the first offending field and the others beside it.
        """
        try:
            return cls.model_validate(value, context=notes)
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
            text = path.read_text(encoding="utf-8-sig")
            value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (UnicodeDecodeError, yaml.YAMLError, json.JSONDecodeError) as error:
            kind = "JSON" if path.suffix == ".json" else "YAML"
            raise InputError(
                f"{path} is not valid {kind}: {reason(error)}",
                field="spec",
                remedy="give a job specification; `recon samples` writes one to start from",
            ) from error
        spec = cls.parse(value, str(path))
        return spec.with_base(path.parent)

    def sha256(self) -> str:
        """Hash of the specification as it was written, independent of the order of its fields."""
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
    """The files of a job that runs on this machine; what matches a pattern is a folder.

    Raises
    ------
    InputError
        If one is not there, or an upload, which exists on a server only.
    """
    found = {}
    for field, file in spec.files().items():
        if file.path is None:
            raise InputError("an upload id means nothing without a server", field=field, remedy="give a path")
        place = Path(file.path)
        found[field] = place = gathered(place, f"{field}.path") if is_pattern(place) else place
        if not place.exists():
            message = f"there is no file {place.name} in {place.parent.resolve()}"
            raise InputError(message, field=f"{field}.path", remedy="check the path")
    return found


def check_uncertainty(acquisition: Acquisition, replicates: int) -> None:
    """Raise `InputError` if bootstrap replicates are requested for a kind of scan that has none."""
    if replicates and not acquisition.RESAMPLES:
        raise InputError(
            "there is no other scan like this to compare with", field="output.uncertainty", remedy="leave it out"
        )


def check_output(acquisition: Acquisition, output: Output) -> None:
    """Raise `InputError` if volumes of a kind of scan cannot be written as `output` says."""
    fits = [name for name, row in OUTPUT_FORMATS.items() if acquisition.MODALITY in row.modalities]
    if output.format not in fits:
        raise InputError(
            f"{output.format} holds no volumes of {acquisition.kind}",
            field="output.format",
            remedy=f"use one of {', '.join(fits)}",
        )
    if output.parts is not None and not acquisition.COMPLEX_VOLUME:
        raise InputError(
            f"a volume of {acquisition.kind} is real: it has no magnitude and phase",
            field="output.parts",
            remedy="leave it out",
        )


def _rename_kinds(value: dict[str, Any], notes: list[str] | None) -> None:
    """Replace the old name of a kind or method by the new one, or refuse it with that."""
    for part, key, renamed in (("acquisition", "kind", RENAMED_KINDS), ("method", "name", RENAMED_METHODS)):
        given = value.get(part)
        old = given.get(key) if isinstance(given, dict) else None
        if isinstance(given, dict) and isinstance(old, str) and old in renamed:
            new = renamed[old]
            if not still_accepted(old, new, notes):
                raise PydanticCustomError(
                    "renamed",
                    "{old} is now called {new}",
                    {"field": f"{part}.{key}", "old": old, "new": new, "value": old},
                )
            value[part] = {**given, key: str(new)}
