"""Diffusion posterior sampling: ancestral steps with the data's gradient through the network."""

from __future__ import annotations

import torch
from torch import Tensor

from recon.priors.noise import SliceNoise
from recon.priors.prior import Prior
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, Progress, Solver, check_finite
from recon.spec.costs import NETWORK_BATCH
from recon.spec.methods import DPS


def solve(problem: Problem, settings: DPS, prior: Prior, intensity: IntensityMap, noise: SliceNoise) -> Solver:
    """Step down the noise levels by ancestral sampling, moved against ``grad_x |B D(x) - d|``.

    For comparison with the other solvers: a thousand evaluations, each with a backward pass through the
    network, and a step length that has to be tuned for every operator.

    Parameters
    ----------
    problem, settings, prior, intensity
        As in `recon.solvers.diffpir.solve`.
    noise
        Drawn from at every step.

    References
    ----------
    Chung et al. 2023, DPS (arXiv 2209.14687), algorithm 1, in the variance-exploding view.
    """
    term = DataStep(problem, intensity, min_noise_std=1.0, iterations=1)
    sigmas = settings.sigmas()
    x = sigmas[0] * noise.draw(problem.zeros())
    # An operator that differs from slice to slice takes all of them at once.
    size = NETWORK_BATCH if term.operator.slices is None else problem.slices

    def estimate(part: Tensor, data: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Denoise slices; also returns the gradient of their residual's norm through the network."""
        with torch.enable_grad():
            given = part.detach().requires_grad_()
            denoised = prior.denoise(given, sigma)
            residual = (term.operator.forward(denoised) - data).flatten(1)
            (gradient,) = torch.autograd.grad(torch.linalg.vector_norm(residual, dim=1).sum(), given)
        return denoised.detach(), gradient.detach()

    for step, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
        # A few slices at a time: the network keeps every activation for its backward pass.
        parts = zip(x.split(size), term.data.split(size), strict=True)
        found = [estimate(part, data, sigma) for part, data in parts]
        denoised, gradient = (torch.cat(list(which)) for which in zip(*found, strict=True))
        # Ancestral step of the variance-exploding process, then the data's: published for the variance-preserving
        # image x / sqrt(1 + sigma^2), which turns the gradient and the step by these factors.
        share = following**2 / sigma**2
        spread = following * (1 - share) ** 0.5
        rate = settings.scale * ((1 + sigma**2) * (1 + following**2)) ** 0.5
        x = check_finite(denoised + share * (x - denoised) + spread * noise.draw(x) - rate * gradient, "dps")
        volume = intensity.to_physical(denoised)
        yield Progress(step, settings.steps, volume, problem)
    return intensity.to_physical(x)
