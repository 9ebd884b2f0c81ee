"""Skipped evaluations: only where nothing is lost, slice by slice, never twice in a row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.problem.problem import IntensityMap, Problem, run
from recon.quality.metrics import nrmse
from recon.solvers import registry
from recon.solvers.skipping import Skipping
from recon.spec.methods import DiffPIR, REDDiff
from tests.conftest import GaussianPrior, disc

SIGMAS = [0.8 * 0.8**k for k in range(12)]


def test_what_is_linear_in_log_sigma_is_extrapolated_exactly() -> None:
    asked: list[float] = []

    def truth(sigma: float) -> Tensor:
        return torch.stack([torch.full((4, 4), 2.0 + 0.1 * math.log(sigma)), torch.full((4, 4), sigma**-2)])

    skipping = Skipping(0.2, 2)
    for sigma in SIGMAS:
        evaluated: list[int] = []

        def evaluate(index: Tensor, sigma: float = sigma, evaluated: list[int] = evaluated) -> Tensor:
            evaluated += index.tolist()
            return truth(sigma)[index]

        found = skipping(sigma, evaluate)
        assert torch.allclose(found, truth(sigma), rtol=1e-5)
        asked.append(evaluated.count(0))
        assert 1 in evaluated  # the second slice changes by half from one level to the next
    assert asked == [1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]


class Counting(GaussianPrior):
    evaluations = 0

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.evaluations += len(x)
        return super().denoise(x, sigma)


@pytest.mark.parametrize("method", [DiffPIR, REDDiff])
def test_skipping_saves_evaluations_and_changes_little(method: type[DiffPIR] | type[REDDiff]) -> None:
    views = tuple(math.pi * k / 12 for k in range(12))
    operator = Tomography(ParallelBeam(24, 24, 1.0, views, 36, 1.0))
    truth = 0.02 * torch.cat([disc(24, 1.0, 9.0), disc(24, 1.0, 5.0, x_mm=2.0)])
    problem = Problem(operator, operator(truth))

    def solved(data: Tensor, skip: float) -> tuple[Tensor, int]:
        prior = Counting(0.0, 0.5)
        settings = method(steps=20, skip_threshold=skip)
        part = Problem(operator, data)
        found = run(registry.start(part, settings, prior=prior, intensity=IntensityMap(0.01, 0.01), seed=3))
        return found, prior.evaluations // len(data)

    every, whole = solved(problem.data, 0.0)
    some, fewer = solved(problem.data, 0.6)
    assert fewer < whole and nrmse(some.numpy(), every.numpy()) < 0.02
    # A slice alone is skipped where it is skipped among others.
    assert torch.allclose(solved(problem.data[:1], 0.6)[0], some[:1], atol=1e-6)
