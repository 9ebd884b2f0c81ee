"""Conditioning images for conditional priors, computed from the measurement alone."""

from __future__ import annotations

from torch import Tensor

from operators.errors import InputError
from recon.priors.card import Card
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem
from recon.spec.methods import DEFAULT_PRIOR, Diffusion

ITERATIONS = 10
"""Number of plain conjugate gradient iterations; preconditioned ones are slower here, far from the solution."""
DATA_SIGMA, SPREAD = 1e-3, 0.5
"""Lower bound on the noise of the data, and spread of images around an empty one, on the prior's scale."""


def require_fit(card: Card, problem: Problem, settings: Diffusion) -> None:
    """Raise `InputError` if a conditional prior's condition cannot be computed from the data or used by the method."""
    factor = problem.operator.refinement
    usual = DEFAULT_PRIOR[card.modality]
    only = settings.CONDITIONS == "super-resolution"
    if only and not card.refines:
        raise InputError(
            f"prior {card.name!r} is given {card.condition}, {settings.name} needs one of x{factor:g}",
            field="method.prior",
            remedy="leave it out, or use another method",
        )
    unlike = card.refines and (factor is None or not card.for_factor(factor))
    if unlike or (card.least_squares and factor is not None):
        instead = "which this acquisition does not give" if factor is None else f"the data are x{factor:g}"
        raise InputError(
            f"prior {card.name!r} needs {card.condition}, {instead}",
            field="method.prior",
            remedy="leave it out" if only else f"use one that is not conditional, as {usual}",
        )
    if card.conditional and settings.CONDITIONS == "none":
        raise InputError(
            f"prior {card.name!r} is conditional, {settings.name} takes none that is",
            field="method.prior",
            remedy=f"use {usual}",
        )


def condition(problem: Problem, intensity: IntensityMap, card: Card) -> Tensor:
    """Compute the condition of a fitting conditional prior, ``(slices, rows, cols)`` on its scale."""
    if card.refines:
        return intensity.to_prior(problem.initial_image())
    return least_squares(problem, intensity)


def least_squares(problem: Problem, intensity: IntensityMap) -> Tensor:
    """Regularised least-squares image: the one nearest to an empty image that fits the data within their noise.

    It scales with the data: ``argmin_u |B u - d|^2 / s^2 + |u - empty|^2 / SPREAD^2`` by conjugate gradients,
    stopped early. What few views leave open shows as the usual streaks, which a prior can learn to see through.

    Parameters
    ----------
    problem, intensity
        As of a solver.

    Returns
    -------
    Tensor
        ``(slices, rows, cols)`` on the prior's scale.

    References
    ----------
    Liu et al. 2023, DOLCE (arXiv 2211.12340): a diffusion model given the regularised least-squares image of
    limited-angle projections.
    """
    empty = intensity.to_prior(problem.zeros())
    return DataStep(problem, intensity, DATA_SIGMA, ITERATIONS, precondition=False)(empty, SPREAD)
