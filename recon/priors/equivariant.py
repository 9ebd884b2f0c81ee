"""Equivariant denoising: rotate or flip images before the prior and back after it, ``g^-1 D(g x)``."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from recon.priors.across import Across, Slicewise
from recon.priors.prior import Given, Prior, denoise_some

WAYS = 8
"""Number of orientations: quarter turns, flipped or not."""
STRIDE = 3
"""Increment of the orientation per step: coprime to `WAYS`, so that all occur."""


def at_step(prior: Prior, step: int, shape: tuple[int, int]) -> Prior:
    """Return the prior with the orientation of a step.

    A denoiser's errors depend on the orientation of the image. With a different one at every step they largely cancel
    instead of adding up.

    Parameters
    ----------
    prior
        Prior of images in one orientation.
    step
        From 0 on.
    shape
        Rows and columns; images that are not square are mirrored only, so that the network keeps one size.

    References
    ----------
    Terris et al. 2024, Equivariant plug-and-play image reconstruction (arXiv 2312.01831).
    """
    if isinstance(prior, Across):
        return prior.changed(lambda inner, seen: at_step(inner, step, seen))
    if isinstance(prior, Slicewise):
        return prior.changed(lambda inner: at_step(inner, step, shape))
    way = step * STRIDE % WAYS
    if shape[0] != shape[1]:
        way -= way % 2
    if way == 0:
        return prior
    return _Turned(prior.changed(partial(turn, way=way)) if isinstance(prior, Given) else prior, way)


def turn(x: Tensor, way: int) -> Tensor:
    """Rotate slices ``(slices, rows, cols)`` by ``way % 4`` quarter turns, and flip them from 4 on."""
    found = torch.rot90(x, way % 4, dims=(1, 2))
    return (found.flip(2) if way >= WAYS // 2 else found).contiguous()


def turn_back(x: Tensor, way: int) -> Tensor:
    """Inverse of `turn`."""
    found = x.flip(2) if way >= WAYS // 2 else x
    return torch.rot90(found, -(way % 4), dims=(1, 2)).contiguous()


class _Turned:
    joint = True
    """Whether it depends on other slices; the prior inside decides."""

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
