"""Measurements that do not all count the same."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from operators.linear import LinearOperator


class Weighted(LinearOperator):
    """``diag(w) A``: with `w` the reciprocal of each sample's noise, the noise of ``diag(w) y`` is white.

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
        return Weighted(self.operator.part(first, last), self.weights[first:last])

    @cached_property
    def _mean_square(self) -> float:
        if isinstance(self.whole, Weighted):
            return self.whole._mean_square
        return float(self.weights.square().mean())

    def spectrum(self) -> Tensor | None:
        """The operator's, as if every sample had the mean weight."""
        inner = self.operator.spectrum()
        return None if inner is None else inner * self._mean_square

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x) * self.weights.to(x.real.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y * self.weights.to(y.real.dtype))
