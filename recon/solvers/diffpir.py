"""DiffPIR: denoise, fit the data exactly, lower sigma, repeat."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from recon.priors.noise import SliceNoise, noise_prediction
from recon.priors.prior import Prior, denoise_some
from recon.problem import resume
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, Progress, Solver, check_finite
from recon.solvers.skipping import Skipping
from recon.solvers.warm_start import START_STEPS, warm_start
from recon.spec.methods import DiffPIR


def solve(problem: Problem, settings: DiffPIR, prior: Prior, intensity: IntensityMap, noise: SliceNoise) -> Solver:
    """Alternate ``x <- D(x, sigma)`` and the proximal data step while sigma falls.

    Before each step a share `zeta` of fresh noise is added, ``sqrt(zeta) sigma n``; the published step adds
    ``sqrt(1 - zeta)`` of the noise that the prior saw, which is left out here: it is what is wrong in the image.
    With `zeta` 0 nothing is drawn, so there is no seed. Slices are independent without a `tv_z_weight`.

    Parameters
    ----------
    problem
        Operator and data, physical units.
    settings
        See `DiffPIR`.
    prior
        Denoiser on its own intensity scale.
    intensity
        Physical intensity to the prior's scale.
    noise
        Drawn from at every step, if `zeta` is above 0.

    References
    ----------
    Zhang et al. 2021, DPIR (arXiv 2008.13751, equation 6); Zhu et al. 2023, DiffPIR (arXiv 2305.08995,
    algorithm 1, with the data step solved by conjugate gradients instead of in closed form).
    """
    total = START_STEPS + settings.steps
    fit = DataStep.of(problem, intensity, settings)
    skipping = Skipping(settings.skip_threshold, problem.slices)
    parts = (noise, skipping, fit.along_z)
    found = resume.recalled(settings, *parts)
    if found is None:
        x = intensity.to_prior((yield from warm_start(problem, settings.start, settings.steps)))
    else:
        x = found.tensors["x"]
    for step, sigma in enumerate(settings.sigmas(), 1):
        if found is not None and step <= found.step:
            continue
        if settings.zeta > 0:
            x = x + settings.zeta**0.5 * sigma * noise.draw(x)
        seen = skipping(sigma, partial(_noise, prior, x, sigma))
        x = fit(x - sigma * seen, sigma)
        volume = check_finite(intensity.to_physical(x), "diffpir")
        resume.keep(settings, step, {"x": x}, *parts)
        yield Progress(START_STEPS + step, total, volume, problem)
    return intensity.to_physical(x)


def _noise(prior: Prior, x: Tensor, sigma: float, index: Tensor) -> Tensor:
    """Noise that the prior predicts in the slices of `index`, with unit variance."""
    return noise_prediction(x[index], denoise_some(prior, x, sigma, index), sigma)
