"""Prior of a method for a problem, and the map to its intensity scale."""

from __future__ import annotations

from collections.abc import Sequence

from operators.errors import InputError
from recon.priors import cards
from recon.priors import registry as priors
from recon.priors.prior import NetworkPrior
from recon.problem import conditioning
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import IntensityMap
from recon.spec.methods import DEFAULT_PRIOR, Diffusion, Method


def with_priors(methods: Sequence[Method], inverse: InverseProblem) -> list[Method]:
    """Those methods that need no prior, or have one for a problem by default."""
    modality, factor = inverse.modality, inverse.problem.operator.refinement
    return [one for one in methods if not isinstance(one, Diffusion) or cards.covered(one, modality, factor)]


def chosen_prior(method: Method, inverse: InverseProblem) -> tuple[NetworkPrior | None, IntensityMap | None]:
    """Load the prior of a method for a problem, and the map to its intensity scale; None for a method without.

    Raises
    ------
    InputError
        If the prior that is named is for other data.
    """
    if not isinstance(method, Diffusion):
        return None, None
    modality = inverse.modality
    prior = priors.load(method.prior or cards.usual(method, modality, inverse.problem.operator.refinement))
    if prior.card.modality != modality:
        raise InputError(
            f"prior {prior.card.name!r} is for {prior.card.modality}, the data are {modality}",
            field="method.prior",
            remedy=f"use one for {modality}, as {DEFAULT_PRIOR[modality]}",
        )
    conditioning.require_fit(prior.card, inverse.problem, method)
    return prior.at(inverse.problem.operator.factors), inverse.intensity_map(prior.card)
