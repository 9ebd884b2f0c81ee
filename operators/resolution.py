"""Downsampling operators of super-resolution: truncated k-space, and thick slices seen from the side."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from operators.errors import GeometryError, InputError
from operators.fourier import fourier, inverse_fourier
from operators.geometry import SamplingPattern
from operators.linear import LinearOperator, Space
from operators.stacks import KSpaceFilter, SliceProfile, coarse_size, fine_size

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""
SLR_TRANSITION = 1 / 3
"""Width of an SLR pulse's transition relative to the slice: that of a time-bandwidth product of 6, ripples of 1 %."""
TUKEY_FLAT = 0.5
"""Fraction of the measured frequencies that a Tukey filter leaves as they are."""


class Downsampling(LinearOperator):
    """Downsampling operator; intensities are kept, a constant image stays the same constant."""

    @abstractmethod
    def upsample(self, y: Tensor) -> Tensor:
        """Interpolate a low-resolution image ``(slices, *range.shape)`` to the full grid; not the adjoint."""

    @property
    def noise_passed(self) -> float:
        """Standard deviation of the noise in the stack over that of what was measured."""
        return 1.0

    @property
    def sampling_pattern(self) -> SamplingPattern:
        """Pattern by what is refined: ``plane``, or ``slices`` where one direction has its full resolution."""
        return "plane" if self.factors is None or self.factors[0] == self.factors[1] else "slices"

    def initial_image(self, data: Tensor) -> Tensor:
        """Initial image: the interpolated one."""
        return self.upsample(data)


class Truncation(Downsampling):
    """Downsample by keeping the central ``1 / factor`` of k-space in both directions, as a faster scan does.

    The field of view stays: of an image whose `n` pixels `factor` does not divide, the edge is repeated up to
    ``N = fine_size(m, factor)`` pixels, and the low-resolution image has ``m = coarse_size(n, factor)``. Its pixel `j`
    lies on pixel ``N / m * (j - m // 2) + N // 2`` of the full one.

    Parameters
    ----------
    rows, cols
        Size of the full image.
    factor
        How many times fewer points each direction gets, any number from 1.
    filter
        Window with which the scanner apodises the measured frequencies.
    zero_fill
        How many times more points the low-resolution image has than were measured: scanners fill k-space with zeros.

    Raises
    ------
    GeometryError
        If `factor` or `zero_fill` is below 1.
    InputError
        If there is no such filter.
    """

    def __init__(
        self, rows: int, cols: int, factor: float, *, filter: KSpaceFilter = "none", zero_fill: float = 1.0
    ) -> None:
        require_factor(factor)
        require_factor(zero_fill, "zero_fill")
        low = coarse_size(rows, factor), coarse_size(cols, factor)
        super().__init__(Space((rows, cols), complex=True), Space(low, complex=True))
        self.factors = (float(factor), float(factor))
        self._full = fine_size(low[0], factor), fine_size(low[1], factor)
        self._scale = math.sqrt(math.prod(self._full) / math.prod(low))
        row, col = (full // 2 - n // 2 for full, n in zip(self._full, low, strict=True))
        self._window = slice(row, row + low[0]), slice(col, col + low[1])
        rows_kept, cols_kept = (_apodisation(n, filter, zero_fill) for n in low)
        self._weights = None if filter == "none" and zero_fill == 1 else rows_kept[:, None] * cols_kept

    def _forward(self, x: Tensor) -> Tensor:
        kept = fourier(_extended(x, self._full))[..., *self._window]
        return inverse_fourier(self._apodised(kept)) / self._scale

    def _adjoint(self, y: Tensor) -> Tensor:
        return _folded(self._filled(self._apodised(fourier(y))), self.domain.shape)

    def _filled(self, kept: Tensor) -> Tensor:
        """Fill k-space around the kept part with zeros: an image ``(slices, N, N)``, `scale` times too faint."""
        full = torch.zeros((len(kept), *self._full), dtype=kept.dtype, device=kept.device)
        full[..., *self._window] = kept
        return inverse_fourier(full) / self._scale

    def _apodised(self, kept: Tensor) -> Tensor:
        return kept if self._weights is None else kept * self._weights.to(kept.device, kept.real.dtype)

    @property
    def noise_passed(self) -> float:
        """Standard deviation of the noise in the stack over that before filter and zero filling."""
        return 1.0 if self._weights is None else float(self._weights.square().mean().sqrt())

    def noise(self, slices: int, generator: torch.Generator) -> Tensor:
        """Noise of the stack, as its filter leaves it, with unit standard deviation per real channel."""
        white = super().noise(slices, generator)
        if self._weights is None:
            return white
        return inverse_fourier(self._apodised(fourier(white))) / self.noise_passed

    @property
    def scan(self) -> str:
        """Direction that is refined: ``plane``."""
        return "plane"

    def upsample(self, y: Tensor) -> Tensor:
        """Interpolate by zero filling: the same k-space in a larger grid."""
        self.range.check(y, "y")
        rows, cols = self.domain.shape
        return (self._filled(fourier(y)) * self._scale**2)[:, :rows, :cols].contiguous()


class ThickSlices(Downsampling):
    """Downsample by taking thick slices of a volume that is seen from the side, along its rows or columns.

    Thick slice `j` is centred ``(j + 1/2) factor`` rows from the upper edge and weights the rows as its profile says.
    Beyond the image its edge is repeated, so that any size will do.

    Parameters
    ----------
    rows, cols
        Size of the full image.
    factor
        Distance of the thick slices in rows or columns, any number from 1.
    axis
        -2 for thick slices along the rows, -1 along the columns.
    profile
        Sensitivity of a slice across its thickness: ``box``, ``gaussian`` with the thickness as full width at half
        maximum, or ``slr``: flat, with edges that fall over a third of the thickness as a raised cosine.
    gap
        Gap between slices relative to their thickness, ``distance / thickness - 1``; negative where they overlap.
    complex
        Whether images are complex.

    Raises
    ------
    GeometryError
        If `factor` is below 1, `axis` is none, or `gap` leaves no distance between the slices.
    InputError
        If there is no such profile.

    References
    ----------
    Pauly et al. 1991, Parameter relations for the Shinnar-Le Roux selective excitation pulse design algorithm, for the
    transition width of `slr`, without its ripples.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        factor: float,
        axis: Literal[-2, -1] = -2,
        *,
        profile: SliceProfile = "box",
        gap: float = 0.0,
        complex: bool = False,
    ) -> None:
        _require_axis(axis)
        require_factor(factor)
        if not gap > -1:
            raise GeometryError(
                f"{gap:g} of the thickness leaves no distance between slices",
                field="gap",
                remedy="give distance / thickness - 1, as 0.2, or -0.5 for slices that overlap by half",
            )
        fine = rows if axis == -2 else cols
        coarse = coarse_size(fine, factor)
        low = (coarse, cols) if axis == -2 else (rows, coarse)
        super().__init__(Space((rows, cols), complex), Space(low, complex))
        self.factors = (float(factor), 1.0) if axis == -2 else (1.0, float(factor))
        self.axis = axis
        self._weights = _slice_weights(coarse, fine, factor, factor / (1 + gap), profile)
        self._between = _linear_weights(coarse, fine, factor)

    def _forward(self, x: Tensor) -> Tensor:
        return _along(self._weights, x, self.axis)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _along(self._weights.T, y, self.axis)

    @property
    def scan(self) -> str:
        """Direction that is refined: ``slices``."""
        return "slices"

    def upsample(self, y: Tensor) -> Tensor:
        """Interpolate linearly between the slices' centres, constant beyond the outermost."""
        self.range.check(y, "y")
        return _along(self._between, y, self.axis)


class SlabAverage(Downsampling):
    """Downsample by averaging slabs of `factor` neighbouring rows or columns: ideal thick slices seen from the side.

    The same as `ThickSlices` of a whole factor that divides the size, with a box as profile and no gap, but faster.

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
        _require_axis(axis)
        low = _low_shape(rows, cols, factor if axis == -2 else 1, factor if axis == -1 else 1)
        super().__init__(Space((rows, cols), complex), Space(low, complex))
        self.factor = factor
        self.factors = (float(factor), 1.0) if axis == -2 else (1.0, float(factor))
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


def thick_slices(
    rows: int,
    cols: int,
    factor: float,
    axis: Literal[-2, -1] = -2,
    *,
    profile: SliceProfile = "box",
    gap: float = 0.0,
    complex: bool = False,
) -> Downsampling:
    """Operator of thick slices: `SlabAverage` where that is the same, else `ThickSlices`; parameters as there."""
    size = rows if axis == -2 else cols
    if profile == "box" and gap == 0 and factor >= 1 and size % factor == 0 and factor == int(factor):
        return SlabAverage(rows, cols, int(factor), axis, complex=complex)
    return ThickSlices(rows, cols, factor, axis, profile=profile, gap=gap, complex=complex)


def require_factor(factor: float, field: str = "factor") -> None:
    """Raise `GeometryError` unless `factor` is a number from 1."""
    if not (math.isfinite(factor) and factor >= 1):
        raise GeometryError(
            f"{factor:g} is below 1, which would be fewer points than were measured",
            field=field,
            remedy="give how many times finer the result is, as 2 or 2.5",
        )


def _require_axis(axis: int) -> None:
    if axis not in (-2, -1):
        raise GeometryError(f"{axis} is neither -2 (rows) nor -1 (columns)", field="axis")


def _low_shape(rows: int, cols: int, row_factor: int, col_factor: int) -> tuple[int, int]:
    for size, factor, field in ((rows, row_factor, "rows"), (cols, col_factor, "cols")):
        if factor < 1 or size % factor:
            raise GeometryError(
                f"{size} is no multiple of the factor {factor}", field=field, remedy="use ThickSlices, or pad the image"
            )
    return rows // row_factor, cols // col_factor


def _extended(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Repeat the lower and right edge of images ``(slices, rows, cols)`` up to `shape`."""
    for axis, size in zip((-2, -1), shape, strict=True):
        missing = size - x.shape[axis]
        if missing:
            edge = x.narrow(axis, x.shape[axis] - 1, 1)
            x = torch.cat([x, edge.expand(*(missing if axis % 3 == a else -1 for a in range(3)))], axis)
    return x


def _folded(y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Adjoint of `_extended`: add what lies beyond `shape` to its edge."""
    for axis, size in zip((-2, -1), shape, strict=True):
        beyond = y.shape[axis] - size
        if beyond:
            inside = y.narrow(axis, 0, size).clone()
            inside.narrow(axis, size - 1, 1).add_(y.narrow(axis, size, beyond).sum(axis, keepdim=True))
            y = inside
    return y


def _apodisation(size: int, filter: KSpaceFilter, zero_fill: float) -> Tensor:
    """Weight of each of `size` frequencies, the zero one at ``size // 2``: 0 for those that were not measured."""
    measured = max(round(size / zero_fill), 1)
    frequency = torch.arange(size, dtype=torch.float64) - size // 2
    distance = 2 * frequency.abs() / measured
    match filter:
        case "none":
            window = torch.ones_like(distance)
        case "hann":
            window = 0.5 + 0.5 * torch.cos(math.pi * distance)
        case "tukey":
            window = 0.5 + 0.5 * torch.cos(math.pi * ((distance - TUKEY_FLAT) / (1 - TUKEY_FLAT)).clamp(min=0))
        case _:
            raise InputError(f"there is no filter {filter!r}", field="filter", remedy="choose none, hann or tukey")
    inside = (frequency >= -(measured // 2)) & (frequency < measured - measured // 2)
    return window * inside


def _slice_weights(coarse: int, fine: int, factor: float, thickness: float, profile: SliceProfile) -> Tensor:
    """Weights ``(coarse, fine)`` of thin slices in thick ones, all in thin slices: integrals of the profile."""
    centres = (torch.arange(coarse, dtype=torch.float64) + 0.5) * factor
    reach = math.ceil(3 * thickness) + 1
    edges = torch.arange(-reach, fine + reach + 1, dtype=torch.float64)
    share = _cumulative((edges - centres[:, None]) / thickness, profile).diff(dim=1).clamp(min=0)
    thin = torch.arange(-reach, fine + reach).clamp(0, fine - 1)
    weights = torch.zeros(coarse, fine, dtype=torch.float64).index_add_(1, thin, share)
    return weights / weights.sum(1, keepdim=True)


def _cumulative(z: Tensor, profile: SliceProfile) -> Tensor:
    """Integral of a slice profile up to `z`, in units of the thickness from its centre; from 0 to 1."""
    match profile:
        case "box":
            return (z + 0.5).clamp(0, 1)
        case "gaussian":
            return 0.5 + 0.5 * torch.erf(z * FWHM / math.sqrt(2))
        case "slr":
            # The profile is the convolution of a box of the thickness with a raised cosine as wide as the transition.
            return _ramp(z + 0.5) - _ramp(z - 0.5)
        case _:
            raise InputError(
                f"there is no profile {profile!r}", field="profile", remedy="choose box, gaussian or slr; box is usual"
            )


def _ramp(z: Tensor) -> Tensor:
    """Twofold integral of a raised cosine of area 1 and width `SLR_TRANSITION` about 0: 0 far below, `z` far above."""
    w = SLR_TRANSITION
    u = z.clamp(-w / 2, w / 2)
    return (
        (u + w / 2).square() / (2 * w)
        - w * (1 + torch.cos(2 * math.pi * u / w)) / (4 * math.pi**2)
        + (z - u).clamp(min=0)
    )


def _linear_weights(coarse: int, fine: int, factor: float) -> Tensor:
    """Weights ``(fine, coarse)`` of linear interpolation between thick slices' centres, constant beyond the last."""
    place = ((torch.arange(fine, dtype=torch.float64) + 0.5) / factor - 0.5).clamp(0, coarse - 1)
    return (1 - (place[:, None] - torch.arange(coarse)).abs()).clamp(min=0)


def _along(weights: Tensor, x: Tensor, axis: int) -> Tensor:
    """Apply a matrix to images ``(slices, rows, cols)`` along their rows (-2) or columns (-1)."""
    matrix = weights.to(x.device, x.real.dtype)
    if x.is_complex():
        return torch.complex(_along(matrix, x.real, axis), _along(matrix, x.imag, axis))
    return matrix @ x if axis == -2 else x @ matrix.T
