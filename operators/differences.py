"""Finite differences of a volume, for total variation; the only operators here that couple slices."""

from __future__ import annotations

import torch
from torch import Tensor


def gradient(x: Tensor) -> Tensor:
    """Forward differences along slices, rows and columns, zero at the last element (Neumann ends).

    Parameters
    ----------
    x
        Volume ``(slices, rows, cols)``, real or complex.

    Returns
    -------
    Tensor
        ``(3, slices, rows, cols)``.
    """
    out = torch.zeros((3, *x.shape), dtype=x.dtype, device=x.device)
    out[0, :-1] = x[1:] - x[:-1]
    out[1, :, :-1] = x[:, 1:] - x[:, :-1]
    out[2, :, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    return out


def gradient_adjoint(p: Tensor) -> Tensor:
    """Adjoint of `gradient` (minus the divergence): ``(3, slices, rows, cols)`` to ``(slices, rows, cols)``."""
    x = torch.zeros(p.shape[1:], dtype=p.dtype, device=p.device)
    x[1:] += p[0, :-1]
    x[:-1] -= p[0, :-1]
    x[:, 1:] += p[1, :, :-1]
    x[:, :-1] -= p[1, :, :-1]
    x[:, :, 1:] += p[2, :, :, :-1]
    x[:, :, :-1] -= p[2, :, :, :-1]
    return x


def gradient_z(x: Tensor) -> Tensor:
    """Forward differences along slices, zero at the last one: ``(slices, rows, cols)`` to the same shape."""
    out = torch.zeros_like(x)
    out[:-1] = x[1:] - x[:-1]
    return out


def gradient_z_adjoint(p: Tensor) -> Tensor:
    """Adjoint of `gradient_z`, same shape."""
    x = torch.zeros_like(p)
    x[1:] += p[:-1]
    x[:-1] -= p[:-1]
    return x
