"""From a method's settings to its running solver."""

from __future__ import annotations

from operators.errors import InputError
from recon.defaults import frozen_noise, lookup
from recon.defaults.frozen_noise import Calibrated
from recon.priors.noise import SliceNoise
from recon.priors.prior import CardedPrior, ConditionalPrior, Given, Prior
from recon.problem import conditioning, fbp
from recon.problem.problem import Axis, Problem, Solver
from recon.solvers import (
    annealed,
    astra_iterative,
    boundary,
    dds,
    diffusion_mbir,
    dps,
    interpolation,
    red_diff,
    sense,
    tv,
)
from recon.spec.methods import (
    CGLS,
    DDS,
    DPS,
    FBP,
    SIRT,
    TV,
    Annealed,
    Boundary,
    CGSense,
    Diffusion,
    DiffusionMBIR,
    Interpolation,
    Method,
    REDDiff,
    ZeroFilled,
)


def start(
    problem: Problem, settings: Method, *, prior: Prior | None = None, axis: Axis | None = None, seed: int = 0
) -> Solver:
    """The solver of a method, ready to be iterated.

    Raises
    ------
    InputError
        If the method does not fit the acquisition, or lacks its prior.
    """
    match settings:
        case FBP():
            return fbp.solve(problem, settings)
        case SIRT() | CGLS():
            return astra_iterative.solve(problem, settings)
        case TV():
            return tv.solve(problem, settings)
        case Interpolation():
            return interpolation.solve(problem)
        case ZeroFilled() | CGSense():
            return sense.solve(problem, settings)
        case Diffusion():
            if prior is None or axis is None:
                raise InputError(f"{settings.name} needs a prior and its axis", field="method.prior")
            if prior.complex != problem.operator.domain.complex:
                raise InputError("the prior and the acquisition are of different modalities", field="method.prior")
            if isinstance(prior, ConditionalPrior) and prior.conditional and not isinstance(settings, Boundary):
                return _conditioned(problem, settings, prior, axis, seed)
            return _diffusion(problem, settings, prior, axis, seed)


def _conditioned(problem: Problem, settings: Diffusion, prior: ConditionalPrior, axis: Axis, seed: int) -> Solver:
    """Once it is iterated: finding the condition takes its time."""
    given = Given(prior, conditioning.of(problem, axis, prior.card))
    return (yield from _diffusion(problem, settings, given, axis, seed))


def _diffusion(problem: Problem, settings: Diffusion, prior: Prior, axis: Axis, seed: int) -> Solver:
    noise = _noise(problem, settings, prior, seed)
    match settings:
        case Annealed():
            return annealed.solve(problem, settings, prior, axis)
        case DDS():
            return dds.solve(problem, settings, prior, axis, noise)
        case REDDiff():
            return red_diff.solve(problem, settings, prior, axis, noise)
        case DiffusionMBIR():
            return diffusion_mbir.solve(problem, settings, prior, axis, noise)
        case Boundary():
            return boundary.solve(problem, settings, prior, axis, seed)
        case DPS():
            return dps.solve(problem, settings, prior, axis, noise)
        case _:
            raise AssertionError(settings)


def _noise(problem: Problem, settings: Diffusion, prior: Prior, seed: int) -> SliceNoise:
    """What a solver draws from: of every slice by itself, or frozen and the same for all."""
    if isinstance(settings, Boundary) or getattr(settings, "calibration", None) is None:
        return SliceNoise(seed, problem.slices, problem.first)
    assert isinstance(settings, Calibrated)
    if settings.calibration != "random":
        if not isinstance(prior, CardedPrior):
            raise InputError(
                "the prior has no card, so that nothing tells its weights",
                field="method.calibration",
                remedy="set calibration: random",
            )
        seed = frozen_noise.noise_of(settings, prior.card, lookup.scan_of(problem), seed).seed
    return SliceNoise(seed, problem.slices, shared=True)
