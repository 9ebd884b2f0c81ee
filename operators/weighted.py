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

    def _part(self, first: int, last: int) -> Weighted:
        found = Weighted(self.operator.part(first, last), self.weights[first:last])
        if self.operator.spectrum() is not None:
            found._pixels, found._typical = self._pixels[first:last], self._typical
        return found

    def spectrum(self) -> Tensor | None:
        """Spectrum of the unweighted operator, with the weight of a typical pixel."""
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
    def _typical(self) -> float:
        return float(self._pixels.median())

    @cached_property
    def _pixels(self) -> Tensor:
        """Root mean square weight per pixel, ``(slices, *domain.shape)``; the mean where nothing is seen."""
        squared = self.weights.square()
        seen = self.operator.adjoint(torch.ones_like(squared))
        average = self.operator.adjoint(squared) / seen.clamp(min=1e-6 * float(seen.max()))
        return torch.where(average > 0, average, squared.mean()).sqrt()

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x) * self.weights.to(x.real.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y * self.weights.to(y.real.dtype))
