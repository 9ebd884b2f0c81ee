"""A prior that looks at its images turned: nothing else changes, and what it errs in one orientation cancels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators.fourier import CartesianMRI
from recon.priors import registry
from recon.priors.equivariant import WAYS, at_step, turn, turn_back
from recon.priors.prior import Given
from recon.problem.problem import IntensityMap, Problem, run
from recon.quality.metrics import nrmse
from recon.solvers import registry as solvers
from recon.spec.methods import REDDiff
from tests.conftest import GaussianPrior
from tests.recon.solvers.test_solvers import half_measured


class Slanting(GaussianPrior):
    """It takes every image to be a little brighter on the right."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        slope = torch.linspace(-1, 1, x.shape[2]).expand(x.shape[1:])
        return super().denoise(x, sigma) + sigma / (sigma + 0.2) * 0.1 * slope


@pytest.mark.parametrize("shape", [(6, 6), (5, 8)])
def test_every_way_is_another_and_leads_back(shape: tuple[int, int]) -> None:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    seen = {tuple(turn(x, way).flatten().tolist()) for way in range(WAYS)}
    assert len(seen) == WAYS
    assert all(torch.equal(turn_back(turn(x, way), way), x) for way in range(WAYS))


def test_images_that_are_not_square_keep_their_shape() -> None:
    shapes = set()

    class Watching(GaussianPrior):
        def denoise(self, x: Tensor, sigma: float) -> Tensor:
            shapes.add(tuple(x.shape))
            return super().denoise(x, sigma)

    x = torch.zeros(2, 6, 4)
    for step in range(WAYS):
        found = at_step(Watching(0.0, 1.0), step, (6, 4)).denoise(x, 0.1)
        assert found.shape == x.shape
    assert shapes == {(2, 6, 4)}


def test_a_prior_without_orientation_is_not_changed() -> None:
    x = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    prior = GaussianPrior(0.1, 0.5)
    for step in range(2 * WAYS):
        assert torch.allclose(at_step(prior, step, (8, 8)).denoise(x, 0.3), prior.denoise(x, 0.3), atol=1e-6)


def test_what_a_prior_errs_in_one_orientation_cancels() -> None:
    operator, _, truth = half_measured()
    problem = Problem(operator, operator(truth))
    assert isinstance(operator, CartesianMRI)

    def found(prior: GaussianPrior, *, equivariant: bool) -> Tensor:
        settings = REDDiff(steps=WAYS * 4, start="classical", equivariant=equivariant, skip_threshold=0.0)
        return run(solvers.start(problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0), seed=1))

    right = found(GaussianPrior(0.5, 0.09, is_complex=True), equivariant=False)
    slanted = [
        nrmse(found(Slanting(0.5, 0.09, is_complex=True), equivariant=equivariant).abs().numpy(), right.abs().numpy())
        for equivariant in (True, False)
    ]
    assert slanted[0] < 0.7 * slanted[1]


def test_a_condition_is_turned_with_the_image() -> None:
    """The network is given both the same way round: a turned problem has the turned solution."""
    prior = registry.load("brain-mri-sr").at((2.0, 2.0))
    generator = torch.Generator().manual_seed(0)
    x, condition = (torch.randn(2, 32, 32, dtype=torch.complex64, generator=generator) * 0.2 for _ in range(2))
    given = Given(prior, condition)
    for step in range(WAYS):
        way = step * 3 % WAYS
        mine = at_step(given, step, (32, 32)).denoise(x, 0.1, index=torch.tensor([1]))  # type: ignore[call-arg]
        expected = turn_back(prior.denoise(turn(x, way), 0.1, turn(condition, way)), way)[1:]
        assert torch.allclose(mine, expected, atol=1e-4)
