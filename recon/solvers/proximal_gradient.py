"""Accelerated proximal gradients, which methods with a regulariser of simple proximal map share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from operators.interrupt import checkpoint
from operators.linear import each_slice, slice_dot


def accelerated(start: Tensor, step: Callable[[Tensor], Tensor], iterations: int) -> Iterator[Tensor]:
    """Iterate accelerated proximal gradients, restarted in each slice where the last step led uphill.

    Parameters
    ----------
    start
        Initial guess ``(slices, ...)``.
    step
        A step down the gradient of the data term, and the proximal map of the regulariser after it.
    iterations
        Number of iterates.

    References
    ----------
    Beck and Teboulle 2009, SIAM J. Imaging Sci. 2, 183-202 (FISTA). O'Donoghue and Candes 2015, Found. Comput. Math.
    15, 715-732 (restart).
    """
    x = ahead = start
    momentum = torch.ones(len(start))
    for _ in range(iterations):
        checkpoint()
        following = step(ahead)
        change = following - x
        uphill = slice_dot(ahead - following, change) > 0
        faster = torch.where(uphill, 1.0, (1 + (1 + 4 * momentum.square()).sqrt()) / 2)
        ahead = following + each_slice(torch.where(uphill, 0.0, (momentum - 1) / faster), x) * change
        x, momentum = following, faster
        yield x
