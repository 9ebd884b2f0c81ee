"""RED-Diff: minimise the data misfit plus a diffusion prior's regulariser, one noise level per step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from operators.linear import each_slice
from recon.priors import equivariant
from recon.priors.noise import SliceNoise, noise_prediction
from recon.priors.prior import Prior, denoise_some
from recon.problem import resume
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, Progress, Solver, check_finite
from recon.solvers.skipping import Skipping
from recon.solvers.warm_start import START_STEPS, warm_start
from recon.spec.methods import REDDiff

BETAS = (0.9, 0.99)
"""Adam's decay rates as published: 0.99 and not the usual 0.999."""
EPSILON = 1e-8
PNP_FRACTION, PNP_TIMES = 0.8, 3.2
"""Fraction of the noise that the plug-and-play data steps assume, and their noise level in units of it."""
PNP_DAMPING = 0.5
"""Damping of ADMM's multiplier, since no denoiser is exactly a proximal map."""


def solve(problem: Problem, settings: REDDiff, prior: Prior, intensity: IntensityMap, noise: SliceNoise) -> Solver:
    """Descend on ``|B mu - d|^2 / 2 + sum_t lambda_t <stopgrad(e_t - n), mu>`` while the noise level falls.

    At each step ``x = mu + sigma n`` is denoised; ``e`` is the noise that the prior sees in it, ``n`` the noise
    that was added, and ``e - n`` the gradient of the regulariser with the network's Jacobian left out.
    ``adam`` takes Adam's step along both gradients, as published. ``proximal`` takes the regulariser's step and
    preconditions the data's by conjugate gradients, which sparse CT needs: its operator damps fine detail by
    orders of magnitude, and plain first-order steps never get there.

    Parameters
    ----------
    problem, settings, prior, intensity
        As in `recon.solvers.diffpir.solve`.
    noise
        Drawn from at every step.

    References
    ----------
    Mardani et al. 2024, RED-Diff (arXiv 2305.04391), algorithm 1 and its appendix on weightings.
    """
    total = START_STEPS + settings.steps + settings.pnp_steps
    fit = DataStep.of(problem, intensity, settings)
    adam = _Adam(problem, fit, settings)
    first_kept = settings.steps - max(1, round(settings.average * settings.steps))
    skipping = Skipping(settings.skip_threshold, problem.slices)
    parts = (noise, skipping, adam, fit.along_z)
    found = resume.recalled(settings, *parts)
    if found is None:
        mu = intensity.to_prior((yield from warm_start(problem, settings.start, settings.steps)))
        kept = torch.zeros_like(mu)
    else:
        mu, kept = found.tensors["mu"], found.tensors["kept"]
    for step, sigma in enumerate(settings.sigmas()):
        if found is not None and step < found.step:
            continue
        x0 = mu + settings.sigma_x0 * noise.draw(mu) if settings.sigma_x0 > 0 else mu
        n = noise.draw(mu)
        signs = (1.0, -1.0) if settings.antithetic else (1.0,)
        seen = equivariant.at_step(prior, step, (mu.shape[-2], mu.shape[-1])) if settings.equivariant else prior
        gradient = skipping(sigma, partial(_gradient, seen, x0, sigma, n, signs))
        before = mu
        if settings.update == "adam":
            mu = fit.supported(adam(mu, x0, gradient, sigma, step))
        else:
            target = fit(mu - settings.weight * sigma * gradient, sigma)
            mu = mu + settings.rate * (target - mu)
        if step >= first_kept:
            # The published code returns the iterate before its last step; so does `adam` here with `average` 0.
            kept += (before if settings.update == "adam" else mu) / (settings.steps - first_kept)
        shown = check_finite(intensity.to_physical(mu), "red-diff")
        resume.keep(settings, step + 1, {"mu": mu, "kept": kept}, *parts)
        yield Progress(START_STEPS + step + 1, total, shown, problem)
    if settings.update == "proximal":
        kept = fit(kept, settings.sigmas()[-1])
    if settings.pnp_steps:
        data_step = DataStep.of(problem, intensity, settings.model_copy(update={"noise_fraction": PNP_FRACTION}))
        steps = _polished(kept, settings, prior, data_step)
        for step, kept in enumerate(steps, START_STEPS + settings.steps + 1):
            yield Progress(step, total, check_finite(intensity.to_physical(kept), "red-diff"), problem, "polish")
    return intensity.to_physical(kept)


def _polished(x: Tensor, settings: REDDiff, prior: Prior, fit: DataStep) -> Iterator[Tensor]:
    """Plug-and-play ADMM at one noise level from the image `x`; the second half of the iterates is averaged.

    With levels that fall below the noise the descent ends at the most likely image. The fixed points ``x = D(x + u)``
    of this iteration, `u` being the scaled dual variable, lie nearer to the posterior mean; for plain denoising they
    are exactly it.

    References
    ----------
    Venkatakrishnan et al. 2013, Plug-and-play priors for model based reconstruction (GlobalSIP).
    """
    sigma = PNP_TIMES * fit.sigma
    residual = fit.operator.adjoint(fit.data - fit.operator.forward(x))
    u = residual * PNP_TIMES**2  # what it is at a fixed point
    first_kept = settings.pnp_steps // 2
    mean = torch.zeros_like(x)
    for step in range(settings.pnp_steps):
        seen = equivariant.at_step(prior, step, (x.shape[-2], x.shape[-1])) if settings.equivariant else prior
        z = _denoised(seen, x + u, sigma)
        x = fit(z - u, sigma)
        u = u + PNP_DAMPING * (x - z)
        if step < first_kept:
            yield z
            continue
        mean = mean + (z - mean) / (step - first_kept + 1)
        yield mean


def _denoised(prior: Prior, x: Tensor, sigmas: Tensor) -> Tensor:
    """Denoise slices, each at its own level; those that share one go through the network together."""
    found = torch.empty_like(x)
    for sigma in sigmas.unique():
        index = (sigmas == sigma).nonzero()[:, 0]
        found[index] = denoise_some(prior, x, float(sigma), index)
    return found


def weight(kind: str, sigma: float) -> float:
    """Weight of the regulariser, one of the published functions of ``sigma = sqrt((1 - abar) / abar)``."""
    match kind:
        case "linear":
            return sigma
        case "sqrt":
            return math.sqrt(sigma)
        case "square":
            return sigma**2
        case "log":
            return math.log1p(sigma)
        case "trunc-linear":
            return min(sigma, 1.0)
        case "const":
            return 1.0
        case _:
            raise AssertionError(kind)


def _decay(settings: REDDiff, step: int) -> float:
    """Factor of the learning rate: from 1 to 0.01 along half a cosine, or 1."""
    if settings.decay == "none":
        return 1.0
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def _gradient(prior: Prior, x0: Tensor, sigma: float, n: Tensor, signs: tuple[float, ...], index: Tensor) -> Tensor:
    """Gradient of the regulariser in the slices of `index`: the predicted noise minus the added noise."""
    total = torch.zeros_like(x0[index])
    for sign in signs:
        x = x0 + sign * sigma * n
        total += noise_prediction(x[index], denoise_some(prior, x, sigma, index), sigma) - sign * n[index]
    return total / len(signs)


class _Adam:
    """Adam on every real number of `mu`; slices are independent, as in separate runs."""

    KEPT: ClassVar[tuple[str, ...]] = ("first", "second")

    def __init__(self, problem: Problem, fit: DataStep, settings: REDDiff) -> None:
        self.problem, self.fit, self.settings = problem, fit, settings
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def __call__(self, mu: Tensor, x0: Tensor, gradient: Tensor, sigma: float, step: int) -> Tensor:
        settings = self.settings
        operator = self.fit.operator
        data_gradient = operator.adjoint(operator.forward(x0) - self.fit.data)
        if settings.reduction == "mean":
            # Means over the measurements and over the pixels, as published; a complex number counts as two.
            counts = _reals(self.fit.data[0]) * self.problem.operator.measured_share
            data_gradient = data_gradient / each_slice(counts, data_gradient)
            gradient = gradient / _reals(mu[0])
        strength = settings.weight * weight(settings.weighting, sigma)
        g = _real(settings.data_weight * data_gradient + strength * gradient)
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(g), torch.zeros_like(g)
        self.first = self.first.lerp(g, 1 - BETAS[0])
        self.second = self.second.lerp(g.square(), 1 - BETAS[1])
        mean = self.first / (1 - BETAS[0] ** (step + 1))
        power = self.second / (1 - BETAS[1] ** (step + 1))
        rate = settings.rate * _decay(settings, step)
        moved = _real(mu) - rate * mean / (power.sqrt() + EPSILON)
        return torch.view_as_complex(moved) if mu.is_complex() else moved


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _reals(x: Tensor) -> int:
    return x.numel() * (2 if x.is_complex() else 1)
