"""Errors to be expected, and intervals that hold the truth: a parametric bootstrap, and what else explains errors.

A comparable scan of the result is simulated and reconstructed. What comes out differently from what went in is the
error that the method makes on such an object (a parametric bootstrap). The same scan would not do: what it cannot see
is missing from the result already, and nothing would be lost a second time. Other views, or other lines of k-space, see
something else. What the result lacks no replicate can lose again, though: fine texture, sharp edges, what no sample
saw. So replicates are one clue of several, and how much each of them says was fitted to true errors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from operators.geometry import SamplingPattern
from recon.defaults.errors import Shares, installed
from recon.priors.noise import key
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem

POOLED = 5
"""Window in pixels over which squares are averaged, since a few replicates are too few for single pixels."""
TINY = 1e-30
BRIGHT = 0.99
"""Quantile of a slice up to which its level reaches, from its least value on."""


class Clues(NamedTuple):
    """Clues to the error of a result, ``(slices, rows, cols)`` each, not negative and in the result's unit.

    Parameters
    ----------
    replicates
        Root mean square of the replicates' errors, pooled.
    edges
        Root mean square of the change from pixel to pixel, pooled: what a blurred or shifted edge costs.
    undetermined
        Root mean square of what no sample determined, pooled.
    level
        Contrast of the slice, of which the texture that a result lacks is a share; the same in all its pixels.
    """

    replicates: Tensor
    edges: Tensor
    undetermined: Tensor
    level: Tensor

    @classmethod
    def of(cls, shown: Tensor, power: Tensor, drawn: Tensor) -> Clues:
        """Gather clues from a result as it is shown, its replicates' mean squared errors, and what was not determined.

        All are ``(slices, rows, cols)``.
        """
        down, right = torch.gradient(shown, dim=(1, 2))
        flat = shown.flatten(1)
        level = flat.kthvalue(math.ceil(BRIGHT * flat.shape[1]), dim=1).values - flat.amin(1)
        edges = pooled(down.square() + right.square())
        return cls(pooled(power), edges, pooled(drawn.square()), level[:, None, None].expand_as(shown))


class Errors(NamedTuple):
    """Errors of a result, ``(slices, rows, cols)`` in its unit.

    Parameters
    ----------
    expected
        Their standard deviation.
    half_widths
        Half the width of the interval about the result that holds the truth in 90 % of an object's voxels.
    """

    expected: Tensor
    half_widths: Tensor


def errors(clues: Clues, like: str, modality: str, pattern: SamplingPattern, undersampling: float) -> Errors:
    """Explain the errors of a result by its clues, as was fitted to methods like its own and scans with alike sampling.

    Between two scans that shares were fitted to, errors are their weighted geometric mean.
    """
    rows = installed().around(modality, like, pattern, undersampling)
    expected, half = torch.zeros(()), torch.zeros(())
    for row, weight in rows:
        expected = expected + weight * explained(clues, row.expected).clamp(min=TINY).log()
        half = half + weight * explained(clues, row.interval).clamp(min=TINY).log()
    return Errors(expected.exp(), half.exp())


def explained(clues: Clues, shares: Shares) -> Tensor:
    """Errors that clues explain with given shares."""
    squares = [(share * clue).square() for share, clue in zip(shares.values(), clues, strict=True)]
    return torch.stack(squares).sum(0).sqrt()


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


def pooled(power: Tensor) -> Tensor:
    """Root of squared errors ``(slices, rows, cols)``, averaged over a window of `POOLED` pixels each way."""
    mean = functional.avg_pool2d(power[:, None], POOLED, 1, POOLED // 2, count_include_pad=False)[:, 0]
    return mean.sqrt()
