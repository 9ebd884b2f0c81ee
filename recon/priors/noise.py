"""Noise in ``x = x0 + sigma n``, ``n ~ N(0, I)`` per real channel: drawn, and as a prior predicts it."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import torch
from torch import Tensor


def noise_prediction(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """Noise that the denoiser predicts in `x`: ``(x - D(x)) / sigma``, unit variance (Tweedie's formula)."""
    return (x - denoised) / sigma


TILE = 256
"""Rows and columns of the shared noise field, which larger images repeat."""


class SliceNoise:
    """Standard normal noise keyed by (seed, slice), so that a slice's noise does not depend on its batch or chunk.

    With `shared` it is keyed by the seed alone, and every slice gets the same: part of a field of `TILE` rows and
    columns, which larger images repeat, so that a seed means the same noise at every size. So does each of several
    `images` that lie one below the other in a slice.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("states",)

    def __init__(self, seed: int, slices: int, first_slice: int = 0, *, shared: bool = False, images: int = 1) -> None:
        self._shared, self._images = shared, images
        indices = [-1] if shared else range(first_slice, first_slice + slices)
        self._generators = [torch.Generator().manual_seed(key(seed, index)) for index in indices]

    @property
    def states(self) -> list[Tensor]:
        """States of the generators, from which they go on."""
        return [generator.get_state() for generator in self._generators]

    @states.setter
    def states(self, states: list[Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    def draw(self, like: Tensor) -> Tensor:
        """Draw noise of the shape ``(slices, rows, cols)`` and dtype of `like`, with unit variance per real channel.

        There may be one more axis before the slices.
        """
        rows, cols = like.shape[-2:]
        side = (TILE, TILE) if self._shared else (rows, cols)
        drawn = torch.stack([self._one(side, generator, like) for generator in self._generators])
        if self._shared:
            each = rows // self._images
            drawn = drawn.repeat(1, -(-each // TILE), -(-cols // TILE))[:, :each, :cols].repeat(1, self._images, 1)
        return drawn.expand_as(like) if self._shared else drawn.reshape(like.shape)

    @staticmethod
    def _one(shape: tuple[int, int], generator: torch.Generator, like: Tensor) -> Tensor:
        real = torch.randn(shape, generator=generator)
        return torch.complex(real, torch.randn(shape, generator=generator)) if like.is_complex() else real


def key(seed: int, index: int) -> int:
    """Mix seed and slice into a 63-bit seed: neighbouring ones must not give related streams."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
