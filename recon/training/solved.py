"""Solver iterates as training images: scans solved with the current network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from operators.linear import random_element
from recon.measurement import random_fields
from recon.problem import conditioning
from recon.problem.data_step import DataStep
from recon.problem.problem import IntensityMap, Problem

LEVELS = (0.4, 0.25, 0.16, 0.1, 0.063, 0.04)
"""Noise levels of the solver's steps."""
DATA_SIGMA = 1e-3
"""Lower bound on the noise that its data steps assume, on the prior's scale."""

Denoise = Callable[[Tensor, float, Tensor], Tensor]
"""Denoiser: a function of noisy slices ``(slices, rows, cols)``, their noise level and their condition."""


class Solved(NamedTuple):
    """Scan of slices ``(slices, size, size)`` and what it shows, on the prior's scale."""

    condition: Tensor
    iterate: Tensor
    """Iterate of the solver."""
    sigma: float
    """Noise level of the solver's next step."""


def solved(problem: Problem, axis: IntensityMap, generator: torch.Generator, denoise: Denoise) -> Solved:
    """Solve a scan with `denoise` for a random number of steps.

    The errors of a solver's iterates are not white noise: they are what the scan leaves undetermined, and what the
    network filled in. A network trained on its own iterates learns to correct them.

    References
    ----------
    Mardani et al. 2024 (arXiv 2305.04391) for the steps: `denoise` with fresh noise, then the data's proximal step.
    Aggarwal et al. 2019, MoDL (arXiv 1712.02862): one network for all steps, trained on the images it is given there.
    Ross et al. 2011, DAgger (arXiv 1011.0686): trained on what it does itself, without going back through the steps.
    """
    condition = found = conditioning.least_squares(problem, axis)
    fit = DataStep(problem, axis, DATA_SIGMA, None, noise_fraction=0.6)
    steps = random_fields.integer(generator, len(LEVELS))
    for sigma in LEVELS[:steps]:
        noisy = found + sigma * random_element(problem.operator.domain, len(found), generator)
        found = fit(denoise(noisy, sigma, condition), sigma)
    return Solved(condition, found, LEVELS[steps])
