"""Uncertainty maps by parametric bootstrap: measure the result by a comparable scan, reconstruct it, compare.

What comes out differently from what went in is the error that the method makes on such an object (a parametric
bootstrap). The same scan would not do: what it cannot see is missing from the result already, and nothing would be lost
a second time. Other views, or other lines of k-space, cannot see something else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from recon.priors.noise import key
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem
from recon.spec.methods import Method

POOLED = 5
"""Window in pixels over which squared errors are averaged, since a few replicates are too few for single pixels."""


def replicate(inverse: InverseProblem, volume: Tensor, index: int, seed: int) -> Problem:
    """Simulate the `index`-th comparable scan of `volume` ``(slices, rows, cols)``, with the noise of the measured one.

    Raises
    ------
    InputError
        If there is no other scan of the kind, as for stacks of low resolution.

    References
    ----------
    Efron and Tibshirani 1993, An introduction to the bootstrap, section 6.5; Tachella and Pereyra 2024, Equivariant
    bootstrapping (arXiv 2310.11838), where the image is moved instead of the scan.
    """
    operator = inverse.problem.operator.another(index)
    generator = torch.Generator().manual_seed(key(seed, -2 - index))
    clean = operator.forward(volume)
    return inverse.measured(operator, clean, operator.noise(len(clean), generator))


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
