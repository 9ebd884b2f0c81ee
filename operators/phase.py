"""Images of known phase: operators on real images, for k-space that was measured to one side of its centre only."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.errors import GeometryError
from operators.fourier import CartesianMRI
from operators.linear import LinearOperator


class PhaseConstrained(LinearOperator):
    """``A diag(e^(i p)) Re``: takes real images to what is measured of them with a known phase `p`.

    Real images are complex arrays without imaginary part: what they have of it is left out. The operator is linear
    over the real numbers, and its adjoint is that of the inner product ``Re <x, y>``.

    Parameters
    ----------
    operator
        ``A``.
    phase
        ``e^(i p)``, ``(slices, *operator.domain.shape)`` complex.

    References
    ----------
    Willig-Onwuachi et al. 2005, J. Magn. Reson. 176, 187-198 (phase-constrained parallel imaging).
    """

    def __init__(self, operator: LinearOperator, phase: Tensor) -> None:
        super().__init__(operator.domain, operator.range)
        if tuple(phase.shape[1:]) != operator.domain.shape or (operator.slices or len(phase)) != len(phase):
            raise GeometryError(
                f"shape {tuple(phase.shape)}, images are {operator.domain.shape}, slices {operator.slices}",
                field="phase",
            )
        self.operator, self.phase, self.slices = operator, phase, len(phase)
        self.images = operator.images

    def _part(self, first: int, last: int) -> PhaseConstrained:
        return PhaseConstrained(self.operator.part(first, last), self.phase[first:last])

    def homodyne(self, data: Tensor) -> Tensor:
        """Real images of weighted k-space: points whose mirror image was not measured count for both.

        References
        ----------
        Noll, Nishimura and Macovski 1991, IEEE Trans. Med. Imaging 10, 154-163.
        """
        assert isinstance(self.operator, CartesianMRI)
        weights = 1.0 + ~symmetric(self.operator.mask.any(0))
        return _real(self.operator.combined(data * weights) * self.phase.conj().to(data.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x.real * self.phase.to(x.dtype))

    def _adjoint(self, y: Tensor) -> Tensor:
        return _real(self.operator._adjoint(y) * self.phase.conj().to(y.dtype))

    def _normal(self, x: Tensor) -> Tensor:
        phase = self.phase.to(x.dtype)
        return _real(self.operator._normal(x.real * phase) * phase.conj())


def _real(x: Tensor) -> Tensor:
    return torch.complex(x.real, torch.zeros_like(x.real))


def reach(mask: Tensor, axis: int) -> tuple[int, int]:
    """Number of points that were measured before and after k = 0, at index ``n // 2``, along an axis of a mask."""
    measured = mask.any(1 - axis).nonzero().flatten()
    if len(measured) == 0:
        return 0, 0
    middle = mask.shape[axis] // 2
    return max(middle - int(measured[0]), 0), max(int(measured[-1]) - middle, 0)


def symmetric(mask: Tensor) -> Tensor:
    """Points ``(rows, cols)`` of k-space within what was measured to both sides of its centre."""
    inside = []
    for axis, n in enumerate(mask.shape):
        distance = (torch.arange(n) - n // 2).abs()
        inside.append(distance <= min(reach(mask, axis)))
    return inside[0][:, None] & inside[1]
