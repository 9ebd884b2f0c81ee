"""Measurements that do not all count the same."""

from __future__ import annotations

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

    def spectrum(self) -> Tensor | None:
        """The operator's, as if every sample had the mean weight."""
        inner = self.operator.spectrum()
        return None if inner is None else inner * float(self.weights.square().mean())

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x) * self.weights.to(x.real.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y * self.weights.to(y.real.dtype))
