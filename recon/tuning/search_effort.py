"""Search for the settings of a method's efforts on the tuning slices; see `recon.defaults.effort`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from operators.errors import InputError
from recon.defaults import lookup
from recon.defaults.effort import Row
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem.problem import run
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.spec.methods import MethodSettings, method_of
from recon.tuning import search_settings
from recon.tuning.search_settings import Task

TASKS = (
    "60 views with 1e5 photons",
    "23 views with 1e5 photons",
    "8 views with 1e5 photons",
    "equispaced x4",
    "poisson x8",
    "stack x2 in plane with noise",
    "stack x4 in plane with noise",
    "stack x2 between slices with noise",
    "stack x4 between slices with noise",
    "CT stack x2 with noise",
    "CT stack x4 with noise",
)
"""Tuning tasks that an effort is judged on: scans with noise."""
KINDS = ("ct", "mri-cartesian", "mri-superresolution", "ct-superresolution")
"""Kinds of scan of these tasks; others count as one of them."""
_FEW: list[dict[str, Any]] = [{"steps": 8, "sigma_first": first} for first in (0.2, 0.4)]
_MORE: list[dict[str, Any]] = [{}, {"steps": 60}]
CANDIDATES: dict[str, dict[Literal["draft", "best"], list[dict[str, Any]]]] = {
    "diffpir": {"draft": _FEW, "best": _MORE},
    "red-diff": {
        "draft": [few | {"antithetic": False, "pnp_steps": 0} for few in _FEW],
        "best": [{}, {"skip_threshold": 0.0}],
    },
    "dds": {"draft": _FEW, "best": _MORE},
    "diffusion-mbir": {"draft": _FEW, "best": _MORE},
}
"""Settings to choose from, by method and effort. Those of `draft` take eight network evaluations; six lose 0.2 to
0.6 dB more. Those of `best` may be the tuned ones: 120 steps of RED-Diff are worse than 30 and 60 (all by
hand, on one slice)."""


class Judged(NamedTuple):
    """PSNR in dB and network evaluations per slice of some settings on one task."""

    psnr: float
    evaluations: float


def search(
    data: Path, methods: Sequence[str], only: Sequence[str] = TASKS, kinds: Sequence[str] = KINDS
) -> Iterator[Row]:
    """Choose for each method and kind of scan the candidates with the highest mean PSNR over the tasks.

    One slice of each task is reconstructed, the middle one, so that nothing is regularised across slices.

    Raises
    ------
    InputError
        If a method has no efforts, or a kind has no tasks.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"{kind!r} is not one of {', '.join(KINDS)}", field="kinds")
    for name in methods:
        if name not in CANDIDATES:
            raise InputError(f"{name!r} is not one of {', '.join(CANDIDATES)}", field="methods")
    known = search_settings.tasks()
    for kind in kinds:
        tasks = [known[name] for name in only if _counts_as(known[name]) == kind]
        found = {task.name: _judged(task, methods, data) for task in tasks}
        for name in methods if tasks else ():
            for effort, candidates in CANDIDATES[name].items():
                means = [
                    sum(found[task.name][name, effort, number].psnr for task in tasks) / len(tasks)
                    for number in range(len(candidates))
                ]
                best = max(range(len(candidates)), key=means.__getitem__)
                chosen = {task: rows[name, effort, best] for task, rows in found.items()}
                yield Row(
                    kind=kind,
                    method=name,
                    effort=effort,
                    settings=candidates[best],
                    gain_db={
                        task: round(row.psnr - found[task][name, "standard", 0].psnr, 2) for task, row in chosen.items()
                    },
                    over_tv_db={
                        task: round(row.psnr - found[task]["tv", "standard", 0].psnr, 2) for task, row in chosen.items()
                    },
                    evaluations={task: round(row.evaluations, 1) for task, row in chosen.items()},
                )


def _counts_as(task: Task) -> str:
    """Kind of scan that a task stands for."""
    return next(iter(task.acquisition.TUNED_AS), task.acquisition.kind)


def _judged(task: Task, methods: Sequence[str], data: Path) -> dict[tuple[str, str, int], Judged]:
    """Judge TV, each method as it is, and each candidate, by method, effort and number of the candidate."""
    first, last = task.slices
    middle = (first + last) // 2
    model, truth = search_settings.problem(replace(task, slices=(middle, middle + 1)), data)
    kind = _counts_as(task)

    def judge(settings: MethodSettings) -> Judged:
        prior, intensity = chosen_prior(settings, model)
        before = 0 if prior is None else prior.evaluations
        volume = run(solvers.start(model.problem, settings, prior=prior, intensity=intensity))
        evaluations = 0 if prior is None else prior.evaluations - before
        return Judged(metrics.psnr(model.display(model.arranged(volume)), truth), evaluations)

    found = {}
    for name in ("tv", *methods):
        usual = lookup.resolved(method_of({"name": name}), kind, model.problem)
        found[name, "standard", 0] = judge(usual)
        tuned = {field: getattr(usual, field) for field in usual.model_fields_set}
        for effort, candidates in CANDIDATES.get(name, {}).items():
            for number, settings in enumerate(candidates):
                found[name, effort, number] = judge(method_of({**tuned, **settings}))
    return found
