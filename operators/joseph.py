"""Joseph's ray-driven projector of volumes, compiled by numba, with its exact adjoint, on CPU threads.

A ray steps through the planes of its main axis, and in each it interpolates linearly between four voxels. Everything is
in voxels here: `operators.volume_geometry` has millimetres.

The adjoint needs no atomic operations: a Joseph step touches one plane only, a task owns some planes of one axis and
walks the rays through these. How a volume is cut into tasks follows from its size alone, so that every voxel is summed
in one order, and the result has the same bits with any number of threads.

References
----------
Joseph 1982, IEEE Trans. Med. Imaging 1, 192-196.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.compiled import announced, compiled, in_threads

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

PLANES = 16
"""Planes of a task of the adjoint: sixteen voxels of float32 are a cache line, which no two tasks share."""
STEPS_AT_ONCE = 2**26
"""Steps of rays, about, between two chances to cancel: a fraction of a second on one core."""


@compiled
def _ray(view: Float64, column: int, row: int, columns: int, rows: int, cone: bool, size: Float64) -> Any:
    """One ray: its main axis, position and slope along the two others at plane 0, and millimetres between planes.

    Axes are columns (0), rows (1) and slices (2) of the volume; the two others keep this order.
    """
    u, v = column - (columns - 1) * 0.5, row - (rows - 1) * 0.5
    px, py, pz = (
        view[3] + u * view[6] + v * view[9],
        view[4] + u * view[7] + v * view[10],
        view[5] + u * view[8] + v * view[11],
    )
    dx, dy, dz = view[0], view[1], view[2]
    if cone:
        dx, dy, dz = px - dx, py - dy, pz - dz
    length = np.sqrt((dx * size[0]) ** 2 + (dy * size[1]) ** 2 + (dz * size[2]) ** 2)
    ax, ay, az = abs(dx), abs(dy), abs(dz)
    if ax >= ay and ax >= az:
        return 0, py - px * (dy / dx), dy / dx, pz - px * (dz / dx), dz / dx, length / ax
    if ay >= az:
        return 1, px - py * (dx / dy), dx / dy, pz - py * (dz / dy), dz / dy, length / ay
    return 2, px - pz * (dx / dz), dx / dz, py - pz * (dy / dz), dy / dz, length / az


@compiled
def _between(start: float, slope: float, low: float, high: float, first: int, last: int) -> Any:
    """Planes ``[first, last)`` in which ``low < start + slope * plane < high``."""
    if slope == 0.0:
        return (first, last) if low < start < high else (first, first)
    one, other = (low - start) / slope, (high - start) / slope
    if one > other:
        one, other = other, one
    # What is far outside does not fit into an integer.
    one, other = min(max(one, first - 1.0), last + 1.0), min(max(other, first - 1.0), last + 1.0)
    first = min(max(first, int(np.floor(one)) + 1), last)
    return first, max(first, min(last, int(np.ceil(other))))


@compiled
def _planes(
    start_b: float, slope_b: float, count_b: int, start_c: float, slope_c: float, count_c: int, count: int
) -> Any:
    """Planes that a ray crosses within the volume, and those of them where all four voxels are within it."""
    begin, end = _between(start_b, slope_b, -1.0, count_b, 0, count)
    begin, end = _between(start_c, slope_c, -1.0, count_c, begin, end)
    # Positions are rounded to float32 later on.
    inner, outer = _between(start_b, slope_b, 0.01, count_b - 1.01, begin, end)
    inner, outer = _between(start_c, slope_c, 0.01, count_c - 1.01, inner, outer)
    return begin, inner, outer, end


@compiled
def _layout(axis: int, shape: Any) -> Any:
    """Number of planes of a main axis and their distance in memory, and the same of both other axes."""
    slices, rows, columns = shape
    if axis == 0:
        return columns, 1, rows, columns, slices, rows * columns
    if axis == 1:
        return rows, columns, columns, 1, slices, rows * columns
    return slices, rows * columns, columns, 1, rows, columns


@compiled
def _sum_border(
    volume: Float32, b: float, c: float, at: int, count_b: int, stride_b: int, count_c: int, stride_c: int
) -> Any:
    one = np.float32(1.0)
    ib, ic = int(np.floor(b)), int(np.floor(c))
    fb, fc = b - np.float32(ib), c - np.float32(ic)
    total = np.float32(0.0)
    place = at + ib * stride_b + ic * stride_c
    if 0 <= ic < count_c:
        if 0 <= ib < count_b:
            total += (one - fc) * (one - fb) * volume[place]
        if 0 <= ib + 1 < count_b:
            total += (one - fc) * fb * volume[place + stride_b]
    if 0 <= ic + 1 < count_c:
        if 0 <= ib < count_b:
            total += fc * (one - fb) * volume[place + stride_c]
        if 0 <= ib + 1 < count_b:
            total += fc * fb * volume[place + stride_b + stride_c]
    return total


@compiled
def _add_border(
    volume: Float32, value: float, b: float, c: float, at: int, count_b: int, stride_b: int, count_c: int, stride_c: int
) -> None:
    one = np.float32(1.0)
    ib, ic = int(np.floor(b)), int(np.floor(c))
    fb, fc = b - np.float32(ib), c - np.float32(ic)
    place = at + ib * stride_b + ic * stride_c
    if 0 <= ic < count_c:
        if 0 <= ib < count_b:
            volume[place] += (one - fc) * (one - fb) * value
        if 0 <= ib + 1 < count_b:
            volume[place + stride_b] += (one - fc) * fb * value
    if 0 <= ic + 1 < count_c:
        if 0 <= ib < count_b:
            volume[place + stride_c] += fc * (one - fb) * value
        if 0 <= ib + 1 < count_b:
            volume[place + stride_b + stride_c] += fc * fb * value


@compiled
def _project(
    volume: Float32,
    shape: Any,
    views: Float64,
    cone: bool,
    size: Float64,
    index: int,
    low: int,
    high: int,
    out: Float32,
) -> None:
    """Project a volume, flat and of `shape`, along the rays of a view's detector rows ``[low, high)`` into `out`."""
    f = np.float32
    _, rows, columns = out.shape
    for row in range(low, high):
        for column in range(columns):
            axis, wide_b, steep_b, wide_c, steep_c, step = _ray(views[index], column, row, columns, rows, cone, size)
            count, stride, count_b, stride_b, count_c, stride_c = _layout(axis, shape)
            begin, inner, outer, end = _planes(wide_b, steep_b, count_b, wide_c, steep_c, count_c, count)
            b0, sb, c0, sc = f(wide_b), f(steep_b), f(wide_c), f(steep_c)
            total = f(0.0)
            for k in range(begin, inner):
                b, c = b0 + sb * f(k), c0 + sc * f(k)
                total += _sum_border(volume, b, c, k * stride, count_b, stride_b, count_c, stride_c)
            for k in range(inner, outer):
                b, c = b0 + sb * f(k), c0 + sc * f(k)
                ib, ic = int(b), int(c)
                fb, fc = b - f(ib), c - f(ic)
                at = k * stride + ib * stride_b + ic * stride_c
                near = volume[at] + fb * (volume[at + stride_b] - volume[at])
                far = volume[at + stride_c] + fb * (volume[at + stride_b + stride_c] - volume[at + stride_c])
                total += near + fc * (far - near)
            for k in range(outer, end):
                b, c = b0 + sb * f(k), c0 + sc * f(k)
                total += _sum_border(volume, b, c, k * stride, count_b, stride_b, count_c, stride_c)
            out[index, row, column] = total * f(step)


@compiled
def _trace(
    shape: Any, views: Float64, cone: bool, size: Float64, index: int, at: int, lines: Float32, spans: Any
) -> None:
    """Trace the rays of view `index` for the adjoint.

    Position, slope and step are written to `lines`, main axis and planes to `spans`.
    """
    f = np.float32
    _, rows, columns, _ = lines.shape
    for row in range(rows):
        for column in range(columns):
            axis, b0, sb, c0, sc, step = _ray(views[index], column, row, columns, rows, cone, size)
            count, _, count_b, _, count_c, _ = _layout(axis, shape)
            begin, inner, outer, end = _planes(b0, sb, count_b, c0, sc, count_c, count)
            line, span = lines[at, row, column], spans[at, row, column]
            line[0], line[1], line[2], line[3], line[4] = f(b0), f(sb), f(c0), f(sc), f(step)
            span[0], span[1], span[2], span[3], span[4] = axis, begin, inner, outer, end


@compiled
def _back_project(
    views: Float32, shape: Any, lines: Float32, spans: Any, axis: int, low: int, high: int, volume: Float32
) -> None:
    """Add what rays with a main axis leave in its planes ``[low, high)`` to a volume, flat and of `shape`."""
    f = np.float32
    one = f(1.0)
    count, rows, columns, _ = lines.shape
    _, stride, count_b, stride_b, count_c, stride_c = _layout(axis, shape)
    for index in range(count):
        for row in range(rows):
            for column in range(columns):
                span = spans[index, row, column]
                if span[0] != axis or span[1] >= high or span[4] <= low:
                    continue
                line = lines[index, row, column]
                b0, sb, c0, sc = line[0], line[1], line[2], line[3]
                value = views[index, row, column] * line[4]
                begin, end = max(span[1], low), min(span[4], high)
                inner = min(max(span[2], begin), end)
                outer = max(min(span[3], end), inner)
                for k in range(begin, inner):
                    b, c = b0 + sb * f(k), c0 + sc * f(k)
                    _add_border(volume, value, b, c, k * stride, count_b, stride_b, count_c, stride_c)
                for k in range(inner, outer):
                    b, c = b0 + sb * f(k), c0 + sc * f(k)
                    ib, ic = int(b), int(c)
                    fb, fc = b - f(ib), c - f(ic)
                    at = k * stride + ib * stride_b + ic * stride_c
                    far = fc * value
                    near = value - far
                    volume[at] += (one - fb) * near
                    volume[at + stride_b] += fb * near
                    volume[at + stride_c] += (one - fb) * far
                    volume[at + stride_b + stride_c] += fb * far
                for k in range(outer, end):
                    b, c = b0 + sb * f(k), c0 + sc * f(k)
                    _add_border(volume, value, b, c, k * stride, count_b, stride_b, count_c, stride_c)


def forward(volume: Float32, views: Float64, cone: bool, size_mm: Float64, out: Float32, threads: int) -> None:
    """Project a volume ``(slices, rows, cols)`` into `out` ``(views, detector rows, detector columns)``.

    Parameters
    ----------
    views
        Rows of twelve numbers as of ASTRA's ``cone_vec`` and ``parallel3d_vec``, ``(views, 12)``, but in voxels: axes
        along columns, rows and slices, and the first voxel's centre at the origin.
    cone
        Whether the first three numbers are the source; the direction of all rays otherwise.
    size_mm
        Voxel size along columns, rows and slices.
    """
    _ready()
    _project_all(volume, views, cone, size_mm, out, threads)


def adjoint(data: Float32, views: Float64, cone: bool, size_mm: Float64, out: Float32, threads: int) -> None:
    """Back-project ``(views, detector rows, detector columns)`` into `out` ``(slices, rows, cols)``; see `forward`."""
    _ready()
    _back_project_all(data, views, cone, size_mm, out, threads)


def _project_all(volume: Float32, views: Float64, cone: bool, size_mm: Float64, out: Float32, threads: int) -> None:
    flat, shape = volume.reshape(-1), volume.shape
    project = partial(_project, flat, shape, views, cone, size_mm)
    _, rows, columns = out.shape
    each = max(1, STEPS_AT_ONCE // max(1, columns * max(shape)))
    places = ((view, low) for view in range(len(views)) for low in range(0, rows, each))
    in_threads((partial(project, view, low, min(low + each, rows), out) for view, low in places), threads)


def _back_project_all(data: Float32, views: Float64, cone: bool, size_mm: Float64, out: Float32, threads: int) -> None:
    out[...] = 0.0
    flat, shape = out.reshape(-1), out.shape
    rays = data[0].size
    together = max(1, STEPS_AT_ONCE // max(1, rays * max(shape)))
    lines = np.empty((min(together, len(data)), *data.shape[1:], 5), np.float32)
    spans = np.empty(lines.shape, np.int32)
    for first in range(0, len(data), together):
        some = data[first : first + together]
        count = len(some)
        tracing = (partial(_trace, shape, views, cone, size_mm, first + i, i, lines, spans) for i in range(count))
        in_threads(tracing, threads)
        # Planes of one axis cross those of another: one axis after the other.
        for axis, planes in enumerate(reversed(shape)):
            if (spans[:count, ..., 0] == axis).any():
                add = partial(_back_project, some, shape, lines[:count], spans[:count], axis)
                parts = (partial(add, low, min(low + PLANES, planes), flat) for low in range(0, planes, PLANES))
                in_threads(parts, threads)


@lru_cache(maxsize=1)
def _ready() -> None:
    """Compile all functions, or load them from the disk."""
    with announced():
        volume, data = np.zeros((2, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)
        view, size = np.array([[0.0, -9, 0, 0, 9, 0, 1, 0, 0, 0, 0, 1]]), np.ones(3)
        _project_all(volume, view, True, size, data, 1)
        _back_project_all(data, view, True, size, volume, 1)
