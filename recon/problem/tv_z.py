"""Total variation between slices by ADMM, one sweep at a time; it couples a 2D prior's slices into a volume."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from operators.differences import BetweenSlices, gradient_z, gradient_z_adjoint
from operators.linear import each_slice
from recon.problem.problem import IntensityMap, convenient_unit


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
    intensity
        Map of the volume's values to physical ones, if slices have scales of their own: their physical values are
        compared then, in units of the mean scale of the two.

    References
    ----------
    Chung et al. 2023, DiffusionMBIR (arXiv 2211.10655), equations 12 to 15, with Neumann ends: the first and the
    last slice are no neighbours.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("split", "_dual_share", "_threshold")

    def __init__(self, volume: Tensor, weight: float, intensity: IntensityMap | None = None) -> None:
        self.weight = weight
        self._scale: float | Tensor = 1.0
        self._offset: float | Tensor = 0.0
        self._weights: float | Tensor = weight
        if intensity is not None and isinstance(intensity.scale, Tensor):
            unit = convenient_unit(intensity.scale)
            self._scale = each_slice(intensity.scale / unit, volume)
            self._offset = each_slice(intensity.offset / unit, volume)
            self._weights = 2 * weight / (self._scale + self._scale.roll(-1, 0))
        self.split = torch.zeros_like(volume)
        self._dual_share = torch.zeros_like(volume)
        self._threshold: float | Tensor = 0.0

    def slope(self, volume: Tensor) -> Tensor:
        """``W D_z u``."""
        common = volume * self._scale + self._offset if isinstance(self._scale, Tensor) else volume
        return self._weights * gradient_z(common)

    def pull(self, volume: Tensor, rho: float | Tensor) -> Tensor:
        """Negative gradient of ``rho/2 |W D_z u - split + dual|^2`` at `volume`, `rho` one number or one per slice."""
        wanted = self.split - self._threshold * self._dual_share
        return self._scale * gradient_z_adjoint(rho * self._weights * (wanted - self.slope(volume)))

    def stiffness(self, rho: float | Tensor) -> BetweenSlices:
        """Hessian of the same, ``rho W^2 D_z^T D_z``."""
        return BetweenSlices(rho * self._weights**2, self._scale)

    def update(self, volume: Tensor, threshold: float | Tensor) -> None:
        """Shrink the differences of a new volume and move the dual variable; `threshold` in intensity.

        The dual variable never exceeds the threshold and is kept as a share of it: when a solver lowers the
        threshold, the variable stays feasible.
        """
        threshold = torch.as_tensor(threshold).clamp(min=1e-30)
        slope = self.slope(volume) + threshold * self._dual_share
        dual = slope * (threshold / slope.abs().maximum(threshold))
        self.split = slope - dual
        self._dual_share, self._threshold = dual / threshold, threshold
