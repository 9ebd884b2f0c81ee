"""Diffusion posterior sampling: ancestral steps with the data's gradient through the network."""

from __future__ import annotations

import torch

from recon.methods import DPS
from recon.priors.noise import SliceNoise
from recon.priors.prior import Prior
from recon.solvers.data_step import DataStep
from recon.solvers.problem import Axis, Problem, Progress, Solver, check_finite


def solve(problem: Problem, settings: DPS, prior: Prior, axis: Axis, seed: int) -> Solver:
    """Step down the noise levels by ancestral sampling, moved against ``grad_x |B D(x) - d|``.

    A point of reference for the other solvers: a thousand evaluations, each with a backward pass through the
    network, and a step length that has to be found anew for every operator.

    Parameters
    ----------
    problem, settings, prior, axis
        As in `recon.solvers.annealed.solve`.
    seed
        Noise is keyed by (seed, slice).

    References
    ----------
    Chung et al. 2023, DPS (arXiv 2209.14687), algorithm 1, in the variance-exploding view.
    """
    noise = SliceNoise(seed, problem.slices)
    term = DataStep(problem, axis, data_sigma=1.0, iterations=1)
    sigmas = settings.sigmas()
    x = sigmas[0] * noise.draw(problem.zeros())
    for step, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            denoised = prior.denoise(x, sigma)
            residual = (term.operator.forward(denoised) - term.data).flatten(1)
            (gradient,) = torch.autograd.grad(torch.linalg.vector_norm(residual, dim=1).sum(), x)
        x, denoised = x.detach(), denoised.detach()
        # Ancestral step of the variance-exploding process, then the data's.
        share = following**2 / sigma**2
        spread = following * (1 - share) ** 0.5
        x = denoised + share * (x - denoised) + spread * noise.draw(x) - settings.scale * gradient
        volume = check_finite(axis.to_physical(denoised), "dps")
        yield Progress(step, settings.steps, problem.misfit(volume), volume)
    return axis.to_physical(x)
