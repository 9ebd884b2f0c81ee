"""Plan a job before it runs: memory by part, network evaluations, seconds. Loads neither torch nor ASTRA."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from operators.errors import ResourceLimit
from recon.defaults import effort
from recon.defaults.table import completed, nearest, rows
from recon.measurement.header import Header
from recon.planning.chunk_layout import CHUNK, SMALLER, layout
from recon.settings import Settings
from recon.spec.acquisitions.base import Acquisition
from recon.spec.costs import NETWORK_BATCH, MachineCosts, most
from recon.spec.job import JobSpec
from recon.spec.methods import Diffusion, Method, method_of
from recon.spec.validation import read_yaml

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
TABLE = Path(__file__).parent / "plan.yaml"


class Plan(BaseModel):
    """Plan: cost of a job."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)
    method: str
    """Name of the method."""
    shape: tuple[int, int, int]
    """Number of slices, rows and columns of the result."""
    memory: dict[str, int]
    """Memory in bytes by part, at the peak."""
    memory_bytes: int
    """Memory in bytes of all parts: the resident memory of a process that runs this job only."""
    network_evaluations: int
    """Number of slices that the network denoises."""
    seconds: float
    """Seconds from start to results, without waiting in a queue."""
    slices: int
    """Number of slices of the result."""
    at_once: int
    """Number of slices that are solved at once."""
    chunks: int
    """Number of chunks."""
    chunk: int
    """Number of slices per chunk: `CHUNK`, or fewer where memory is short."""
    streamed: bool = False
    """Whether chunks are read, solved and written one after another, so that memory does not grow with slices."""
    effort_gain_db: float | None = None
    """PSNR in dB that the method's effort was measured to gain over `standard`, or to lose if negative, on average over
    the tuning tasks of the kind of scan; null for `standard`."""


def make(spec: JobSpec, header: Header, limit: int | None = None) -> Plan:
    """Plan a job from its specification and the header of its measurement.

    The largest chunks that fit into `limit` bytes (see `memory_limit`) are chosen, the smallest if none do:
    `require_fit` then says so.
    """
    allowed = memory_limit() if limit is None else limit
    methods = [tuned(part, header) for part in spec.method.parts(header.acquisition)]
    plain = [method_of(name) for name in spec.baselines(header.acquisition, header.shape)]
    whole = header.acquisition.in_one_piece()
    for size in (header.solved_shape[0],) if whole else (CHUNK, *SMALLER):
        plan = _with_chunks(spec, header, methods, plain, size)
        if plan.memory_bytes <= allowed:
            break
    return plan


def _with_chunks(spec: JobSpec, header: Header, methods: list[list[Method]], plain: list[Method], size: int) -> Plan:
    shape, acquisition = header.result_shape, header.acquisition
    slices, rows, cols = header.solved_shape
    # The costliest of what the settings of each method of a job may turn out to be.
    layouts = [layout(slices, method, size) for alternatives in methods for method in alternatives]
    chunks = max(layouts, key=lambda parts: sum(part.end - part.begin for part in parts))
    every = [*layouts, *(layout(slices, method, size) for method in plain)]
    at_once = max(part.end - part.begin for parts in every for part in parts)
    computed = sum(part.end - part.begin for part in chunks)
    costs = [most([method.cost(acquisition) for method in alternatives]) for alternatives in methods]
    others = [method.cost(acquisition) for method in plain]
    computed += spec.method.rehearsals(slices, acquisition)
    evaluations = computed * sum(cost.evaluations for cost in costs)
    again = spec.output.uncertainty
    # Known volumes and replicates are compared with the result as a whole.
    apart = header.slice_bytes is not None and not header.known and again == 0 and not spec.says_undetermined
    streamed = apart and all(len(parts) > 1 for parts in every)
    coils = header.shape[acquisition.AXES.index("coils")] if "coils" in acquisition.AXES else 1
    copies = max(cost.copies(coils) for cost in (*costs, *others)) + len(costs) - 1
    parts = [part for part in spec.method.parts(acquisition) if isinstance(part, Diffusion)]
    networks = len({(part.prior, part.CONDITIONS) for part in parts})  # each stays loaded while others run
    memory = _memory(spec, header, at_once, copies, networks=networks, streamed=streamed)
    seconds = table().seconds
    product = acquisition.product_seconds(header.shape, computed / len(chunks), table())
    solving = evaluations * seconds.per_network_pixel * rows * cols
    solving += computed * sum(cost.products for cost in costs) * product
    total = seconds.startup + solving * (1 + again) + slices * sum(cost.products for cost in others) * product
    return Plan(
        method=spec.method.name,
        shape=shape,
        memory=memory,
        memory_bytes=sum(memory.values()),
        network_evaluations=evaluations * (1 + again),
        seconds=round(total, 1),
        slices=slices,
        at_once=at_once,
        chunks=len(chunks),
        chunk=size,
        streamed=streamed,
        effort_gain_db=_effort_gain_db(spec, acquisition),
    )


def _effort_gain_db(spec: JobSpec, acquisition: Acquisition) -> float | None:
    """Measured gain of the effort of a job's methods: of several the one that loses most."""
    found = [effort.row_of(part, acquisition.kind) for part in spec.method.parts(acquisition)]
    gains = [row.mean_gain_db for row in found if row is not None]
    return round(min(gains), 2) if gains else None


def memory_limit() -> int:
    """Memory limit of a job: RECON_MAX_JOB_BYTES, or four fifths of the memory of the machine or its container."""
    allowed = Settings().max_job_bytes
    return int(0.8 * _memory_bytes()) if allowed is None else allowed


def _memory_bytes() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # In a container this file is there and says its limit, or "max".
    text = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.exists() else "max"
    return min(machine, int(text)) if text.isdigit() else machine


def require_fit(plan: Plan, limit: int | None = None) -> None:
    """Raise `ResourceLimit`, with the numbers, if a job cannot fit into `limit` bytes (see `memory_limit`)."""
    allowed = memory_limit() if limit is None else limit
    if plan.memory_bytes <= allowed:
        return
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in plan.memory.items() if size > 5e6)
    raise ResourceLimit(
        f"the job needs about {plan.memory_bytes / 1e9:.2f} GB of memory ({parts}), {allowed / 1e9:.2f} GB are allowed",
        field="input",
        remedy="select fewer slices, or of a cone beam larger voxels; or raise RECON_MAX_JOB_BYTES on the machine that"
        " computes",
    )


def tuned(method: Method, header: Header) -> list[Method]:
    """List the settings that a method may get once the data show their noise and sampling."""
    acquisition = header.acquisition
    sampling = acquisition.sampling(header.shape)
    if sampling is None:
        # How the samples are spread is in the data only: any of the kind's settings may be chosen.
        found = [completed(method, row) for row in rows(method, acquisition.kind)] or [method]
    else:
        pattern, ratio = sampling
        alike = [nearest(method, acquisition.kind, pattern, ratio, noisy=noisy) for noisy in (False, True)]
        found = [completed(method, row) for row in alike]
    return [effort.applied(one, method, acquisition.kind) for one in found]


def _memory(
    spec: JobSpec, header: Header, at_once: int, copies: int, *, networks: int, streamed: bool
) -> dict[str, int]:
    costs = table().memory
    acquisition = header.acquisition
    slices, rows, cols = header.solved_shape
    image = rows * cols * (8 if acquisition.COMPLEX_VOLUME else 4)
    again = min(spec.output.uncertainty, 1)  # the replicate's data and operator beside the job's
    # Of errors: clues, both maps and a volume to compare; what no sample determined takes conjugate gradients.
    drawn = bool(again or spec.says_undetermined)
    held = len(spec.baselines(acquisition, header.shape)) + 2 + int(header.known) + 6 * again + 4 * drawn
    share = at_once / slices
    # Reading holds the array and a copy in its final type; solving holds the data, and as much for its residual.
    data = header.source_bytes + int(header.data_bytes * (2 + again + share))
    volumes = image * (slices * held + at_once * copies)
    held_shape = header.shape
    if streamed:
        held_shape = (at_once, *header.shape[1:])
        # The same of a chunk, and the sample that was read before.
        sample = min(CHUNK, slices) / slices  # `recon.measurement.sampled.SLICES`
        source = max(header.source_bytes * share, header.slice_bytes or 0)
        data = int(source + header.data_bytes * (sample + 3 * share))
        volumes = image * at_once * copies
    found = {
        "baseline": costs.baseline,
        "data": data,
        "volumes": volumes,
        "operator": acquisition.operator_bytes(held_shape, table()) * (1 + again),
    }
    setup = acquisition.setup_bytes(held_shape, table())
    if setup:
        found["setup"] = setup
    if header.known:
        found["metrics"] = costs.metrics
    if networks:
        one = costs.network + costs.per_network_pixel * rows * cols * min(NETWORK_BATCH, at_once)
        found["network"] = networks * one
    if spec.output.montage:
        found["montage"] = costs.montage
    return {name: int(value) for name, value in found.items()}


def write_table(path: Path, costs: MachineCosts) -> None:
    """Write a cost table for RECON_PLAN."""
    path.write_text(yaml.safe_dump(costs.model_dump(), sort_keys=False))


def table() -> MachineCosts:
    """Cost table of this machine."""
    return read_table(Settings().plan or TABLE)


@cache
def read_table(path: Path) -> MachineCosts:
    """Read a cost table that `recon plan --measure` wrote; raises `InputError`."""
    return read_yaml(
        MachineCosts, path, "a table of costs", field="RECON_PLAN", remedy="write one with recon plan --measure"
    )
