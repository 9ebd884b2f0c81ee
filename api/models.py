"""Response models: the JSON documents of the routes, for OpenAPI and FastAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from recon.planning.plan import Plan
from recon.spec.contents import Contents
from recon.spec.job_states import Device, Priority, State
from workers import events

Count = Annotated[int, Field(ge=0)]
Range = tuple[float, float]
"""Lowest and highest value."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _StoredAnswer(_Answer):
    # Made from a file of the store, into which a newer version may have written more.
    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False})


class JobTimes(_Answer):
    """Estimated seconds until a job starts, and of its computation; null if unknown."""

    start_s: float | None
    """Seconds until it starts."""
    duration_s: float | None
    """Seconds for which it is computed."""
    duration_range_s: Range | None = None
    """Range of the seconds that nearly all jobs of its method have taken, for their size."""


class Job(_Answer):
    """A job: its stored state (see `workers.store.Record`), place in the queue and links."""

    id: str
    """Id of the job."""
    state: State
    """State; the last three never change."""
    created: str
    """Time of submission, ISO 8601 in UTC."""
    updated: str
    """Time of the last change, ISO 8601 in UTC."""
    name: str
    """Name of the job; by default that of its upload."""
    method: str
    """Name of the method."""
    progress: float
    """Fraction of the work that is done, 0 to 1."""
    stage: str
    """Stage of the computation, in a word or two."""
    step: int
    """Number of the step within the stage."""
    steps: int
    """Number of steps of the stage; 0 if it has none."""
    data_misfit: float | None
    """Relative data misfit of the image as it is now; null where none was computed."""
    attempt: int
    """Number of the attempt: 1, or more where a worker was lost."""
    started: str | None
    """Time at which the last attempt began, ISO 8601 in UTC."""
    finished: str | None
    """Time at which the job ended, ISO 8601 in UTC."""
    error: dict[str, Any] | None
    """Error of a failed job, with `code`, `message`, `field` and `remedy`."""
    tags: list[str]
    """Tags, by which jobs are listed."""
    priority: Priority
    """Priority in the queue."""
    device: Device
    """Device of the workers that may compute it."""
    planned_s: float | None
    """Seconds that its plan foresaw."""
    owner: str | None
    """Name of the API key that submitted it; null on a server without keys."""
    queue_position: Count | None
    """Number of jobs before it in the queue; null when it does not wait."""
    estimate: JobTimes | None
    """Estimate of start and duration; null where nothing is known."""
    expires: str | None
    """Time at which it will be deleted, ISO 8601 in UTC; null if it is kept."""
    seen: str | None = None
    """Time at which the worker of a running job was last heard of; null if it is not, or none computes the job."""
    links: dict[str, str]
    """Addresses of what belongs to it, by name."""


class Jobs(_Answer):
    """A page of jobs, newest first."""

    jobs: list[Job]
    """Jobs of this page."""
    total: Count
    """Number of all jobs that fit."""
    truncated: bool
    """Whether there are more."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Purged(_Answer):
    """A job that was deleted."""

    id: str
    """Id of the job."""
    purged: Literal[True]
    """Always true."""


class ResultFile(_StoredAnswer):
    """A result file, with the address to fetch it from."""

    name: str
    """Name of the file."""
    bytes: Count
    """Size in bytes."""
    sha256: Sha256
    """Hash of the file."""
    href: str
    """Address of the file."""


class Results(_Answer):
    """Manifest of a job's results."""

    id: str
    """Id of the job."""
    files: list[ResultFile]
    """Files of the result."""


class Estimate(Plan):
    """Plan of a job, the memory limit of the server, and when a job that is submitted now would start and end."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    limit_bytes: Count
    """Memory in bytes that a job may need on this server."""
    fits: bool
    """Whether the job's memory is within that limit."""
    start_s: Range | None
    """Range of the seconds until it starts; null if no worker is there, or the queue cannot be asked."""
    duration_s: Range
    """Range of the seconds for which it is computed."""
    learned_from: Count
    """Number of finished jobs of its method that say so; 0 if only the plan does."""


class Upload(_StoredAnswer):
    """A complete upload."""

    id: str
    """Id of the upload, for `input.upload`."""
    bytes: Count
    """Size in bytes."""
    sha256: Sha256
    """Hash of the file; of a folder, of its list of files."""
    created: str
    """Time at which it was complete, ISO 8601 in UTC."""
    owner: str | None
    """Name of the API key that sent it; null on a server without keys."""
    files: Annotated[int, Field(ge=1)] | None = None
    """Number of files of a folder; null for a file."""
    name: str = ""
    """Name of the file or folder as the client gave it; empty if it did not."""
    complete: Literal[True] = True
    """Always true."""


class UploadContents(Contents):
    """Contents of an upload, and a specification to start from."""

    id: str
    """Id of the upload."""


class UploadBegun(_Answer):
    """An upload whose pieces are still coming."""

    id: str
    """Id of the upload."""
    bytes: Count
    """Bytes that were announced."""
    received: Count
    """Bytes that are here: where to go on."""
    created: str
    """Time at which it began, ISO 8601 in UTC."""
    name: str
    """Name of the file as the client gave it."""
    complete: Literal[False]
    """Always false."""


class Uploads(_Answer):
    """A page of uploads, newest first."""

    uploads: list[Upload | UploadBegun]
    """Uploads of this page."""
    total: Count
    """Number of all uploads."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Sample(_Answer):
    """A measurement or volume that comes with the service."""

    name: str
    """Name in the address."""
    title: str
    """Title."""
    about: str
    """Description in a sentence."""
    source: str
    """Source of the data, and their licence."""
    bytes: Count
    """Size in bytes."""


class Samples(_Answer):
    """Samples to try the service with."""

    samples: list[Sample]
    """All samples."""


class SampleUpload(_Answer):
    """A sample as an upload, with the specification of its job."""

    upload: Upload
    """Upload of the sample."""
    specification: dict[str, Any]
    """A `JobSpec`."""


class StreamedEvent(_Answer):
    """A server-sent event of a job; `data` is JSON."""

    id: str | None = None
    """Its number; `seen` has none."""
    event: events.Event | Literal["seen"]
    """Type of the event; `seen` is the sign of life of a worker."""
    data: str
    """JSON of the event."""


class AcquisitionKind(_Answer):
    """A kind of scan that can be reconstructed."""

    name: str
    """Value of `acquisition.kind`."""
    summary: str
    """One sentence on what it is."""
    description: str
    """Further paragraphs of the description; may be empty."""
    modality: Literal["ct", "mri"]
    """Modality."""
    axes: list[str]
    """Axes of the measured array."""
    methods: list[str]
    """Methods that fit, in the order of listing."""
    baseline: str
    """Method shown beside every result unless others are named."""
    fields: dict[str, Any]
    """JSON schema of its fields."""


class MethodKind(_Answer):
    """A reconstruction method."""

    name: str
    """Value of `method.name`."""
    summary: str
    """One sentence on what it is."""
    description: str
    """Further paragraphs of the description; may be empty."""
    acquisitions: list[str]
    """Kinds of scan that it fits."""
    classical: bool
    """Whether it uses no diffusion prior."""
    settings: dict[str, Any]
    """JSON schema of its settings; each has a default."""


class PriorCard(_Answer):
    """Card of an installed prior, in short."""

    name: str
    """Value of `method.prior`."""
    modality: Literal["ct", "mri"]
    """Modality."""
    default: bool
    """Whether methods take it for its modality where none is named."""
    condition: str
    """Condition that it is given besides the noisy image, in words."""
    super_resolution: int | None
    """Largest super-resolution factor that it is for, rounded up; null for a prior of other images."""
    unit: str
    """Unit of the intensities."""
    low: float
    """Lowest intensity that it learnt, in `unit`."""
    high: float
    """Range of intensities that it learnt, in `unit`."""
    parameters: Count
    """Number of parameters of the network."""
    limits: list[str]
    """Limits of what it knows, in sentences."""
    licences: list[str]
    """Licences of the training data."""


class OutputFormat(_Answer):
    """A format of results."""

    name: str
    """Value of `output.format`."""
    ending: str
    """Ending of its files."""
    modalities: list[Literal["ct", "mri"]]
    """Modalities that it can hold."""


class Limits(_Answer):
    """Limits of what this server accepts, in bytes."""

    upload_bytes: Count
    """Largest upload in bytes."""
    memory_bytes: Count
    """Memory that a job may need."""


class Catalogue(_Answer):
    """Catalogue of what this server can do: acquisitions, their methods, priors, formats, devices and limits."""

    version: str
    """Version of the server."""
    acquisitions: list[AcquisitionKind]
    """Kinds of scans."""
    methods: list[MethodKind]
    """Methods."""
    default_method: str
    """Method of a job that names none."""
    priors: list[PriorCard]
    """Installed priors."""
    output_formats: list[OutputFormat]
    """Formats of results."""
    devices: list[Device]
    """Devices for which there are workers."""
    limits: Limits
    """Limits of uploads and jobs."""


class Session(_Answer):
    """Whose requests these are, and until when."""

    owner: str | None
    """Name of the API key; null on a server without keys."""
    expires: str | None
    """End of the session; null for a request with the key itself."""


class GoneJob(_Answer):
    """A job that was deleted."""

    id: str
    """Id of the job."""


class StreamedChange(_Answer):
    """A server-sent event of the stream of all jobs; `data` is JSON."""

    id: str
    """Id by which a client goes on."""
    event: Literal["job", "gone"]
    """`job` for a job as it is now, `gone` for one that was deleted."""
    data: str
    """A `Job` as it is now (`job`), or the `id` of one that was deleted (`gone`)."""


class PlaneView(_Answer):
    """Planes of a volume in one direction, as they are shown: the voxel of a pixel follows from it."""

    count: Count
    """Number of planes."""
    width: Count
    """Width of the picture in pixels."""
    height: Count
    """Height of the picture in pixels."""
    pixel_mm: tuple[float, float]
    """Width and height of a pixel."""
    across: Literal[0, 1, 2]
    """Axis of a voxel ``(col, row, slice)`` along which the planes are counted."""
    right: Literal[0, 1, 2]
    """Axis of a voxel that runs to the right in the picture."""
    down: Literal[0, 1, 2]
    """Axes that run to the right and down in the picture."""
    flip_right: bool
    """Whether the picture runs against that axis."""
    flip_down: bool
    """Whether the picture runs against them."""
    labels: tuple[str, str, str, str]
    """Directions to the left, to the right, on top and below; patients have letters."""


class VolumeView(_Answer):
    """Volume of a result, and how it is shown."""

    name: str
    """Name of the file."""
    shape: tuple[int, int, int]
    """``(slices, rows, cols)``."""
    affine: list[list[float]]
    """Voxel ``(col, row, slice)`` to millimetres."""
    in_patient: bool
    """Whether the affine leads into the patient (RAS); else into the scanner's frame."""
    unit: str
    """Unit of the values."""
    low: float
    """Value that is black where nothing better is known."""
    high: float
    """Grey window where nothing better is known."""
    percentiles: dict[str, float]
    """Percentiles of the values."""
    planes: dict[str, PlaneView]
    """Axial, coronal and sagittal planes."""


class VoxelValues(_Answer):
    """Values of volumes at a voxel."""

    voxel: tuple[int, int, int]
    """``(col, row, slice)``."""
    mm: tuple[float, float, float]
    """Its place; in the patient, to the right, front and top."""
    values: dict[str, float | None]
    """Values by name of the volume; null where a value is no number."""


class ViewedJob(_Answer):
    """Job that wrote a folder, as far as it is known."""

    id: str
    """Id of the job."""
    name: str
    """Name of the job."""
    method: str
    """Name of the method."""


class ViewedFile(_Answer):
    """A file of a folder that is shown."""

    name: str
    """Name of the file."""
    bytes: Count
    """Size in bytes."""
    href: str
    """Address of the file."""


class ViewedFolder(_Answer):
    """A folder of results, as a job and its results."""

    job: ViewedJob
    """Job that wrote the folder."""
    files: list[ViewedFile]
    """Files in the folder."""


class Health(_Answer):
    """Liveness of the process."""

    status: Literal["ok"]
    """Always `ok`."""


class Ready(_Answer):
    """Readiness to accept jobs."""

    status: Literal["ready"]
    """Always `ready`."""
    queued: Count
    """Jobs that wait."""
    workers: dict[Device, Count]
    """Workers that are there, by device; without one, jobs are accepted and wait."""


class ProblemPart(TypedDict):
    """One of several things that are wrong with a request."""

    detail: Annotated[str, Field(description="Reason, with the value.")]
    field: NotRequired[Annotated[str, Field(description="The offending field.")]]
    remedy: NotRequired[Annotated[str, Field(description="Advice on how to mend it.")]]


class Problem(TypedDict):
    """An error (RFC 9457)."""

    type: Annotated[str, Field(description="Kind of problem.", json_schema_extra={"format": "uri"})]
    title: Annotated[str, Field(description="Kind of problem in words.")]
    status: Annotated[int, Field(description="HTTP status.")]
    code: Annotated[str, Field(description="Stable, for programs.")]
    detail: Annotated[str, Field(description="Reason, with the value.")]
    field: NotRequired[Annotated[str, Field(description="The offending field, header or limit.")]]
    remedy: NotRequired[Annotated[str, Field(description="Advice on how to mend it.")]]
    problems: NotRequired[
        Annotated[list[ProblemPart], Field(description="All that is wrong, this first; if there is more than one.")]
    ]
    instance: NotRequired[Annotated[str, Field(description="Address of the request.")]]
    request_id: NotRequired[Annotated[str, Field(description="Id of the request, as in the server's log.")]]
