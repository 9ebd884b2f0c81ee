"""Images that the measurement determines by itself: what a conditional prior is given beside the noise."""

from __future__ import annotations

from torch import Tensor

from operators.errors import InputError
from operators.resolution import Resolution
from operators.tomography import Tomography
from recon.priors.card import Card
from recon.problem.data_step import DataStep
from recon.problem.problem import Axis, Problem

ITERATIONS = 10
"""Of plain conjugate gradients: preconditioned ones are slower here, where much of the image is still missing."""
DATA_SIGMA, SPREAD = 1e-3, 0.5
"""On the prior's axis: the noise that the data are credited with at least, and how far images lie from empty."""


def of(problem: Problem, axis: Axis, card: Card) -> Tensor:
    """What a conditional prior is given of every slice, ``(slices, rows, cols)`` on its axis.

    Raises
    ------
    InputError
        If the measurement does not give it.
    """
    if card.super_resolution is not None and isinstance(problem.operator, Resolution):
        return axis.to_prior(problem.operator.upsample(problem.data))
    if card.least_squares and isinstance(problem.operator, Tomography):
        return least_squares(problem, axis)
    raise InputError(
        f"prior {card.name!r} needs {card.condition}, which this acquisition does not give",
        field="method.prior",
        remedy="use one that is not conditional",
    )


def least_squares(problem: Problem, axis: Axis) -> Tensor:
    """The image nearest to an empty one among those that fit the data as well as their noise asks for.

    It scales with the data: ``argmin_u |B u - d|^2 / s^2 + |u - empty|^2 / SPREAD^2`` by conjugate gradients,
    stopped early. What few views leave open shows as the usual streaks, which a prior can learn to see through.

    Parameters
    ----------
    problem, axis
        As of a solver.

    Returns
    -------
    Tensor
        ``(slices, rows, cols)`` on the prior's axis.

    References
    ----------
    Liu et al. 2023, DOLCE (arXiv 2211.12340): a diffusion model given the regularised least-squares image of
    limited-angle projections.
    """
    empty = axis.to_prior(problem.zeros())
    return DataStep(problem, axis, DATA_SIGMA, ITERATIONS, precondition=False)(empty, SPREAD)
