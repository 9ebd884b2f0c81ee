"""DiffusionMBIR: a 2D diffusion prior on slices, total variation between them, predictor and corrector as published."""

from __future__ import annotations

import torch

from recon.priors.noise import SliceNoise
from recon.priors.prior import Prior
from recon.problem import resume
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, Progress, Solver, check_finite
from recon.solvers import dds
from recon.solvers.published import ADMM_PENALTY, ADMM_THRESHOLD, MRI_PENALTY, MRI_THRESHOLD, UnanchoredStep
from recon.spec.methods import DDS, DiffusionMBIR


def solve(
    problem: Problem, settings: DiffusionMBIR, prior: Prior, intensity: IntensityMap, noise: SliceNoise
) -> Solver:
    """Sample the volume along falling sigma, with one ADMM sweep of the data term and TV along z per step.

    ``fast`` is DDS in 3D: the sweep acts on the Tweedie estimate and keeps close to it. ``paper`` is the published
    variance-exploding predictor-corrector sampler: reverse diffusion, one Langevin step, and the sweep on the
    noisy volume itself, whose variables persist. Norms in the Langevin step are per slice, so that the
    result does not depend on how slices are batched; slices pass the network in batches.

    Parameters
    ----------
    problem, settings, prior, intensity
        As in `recon.solvers.diffpir.solve`.
    noise
        Drawn from at every step.

    References
    ----------
    Chung et al. 2023, DiffusionMBIR (arXiv 2211.10655), algorithm 1; Song et al. 2021 (arXiv 2011.13456),
    algorithms 2 and 4 (predictor and corrector); Chung, Lee and Ye 2024, DDS (arXiv 2303.05754), section 3.3.
    """
    if settings.preset == "fast":
        shared = settings.model_dump(include=set(DDS.model_fields) - {"name", "preset"})
        return (yield from dds.solve(problem, DDS(**shared), prior, intensity, noise))
    return (yield from _paper(problem, settings, prior, intensity, noise))


def _paper(
    problem: Problem, settings: DiffusionMBIR, prior: Prior, intensity: IntensityMap, noise: SliceNoise
) -> Solver:
    sigmas = settings.sigmas()
    term = DataStep(problem, intensity, settings.min_noise_std, settings.cg_iterations, precondition=False)
    penalty, threshold = (
        (MRI_PENALTY, MRI_THRESHOLD) if problem.operator.domain.complex else (ADMM_PENALTY, ADMM_THRESHOLD)
    )
    fit = UnanchoredStep(
        term,
        penalty if settings.penalty is None else settings.penalty,
        threshold if settings.threshold is None else settings.threshold,
    )
    parts = (noise, fit.along_z)
    found = resume.recalled(settings, *parts)
    x = sigmas[0] * noise.draw(problem.zeros()) if found is None else found.tensors["x"]
    for step, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
        if found is not None and step <= found.step:
            continue
        # Predictor: the score is (D(x) - x) / sigma^2.
        drop = sigma**2 - following**2
        x = x + drop / sigma**2 * (prior.denoise(x, sigma) - x) + drop**0.5 * noise.draw(x)
        # Corrector: one Langevin step whose length follows the ratio of the norms of noise and score.
        score = (prior.denoise(x, sigma) - x) / sigma**2
        fresh = noise.draw(x)
        ratio = _norms(fresh) / _norms(score).clamp(min=1e-38)
        length = 2 * (settings.snr * ratio) ** 2
        x = x + length * score + (2 * length).sqrt() * fresh
        x = fit(x)
        volume = check_finite(intensity.to_physical(x), "diffusion-mbir")
        resume.keep(settings, step, {"x": x}, *parts)
        yield Progress(step, settings.steps, volume, problem)
    if settings.consistency and not x.is_complex():
        # One step of simultaneous algebraic reconstruction; pixels that no ray sees stay as they are.
        seen = term.operator.normal(torch.ones_like(x))
        change = term.operator.adjoint(term.data - term.operator.forward(x))
        x = x + torch.where(seen > 1e-6, change / seen.clamp(min=1e-6), 0.0)
    return intensity.to_physical(x)


def _norms(x: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    return norms
