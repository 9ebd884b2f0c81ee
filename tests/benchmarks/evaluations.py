"""What each way to save network evaluations saves and costs, on the tuning slices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from recon.defaults import lookup
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem.problem import Problem, Progress, Solver, run
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.methods import method_of
from recon.spec.simulation import Simulation
from recon.tuning import search_settings
from tests.benchmarks.discrepancy import discrepancy

TASKS = ("60 views", "8 views", "23 views with 1e5 photons", "equispaced x4")
STOPPED = "stopped at the noise"
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "stable ones skipped": {"skip_threshold": 0.6},
    "nothing skipped": {"skip_threshold": 0.0},
    "half the steps": {"steps": 15},
    "classical start": {"start": "classical"},
    "TV start": {"start": "tv"},
    "no start": {"start": "zero"},
    STOPPED: {},
}
"""Variants of DiffPIR and RED-Diff. Without a start, the first level has to be that of pure noise."""
NO_START = {"sigma_first": 10.0}
ORDERS: dict[str, dict[str, Any]] = {
    f"{name}, {steps} steps": {"order": order, "steps": steps, "frozen_noise": "random"}
    for steps in (5, 10)
    for name, order in (("first order", 1), ("second order", 2))
}
"""Variants of the boundary solver's ODE."""


@dataclass(frozen=True)
class Row:
    """One variant on one task; `nfe` is network evaluations a slice."""

    task: str
    method: str
    variant: str
    psnr: float
    nfe: float
    seconds: float


def compare(data: Path) -> Iterator[Row]:
    """All variants on all tasks."""
    known = search_settings.tasks()
    for name in TASKS:
        for method in ("diffpir", "red-diff"):
            yield from _variants(known[name], method, VARIANTS, data)
    plane = search_settings.Task("x2 in plane", MRISuperResolution(factor=2), Simulation(), (20, 23), None)
    yield from _variants(plane, "boundary", ORDERS, data)


def _variants(
    task: search_settings.Task, method: str, variants: dict[str, dict[str, Any]], data: Path
) -> Iterator[Row]:
    model, truth = search_settings.problem(task, data)
    kind = "ct" if task.modality == "ct" else task.acquisition.kind
    _ = model.problem.operator.norms, model.problem.whitened.operator.norms
    tuned = lookup.resolved(method_of({"name": method}), kind, model.problem)
    for variant, changed in variants.items():
        if variant == STOPPED and not bool(model.problem.noise.any()):
            continue  # there is no level to stop at
        more = NO_START if changed.get("start") == "zero" else {}
        settings = method_of({**tuned.model_dump(), **changed, **more})
        if changed and settings == tuned:
            continue  # that is how it is
        prior, intensity = chosen_prior(settings, model)
        assert prior is not None
        before, started = prior.evaluations, time.perf_counter()
        solver = solvers.start(model.problem, settings, prior=prior, intensity=intensity)
        volume = driven(solver, model.problem, stop=variant == STOPPED)
        yield Row(
            task=task.name,
            method=method,
            variant=variant,
            psnr=round(metrics.psnr(model.display(model.arranged(volume)), truth), 2),
            nfe=round((prior.evaluations - before) / model.problem.slices, 1),
            seconds=round(time.perf_counter() - started, 1),
        )


class _Met(Exception):
    def __init__(self, volume: Tensor) -> None:
        self.volume = volume


def driven(solver: Solver, problem: Problem, *, stop: bool) -> Tensor:
    """A solver's result; with `stop`, the first iterate after its start that meets the data within their noise."""

    def look(progress: Progress) -> None:
        if stop and progress.stage != "start" and meets_noise(problem, progress.volume):
            raise _Met(progress.volume)

    try:
        return run(solver, look)
    except _Met as met:
        return met.volume


def meets_noise(problem: Problem, volume: Tensor) -> bool:
    """Whether the misfit is not above what noise alone leaves (the discrepancy principle)."""
    return discrepancy(problem, volume) <= 1
