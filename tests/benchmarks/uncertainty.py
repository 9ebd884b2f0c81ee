"""How far the map of errors to be expected can be trusted: against the errors that were made, on the tuning slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon.bench.solving import method_of
from recon.defaults import lookup
from recon.pipeline import uncertainty
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem import inverse_problem
from recon.problem.problem import Problem, run
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.tuning import search_settings

CONTENT = 0.05
"""Share of the range above its lower end from which a pixel counts as the object's."""


@dataclass(frozen=True)
class Row:
    """One method on one task, pixels of the object only."""

    task: str
    method: str
    replicates: int
    psnr: float
    error_over_uncertainty: float
    """Root mean squares; more than 1: the map understates."""
    rank_correlation: float
    """Spearman's, of the map and the errors pooled alike: whether it is larger where they are."""
    within_one: float
    within_two: float
    """Share of pixels whose error is within the map, and within twice the map."""


def compare(
    data: Path, tasks: Sequence[search_settings.Task], methods: list[dict[str, Any]], count: int
) -> Iterator[Row]:
    """Map the errors of methods on tuning tasks, with `count` replicates, and judge the map by the truth."""
    for task in tasks:
        model, truth = search_settings.problem(task, data)
        for given in methods:
            yield _judged(task, model, torch.from_numpy(truth), given, count)


def _judged(
    task: search_settings.Task, model: inverse_problem.InverseProblem, truth: Tensor, given: dict[str, Any], count: int
) -> Row:
    settings = lookup.resolved(method_of(given), task.acquisition.kind, model.problem)
    prior, intensity = chosen_prior(settings, model)

    def shown(problem: Problem, seed: int) -> tuple[Tensor, Tensor]:
        volume = run(solvers.start(problem, settings, prior=prior, intensity=intensity, seed=seed))
        return volume, torch.from_numpy(model.display(volume))

    volume, result = shown(model.problem, 0)
    others = (shown(uncertainty.replicate(model, volume, index, 0), 1 + index)[1] for index in range(count))
    power = sum(((other - result).square() for other in others), torch.zeros_like(result)) / count
    expected = uncertainty.expected_errors(power, settings, model.modality)
    error = result - truth
    inside = truth > truth.min() + CONTENT * (truth.max() - truth.min())
    made, told = error[inside].abs(), expected[inside]
    return Row(
        task=task.name,
        method=str(given["name"]),
        replicates=count,
        psnr=round(metrics.psnr(result.numpy(), truth.numpy()), 2),
        error_over_uncertainty=round(float(made.square().mean().sqrt() / told.square().mean().sqrt()), 2),
        rank_correlation=round(_correlation(told, uncertainty.pooled(error.square())[inside]), 2),
        within_one=round(float((made <= told).float().mean()), 3),
        within_two=round(float((made <= 2 * told).float().mean()), 3),
    )


def _correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation."""
    ranks = torch.stack([v.argsort().argsort().double() for v in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])
