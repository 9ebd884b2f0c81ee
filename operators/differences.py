"""Finite differences of a volume, for total variation; the only operators here that couple slices."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.linear import slice_dot


def gradient(x: Tensor) -> Tensor:
    """Forward differences along slices, rows and columns, zero at the last element (Neumann ends).

    Parameters
    ----------
    x
        Volume ``(..., slices, rows, cols)``, real or complex.

    Returns
    -------
    Tensor
        ``(3, ..., slices, rows, cols)``.
    """
    out = torch.zeros((3, *x.shape), dtype=x.dtype, device=x.device)
    out[0, ..., :-1, :, :] = x[..., 1:, :, :] - x[..., :-1, :, :]
    out[1, ..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    out[2, ..., :-1] = x[..., 1:] - x[..., :-1]
    return out


def gradient_adjoint(p: Tensor) -> Tensor:
    """Adjoint of `gradient` (minus the divergence), from ``(3, ..., slices, rows, cols)``."""
    x = torch.zeros(p.shape[1:], dtype=p.dtype, device=p.device)
    x[..., 1:, :, :] += p[0, ..., :-1, :, :]
    x[..., :-1, :, :] -= p[0, ..., :-1, :, :]
    x[..., 1:, :] += p[1, ..., :-1, :]
    x[..., :-1, :] -= p[1, ..., :-1, :]
    x[..., 1:] += p[2, ..., :-1]
    x[..., :-1] -= p[2, ..., :-1]
    return x


def gradient_z(x: Tensor) -> Tensor:
    """Forward differences along slices, zero at the last one: ``(..., slices, rows, cols)`` to the same shape."""
    out = torch.zeros_like(x)
    out[..., :-1, :, :] = x[..., 1:, :, :] - x[..., :-1, :, :]
    return out


def gradient_z_adjoint(p: Tensor) -> Tensor:
    """Adjoint of `gradient_z`, same shape."""
    x = torch.zeros_like(p)
    x[..., 1:, :, :] += p[..., :-1, :, :]
    x[..., :-1, :, :] -= p[..., :-1, :, :]
    return x


class BetweenSlices:
    """Coupling ``S D_z^T R D_z S`` of neighbouring slices: the Hessian of ``sum R |D_z S x|^2 / 2``.

    Parameters
    ----------
    weights
        `R`, one number, or one per slice ``(slices, 1, 1)`` for the difference to the next.
    scale
        `S`, one number, or one per slice ``(slices, 1, 1)`` or pixel.
    """

    def __init__(self, weights: float | Tensor, scale: float | Tensor = 1.0) -> None:
        self.weights, self.scale = weights, scale

    def within(self, support: Tensor | None) -> BetweenSlices:
        """Restrict to volumes that are zero outside a support ``(slices, rows, cols)``; all volumes when None."""
        return self if support is None else BetweenSlices(self.weights, self.scale * support)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to volumes ``(..., slices, rows, cols)``."""
        found: Tensor = self.scale * gradient_z_adjoint(self.weights * gradient_z(self.scale * x))
        return found

    def bands(self, slices: int) -> tuple[Tensor, Tensor]:
        """Diagonal and off-diagonal of the tridiagonal matrix along `slices` slices, if the scale is not one per pixel.

        Shapes ``(..., slices, 1, 1)`` and ``(..., slices - 1, 1, 1)``.
        """
        weights, scale = (
            each.expand(*each.shape[:-3], slices, 1, 1) for each in map(torch.as_tensor, (self.weights, self.scale))
        )
        inner = weights[..., :-1, :, :]
        end = torch.zeros_like(weights[..., :1, :, :])
        diagonal = scale.square() * (torch.cat([inner, end], -3) + torch.cat([end, inner], -3))
        return diagonal, -inner * scale[..., :-1, :, :] * scale[..., 1:, :, :]

    def curvature(self, x: Tensor) -> Tensor:
        """See `operators.linear.Coupling.curvature`; only neighbours have any, of whole volumes each by itself."""
        if x.ndim > 3:
            return torch.diag(slice_dot(x, self(x)))
        scaled = self.scale * x
        weights = torch.as_tensor(self.weights).flatten().expand(len(x))[:-1]
        power = slice_dot(scaled, scaled)
        both = torch.stack([weights * power[:-1], weights * power[1:]])
        found = torch.diag(torch.nn.functional.pad(both[0], (0, 1)) + torch.nn.functional.pad(both[1], (1, 0)))
        if len(x) > 1:
            between = torch.diag(weights * slice_dot(scaled[:-1], scaled[1:]), 1)
            found = found - between - between.T
        return found
