"""Coil sensitivities, estimated by ESPIRiT (sigpy) from the fully sampled centre of k-space."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from operators.fourier import inverse_fourier
from operators.interrupt import checkpoint

MINIMUM_CALIBRATION = 8
MAXIMUM_CALIBRATION = 32
THRESHOLD = 0.02
"""Singular values below this share of the largest are noise; sigpy's default."""
SUPPORT = 0.8
"""Pixels whose ESPIRiT eigenvalue is below this hold no signal; their sensitivity is zero."""
LARGEST_KERNEL = 6
FAINT = 0.1
"""Energy of a coil over that of the one with most below which its phase does not become the image's."""
ENERGY = 0.9
"""Share of the image's energy that the maps must cover."""


def acs_width(mask: Tensor, limit: int = MAXIMUM_CALIBRATION) -> int:
    """Side of the largest centred square of `mask` ``(rows, cols)`` that is fully sampled, at most `limit`."""
    rows, cols = mask.shape
    width = 0
    for candidate in range(1, min(rows, cols, limit) + 1):
        top, left = rows // 2 - candidate // 2, cols // 2 - candidate // 2
        if not bool(mask[top : top + candidate, left : left + candidate].all()):
            break
        width = candidate
    return width


def espirit_maps(kspace: Tensor, mask: Tensor, width: int | None = None) -> Tensor:
    """Estimate coil sensitivity maps, one set per slice.

    Parameters
    ----------
    kspace
        ``(slices, coils, rows, cols)`` complex.
    mask
        Sampled points, ``(rows, cols)`` bool.
    width
        Side of the calibration square. Default: the fully sampled centre of the mask.

    Returns
    -------
    Tensor
        ``(slices, coils, rows, cols)`` complex64, unit norm over coils inside the object, zero outside.

    References
    ----------
    Uecker et al. 2014, Magn. Reson. Med. 71, 990-1001.
    """
    if kspace.shape[1] == 1:
        return torch.ones_like(kspace, dtype=torch.complex64)  # nothing to calibrate
    available = acs_width(mask, max(width or 0, MAXIMUM_CALIBRATION))
    wanted = width or available
    if wanted > available or wanted < MINIMUM_CALIBRATION:
        raise InputError(
            f"the fully sampled centre of k-space is {available} x {available} points, "
            f"calibration needs {max(wanted, MINIMUM_CALIBRATION)}",
            field="acquisition.acs_width",
            remedy="measure more central lines, or give coil maps with acquisition.coil_maps",
        )
    maps = []
    order = _reference_first(kspace)
    for one in kspace[:, order]:
        checkpoint()
        maps.append(_one_slice(one.to(torch.complex64).numpy(), wanted))
    return torch.from_numpy(np.stack(maps))[:, torch.argsort(order)]


def _reference_first(kspace: Tensor) -> Tensor:
    """Order of the coils in which the first, whose phase becomes the image's, is not one that hears hardly anything."""
    energy = kspace.abs().square().sum((0, 2, 3))
    order = torch.arange(len(energy))
    reference = 0 if bool(energy[0] > FAINT * energy.max()) else int(energy.argmax())
    return torch.cat([order[reference:], order[:reference]])


def _one_slice(kspace: NDArray[np.complex64], width: int) -> NDArray[np.complex64]:
    from sigpy.mri.app import EspiritCalib  # imports numba: seconds that no other job should wait

    if not np.any(kspace):
        return np.zeros_like(kspace)
    # A kernel wider than half the calibration square leaves too few equations, and no signal space at all.
    kernel = min(LARGEST_KERNEL, width // 2)
    calibrator = EspiritCalib(
        kspace, calib_width=width, kernel_width=kernel, thresh=THRESHOLD, crop=SUPPORT, show_pbar=False
    )
    maps = np.asarray(calibrator.run(), dtype=np.complex64)
    kept = _energy_inside(kspace, maps, width)
    if kept < ENERGY:
        raise InputError(
            f"ESPIRiT found sensitivities for {100 * kept:.0f} % of the signal only, from {width} x {width} points",
            field="acquisition.acs_width",
            remedy="measure more central lines, or give coil maps with acquisition.coil_maps",
        )
    return maps


def _energy_inside(kspace: NDArray[np.complex64], maps: NDArray[np.complex64], width: int) -> float:
    """Fraction of the low-resolution image's energy where the maps are not zero."""
    centre = np.zeros_like(kspace)
    window = tuple(slice(n // 2 - width // 2, n // 2 - width // 2 + width) for n in kspace.shape[1:])
    centre[(slice(None), *window)] = kspace[(slice(None), *window)]
    energy = inverse_fourier(torch.from_numpy(centre)).abs().square().sum(0)
    inside = torch.from_numpy(np.abs(maps).max(0) > 0)
    return float((energy * inside).sum() / energy.sum().clamp(min=1e-38))
