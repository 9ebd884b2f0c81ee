"""Total variation between slices by ADMM, one sweep at a time; it couples a 2D prior's slices into a volume."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.differences import gradient_z, gradient_z_adjoint


class AlongZ:
    """ADMM variables of ``threshold rho |W D_z u|_1``, kept from one sweep to the next.

    The volume `u` changes little from one step of a diffusion solver to the next, so that one sweep per step,
    started from the last one's variables, stands for solving the problem anew (DiffusionMBIR's variable sharing).

    Parameters
    ----------
    volume
        Any volume ``(slices, rows, cols)`` of the problem.
    weight
        `W`, the pixel size over the distance of the slices: a thick stack is coupled less.

    References
    ----------
    Chung et al. 2023, DiffusionMBIR (arXiv 2211.10655), equations 12 to 15, with Neumann ends: the first and the
    last slice are no neighbours.
    """

    def __init__(self, volume: Tensor, weight: float) -> None:
        self.weight = weight
        self.split = torch.zeros_like(volume)
        self._dual_share = torch.zeros_like(volume)
        self._threshold = 0.0

    def pull(self, volume: Tensor, rho: float) -> Tensor:
        """Negative gradient of ``rho/2 |W D_z u - split + dual|^2`` at `volume`."""
        wanted = self.split - self._threshold * self._dual_share
        return rho * self.weight * gradient_z_adjoint(wanted - self.weight * gradient_z(volume))

    def stiffness(self, change: Tensor, rho: float) -> Tensor:
        """Hessian of the same, ``rho W^2 D_z^T D_z``, applied to `change`."""
        return rho * self.weight**2 * gradient_z_adjoint(gradient_z(change))

    def update(self, volume: Tensor, threshold: float) -> None:
        """Shrink the differences of a new volume and move the dual variable; `threshold` in intensity.

        The dual variable never exceeds the threshold and is kept as a share of it: when a solver lowers the
        threshold, the variable stays feasible.
        """
        slope = self.weight * gradient_z(volume) + threshold * self._dual_share
        dual = slope * (threshold / slope.abs().clamp(min=max(threshold, 1e-38)))
        self.split = slope - dual
        self._dual_share, self._threshold = dual / max(threshold, 1e-38), threshold
