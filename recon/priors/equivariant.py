"""A prior that looks at its images turned or mirrored: ``g^-1 D(g x)``."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from recon.priors.prior import Given, Prior, denoise_some

WAYS = 8
"""Quarter turns, mirrored or not."""
STRIDE = 3
"""From one step's way to the next: coprime to `WAYS`, and far apart."""


def at_step(prior: Prior, step: int, shape: tuple[int, int]) -> Prior:
    """The prior as a solver uses it at a step: each time another way round.

    A denoiser errs a little differently on an image that is turned. Solvers that ask it at every step then see errors
    that change, and largely cancel, in place of the same ones again and again.

    Parameters
    ----------
    prior
        Of images in one orientation, as any.
    step
        From 0 on.
    shape
        Rows and columns; images that are not square are mirrored only, so that the network keeps one size.

    References
    ----------
    Terris et al. 2024, Equivariant plug-and-play image reconstruction (arXiv 2312.01831).
    """
    way = step * STRIDE % WAYS
    if shape[0] != shape[1]:
        way -= way % 2
    if way == 0:
        return prior
    return _Turned(prior.changed(partial(turn, way=way)) if isinstance(prior, Given) else prior, way)


def turn(x: Tensor, way: int) -> Tensor:
    """Slices ``(slices, rows, cols)`` turned by ``way % 4`` quarters, and mirrored from 4 on."""
    found = torch.rot90(x, way % 4, dims=(1, 2))
    return (found.flip(2) if way >= WAYS // 2 else found).contiguous()


def turn_back(x: Tensor, way: int) -> Tensor:
    """Inverse of `turn`."""
    found = x.flip(2) if way >= WAYS // 2 else x
    return torch.rot90(found, -(way % 4), dims=(1, 2)).contiguous()


class _Turned:
    joint = True
    """It may be: whether the prior inside is, decides there."""

    def __init__(self, prior: Prior, way: int) -> None:
        self._prior, self._way = prior, way

    @property
    def complex(self) -> bool:
        """Whether images are complex64 or float32."""
        return self._prior.complex

    def denoise(self, x: Tensor, sigma: float, *, index: Tensor | None = None) -> Tensor:
        """``E[x0 | x = x0 + sigma n]`` for the slices of `index`, all by default."""
        seen = turn(x, self._way)
        if index is None:
            return turn_back(self._prior.denoise(seen, sigma), self._way)
        return turn_back(denoise_some(self._prior, seen, sigma, index), self._way)
