"""Uncertainty maps by parametric bootstrap: measure the result by a comparable scan, reconstruct it, compare.

What comes out differently from what went in is the error that the method makes on such an object (a parametric
bootstrap). The same scan would not do: what it cannot see is missing from the result already, and nothing would be lost
a second time. Other views, or other lines of k-space, cannot see something else.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from recon.measurement import noise_estimate
from recon.priors.noise import key
from recon.problem.problem import Problem
from recon.spec.methods import Method

POOLED = 5
"""Window in pixels over which squared errors are averaged, since a few replicates are too few for single pixels."""


def replicate(problem: Problem, volume: Tensor, index: int, seed: int) -> Problem:
    """Simulate the `index`-th comparable scan of `volume` ``(slices, rows, cols)``, with the noise of `problem`.

    Raises
    ------
    InputError
        If there is no other scan of the kind, as for stacks of low resolution.

    References
    ----------
    Efron and Tibshirani 1993, An introduction to the bootstrap, section 6.5; Tachella and Pereyra 2024, Equivariant
    bootstrapping (arXiv 2310.11838), where the image is moved instead of the scan.
    """
    operator = problem.operator.another(index)
    generator = torch.Generator().manual_seed(key(seed, -2 - index))
    clean = operator.forward(volume)
    noise = problem.noise_std * operator.noise(len(clean), generator)
    if problem.inverse_std is None or problem.noise_std == 0:  # photons may be given, and no noise all the same
        return replace(problem, operator=operator, data=clean + noise, inverse_std=None)
    # As many photons as the noise was made from.
    photons = float((problem.data.exp() * (problem.inverse_std / problem.noise_std).square()).median())
    mean, inverse_std = noise_estimate.of_photons(clean, photons)
    noisy = clean + noise * (mean / problem.noise_std) / inverse_std
    return replace(problem, operator=operator, data=noisy, noise_std=mean, inverse_std=inverse_std)


def expected_errors(power: Tensor, method: Method, modality: str) -> Tensor:
    """Uncertainty map ``(slices, rows, cols)`` from the replicates' mean squared errors.

    Fine texture, which a prior or total variation takes for noise, is missing from the result, and replicates cannot
    lose it again: their errors are scaled up by what it took on the tuning slices.
    """
    scale = UNDERSTATED[modality] if method.REMOVES_TEXTURE else 1.0
    return scale * pooled(power)


UNDERSTATED = {"ct": 1.9, "mri": 1.2}
"""Ratio of true errors to those in the replicates; `python -m tests.benchmarks uncertainty` (docs/tuning.md)."""


def pooled(power: Tensor) -> Tensor:
    """Root of squared errors ``(slices, rows, cols)``, averaged over a window of `POOLED` pixels each way."""
    mean = functional.avg_pool2d(power[:, None], POOLED, 1, POOLED // 2, count_include_pad=False)[:, 0]
    return mean.sqrt()
