"""Decomposed diffusion sampling, 2D or 3D: Tweedie estimate, proximal data step, re-noise."""

from __future__ import annotations

from recon.priors.noise import SliceNoise, noise_prediction
from recon.priors.prior import Prior
from recon.problem import resume
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, Progress, Solver, check_finite
from recon.solvers.published import ADMM_PENALTY, ADMM_THRESHOLD, UnanchoredStep
from recon.solvers.warm_start import START_STEPS, warm_start
from recon.spec.methods import DDS


def solve(problem: Problem, settings: DDS, prior: Prior, intensity: IntensityMap, noise: SliceNoise) -> Solver:
    """Sample along falling sigma, in the variance-exploding view of the paper's DDIM step.

    Each step estimates the clean image ``D(x, sigma)``, moves it towards the data, and adds noise of the
    next level: a share `eta` of it fresh, the rest the noise that the denoiser found.

    Parameters
    ----------
    problem, settings, prior, intensity
        As in `recon.solvers.diffpir.solve`.
    noise
        Drawn from at every step.

    References
    ----------
    Chung, Lee and Ye 2024, DDS (arXiv 2303.05754), algorithm 1 with the proximal data step of its equation 14,
    and in 3D total variation between slices as in its section 3.3; started from a noised classical image
    (Chung et al. 2022, arXiv 2112.05146).
    """
    total = START_STEPS + settings.steps
    sigmas = settings.sigmas()
    fit = _data_step(problem, intensity, settings)
    parts = (noise, fit.along_z)
    found = resume.recalled(settings, *parts)
    if found is None:
        start = intensity.to_prior((yield from warm_start(problem, settings.start, settings.steps)))
        x = start + sigmas[0] * noise.draw(start)
    else:
        x = found.tensors["x"]
    for step, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
        if found is not None and step <= found.step:
            continue
        denoised = prior.denoise(x, sigma)
        fitted = fit(denoised, sigma)
        kept = noise_prediction(x, denoised, sigma)
        fresh = noise.draw(x)
        x = fitted + following * (settings.eta * fresh + (1 - settings.eta**2) ** 0.5 * kept)
        volume = check_finite(intensity.to_physical(fitted), "dds")
        resume.keep(settings, step, {"x": x}, *parts)
        yield Progress(START_STEPS + step, total, volume, problem)
    return intensity.to_physical(x)


def _data_step(problem: Problem, intensity: IntensityMap, settings: DDS) -> DataStep | UnanchoredStep:
    """Make our data step or the published one, which is anchored by `gamma` only for noisy data in 2D."""
    if settings.preset == "tuned":
        return DataStep.of(problem, intensity, settings, gamma=settings.gamma)
    if settings.preset == "paper" and bool(problem.noise.any()):
        return DataStep.of(problem, intensity, settings, gamma=settings.gamma, precondition=False)
    term = DataStep.of(problem, intensity, settings, precondition=False)
    return UnanchoredStep(term) if settings.preset == "paper" else UnanchoredStep(term, ADMM_PENALTY, ADMM_THRESHOLD)
