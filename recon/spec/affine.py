"""Affine matrices that map voxel ``(col, row, slice)`` to millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]


def voxel_size(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Column, row and slice spacing in mm of an affine over ``(col, row, slice)``."""
    col, row, slice_ = np.linalg.norm(affine[:3, :3], axis=0)
    return float(col), float(row), float(slice_)


def shear_rad(affine: NDArray[np.float64]) -> float:
    """Largest angle by which two of the three axes deviate from a right one, in radians."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.arcsin(np.clip(np.abs(axes.T @ axes - np.eye(3)).max(), 0.0, 1.0)))


def scanner_affine(rows: int, cols: int, pixel_mm: float, slice_mm: float) -> NDArray[np.float64]:
    """Voxel ``(col, row, slice)`` to the scanner frame: x right, y up (row 0 on top), origin on the axis."""
    affine = np.diag([pixel_mm, -pixel_mm, slice_mm, 1.0])
    affine[:2, 3] = [-(cols - 1) / 2 * pixel_mm, (rows - 1) / 2 * pixel_mm]
    return affine


def shifted_affine(affine: NDArray[np.float64], first_slice: float) -> NDArray[np.float64]:
    """Affine of the part of a volume that starts at `first_slice`; `affine` is that of the whole."""
    moved = affine.copy()
    moved[:3, 3] += first_slice * affine[:3, 2]
    return moved
