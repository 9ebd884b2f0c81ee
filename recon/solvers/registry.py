"""Start the solver of a method from its settings."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from operators.errors import InputError
from recon.defaults import frozen_noise
from recon.defaults.frozen_noise import Noise
from recon.priors.across import Across, Slicewise
from recon.priors.noise import SliceNoise
from recon.priors.prior import Apart, CardedPrior, ConditionalPrior, Given, Prior
from recon.problem import conditioning
from recon.problem.problem import IntensityMap, Problem, Solver
from recon.spec.methods import Diffusion, FrozenNoise, Method
from recon.spec.registry import resolve


def start(
    problem: Problem,
    settings: Method,
    *,
    prior: Prior | None = None,
    intensity: IntensityMap | None = None,
    seed: int = 0,
    frozen: Noise | None = None,
) -> Solver:
    """Start the solver of a method; iterate the generator to run it.

    ``settings.SOLVER`` names a generator ``solve(problem, settings)``, or for a method with a diffusion prior
    ``solve(problem, settings, prior, intensity, noise)``.

    Parameters
    ----------
    problem, settings
        What to solve, and how.
    prior, intensity
        Diffusion prior and the map to its intensity scale, of the problem's slices, for a method that has one.
    seed
        Seed of all noise that is drawn.
    frozen
        Noise that is the same in every slice, if it is known already, see `recon.defaults.frozen_noise`.

    Raises
    ------
    InputError
        If the method does not fit the acquisition, or lacks its prior.
    """
    if not isinstance(settings, Diffusion):
        return _supported(problem, _with_phase(problem, resolve(settings.SOLVER)(problem.constrained, settings)))
    if prior is None or intensity is None:
        raise InputError(f"{settings.name} needs a prior and its intensity map", field="method.prior")
    if prior.complex != problem.operator.domain.complex:
        raise InputError("the prior and the acquisition are of different modalities", field="method.prior")
    if isinstance(prior, CardedPrior):
        conditioning.require_fit(prior.card, problem, settings)
    noise = _noise(problem, settings, prior, seed, frozen)
    return _supported(problem, _diffusion(problem, settings, prior, intensity, noise))


def _supported(problem: Problem, solver: Solver) -> Solver:
    """Run a solver and set its volume to zero outside the problem's support, which not every method keeps to."""
    return problem.supported((yield from solver))


def _with_phase(problem: Problem, solver: Solver) -> Solver:
    """Run the solver of a problem whose phase is known, and give its real images that phase."""
    phase = problem.phase
    if phase is None:
        return (yield from solver)
    try:
        while True:
            progress = next(solver)
            yield replace(progress, volume=progress.volume * phase, problem=problem)
    except StopIteration as end:
        found: Tensor = end.value * phase
        return found
    finally:
        solver.close()


def _diffusion(
    problem: Problem, settings: Diffusion, prior: Prior, intensity: IntensityMap, noise: SliceNoise
) -> Solver:
    """Bind a conditional prior to its condition when the solver is first iterated, since computing that takes time."""
    if problem.operator.images > 1:
        prior = Apart(prior, problem.operator.images)
    if isinstance(prior, ConditionalPrior) and prior.conditional and settings.CONDITIONS == "any":
        given = conditioning.condition(problem, intensity, prior.card)
        prior = Given(prior, given.flatten(0, 1) if problem.operator.whole_volume else given)
    if problem.prior_axes is not None:
        prior = Across(prior, problem.prior_axes, (problem.slices, *problem.operator.domain.shape))
    if problem.operator.whole_volume:
        prior = Slicewise(prior)
    solver: Solver = resolve(settings.SOLVER)(problem, settings, prior, intensity, noise)
    return (yield from solver)


def _noise(problem: Problem, settings: Diffusion, prior: Prior, seed: int, frozen: Noise | None) -> SliceNoise:
    """Noise source of a solver: independent per slice, or frozen and the same for all."""
    if frozen is None and isinstance(settings, FrozenNoise):
        card = prior.card if isinstance(prior, CardedPrior) else None
        frozen = frozen_noise.of_settings(settings, card, problem.operator.scan, seed)
    if frozen is None:
        return SliceNoise(seed, problem.images, problem.first)
    return SliceNoise(frozen.seed, problem.images, shared=True, images=problem.operator.images)
