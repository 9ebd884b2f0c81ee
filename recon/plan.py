"""What a job will take, before it runs: memory by part, network evaluations, seconds. Loads neither torch nor ASTRA."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from operators.errors import InputError, ResourceLimit
from operators.geometry import MATRIX_LIMIT_BYTES, estimated_matrix_bytes
from recon.geometry import ct_geometry, finer_shape
from recon.job import CTFan, CTParallel, JobSpec, MRICartesian, MRIResolution
from recon.methods import (
    CARD_ENDINGS,
    CGLS,
    DDS,
    DEFAULT_PRIOR,
    DPS,
    QUICK,
    SIRT,
    TV,
    Boundary,
    CGSense,
    Diffusion,
    DiffusionMBIR,
    Method,
    REDDiff,
    in_one_piece,
)
from recon.outline import Outline
from recon.priors.card import Card
from recon.reasons import reason
from recon.table import FULL_CIRCLE, Pattern, angular_cover, completed, installed, nearest

SLAB = 16
"""Slices solved at once: what the CT projector multiplies at once. Twice as many are not worth cutting."""
SMALLER = (8, 4, 2, 1)
"""Slices solved at once where memory is short: slower, the projector still multiplies as many."""
HALO = 16
"""Slices computed on both sides of a slab where the method couples neighbours. Slabs are then twice as long: the same
cost as 8 and single length, but seams below 1e-3 of the range, where 8 left up to 2e-3 (red-diff with a z_weight)."""
NETWORK_BATCH = 8
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
TABLE = Path(__file__).parent / "plan.yaml"
VOLUMES: dict[str, int] = {
    "fbp": 6,
    "sirt": 5,
    "cgls": 6,
    "tv": 22,
    "zero-filled": 4,
    "cg-sense": 8,
    "interpolation": 4,
}
"""Copies of the volume that a method holds at its peak; 24 with a diffusion prior, which may start by TV."""
DIFFUSION_VOLUMES = 24
_METHODS: TypeAdapter[Method] = TypeAdapter(Method)


class Memory(BaseModel):
    """Bytes, and bytes a pixel."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    baseline: float
    metrics: float
    coil_calibration: float
    network: float
    per_network_pixel: float
    montage: float
    matrix: float


class Seconds(BaseModel):
    """Seconds a unit of work, on the machine that was calibrated."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    startup: float
    per_network_pixel: float
    per_matrix_byte: float
    per_coil_pixel: float


class Costs(BaseModel):
    """The table: ``recon/plan.yaml``, or the one that RECON_PLAN names."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    memory: Memory
    seconds: Seconds


class Plan(BaseModel):
    """What a job will take.

    Parameters
    ----------
    memory
        Bytes by part, at the peak.
    memory_bytes
        Their sum: the resident memory of a process that runs this job only.
    network_evaluations
        Slices denoised.
    seconds
        From start to results, without waiting in a queue.
    slices, at_once
        Of the result, and how many of them are solved at once.
    slab
        Slices of a slab: `SLAB`, or fewer where memory is short.
    """

    model_config = ConfigDict(frozen=True)
    method: str
    shape: tuple[int, int, int]
    memory: dict[str, int]
    memory_bytes: int
    network_evaluations: int
    seconds: float
    slices: int
    at_once: int
    chunks: int
    slab: int


def make(spec: JobSpec, outline: Outline, limit: int | None = None) -> Plan:
    """Plan a job from its specification and the outline of its measurement.

    The largest slabs that fit into `limit` bytes (see `memory_limit`) are chosen, the smallest if none do:
    `require_fit` then says so.
    """
    allowed = memory_limit() if limit is None else limit
    for slab in (SLAB, *SMALLER):
        plan = _with_slabs(spec, outline, slab)
        if plan.memory_bytes <= allowed:
            break
    return plan


def _with_slabs(spec: JobSpec, outline: Outline, slab: int) -> Plan:
    shape = result_shape(outline)
    slices, rows, cols = shape
    plain: list[Method] = [_METHODS.validate_python({"name": name}) for name in baselines(spec, outline)]
    at_once = max(slices_at_once(method, outline, slices, slab) for method in (spec.method, *plain))
    computed, chunks = computed_slices(spec.method, outline, slices, slab)
    evaluations = computed * max(evaluations_a_slice(method) for method in tuned(spec.method, outline))
    memory = _memory(spec, outline, shape, at_once)
    return Plan(
        method=spec.method.name,
        shape=shape,
        memory=memory,
        memory_bytes=sum(memory.values()),
        network_evaluations=evaluations * (1 + spec.output.uncertainty),
        seconds=round(_seconds(spec, outline, rows * cols, slices, computed, chunks), 1),
        slices=slices,
        at_once=at_once,
        chunks=chunks,
        slab=slab,
    )


def memory_limit() -> int:
    """Bytes a job may take: RECON_MAX_JOB_BYTES, or four fifths of the machine's memory, or of its container's."""
    text = os.environ.get("RECON_MAX_JOB_BYTES", "")
    if text and not text.isdigit():
        raise InputError(f"{text!r} is not a number of bytes", field="RECON_MAX_JOB_BYTES")
    return int(text) if text else int(0.8 * _memory_bytes())


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
        remedy="select fewer slices; or raise RECON_MAX_JOB_BYTES on the machine that computes",
    )


def result_shape(outline: Outline) -> tuple[int, int, int]:
    """Shape ``(slices, rows, cols)`` of a job's result."""
    match outline.acquisition:
        case MRICartesian():
            return outline.shape[0], outline.shape[2], outline.shape[3]
        case MRIResolution():
            return finer_shape(outline.shape, outline.acquisition)
        case CTParallel() | CTFan():
            geometry = ct_geometry(outline.acquisition, outline.shape[2])
            return outline.shape[0], geometry.rows, geometry.cols


def slices_at_once(method: Method, outline: Outline, slices: int, slab: int = SLAB) -> int:
    """How many slices are solved at once: all up to two slabs, else a slab, with its halo if neighbours are coupled."""
    if slices <= 2 * slab or in_one_piece(method):
        return slices
    return min(slices, 2 * slab + 2 * HALO) if coupled(method, outline) else slab


def computed_slices(method: Method, outline: Outline, slices: int, slab: int) -> tuple[int, int]:
    """How many slices are computed in all, halos included, and in how many parts."""
    if slices <= 2 * slab or in_one_piece(method):
        return slices, 1
    if not coupled(method, outline):
        return slices, math.ceil(slices / slab)
    firsts = range(0, slices, 2 * slab)
    return sum(min(slices, first + 2 * slab + HALO) - max(0, first - HALO) for first in firsts), len(firsts)


def coupled(method: Method, outline: Outline) -> bool:
    """Whether slices depend on their neighbours: by total variation between them, or by a prior that sees them."""
    if isinstance(method, TV):
        return method.dimensions == 3
    if getattr(method, "z_weight", 0.0) > 0:
        return True
    ct = outline.acquisition.kind.startswith("ct")
    if (
        ct
        and isinstance(method, REDDiff | DDS)
        and method.preset == "tuned"
        and "z_weight" not in method.model_fields_set
    ):
        return True  # tuned settings may couple slices; which ones a job gets shows when its data are there
    return isinstance(method, Diffusion) and not isinstance(method, DPS) and ct and _sees(method.prior)


@cache
def _sees(prior: str | None) -> bool:
    """Whether a CT prior sees neighbours, as its card says; the job's own check is the one that counts."""
    name = prior or DEFAULT_PRIOR["ct"]
    path = Path(name) if name.endswith(CARD_ENDINGS) else TABLE.parent / "priors" / "weights" / f"{name}.yaml"
    return path.is_file() and Card.read(path, "method.prior").neighbours > 0


def tuned(method: Method, outline: Outline) -> list[Method]:
    """What a method's settings may turn out to be once the data are there, which tell noise from none."""
    acquisition = outline.acquisition
    if isinstance(acquisition, CTParallel | CTFan):
        geometry = ct_geometry(acquisition, outline.shape[2])
        spread: Pattern = "full" if angular_cover(geometry.angles_rad) > FULL_CIRCLE else "limited"
        ratio = geometry.rows * geometry.cols / (len(geometry.angles_rad) * geometry.detectors)
        found = [nearest(method, acquisition.kind, spread, ratio, noisy=noisy) for noisy in (False, True)]
    else:
        # How k-space was sampled is not in the outline.
        found = [t for t in installed().tuned if (t.kind, t.method) == (acquisition.kind, method.name)] or [None]
    return [completed(method, one) for one in found]


def evaluations_a_slice(method: Method) -> int:
    """Network evaluations of one slice."""
    if not isinstance(method, Diffusion):
        return 0
    steps: int = getattr(method, "steps", 0)
    twice = isinstance(method, REDDiff) and method.antithetic
    twice = twice or (isinstance(method, DiffusionMBIR) and method.preset == "paper")
    return steps * (2 if twice else 1) + getattr(method, "polish", 0)


def products_a_slice(method: Method, kind: str) -> int:
    """Products of one slice with the operator or its adjoint, roughly."""
    if isinstance(method, TV):
        inner = method.cg_iterations or (5 if kind.startswith("ct") else 10)
        return 2 * method.iterations * (inner + 1)
    if isinstance(method, SIRT | CGLS | CGSense):
        return 2 * (method.iterations + 1)
    if isinstance(method, Boundary) and not method.consistency:
        return 2
    if isinstance(method, Diffusion):
        iterations = getattr(method, "cg_iterations", None) or (3 if kind.startswith("ct") else 8)
        # The last of preconditioned iterations, and the misfit of steps that nobody looks at, take none.
        a_step = 2 * iterations + (1 if kind.startswith("ct") else 2)
        return int((getattr(method, "steps", 0) + getattr(method, "polish", 0)) * a_step + 120)
    return 2


def _memory(spec: JobSpec, outline: Outline, shape: tuple[int, int, int], at_once: int) -> dict[str, int]:
    costs = table().memory
    slices, rows, cols = shape
    pixel = 8 if outline.acquisition.kind.startswith("mri") else 4
    image = rows * cols * pixel
    again = min(spec.output.uncertainty, 1)  # the replica's data and operator beside the job's, and two volumes
    held = len(baselines(spec, outline)) + 2 + int(outline.known) + 2 * again
    copies = max(_volumes(name) for name in (spec.method.name, *baselines(spec, outline)))
    share = at_once / slices
    # Reading holds the array and a copy in its final type; solving holds the data, and as much for its residual.
    data = outline.source_bytes + int(outline.data_bytes * (2 + again + share))
    found = {
        "baseline": costs.baseline,
        "data": data,
        "volumes": image * (slices * held + at_once * copies),
        "operator": _operator(outline, costs) * (1 + again),
    }
    if isinstance(spec.method, Diffusion):
        found["network"] = costs.network + costs.per_network_pixel * rows * cols * min(NETWORK_BATCH, at_once)
    if outline.known:
        found["metrics"] = costs.metrics
    if isinstance(outline.acquisition, MRICartesian) and not outline.coil_maps and outline.shape[1] > 1:
        found["coil_calibration"] = costs.coil_calibration
    if spec.output.montage:
        found["montage"] = costs.montage
    return {name: int(value) for name, value in found.items()}


def _operator(outline: Outline, costs: Memory) -> float:
    """The system matrix while it is built, or coil sensitivities."""
    if isinstance(outline.acquisition, CTParallel | CTFan):
        size = estimated_matrix_bytes(ct_geometry(outline.acquisition, outline.shape[2]))
        return costs.matrix * size if size <= MATRIX_LIMIT_BYTES else 0.0
    # Sensitivities are as large as k-space; ESPIRiT works on one slice at a time.
    return float(outline.data_bytes) if isinstance(outline.acquisition, MRICartesian) else 0.0


def _volumes(name: str) -> int:
    return VOLUMES.get(name, DIFFUSION_VOLUMES)


def baselines(spec: JobSpec, outline: Outline) -> list[str]:
    """What is computed beside the result."""
    wanted = spec.output.baselines
    return [n for n in ([QUICK[outline.acquisition.kind]] if wanted is None else wanted) if n != spec.method.name]


def _seconds(spec: JobSpec, outline: Outline, pixels: int, slices: int, computed: int, chunks: int) -> float:
    costs = table().seconds
    methods = tuned(spec.method, outline)
    evaluations = computed * max(evaluations_a_slice(method) for method in methods)
    kind = outline.acquisition.kind
    if isinstance(outline.acquisition, CTParallel | CTFan):
        geometry = ct_geometry(outline.acquisition, outline.shape[2])
        # The projector multiplies as many slices as a slab usually has, however few there are.
        full = max(1.0, SLAB * chunks / computed)
        product = full * costs.per_matrix_byte * estimated_matrix_bytes(geometry) / 2
    else:
        product = costs.per_coil_pixel * math.prod(outline.shape[1:])
    products = max(products_a_slice(method, kind) for method in methods)
    # A baseline with the method's own defaults.
    others = sum(_plain_products(name, kind) for name in baselines(spec, outline))
    solving = evaluations * costs.per_network_pixel * pixels + computed * products * product
    return costs.startup + solving * (1 + spec.output.uncertainty) + slices * others * product


def _plain_products(name: str, kind: str) -> int:
    plain: dict[str, Any] = {"tv": TV(), "sirt": SIRT(), "cgls": CGLS(), "cg-sense": CGSense()}
    return products_a_slice(plain[name], kind) if name in plain else 2


def write_table(path: Path, costs: Costs) -> None:
    """Write a table for RECON_PLAN."""
    path.write_text(yaml.safe_dump(costs.model_dump(), sort_keys=False))


def table() -> Costs:
    """The costs of this machine."""
    return read_table(Path(os.environ.get("RECON_PLAN") or TABLE))


@cache
def read_table(path: Path) -> Costs:
    """Read a table that `recon plan --calibrate` wrote; raises `InputError`."""
    try:
        return Costs.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise InputError(
            f"{path.name} is no table of costs: {reason(error)}",
            field="RECON_PLAN",
            remedy="write one with recon plan --calibrate",
        ) from error
