"""Super-resolution on the tuning slices: the frozen starting noise against random ones, and against other methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.defaults.frozen_noise import NoiseFile, shipped
from recon.priors import registry
from recon.problem.problem import run
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.spec.methods import TV, Boundary, Interpolation, Method, REDDiff
from recon.tuning import search_noise

RESAMPLES = 10_000


@dataclass(frozen=True)
class Row:
    """One method on held-out slices: PSNR and SSIM of the whole, evaluations a slice."""

    prior: str
    direction: str
    method: str
    psnr: float
    ssim: float
    evaluations: float


@dataclass(frozen=True)
class Gain:
    """How much lower the frozen noise's NRMSE is than the mean of random ones, with its 95 % interval.

    The tuning set is one head: the interval is over its slices, not over patients.
    """

    prior: str
    direction: str
    random: int
    slices: int
    nrmse_random: float
    nrmse_frozen: float
    gain: float
    low: float
    high: float


def compare(name: str, data: Path, slices: int, direction: search_noise.Direction) -> Iterator[Row]:
    """Every method on the same held-out low-resolution slices."""
    task = search_noise.task_of_prior(name, data, slices, Boundary(), direction, held_out=True)
    model, truth = task.inverse, task.measurement.truth
    assert truth is not None
    unconditional = registry.load("brain-mri")
    methods: list[tuple[str, Method]] = [
        ("interpolation", Interpolation()),
        ("TV", TV(dimensions=2)),
        ("red-diff, unconditional prior", REDDiff()),
        ("boundary, random noise", Boundary(frozen_noise="random")),
        ("boundary, random noise, no data step", Boundary(frozen_noise="random", consistency=False)),
        ("boundary, frozen noise", Boundary()),
    ]
    for label, settings in methods:
        prior = task.prior if isinstance(settings, Boundary) else unconditional
        before = prior.evaluations
        intensity = model.intensity_map(prior.card)
        found = model.display(
            model.arranged(run(solvers.start(model.problem, settings, prior=prior, intensity=intensity)))
        )
        used = (prior.evaluations - before) / model.problem.slices
        yield Row(name, direction, label, metrics.psnr(found, truth), metrics.ssim(found, truth), used)


def gain(name: str, data: Path, slices: int, random: int, direction: search_noise.Direction) -> Gain:
    """The frozen noise against `random` others on held-out slices; the interval resamples the slices."""
    task = search_noise.task_of_prior(name, data, slices, Boundary(), direction, held_out=True)
    errors_of = search_noise.errors_of(task, "nrmse")
    found = NoiseFile.read(shipped(name, direction))
    frozen = np.array(errors_of(found.seed, found.amplitude))
    # Numbers far from the candidates' 0, 1, 2, ...
    others = np.array([errors_of(1_000_000 + index) for index in range(random)])
    low, high = interval(others.mean(axis=0) - frozen)
    return Gain(
        name,
        direction,
        random,
        len(frozen),
        float(others.mean()),
        float(frozen.mean()),
        float((others.mean(axis=0) - frozen).mean()),
        low,
        high,
    )


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of `differences`."""
    draws = np.random.default_rng(0).choice(differences, (RESAMPLES, len(differences))).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
