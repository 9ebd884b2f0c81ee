"""What the discrepancy principle would choose for the share of the noise that the data term assumes, and its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from operators.linear import each_slice
from recon.defaults import lookup
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem.problem import Problem, run
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.spec.methods import REDDiff
from recon.tuning import search_settings

SHARES = (0.3, 0.45, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Row:
    """One share of the noise on one task."""

    task: str
    noise_fraction: float
    tuned: bool
    """Whether it is what the table of defaults has."""
    discrepancy: float
    """Mean square of the residuals over the variance of the noise: 1 where the data are met within it."""
    psnr: float


def discrepancy(problem: Problem, volume: Tensor) -> float:
    """Mean square of the whitened residuals over the variance of each slice's noise."""
    white = problem.whitened
    residual = (white.operator.forward(volume) - white.data) / each_slice(white.noise, white.data)
    measured = int((white.data != 0).sum()) * (2 if white.data.is_complex() else 1)
    return float(residual.abs().square().sum()) / measured


def compare(data: Path) -> Iterator[Row]:
    """RED-Diff on every noisy tuning task, with its tuned share and with others."""
    for task in search_settings.tasks().values():
        model, truth = search_settings.problem(task, data)
        problem = model.problem
        if not bool(problem.noise.any()):
            continue
        settings = lookup.resolved(REDDiff(), task.acquisition.kind, problem)
        assert isinstance(settings, REDDiff)
        prior, intensity = chosen_prior(settings, model)
        for share in sorted({*SHARES, settings.noise_fraction}):
            chosen = settings.model_copy(update={"noise_fraction": share})
            volume = run(solvers.start(problem, chosen, prior=prior, intensity=intensity))
            yield Row(
                task=task.name,
                noise_fraction=share,
                tuned=share == settings.noise_fraction,
                discrepancy=round(discrepancy(problem, volume), 3),
                psnr=round(metrics.psnr(model.display(model.arranged(volume)), truth), 2),
            )
