"""Prior of a method for a problem, and the map to its intensity scale."""

from __future__ import annotations

from operators.errors import InputError
from recon.priors import cards
from recon.priors import registry as priors
from recon.priors.prior import NetworkPrior
from recon.problem import conditioning
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import IntensityMap
from recon.spec.acquisitions import Acquisition
from recon.spec.methods import DEFAULT_PRIOR, Auto, Diffusion, Method
from recon.spec.methods.base import Splitting


def offered(auto: Auto, acquisition: Acquisition, inverse: InverseProblem) -> tuple[list[Method], list[Method]]:
    """Candidates of an automatic choice for a problem, and its reserve; usual ones only where there is a prior."""
    parts, modality, factor = auto.parts(acquisition), inverse.modality, inverse.problem.operator.refinement
    if auto.candidates is None:
        parts = [one for one in parts if not isinstance(one, Diffusion) or cards.covered(one, modality, factor)]
    return parts, auto.reserve(acquisition)


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
    name = method.prior or cards.usual(method, modality, inverse.problem.operator.refinement)
    prior = priors.load(name, int8=isinstance(method, Splitting) and method.int8)
    if prior.card.modality != modality:
        raise InputError(
            f"prior {prior.card.name!r} is for {prior.card.modality}, the data are {modality}",
            field="method.prior",
            remedy=f"use one for {modality}, as {DEFAULT_PRIOR[modality]}",
        )
    conditioning.require_fit(prior.card, inverse.problem, method)
    return prior.at(inverse.problem.operator.factors), inverse.intensity_map(prior.card)
