"""Discs, whose line integrals are known exactly: sinograms in parallel and fan beam without any projector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.geometry import ParallelBeam

ACROSS = 8
"""Rays averaged over a detector element."""


class Disc(NamedTuple):
    """Disc of attenuation `per_mm`, centre in scanner coordinates (y up)."""

    x_mm: float
    y_mm: float
    radius_mm: float
    per_mm: float


def sinogram(discs: Sequence[Disc], geometry: ParallelBeam) -> NDArray[np.float32]:
    """Line integrals ``(1, views, detectors)``, averaged over each detector element."""
    total = np.zeros((len(geometry.angles_rad), geometry.detectors))
    for part in (np.arange(ACROSS) + 0.5) / ACROSS - 0.5:
        moved = geometry.detector_shift_mm + part * geometry.detector_mm
        phi, rho = type(geometry)(**{**vars(geometry), "detector_shift_mm": moved}).lines()
        for disc in discs:
            off = rho - disc.x_mm * np.cos(phi) - disc.y_mm * np.sin(phi)
            total += 2 * disc.per_mm * np.sqrt(np.maximum(disc.radius_mm**2 - off**2, 0)) / ACROSS
    return total[None].astype(np.float32)


def mean(image: NDArray[np.floating], pixel_mm: float, x_mm: float, y_mm: float, radius_mm: float) -> float:
    """Mean of an image ``(rows, cols)`` within a circle in scanner coordinates."""
    rows, cols = image.shape
    x = (np.arange(cols) - (cols - 1) / 2) * pixel_mm - x_mm
    y = ((rows - 1) / 2 - np.arange(rows)) * pixel_mm - y_mm
    return float(image[np.hypot(x[None, :], y[:, None]) <= radius_mm].mean())
