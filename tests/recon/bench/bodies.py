"""Synthetic bodies for tests of lesions: with soft tissue, lungs and ribs in HU; and a head with ventricles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
SIDE, PIXEL_MM = 160, 2.0
RIBS = ((-116.0, -4.0), (116.0, -4.0), (0.0, 74.0))
"""Middles of the ribs in mm, ``(x, y)``, along rows and columns of the image."""


def ellipse(x_mm: float, y_mm: float, half_x_mm: float, half_y_mm: float) -> NDArray[np.bool_]:
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * PIXEL_MM
    inside: NDArray[np.bool_] = ((axis - x_mm) / half_x_mm) ** 2 + ((axis[:, None] - y_mm) / half_y_mm) ** 2 <= 1
    return inside


def body(lungs: bool = True) -> Image:
    """One slice in HU; what is soft is in the middle, around the lungs and, without these, everywhere."""
    found = np.where(ellipse(0, 0, 140, 100), 40.0, -1000.0)
    if lungs:
        for x_mm in (-72.0, 72.0):
            found[ellipse(x_mm, 0, 34, 66)] = -850.0
    for x_mm, y_mm in RIBS:
        # Half the bone is shell; a small one goes missing, a long one breaks.
        found[ellipse(x_mm, y_mm, 5, 16)] = 700.0
    found[ellipse(0, -78, 4, 5)] = 700.0
    return np.asarray(ndimage.gaussian_filter(found, 0.4), np.float32)


def head() -> Image:
    """One slice of a head: brain of 100, ventricles of 300, a dark skull and a bright scalp."""
    found = np.zeros((SIDE, SIDE))
    for half_mm, value in ((90.0, 200.0), (84.0, 20.0), (76.0, 100.0)):
        found[ellipse(0, 0, half_mm * 0.85, half_mm)] = value
    for x_mm in (-12.0, 12.0):
        found[ellipse(x_mm, 0, 4, 9)] = 300.0
    return np.asarray(ndimage.gaussian_filter(found, 0.4), np.float32)
