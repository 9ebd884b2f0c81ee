"""Off-resonance of a head, as far as its magnitude image tells: field of air and tissue, fat of the scalp."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

SUSCEPTIBILITY_PPM = -9.4
"""Magnetic susceptibility of tissue relative to air (Schenck 1996, Med. Phys. 23, 815-850)."""
MAIN_FIELD_MHZ = 127.7
"""Proton frequency at 3 T."""
FAT_HZ = -440.0
"""Chemical shift of fat at 3 T."""
CAVITY_MM = 15.0
"""Length along the main field over which a slice's air and tissue end, as sinuses do."""
AIR = 0.05
"""Fraction of the largest value below which a pixel counts as air."""
SCALP_MM = 12.0
"""Distance from the outside up to which bright pixels count as fat."""
DARKEST_FAT, BRIGHTEST_WATER = 0.45, 0.65
"""Fractions of the largest value between which pixels of the scalp turn from water to fat."""


def tissue_of(image: NDArray[np.float32], largest: float) -> NDArray[np.bool_]:
    """Mask of the pixels ``(rows, cols)`` that are not air; what is dark without being air counts as such."""
    return image > AIR * largest


def field_hz(tissue: Tensor, row_mm: float, col_mm: float) -> Tensor:
    """Frequency offset in Hz ``(rows, cols)`` that the susceptibility of tissue makes, after shimming.

    The slice's air and tissue are taken to end along the main field, which is perpendicular to it, as
    ``exp(-|z| / L)``. The dipole's field ``1/3 - kz^2 / |k|^2``, averaged over the spectrum of that, is then
    ``1/3 - 1 / (1 + k L)`` in the plane: it jumps at every boundary and reaches about ``L`` beyond. The second-order
    polynomial that fits the tissue best is taken away, as shims do.

    Parameters
    ----------
    tissue
        Fraction of tissue in each pixel.
    row_mm, col_mm
        Distance of rows and of columns.

    References
    ----------
    Marques and Bowtell 2005, Concepts Magn. Reson. B 25, 65-78, equation 7.
    """
    rows, cols = tissue.shape
    ky = torch.fft.fftfreq(rows, row_mm)[:, None] * 2 * math.pi
    kx = torch.fft.rfftfreq(cols, col_mm)[None] * 2 * math.pi
    response = 1 / 3 - 1 / (1 + CAVITY_MM * torch.hypot(ky, kx))
    field = torch.fft.irfft2(torch.fft.rfft2(tissue) * response, s=(rows, cols))
    return _shimmed(field * (SUSCEPTIBILITY_PPM * MAIN_FIELD_MHZ), tissue)


def _shimmed(field: Tensor, tissue: Tensor) -> Tensor:
    """Subtract the polynomial of second order that fits a field best where there is tissue."""
    rows, cols = field.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, cols), indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y, x * y, x * x, y * y], -1)
    inside = tissue > 0.5
    if int(inside.sum()) < basis.shape[-1]:
        return field
    # In float64: where its memory lies changes the last bits of a matrix product, and a seed is to repeat itself.
    weights = torch.linalg.lstsq(basis[inside].double(), field[inside, None].double()).solution[:, 0]
    found: Tensor = field - (basis.double() @ weights).to(field.dtype)
    return found


def fat_of(image: NDArray[np.float32], largest: float, pixel_mm: float) -> NDArray[np.float32]:
    """Fraction of fat in each pixel ``(rows, cols)``: what is bright and near the outside of the head."""
    head = ndimage.binary_fill_holes(tissue_of(image, largest))
    depth_mm = ndimage.distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1] * pixel_mm
    bright = np.clip((image / max(largest, 1e-38) - DARKEST_FAT) / (BRIGHTEST_WATER - DARKEST_FAT), 0, 1)
    return np.where(depth_mm <= SCALP_MM, bright, 0).astype(np.float32)
