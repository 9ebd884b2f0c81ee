"""Cartesian multi-coil MRI: coil sensitivities, centred orthonormal Fourier transform, sampling mask."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from operators.errors import GeometryError, InputError
from operators.linear import LinearOperator, Space


def fourier(x: Tensor) -> Tensor:
    """Centred orthonormal 2D Fourier transform of the last two axes; k = 0 at index ``n // 2``."""
    shifted = torch.fft.ifftshift(x, dim=(-2, -1))
    out: Tensor = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))
    return out


def inverse_fourier(y: Tensor) -> Tensor:
    """Inverse and adjoint of `fourier`."""
    shifted = torch.fft.ifftshift(y, dim=(-2, -1))
    out: Tensor = torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=(-2, -1))
    return out


class CartesianMRI(LinearOperator):
    """``y_c = M F (S_c x)``: ``(slices, rows, cols)`` to k-space ``(slices, coils, rows, cols)``, complex.

    Parameters
    ----------
    mask
        Sampled points, bool, ``(rows, cols)`` or ``(slices, rows, cols)``.
    maps
        Coil sensitivities, complex, ``(coils, rows, cols)`` or ``(slices, coils, rows, cols)``.
        With a slice axis in either, the operator acts on exactly that many slices.

    References
    ----------
    Pruessmann et al. 1999, SENSE, Magn. Reson. Med. 42, 952-962, equation 1.
    """

    def __init__(self, mask: Tensor, maps: Tensor) -> None:
        if mask.dtype != torch.bool:
            raise InputError(f"dtype {mask.dtype}, expected bool", field="mask")
        if mask.ndim not in (2, 3):
            raise InputError(f"shape {tuple(mask.shape)}, expected (rows, cols) or (slices, rows, cols)", field="mask")
        if maps.ndim not in (3, 4) or not maps.is_complex():
            raise InputError(
                f"shape {tuple(maps.shape)} and dtype {maps.dtype}, expected complex ([slices,] coils, rows, cols)",
                field="coil_maps",
            )
        if maps.shape[-2:] != mask.shape[-2:]:
            raise GeometryError(
                f"the coil maps are {tuple(maps.shape[-2:])} pixels, the mask {tuple(mask.shape[-2:])}",
                field="coil_maps",
            )
        if not bool(mask.any()):
            raise GeometryError("no point is sampled", field="mask")
        rows, cols = mask.shape[-2:]
        super().__init__(Space((rows, cols), complex=True), Space((maps.shape[-3], rows, cols), complex=True))
        self.mask = mask if mask.ndim == 3 else mask[None]
        self.maps = maps if maps.ndim == 4 else maps[None]
        counts = {n for n in (len(self.mask), len(self.maps)) if n > 1}
        if len(counts) > 1:
            raise GeometryError(f"{len(self.maps)} slices of coil maps, {len(self.mask)} of masks", field="coil_maps")
        self.slices = counts.pop() if counts else None

    def _part(self, first: int, last: int) -> CartesianMRI:
        # Not by the constructor: a slab without a sampled point is no mistake, and one slice of many stays one.
        found = copy(self)
        found.__dict__.pop("norm", None)
        found.mask = self.mask[first:last] if len(self.mask) > 1 else self.mask
        found.maps = self.maps[first:last] if len(self.maps) > 1 else self.maps
        found.slices = last - first
        return found

    def _forward(self, x: Tensor) -> Tensor:
        self._check_slices(x)
        return self.mask[:, None] * fourier(self.maps.to(x.dtype) * x[:, None])

    def _adjoint(self, y: Tensor) -> Tensor:
        self._check_slices(y)
        return (self.maps.to(y.dtype).conj() * inverse_fourier(self.mask[:, None] * y)).sum(1)

    def _normal(self, x: Tensor) -> Tensor:
        # The shifts around the transforms cancel but for those of the image, and so do transforms along lines that are
        # sampled as a whole.
        self._check_slices(x)
        mask = torch.fft.ifftshift(self.mask, dim=(-2, -1))[:, None]
        maps = torch.fft.ifftshift(self.maps, dim=(-2, -1)).to(x.dtype)
        axes = [axis for axis in (-2, -1) if not bool((mask == mask.narrow(axis, 0, 1)).all())]
        coils = maps * torch.fft.ifftshift(x, dim=(-2, -1))[:, None]
        if axes:
            coils = torch.fft.ifftn(mask * torch.fft.fftn(coils, dim=axes), dim=axes)
        elif not bool(mask.flatten()[0]):
            coils = torch.zeros_like(coils)
        image: Tensor = torch.fft.fftshift((maps.conj() * coils).sum(1), dim=(-2, -1))
        return image

    def _check_slices(self, x: Tensor) -> None:
        if self.slices is not None and len(x) != self.slices:
            raise InputError(f"{len(x)} slices, the coil maps or mask have {self.slices}", field="slices")
