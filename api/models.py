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
    duration_s: float | None
    duration_range_s: Range | None = None
    """Within which nearly all jobs of its method have taken, for their size."""


class Job(_Answer):
    """A job: its stored state (see `workers.store.Record`), place in the queue and links."""

    id: str
    state: State
    created: str
    updated: str
    name: str
    method: str
    progress: float
    stage: str
    step: int
    steps: int
    data_misfit: float | None
    attempt: int
    started: str | None
    finished: str | None
    error: dict[str, Any] | None
    tags: list[str]
    priority: Priority
    device: Device
    planned_s: float | None
    owner: str | None
    queue_position: Count | None
    estimate: JobTimes | None
    expires: str | None
    seen: str | None = None
    """When the worker of a running job was last heard of; null if it is not, or none computes the job."""
    links: dict[str, str]


class Jobs(_Answer):
    """A page of jobs, newest first."""

    jobs: list[Job]
    total: Count
    truncated: bool
    next: str | None


class Purged(_Answer):
    """A job that was deleted."""

    id: str
    purged: Literal[True]


class ResultFile(_StoredAnswer):
    """A result file, with the address to fetch it from."""

    name: str
    bytes: Count
    sha256: Sha256
    href: str


class Results(_Answer):
    """Manifest of a job's results."""

    id: str
    files: list[ResultFile]


class Estimate(Plan):
    """Plan of a job, the memory limit of the server, and when a job that is submitted now would start and end."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    limit_bytes: Count
    fits: bool
    start_s: Range | None
    """Range of the seconds until it starts; null if no worker is there, or the queue cannot be asked."""
    duration_s: Range
    """Range of the seconds for which it is computed."""
    learned_from: Count
    """Number of finished jobs of its method that say so; 0 if only the plan does."""


class Upload(_StoredAnswer):
    """A complete upload."""

    id: str
    bytes: Count
    sha256: Sha256
    created: str
    owner: str | None
    files: Annotated[int, Field(ge=1)] | None = None
    """Number of files of a folder; null for a file."""
    name: str = ""
    """Name of the file or folder as the client gave it; empty if it did not."""
    complete: Literal[True] = True


class UploadContents(Contents):
    """What an upload holds, and a specification to start from."""

    id: str


class UploadBegun(_Answer):
    """An upload whose pieces are still coming."""

    id: str
    bytes: Count
    """Bytes that were announced."""
    received: Count
    """Bytes that are here: where to go on."""
    created: str
    name: str
    complete: Literal[False]


class Uploads(_Answer):
    """A page of uploads, newest first."""

    uploads: list[Upload | UploadBegun]
    total: Count
    next: str | None


class Sample(_Answer):
    """A measurement or volume that comes with the service."""

    name: str
    title: str
    about: str
    """What it is, in a sentence."""
    source: str
    """Where it comes from, and its licence."""
    bytes: Count


class Samples(_Answer):
    """What there is to try the service with."""

    samples: list[Sample]


class SampleUpload(_Answer):
    """A sample as an upload, with the specification of its job."""

    upload: Upload
    specification: dict[str, Any]
    """A `JobSpec`."""


class StreamedEvent(_Answer):
    """A server-sent event of a job; `data` is JSON."""

    id: str | None = None
    """Its number; `seen` has none."""
    event: events.Event | Literal["seen"]
    data: str


class AcquisitionKind(_Answer):
    """A kind of scan that can be reconstructed."""

    name: str
    summary: str
    """One sentence on what it is."""
    description: str
    """What there is to say besides; may be empty."""
    modality: Literal["ct", "mri"]
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
    summary: str
    """One sentence on what it is."""
    description: str
    """What there is to say besides; may be empty."""
    acquisitions: list[str]
    """Kinds of scan that it fits."""
    classical: bool
    """Whether it uses no diffusion prior."""
    settings: dict[str, Any]
    """JSON schema of its settings; each has a default."""


class PriorCard(_Answer):
    """What is known of an installed prior."""

    name: str
    modality: Literal["ct", "mri"]
    default: bool
    """Whether methods take it for its modality where none is named."""
    condition: str
    """What it is given besides the noisy image, in words."""
    super_resolution: int | None
    """Largest super-resolution factor that it is for, rounded up; null for a prior of other images."""
    unit: str
    low: float
    high: float
    """Range of intensities that it learnt, in `unit`."""
    parameters: Count
    limits: list[str]
    """What it does not know, in sentences."""
    licences: list[str]
    """Licences of the training data."""


class OutputFormat(_Answer):
    """A format of results."""

    name: str
    ending: str
    modalities: list[Literal["ct", "mri"]]


class Limits(_Answer):
    """What this server accepts, in bytes."""

    upload_bytes: Count
    memory_bytes: Count
    """Memory that a job may need."""


class Catalogue(_Answer):
    """What this server can do: acquisitions, methods that fit them, priors, formats, devices and limits."""

    version: str
    acquisitions: list[AcquisitionKind]
    methods: list[MethodKind]
    default_method: str
    priors: list[PriorCard]
    output_formats: list[OutputFormat]
    devices: list[Device]
    """Devices for which there are workers."""
    limits: Limits


class Session(_Answer):
    """Whose requests these are, and until when."""

    owner: str | None
    """Name of the API key; null on a server without keys."""
    expires: str | None
    """End of the session; null for a request with the key itself."""


class GoneJob(_Answer):
    """A job that was deleted."""

    id: str


class StreamedChange(_Answer):
    """A server-sent event of the stream of all jobs; `data` is JSON."""

    id: str
    event: Literal["job", "gone"]
    data: str
    """A `Job` as it is now (`job`), or the `id` of one that was deleted (`gone`)."""


class PlaneView(_Answer):
    """Planes of a volume in one direction, as they are shown: the voxel of a pixel follows from it."""

    count: Count
    width: Count
    height: Count
    pixel_mm: tuple[float, float]
    """Width and height of a pixel."""
    across: Literal[0, 1, 2]
    """Axis of a voxel ``(col, row, slice)`` along which the planes are counted."""
    right: Literal[0, 1, 2]
    down: Literal[0, 1, 2]
    """Axes that run to the right and down in the picture."""
    flip_right: bool
    flip_down: bool
    """Whether the picture runs against them."""
    labels: tuple[str, str, str, str]
    """What lies to the left, to the right, on top and below; patients have letters."""


class VolumeView(_Answer):
    """Volume of a result, and how it is shown."""

    name: str
    shape: tuple[int, int, int]
    """``(slices, rows, cols)``."""
    affine: list[list[float]]
    """Voxel ``(col, row, slice)`` to millimetres."""
    in_patient: bool
    """Whether the affine leads into the patient (RAS); else into the scanner's frame."""
    unit: str
    low: float
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
    """By name of the volume; null where it is no number."""


class ViewedJob(_Answer):
    """What is known of the job that wrote a folder."""

    id: str
    name: str
    method: str


class ViewedFile(_Answer):
    """A file of a folder that is shown."""

    name: str
    bytes: Count
    href: str


class ViewedFolder(_Answer):
    """A folder of results, as a job and its results."""

    job: ViewedJob
    files: list[ViewedFile]


class Health(_Answer):
    """Liveness of the process."""

    status: Literal["ok"]


class Ready(_Answer):
    """Readiness to accept jobs."""

    status: Literal["ready"]
    queued: Count
    """Jobs that wait."""
    workers: dict[Device, Count]
    """Workers that are there, by device; without one, jobs are accepted and wait."""


class ProblemPart(TypedDict):
    """One of several things that are wrong with a request."""

    detail: str
    field: NotRequired[str]
    remedy: NotRequired[str]


class Problem(TypedDict):
    """An error (RFC 9457)."""

    type: Annotated[str, Field(json_schema_extra={"format": "uri"})]
    title: str
    status: int
    code: Annotated[str, Field(description="Stable, for programs.")]
    detail: Annotated[str, Field(description="What is wrong, with the value.")]
    field: NotRequired[Annotated[str, Field(description="The offending field, header or limit.")]]
    remedy: NotRequired[Annotated[str, Field(description="What to do.")]]
    problems: NotRequired[
        Annotated[list[ProblemPart], Field(description="All that is wrong, this first; if there is more than one.")]
    ]
    instance: NotRequired[str]
    request_id: NotRequired[Annotated[str, Field(description="As in the server's log.")]]
