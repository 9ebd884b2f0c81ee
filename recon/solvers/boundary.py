"""Super-resolution by a conditional prior's diffusion ODE, from a frozen starting noise that was searched for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.errors import InputError
from operators.resolution import Downsampling
from recon.priors.noise import SliceNoise
from recon.priors.prior import ConditionalPrior, Prior
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem, Progress, Solver, check_finite
from recon.spec.methods import Boundary


def solve(problem: Problem, settings: Boundary, prior: Prior, intensity: IntensityMap, noise: SliceNoise) -> Solver:
    """Integrate the probability-flow ODE from x_T down to the image, in few steps.

    The ODE maps a starting noise to an image; some starting noises give better images than others whatever the
    low-resolution input, so that one can be chosen once (`recon search-noise`) and used ever after, and how much of it.
    All slices start from the same noise. With `consistency` every estimate is made to fit the data.

    Ended at a high noise level, the ODE gives about the image to be expected, the nearest to the truth and too soft;
    from full noise down to a low level one as sharp as the truth, at the price of detail that is drawn. In mean square
    no image of a given distance from the truth's distribution is nearer to the truth than a mixture of these two:
    `detail` mixes them.

    Parameters
    ----------
    problem
        Low-resolution images; the operator is a `Downsampling`.
    settings
        See `Boundary`.
    prior
        Conditional prior of the operator's factor.
    intensity
        Physical intensity to the prior's scale.
    noise
        Starting noise, the same in every slice.

    References
    ----------
    Ma et al. 2024, boundary conditions (arXiv 2305.15357); Song et al. 2021, DDIM (arXiv 2010.02502); Lu et al. 2022,
    DPM-Solver++ (arXiv 2211.01095), algorithm 2 (multistep), in the variance-exploding view. Freirich et al. 2021
    (arXiv 2107.02555), the trade-off of distortion and perception in the Wasserstein space, for the mixture.
    """
    if not (isinstance(prior, ConditionalPrior) and prior.conditional and isinstance(problem.operator, Downsampling)):
        raise InputError("boundary needs a low-resolution acquisition and a conditional prior", field="method.name")
    condition = intensity.to_prior(problem.operator.upsample(problem.data))
    fit = DataStep(problem, intensity, settings.min_noise_std, settings.cg_iterations) if settings.consistency else None
    drawn = noise.draw(condition)
    evaluations = settings.evaluations()

    def ode(sigmas: list[float], amplitude: float, done: int, error: float = math.inf) -> Solver:
        """Integrate from noise of this amplitude; `done` evaluations came before.

        Estimates are fitted to the data as ones that err by the noise level, at most by `error`.
        """
        x = sigmas[0] * amplitude * drawn
        if settings.start == "interpolation":
            x = x + condition
        last: Tensor | None = None
        for step, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True), 1):
            clean = prior.denoise(x, sigma, condition)
            if fit is not None:
                clean = fit(clean, min(sigma, error))
            target = clean
            if settings.order == 2 and last is not None and following > 0:
                ratio = math.log(sigmas[step - 2] / sigma) / math.log(sigma / following)
                target = clean + (clean - last) / (2 * ratio)
            x = target + following / sigma * (x - target)
            last = clean
            volume = check_finite(intensity.to_physical(clean), "boundary")
            yield Progress(done + step, evaluations, volume, problem)
        return x

    if settings.detail == 0:
        soft = yield from ode(settings.sigmas(), settings.expected_amplitude, 0, settings.expected_error)
        return intensity.to_physical(soft)
    sharp = yield from ode(settings.detail_sigmas(), 1.0, 0)
    if settings.detail == 1:
        return intensity.to_physical(sharp)
    soft = yield from ode(
        settings.sigmas(), settings.expected_amplitude, settings.detail_steps, settings.expected_error
    )
    return intensity.to_physical(torch.lerp(soft, sharp, settings.detail))
