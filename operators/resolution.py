"""Downsampling operators of super-resolution: truncated k-space, and averages over slabs (thick slices)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import GeometryError
from operators.fourier import fourier, inverse_fourier
from operators.linear import LinearOperator, Space


class Downsampling(LinearOperator):
    """Downsampling operator; intensities are kept, a constant image stays the same constant."""

    @abstractmethod
    def upsample(self, y: Tensor) -> Tensor:
        """Interpolate a low-resolution image ``(slices, *range.shape)`` to the full grid; not the adjoint."""

    def initial_image(self, data: Tensor) -> Tensor:
        """Initial image: the interpolated one."""
        return self.upsample(data)


class Truncation(Downsampling):
    """Downsample by keeping the central ``1 / factor`` of k-space in both directions, as a faster scan does.

    Pixel `j` of the low-resolution image lies on pixel ``factor * (j - n_low // 2) + n // 2`` of the full one.

    Parameters
    ----------
    rows, cols
        Size of the full image, multiples of `factor`.
    factor
        How many times fewer points each direction gets.
    """

    def __init__(self, rows: int, cols: int, factor: int) -> None:
        low = _low_shape(rows, cols, factor, factor)
        super().__init__(Space((rows, cols), complex=True), Space(low, complex=True))
        self.factor = self.refinement = factor
        self._window = (
            slice(rows // 2 - low[0] // 2, rows // 2 - low[0] // 2 + low[0]),
            slice(cols // 2 - low[1] // 2, cols // 2 - low[1] // 2 + low[1]),
        )

    def _forward(self, x: Tensor) -> Tensor:
        return inverse_fourier(fourier(x)[..., *self._window]) / self.factor

    def _adjoint(self, y: Tensor) -> Tensor:
        full = torch.zeros((len(y), *self.domain.shape), dtype=y.dtype, device=y.device)
        full[..., *self._window] = fourier(y)
        return inverse_fourier(full) / self.factor

    @property
    def scan(self) -> str:
        """Direction that is refined: ``plane``."""
        return "plane"

    def upsample(self, y: Tensor) -> Tensor:
        """Interpolate by zero filling: the same k-space in a larger grid."""
        self.range.check(y, "y")
        return self._adjoint(y) * self.factor**2


class SlabAverage(Downsampling):
    """Downsample by averaging slabs of `factor` neighbouring rows or columns: thick slices seen from the side.

    Parameters
    ----------
    rows, cols
        Size of the full image.
    factor
        Rows or columns in a slab.
    axis
        -2 to average over rows, -1 over columns.
    complex
        Whether images are complex.
    """

    def __init__(self, rows: int, cols: int, factor: int, axis: Literal[-2, -1] = -2, *, complex: bool = False) -> None:
        if axis not in (-2, -1):
            raise GeometryError(f"{axis} is neither -2 (rows) nor -1 (columns)", field="axis")
        low = _low_shape(rows, cols, factor if axis == -2 else 1, factor if axis == -1 else 1)
        super().__init__(Space((rows, cols), complex), Space(low, complex))
        self.factor = self.refinement = factor
        self.axis = axis

    def _forward(self, x: Tensor) -> Tensor:
        slabs: Tensor = x.unflatten(self.axis, (-1, self.factor))
        return slabs.mean(self.axis)

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, dim=self.axis) / self.factor

    @property
    def scan(self) -> str:
        """Direction that is refined: ``slices``."""
        return "slices"

    def upsample(self, y: Tensor) -> Tensor:
        """Interpolate linearly between the slabs' centres, constant beyond the outermost."""
        self.range.check(y, "y")
        if y.is_complex():
            return torch.complex(self._interpolate(y.real), self._interpolate(y.imag))
        return self._interpolate(y)

    def _interpolate(self, y: Tensor) -> Tensor:
        full = functional.interpolate(y[:, None], size=self.domain.shape, mode="bilinear", align_corners=False)
        return full.squeeze(1)


def _low_shape(rows: int, cols: int, row_factor: int, col_factor: int) -> tuple[int, int]:
    for size, factor, field in ((rows, row_factor, "rows"), (cols, col_factor, "cols")):
        if factor < 1 or size % factor:
            raise GeometryError(
                f"{size} is no multiple of the factor {factor}", field=field, remedy="pad or crop the image"
            )
    return rows // row_factor, cols // col_factor
