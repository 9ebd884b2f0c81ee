"""Ellipsoids with exact line integrals, and their volumes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.volume_geometry import VolumeBeam


class Ellipsoid(NamedTuple):
    """Ellipsoid: centre and half axes in mm (x, y, z), attenuation in 1/mm."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    value: float


def voxelised(bodies: list[Ellipsoid], g: VolumeBeam, samples: int = 3) -> NDArray[np.float32]:
    """Volume ``(slices, rows, cols)`` of bodies, each voxel the mean of so many samples along each side."""
    fine = [
        ((np.arange(n * samples) + 0.5) / samples - n / 2) * step
        for n, step in zip(reversed(g.volume_shape), g.size_mm, strict=True)
    ]
    x, y, z = fine[0], -fine[1], fine[2]
    out = np.zeros(g.volume_shape, np.float32)
    for k in range(g.slices):
        total = np.zeros((len(y), len(x)))
        for height in z[k * samples : (k + 1) * samples]:
            for body in bodies:
                flat = ((x - body.centre[0]) / body.half[0])[None, :] ** 2
                flat = flat + ((y - body.centre[1]) / body.half[1])[:, None] ** 2
                total += body.value * (flat <= 1 - ((height - body.centre[2]) / body.half[2]) ** 2)
        out[k] = total.reshape(g.rows, samples, g.cols, samples).mean((1, 3)) / samples
    return out


def line_integrals(bodies: list[Ellipsoid], g: VolumeBeam) -> NDArray[np.float32]:
    """Exact line integrals along the rays through the middles of the detector elements ``(views, rows, columns)``."""
    columns, rows = (np.arange(n) - (n - 1) / 2 for n in (g.detector_columns, g.detector_rows))
    out = np.zeros(g.data_shape)
    for index, view in enumerate(g.vectors):
        first, centre, u, v = view.reshape(4, 3)
        points = centre + columns[None, :, None] * u + rows[:, None, None] * v
        rays = points - first if g.cone else np.broadcast_to(first, points.shape)
        rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        for body in bodies:
            start, ray = (points - body.centre) / body.half, rays / body.half
            a, b = (ray * ray).sum(-1), (ray * start).sum(-1)
            c = (start * start).sum(-1) - 1
            out[index] += body.value * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a
    return out.astype(np.float32)
