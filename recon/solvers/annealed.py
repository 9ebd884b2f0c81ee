"""Annealed half-quadratic splitting: denoise, fit the data exactly, lower sigma, repeat."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from recon.priors.noise import noise_prediction
from recon.priors.prior import Prior, denoise_some
from recon.problem.data_step import DataStep
from recon.problem.problem import Axis, Problem, Progress, Solver, check_finite
from recon.solvers.skipping import Skipping
from recon.solvers.warm_start import START_STEPS, warm_start
from recon.spec.methods import Annealed


def solve(problem: Problem, settings: Annealed, prior: Prior, axis: Axis) -> Solver:
    """Alternate ``x <- D(x, sigma)`` and the proximal data step while sigma falls geometrically.

    Deterministic: no fresh noise is drawn, so there is no seed. Slices are independent without a `z_weight`.

    Parameters
    ----------
    problem
        Operator and data, physical units.
    settings
        See `Annealed`.
    prior
        Denoiser on its own axis.
    axis
        Physical intensity to the prior's axis.

    References
    ----------
    Zhang et al. 2021, DPIR (arXiv 2008.13751, equation 6); Zhu et al. 2023, DiffPIR (arXiv 2305.08995,
    algorithm 1 with zeta = 0, and the data step solved by conjugate gradients instead of in closed form).
    """
    total = START_STEPS + settings.steps
    x = axis.to_prior((yield from warm_start(problem, settings.start, settings.steps)))
    fit = DataStep.of(problem, axis, settings)
    skipping = Skipping(settings.skip, problem.slices)
    for step, sigma in enumerate(settings.sigmas(), 1):
        noise = skipping(sigma, partial(_noise, prior, x, sigma))
        x = fit(x - sigma * noise, sigma)
        volume = check_finite(axis.to_physical(x), "annealed")
        yield Progress(START_STEPS + step, total, volume, problem)
    return axis.to_physical(x)


def _noise(prior: Prior, x: Tensor, sigma: float, index: Tensor) -> Tensor:
    """What the prior takes for noise of size one, in the slices of `index`."""
    return noise_prediction(x[index], denoise_some(prior, x, sigma, index), sigma)
