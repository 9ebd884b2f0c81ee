"""Images that end inside the anatomy: a thin stack from the side, a field of view that cuts the head."""

from __future__ import annotations

import pytest
import torch

from operators.resolution import SlabAverage
from recon.priors import registry
from recon.priors.mirrored import MARGIN, continued, cut_back
from recon.problem.problem import IntensityMap, Problem, run
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.spec.methods import Boundary, Interpolation, Method
from recon.training.recipe import Recipe
from recon.training.slices import tuning_images


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 40, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_images_are_continued_by_their_mirror_image(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = torch.randn(shape, dtype=dtype)
    found = continued(x)
    assert found.shape == (shape[0], shape[1] + 2 * MARGIN, shape[2] + 2 * MARGIN)
    assert torch.equal(cut_back(found), x)
    top, left = found[:, :MARGIN, MARGIN:-MARGIN].flip(1), found[:, MARGIN:-MARGIN, :MARGIN].flip(2)
    inside = [found[:, MARGIN : 2 * MARGIN, MARGIN:-MARGIN], found[:, MARGIN:-MARGIN, MARGIN : 2 * MARGIN]]
    assert torch.equal(top, inside[0]) and torch.equal(left, inside[1])


def test_a_thin_stack_seen_from_the_side_is_refined() -> None:
    """Eight thick slices of a head, which ends above and below them: far better than by interpolation."""
    planes = tuning_images(SAMPLES, Recipe.named("brain-mri"))[:, 88:120].to(torch.complex64).contiguous()
    _, rows, cols = planes.shape
    operator = SlabAverage(rows, cols, 4, -2, complex=True)
    problem = Problem(operator, operator.forward(planes))

    def error(method: Method, prior: str | None) -> float:
        given = None if prior is None else registry.load(prior).at(operator.factors)
        found = run(solvers.start(problem, method, prior=given, intensity=IntensityMap(1.0, 0.0)))
        return float((found - planes).abs().square().mean())

    interpolated, refined = error(Interpolation(), None), error(Boundary(frozen_noise="random"), "brain-mri-sr")
    assert refined < 0.79 * interpolated  # 1 dB
