"""Back-projection of filtered cone-beam views, voxel by voxel, compiled by numba."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.compiled import announced, compiled, in_threads
from operators.volume_geometry import VolumeBeam

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SLICES = 4
"""Slices of a task."""
VOXELS_AT_ONCE = 2**26
"""Voxels, about, that views are added to between two chances to cancel."""


@compiled
def _add_view(
    view: Float32,
    x: Float64,
    y: Float64,
    z: Float64,
    frame: Float64,
    place: Float64,
    low: int,
    high: int,
    volume: Float32,
) -> None:
    """Add one view to slices ``[low, high)`` of a volume.

    `frame` holds the direction along the detector, that towards the source, the inverse distance of the source from
    the axis, its height, and the climb of parallel rays; `place` first column, column step, first row and row step.
    """
    f = np.float32
    rows, columns = view.shape
    along_x, along_y, toward_x, toward_y, inverse_radius, source_z, climb = frame
    first_p, step_p, first_q, step_q = place
    column, share = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    weight, slope, rise = np.empty(len(x), np.float32), np.empty(len(x), np.float32), np.empty(len(x), np.float32)
    for row in range(len(y)):
        for i in range(len(x)):
            toward = x[i] * toward_x + y[row] * toward_y
            nearer = 1.0 / (1.0 - toward * inverse_radius)
            at = ((x[i] * along_x + y[row] * along_y) * nearer - first_p) / step_p
            inside = 0.0 <= at <= columns - 1
            column[i] = min(max(int(np.floor(at)), 0), max(columns - 2, 0)) if inside else 0
            share[i] = f(at - column[i]) if inside else f(0.0)
            weight[i] = f(nearer * nearer) if inside else f(0.0)
            slope[i] = f(nearer / step_q)
            rise[i] = f((toward * climb - source_z * nearer - first_q) / step_q)
        for k in range(low, high):
            height = f(z[k])
            for i in range(len(x)):
                # What lies beyond the first and the last row is taken to go on as these.
                at_q = min(max(height * slope[i] + rise[i], f(0.0)), f(rows - 1))
                upper = min(int(at_q), max(rows - 2, 0))
                part, c = at_q - f(upper), column[i]
                further, next_row = min(c + 1, columns - 1), min(upper + 1, rows - 1)
                here = view[upper, c] + share[i] * (view[upper, further] - view[upper, c])
                there = view[next_row, c] + share[i] * (view[next_row, further] - view[next_row, c])
                volume[k, row, i] += weight[i] * (here + part * (there - here))


@compiled
def _add_views(
    views: Float32,
    x: Float64,
    y: Float64,
    z: Float64,
    frames: Float64,
    places: Float64,
    low: int,
    high: int,
    volume: Float32,
) -> None:
    for index in range(len(views)):
        _add_view(views[index], x, y, z, frames[index], places[index], low, high, volume)


def back_project(views: Float32, g: VolumeBeam, places: Float64, threads: int) -> Float32:
    """Back-project filtered views ``(views, rows, columns)`` on the detector through the axis, weighted by distance.

    `places` holds first column, column step, first row and row step of each view in mm, heights over the source.
    """
    _ready()
    along, toward = g.axes()
    first = g.vectors[:, :3]
    if g.cone:
        rest = np.stack([1 / np.hypot(first[:, 0], first[:, 1]), first[:, 2], np.zeros(g.views)], axis=1)
    else:
        rest = np.stack([np.zeros(g.views), np.zeros(g.views), -g.climb], axis=1)
    frames = np.concatenate([along[:, :2], toward[:, :2], rest], axis=1)
    x, y, z = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(reversed(g.volume_shape), g.size_mm, strict=True))
    volume = np.zeros(g.volume_shape, np.float32)
    together = max(1, VOXELS_AT_ONCE // (SLICES * g.rows * g.cols))
    for begin in range(0, g.views, together):
        some = slice(begin, begin + together)
        add = partial(_add_views, views[some], x, -y, z, frames[some], places[some])
        slabs = (partial(add, low, min(low + SLICES, g.slices), volume) for low in range(0, g.slices, SLICES))
        in_threads(slabs, threads)
    return volume


@lru_cache(maxsize=1)
def _ready() -> None:
    """Compile all functions, or load them from the disk."""
    with announced():
        one: Any = np.zeros(2)
        _add_views(
            np.zeros((1, 2, 2), np.float32), one, one, one, np.ones((1, 7)), np.ones((1, 4)), 0, 1,
            np.zeros((2, 2, 2), np.float32),
        )  # fmt: skip
