"""Weighted operator, which whitens measurements whose samples have different noise."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from operators.linear import LinearOperator


class Weighted(LinearOperator):
    """Weighted operator ``diag(w) A``: with `w` the inverse standard deviation of each sample, noise becomes white.

    Parameters
    ----------
    operator
        ``A``.
    weights
        ``(slices, *operator.range.shape)``, real and positive.
    """

    def __init__(self, operator: LinearOperator, weights: Tensor) -> None:
        super().__init__(operator.domain, operator.range)
        self.operator, self.weights, self.slices = operator, weights, len(weights)
        self.whole_volume = operator.whole_volume

    def _part(self, first: int, last: int) -> Weighted:
        return Weighted(self.operator.part(first, last), self.weights[first:last])

    def spectrum(self) -> Tensor | None:
        """Spectrum of the unweighted operator, with the weight of a typical pixel of each slice."""
        inner = self.operator.spectrum()
        return None if inner is None else inner * self._typical**2

    def balance(self) -> Tensor | None:
        """Root mean square weight of the samples that see each pixel, over that of a typical one.

        References
        ----------
        Fessler and Booth 1999, IEEE Trans. Image Process. 8, 688-699, equation 22.
        """
        return None if self.operator.spectrum() is None else self._pixels / self._typical

    @cached_property
    def _typical(self) -> Tensor:
        return self._pixels.flatten(1).median(dim=1).values.reshape(-1, *(1,) * len(self.domain.shape))

    @cached_property
    def _pixels(self) -> Tensor:
        """Root mean square weight per pixel, ``(slices, *domain.shape)``; the slice's mean where nothing is seen."""
        squared = self.weights.square()
        seen = self.operator.adjoint(torch.ones_like(squared if self.operator.slices else squared[:1]))
        least = 1e-6 * seen.flatten(1).amax(dim=1)
        average = self.operator.adjoint(squared) / seen.maximum(least.reshape(-1, *(1,) * (seen.ndim - 1)))
        usual = squared.flatten(1).mean(dim=1).reshape(-1, *(1,) * (average.ndim - 1))
        return torch.where(average > 0, average, usual).sqrt()

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x) * self.weights.to(x.real.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y * self.weights.to(y.real.dtype))
