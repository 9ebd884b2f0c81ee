"""Speed of whole reconstructions by method and effort, as seconds and in units of a matrix product's rate.

A second means little on another machine. So the rate of a float32 matrix product is measured beside every row: seconds
times that rate is the arithmetic that the machine would have done meanwhile at its best.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from operators.errors import InputError
from recon.bench import peers
from recon.bench.auto import CHEST, T2
from recon.bench.qggmrf import QGGMRF
from recon.bench.solving import solved
from recon.formats import nifti
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.quality import metrics
from recon.spec.acquisitions import methods_of
from recon.spec.affine import voxel_size
from recon.spec.methods.base import Splitting
from recon.spec.registry import ACQUISITIONS, METHODS
from recon.spec.simulation import Simulation

PRODUCT, REPEATS = 1024, 5
"""Side of the matrices of the product, and products of which the median counts."""
EFFORTS = ("draft", "standard", "best")
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """Scan of a test volume: its file, kind of acquisition, and settings of the realistic simulation."""

    file: str
    kind: str
    settings: dict[str, Any]
    cube: bool = False
    """Whether the volume has as many slices as rows, since it is solved as a whole."""


TASKS = {
    "CT, 60 views": Task(CHEST, "ct-parallel", {"views": 60, "photons_per_ray": 1e5}),
    "cone, 60 views": Task(CHEST, "ct-cone", {"views": 60, "photons_per_ray": 1e5}, cube=True),
    "MRI, 8 coils, equispaced x4": Task(
        T2, "mri-cartesian", {"pattern": "equispaced", "acceleration": 4, "center_fraction": 0.08, "noise_std": 0.01}
    ),
}


@dataclass(frozen=True)
class Row:
    """One method at one effort on one scan.

    Parameters
    ----------
    effort
        None for a method without one.
    size, slices
        Of the volume: rows and columns, and slices.
    network_seconds
        Part of `seconds` spent in the network.
    float32_gflops
        Rate of a matrix product on the same threads, just before, in 1e9 operations per second.
    psnr_minus_best
        PSNR in dB, less the best of all rows of the same scan.
    """

    machine: str
    task: str
    method: str
    effort: str | None
    size: int
    slices: int
    seconds: float
    network_seconds: float
    float32_gflops: float
    psnr: float
    psnr_minus_best: float = 0.0

    @property
    def key(self) -> tuple[str, str, str, str | None, int, int]:
        """What the row is of."""
        return self.machine, self.task, self.method, self.effort, self.size, self.slices

    @property
    def teraflops(self) -> float:
        """Seconds in units of 1e12 operations at the product's rate."""
        return self.seconds * self.float32_gflops / 1e3


def compare(
    data: Path, task: str, size: int, slices: int, methods: Sequence[str], known: Sequence[Row], machine: str,
    efforts: Sequence[str] = EFFORTS,
) -> Iterator[Row]:  # fmt: skip
    """Reconstruct a scan by every method, at those efforts that it has, but for what has a row.

    Operators are built outside the clock; networks have run once.
    """
    if task not in TASKS:
        raise InputError(f"{task!r} is not one of {', '.join(TASKS)}", field="tasks")
    chosen = TASKS[task]
    slices = size if chosen.cube else slices
    have = {row.key for row in known}
    todo = [
        (method, effort)
        for method in methods
        for effort in efforts_of(method, chosen.kind)
        if effort is None or effort in efforts
        if (machine, task, method, effort, size, slices) not in have
    ]
    if not todo:
        return
    measurement = measured(data, chosen, size, slices)
    model, truth = inverse_problem.build(measurement), measurement.truth
    assert truth is not None
    model.problem.operator.forward(model.problem.zeros())
    _ = model.problem.operator.norms
    warm = model if chosen.cube else inverse_problem.build(measured(data, chosen, 64, 1))
    for method, effort in todo:
        given = {"name": method} if effort is None else {"name": method, "effort": effort}
        if not chosen.cube:
            solved(given, warm, chosen.kind)
        rate = float32_gflops()
        found = solved(given, model, chosen.kind)
        psnr = metrics.psnr(model.display(model.arranged(found.volume)), truth)
        yield Row(
            machine, task, method, effort, size, slices, round(found.seconds, 2), round(found.network_seconds, 2),
            round(rate, 1), round(psnr, 2),
        )  # fmt: skip


def efforts_of(method: str, kind: str) -> list[str | None]:
    """Efforts of a method, or None alone; no effort where the method does not fit the kind of acquisition."""
    if method == QGGMRF:
        return [None] if kind == "ct-parallel" else []
    if method in peers.NAMES:
        return [None]
    if method not in METHODS:
        raise InputError(f"{method!r} is not one of {', '.join([*METHODS, QGGMRF, *peers.NAMES])}", field="methods")
    if method not in methods_of(ACQUISITIONS[kind].model_validate({"kind": kind})):
        return []
    return list(EFFORTS) if issubclass(METHODS[method], Splitting) else [None]


def measured(data: Path, task: Task, size: int, slices: int) -> Measurement:
    """Measure a test volume that is resampled to ``(slices, size, size)``."""
    volume, affine = nifti.read(data / task.file)
    part = middle(volume, slices)
    fine = resampled(part, size, slices)
    spacing = np.array(voxel_size(affine)) * part.shape[::-1] / fine.shape[::-1]
    acquisition = ACQUISITIONS[task.kind].model_validate({"kind": task.kind})
    return simulate(fine, np.diag([*spacing, 1.0]), acquisition, Simulation.model_validate(task.settings))


def middle(volume: Volume, slices: int) -> Volume:
    """Slices in the middle of a volume: all, if it has no more."""
    first = max(0, (len(volume) - slices) // 2)
    return volume[first : first + slices]


def resampled(volume: Volume, size: int, slices: int) -> Volume:
    """Resample a volume to ``(slices, size, size)``, linearly."""
    steps = [new / old for new, old in zip((slices, size, size), volume.shape, strict=True)]
    return np.ascontiguousarray(ndimage.zoom(volume.astype(np.float32), steps, order=1, mode="nearest", grid_mode=True))


def limited(machine: str) -> str:
    """Name of a machine with the instruction set that oneDNN is limited to, if it is."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return machine if limit is None else f"{machine}, {limit} at most"


def float32_gflops() -> float:
    """Rate of a matrix product, in 1e9 operations per second."""
    matrix = torch.ones(PRODUCT, PRODUCT)

    def seconds(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    seconds(lambda: matrix @ matrix)
    return 2e-9 * PRODUCT**3 / statistics.median(seconds(lambda: matrix @ matrix) for _ in range(REPEATS))


def against_best(rows: Sequence[Row]) -> list[Row]:
    """Rows with their PSNR less the best of the same scan."""

    def scan(row: Row) -> tuple[str, str, int, int]:
        return row.machine, row.task, row.size, row.slices

    best = {scan(row): max(other.psnr for other in rows if scan(other) == scan(row)) for row in rows}
    return [replace(row, psnr_minus_best=round(row.psnr - best[scan(row)], 2)) for row in rows]
