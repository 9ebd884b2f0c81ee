"""Every method on every task of the test volumes, with the defaults a user gets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from recon.bench import peers
from recon.bench.qggmrf import QGGMRF
from recon.bench.solving import label, solved
from recon.bench.withheld import withhold
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.problem import inverse_problem
from recon.quality import body, metrics
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import Method

Volume = NDArray[np.float32]
_METHODS: TypeAdapter[Method] = TypeAdapter(Method)

CT = "test/ct_chest_nsclc_r01-001.nii.gz"
T1, T2 = "test/mri_t1_fnndsc_adi.nii.gz", "test/mri_t2_fnndsc_adi.nii.gz"
PAPER = [{"name": "red-diff", "preset": "paper"}, *({"name": "dds", "preset": p} for p in ("paper", "paper-3d"))]
SLOW = [{"name": "diffusion-mbir", "preset": "paper"}, {"name": "dps"}]
"""Thousands of evaluations a slice: only when asked for."""
PEERS = [{"name": peers.DIFFPIR}]
SLOW_PEERS = [{"name": peers.DPS, "weight": 1000}]
"""The extra ``peers`` has them. DPS's step is the best of three on a tuning slice (docs/research-log/tuning.md)."""
PLANE_BY_PLANE: dict[str, Any] = {"name": "dds", "tv_z_weight": 0}
"""DiffusionMBIR's solver without its regularisation across slices, which is judged by what it adds to this."""
PLANAR = ("CT, 60 views", "CT, 23 views", "CT, 8 views")
IDEAL = ", ideal"
"""What the names of tasks end with whose data are simulated by the operator that reconstructs."""
MODELS = (("realistic", ""), ("ideal", IDEAL))
STACK = 32
"""Slices at least of what is seen as a stack of thick ones."""
OURS = [{"name": n} for n in ("diffpir", "red-diff", "dds", "diffusion-mbir")]


@dataclass(frozen=True)
class Task:
    """A job on a test volume, and the methods compared on it."""

    name: str
    job: dict[str, Any]
    methods: list[dict[str, Any]]
    withheld: int = 10
    """Measured data: see `withheld.withhold`."""


@dataclass(frozen=True)
class Row:
    """One method on one task. PSNR in dB with the volume's range; by plane the mean of the planes' values.

    Measured data have no truth, but samples that no method was given.
    """

    task: str
    method: str
    psnr: float | None
    psnr_inside: float | None
    """PSNR of the inside of the object, see `body.inside`; its range is that of the whole volume too."""
    ssim: float | None
    nrmse: float | None
    psnr_axial: float | None
    psnr_coronal: float | None
    psnr_sagittal: float | None
    data_misfit: float
    withheld_misfit: float | None
    nfe: float
    """Network evaluations a slice."""
    network_seconds: float
    """Part of `seconds` spent in the network."""
    seconds: float
    machine: str = ""
    """In a few words; the report fills it in. Seconds of two machines are not to be compared."""


def tasks(data: Path, slices: int, *, slow: bool = False, others: bool = False) -> list[Task]:
    """All tasks; `slices` is how many slices of each volume are used, `others` adds other people's solvers.

    Presets of published constants, and what costs as much, run on one task of each modality.
    """
    more = (SLOW if slow else []) + (PEERS + (SLOW_PEERS if slow else []) if others else [])
    ct_methods = [{"name": n} for n in ("fbp", "sirt", "tv")] + OURS
    found = []
    for name, acquisition, settings in _ct_cases():
        extra: list[dict[str, Any]] = [PLANE_BY_PLANE] if name in PLANAR else []
        extra += PAPER + more if name == "CT, 60 views" else []
        if others and acquisition["kind"] == "ct-parallel":
            extra = [{"name": QGGMRF}, *extra]
        for model, ending in MODELS:
            given = {"path": str(data / CT), "slices": [30, 30 + slices], "simulate": {**settings, "model": model}}
            found.append(Task(name + ending, {"input": given, "acquisition": acquisition}, ct_methods + extra))
    mri_methods = [{"name": n} for n in ("zero-filled", "cg-sense", "l1-wavelet", "tv")] + OURS
    for volume, contrast, first in ((T1, "T1", 90), (T2, "T2", 12)):
        for pattern, factor in (("equispaced", 4), ("equispaced", 8), ("poisson", 8)):
            settings = {
                "pattern": pattern, "acceleration": factor, "noise_std": 0.005,
                "center_fraction": 0.08 if factor <= 4 else 0.04,
            }  # fmt: skip
            for model, ending in MODELS:
                span = [first, first + slices]
                known = {"path": str(data / volume), "slices": span, "simulate": {**settings, "model": model}}
                name = f"{contrast}, {pattern} x{factor}"
                extra = PAPER + more if name == "T1, equispaced x4" else []
                found.append(Task(name + ending, {"input": known, "acquisition": "mri-cartesian"}, mri_methods + extra))
    for factor in (2, 4):
        # The T2 volume has square pixels and even sides, the T1 volume thin slices.
        for direction, volume, contrast, first in (("plane", T2, "T2", 12), ("slices", T1, "T1", 88)):
            count = slices if direction == "plane" else -(-max(slices, STACK) // factor) * factor
            known = {"path": str(data / volume), "slices": [first, first + count], "simulate": {}}
            acquisition = {"kind": "mri-superresolution", "factor": factor, "direction": direction}
            methods = [{"name": n} for n in ("interpolation", "tv", "red-diff", "boundary")]
            methods.append({"name": "boundary", "frozen_noise": "random"})
            where = "in plane" if direction == "plane" else "through plane"
            found.append(Task(f"{contrast}, x{factor} {where}", {"input": known, "acquisition": acquisition}, methods))
    return found + _measured(data)


def _measured(data: Path) -> list[Task]:
    """Measured data, judged by what was withheld: two thirds of the tooth's views, every tenth of the disc's."""
    ct = [{"name": n} for n in ("fbp", "sirt", "tv", "diffpir", "red-diff")]
    mri = [{"name": n} for n in ("cg-sense", "l1-wavelet", "tv", "diffpir", "red-diff")]
    tooth = {"path": str(data / "raw/ct_tooth_aps.h5"), "format": "dxchange", "slices": [0, 1]}
    disc = {"path": str(data / "raw/ct_htc2022_limited_angle.npz"), "format": "htc", "scan": DISC}
    brain = {"path": str(data / "raw/mri_brain_8coil_poisson.npy"), "format": "numpy"}
    parallel = {"kind": "ct-parallel", "detector_mm": TOOTH_MM, "rotation_center_column": TOOTH_CENTRE}
    return [
        Task("Measured tooth, 61 of 181 views", {"input": tooth, "acquisition": parallel}, ct, withheld=-3),
        Task("Measured disc, 30 degrees", {"input": disc, "acquisition": "ct-fan"}, ct),
        Task("Measured brain, 8 coils, 11 % of k-space", {"input": brain, "acquisition": "mri-cartesian"}, mri),
    ]


DISC, TOOTH_CENTRE = "ta_subsample73", 296.0
TOOTH_MM = 0.01
"""The file does not carry the pitch of its detector; only the unit of the result depends on it."""


def _ct_cases() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for views in (60, 23, 8):
        yield f"CT, {views} views", {"kind": "ct-parallel"}, {"views": views}
        yield f"CT, {views} views, 1e5 photons", {"kind": "ct-parallel"}, {"views": views, "photons_per_ray": 1e5}
    yield "CT, fan beam, 60 views", {"kind": "ct-fan"}, {"views": 60}
    for span in (90, 120):
        angles = {"start_rad": 0.0, "stop_rad": math.radians(span), "count": span}
        yield f"CT, {span} of 180 degrees", {"kind": "ct-parallel", "angles_rad": angles}, {}


def compare(task: Task) -> Iterator[tuple[Row, Volume, Measurement]]:
    """Each method on a task: its row, its volume in the result's unit, and the measurement."""
    spec = JobSpec.parse({**task.job, "method": "tv"})
    measurement = reader.read(spec, local_files(spec))
    judge = None
    if measurement.truth is None:
        measurement, judge = withhold(measurement, every=task.withheld)
    model = inverse_problem.build(measurement)
    _ = model.problem.operator.norms, model.problem.whitened.operator.norms  # outside the clock: a second job has them
    for given in task.methods:
        found = solved(given, model, measurement.acquisition.kind)
        shown = model.display(model.arranged(found.volume))
        row = Row(
            task=task.name,
            method=label(given),
            **_quality(shown, measurement.truth),
            data_misfit=round(found.misfit, 6),
            withheld_misfit=None if judge is None else round(judge(model, found.volume).misfit, 6),
            nfe=round(found.nfe, 2),
            network_seconds=round(found.network_seconds, 2),
            seconds=round(found.seconds, 2),
            machine="",
        )
        yield row, shown, measurement


def _quality(shown: Volume, truth: Volume | None) -> dict[str, float | None]:
    if truth is None:
        return dict.fromkeys(("psnr", "psnr_inside", "ssim", "nrmse", "psnr_axial", "psnr_coronal", "psnr_sagittal"))
    axial, coronal, sagittal = by_plane(shown, truth)
    return {
        "psnr": round(metrics.psnr(shown, truth), 3),
        "psnr_inside": round(metrics.psnr(shown, truth, body.inside(truth)), 3),
        "ssim": round(metrics.ssim(shown, truth), 4),
        "nrmse": round(metrics.nrmse(shown, truth), 5),
        "psnr_axial": round(axial, 3),
        "psnr_coronal": round(coronal, 3),
        "psnr_sagittal": round(sagittal, 3),
    }


def by_plane(volume: Volume, truth: Volume) -> tuple[float, float, float]:
    """Mean PSNR of axial, coronal and sagittal planes, all with the range of the volume; in dB.

    Planes that hold one value only, as air beside the body, say nothing and are left out.
    """
    span = float(truth.max()) - float(truth.min())
    error = (volume.astype(np.float64) - truth) ** 2
    found = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        content = truth.max(axis=others) > truth.min(axis=others)
        means = error.mean(axis=others)[content]
        values = 10 * np.log10(span**2 / np.maximum(means, 1e-30))
        found.append(float(values.mean()) if len(values) else math.nan)
    return found[0], found[1], found[2]


def chosen(all_tasks: Sequence[Task], wanted: str | None, methods: str | None = None) -> list[Task]:
    """The tasks whose names contain one of the words between semicolons, with these comma-separated methods only."""
    found = list(all_tasks)
    if wanted is not None:
        found = [t for t in found if any(word.strip() in t.name for word in wanted.split(";"))]
    if methods is not None:
        labels = [name.strip() for name in methods.split(",")]
        found = [replace(t, methods=[given for given in t.methods if label(given) in labels]) for t in found]
    return found
