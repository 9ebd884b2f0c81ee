"""Filtered back-projection for parallel and flat fan beam, any detector shift, any angles.

The ramp filter and the pixel-driven back-projection are our own: ASTRA's CPU filtered back-projection
takes centred parallel beams only.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from operators.geometry import PIXELS_AT_ONCE, WIDE_GAP, FanBeam, ParallelBeam, arc, usual_gap
from operators.interrupt import checkpoint


def filtered_back_projection(sinogram: Tensor, geometry: ParallelBeam, window: str = "ram-lak") -> Tensor:
    """Reconstruct attenuation in 1/mm from line integrals by filtered back-projection.

    Rays that are measured twice share their weight (`ray_weights`). Beyond the detector the object has ended; that of a
    displaced detector is met from the other side.

    Parameters
    ----------
    sinogram
        ``(slices, angles, detectors)``.
    geometry
        Parallel or fan beam.
    window
        ``ram-lak`` (none) or ``hann``.

    Returns
    -------
    Tensor
        ``(slices, rows, cols)`` float32.

    References
    ----------
    Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, equations 3.61 and 3.112 (equally
    spaced fan beam).
    """
    weighted = sinogram.to(torch.float32)
    weights = ray_weights(geometry)
    g = geometry
    if geometry.beyond_view:
        # What the ramp filter spreads beyond the ends of a row belongs to the image as well.
        beyond = beyond_detector(geometry)
        g = geometry.extended(*beyond)
        weighted = pad(weighted if weights is None else weighted * weights, beyond)
    elif weights is not None:
        weighted = weighted * weights
    pitch = g.pitch_mm  # on the virtual detector through the rotation axis
    position = (torch.arange(g.detectors) - (g.detectors - 1) / 2) * pitch + g.detector_shift_mm / g.magnification
    if isinstance(g, FanBeam):
        weighted = weighted * (g.source_origin_mm / torch.sqrt(g.source_origin_mm**2 + position**2))
    filtered = ramp_filter(weighted, pitch, window) * view_weights(geometry)[None, :, None]
    # Slices last: what a pixel needs of all of them lies side by side.
    columns = filtered.permute(1, 2, 0).contiguous()
    # Slices first in memory too: what starts from here keeps its layout.
    volume = torch.empty((len(sinogram), g.rows, g.cols))
    block = max(1, PIXELS_AT_ONCE // g.cols)
    for first in range(0, g.rows, block):
        checkpoint()
        last = min(first + block, g.rows)
        volume[:, first:last] = _back_projected(columns, g, float(position[0]), first, last)
    return volume


def _back_projected(columns: Tensor, g: ParallelBeam, start_mm: float, first: int, last: int) -> Tensor:
    """Back-project filtered views ``(views, detectors, slices)`` into rows `first` to `last` of every slice.

    The first detector element lies at `start_mm` on the virtual detector through the rotation axis.
    """
    x = (torch.arange(g.cols) - (g.cols - 1) / 2) * g.pixel_mm
    y = ((g.rows - 1) / 2 - torch.arange(first, last)) * g.pixel_mm
    y, x = torch.meshgrid(y, x, indexing="ij")
    part = torch.zeros((y.numel(), columns.shape[2]))
    for view, angle in enumerate(g.angles_rad):
        checkpoint()
        along, toward = x * math.cos(angle) + y * math.sin(angle), x * math.sin(angle) - y * math.cos(angle)
        depth = torch.ones_like(along)
        if isinstance(g, FanBeam):
            # The source sits at +toward; a pixel nearer to it is magnified more.
            depth = (g.source_origin_mm - toward) / g.source_origin_mm
        index = ((along / depth - start_mm) / g.pitch_mm).flatten()
        for nearest, share in _linear(index, g.detectors):
            weight = share / depth.flatten().square()
            # Product and sum apart: fused, their rounding would depend on how many slices there are.
            part += columns[view].index_select(0, nearest).mul_(weight[:, None])
    return part.T.reshape(columns.shape[2], last - first, g.cols)


def ramp_filter(sinogram: Tensor, pitch_mm: float, window: str) -> Tensor:
    """Filter the last axis with the band-limited ramp, sampled in space so that the mean comes out right."""
    count = sinogram.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * count))
    offset = torch.arange(size, dtype=torch.float64)
    offset = torch.minimum(offset, size - offset)
    kernel = torch.where(offset % 2 == 1, -1 / (math.pi * offset.clamp(min=1)).square(), 0.0)
    kernel[0] = 0.25
    response = torch.fft.rfft(kernel).real / pitch_mm
    if window == "hann":
        frequency = torch.arange(len(response), dtype=torch.float64) / (len(response) - 1)
        response = response * (0.5 + 0.5 * torch.cos(math.pi * frequency))
    spectrum = torch.fft.rfft(sinogram, n=size) * response.to(torch.float32)
    filtered: Tensor = torch.fft.irfft(spectrum, n=size)
    return filtered[..., :count]


def view_weights(g: ParallelBeam) -> Tensor:
    """Angle in radians that each view stands for, ``(views,)``.

    A parallel view repeats after half a turn, so that the sum is half a turn at most, a fan view after a whole one.
    Where `ray_weights` share out what is measured twice, the sum is a whole turn at most; without them, half of that.
    At a gap (limited angle) a view stands for no more than its usual share.
    """
    shared = ray_weights(g) is not None
    period = 2 * math.pi if shared or isinstance(g, FanBeam) else math.pi
    if len(g.angles_rad) == 1:
        return torch.full((1,), math.pi, dtype=torch.float32)
    angles = torch.tensor(g.angles_rad, dtype=torch.float64) % period
    order = torch.argsort(angles)
    ordered = angles[order]
    gaps = torch.diff(ordered, append=ordered[:1] + period)
    usual = usual_gap(gaps.tolist())
    gaps = torch.where(gaps > WIDE_GAP * usual, usual, gaps)
    weights = torch.empty_like(gaps)
    weights[order] = (gaps + gaps.roll(1)) / 2
    redundancy = max(1.0, float(weights.sum()) / math.pi) if isinstance(g, FanBeam) and not shared else 1.0
    return (weights / redundancy).to(torch.float32)


def ray_weights(g: ParallelBeam) -> Tensor | None:
    """Share of each ray in what is measured of its line, ``(views, detectors)``; None if all rays have the same.

    Both rays along a line, there and back, share a weight of one. Over a whole turn with a displaced detector the share
    falls smoothly to zero at the nearer end of the detector, over a fan's shorter arc at both ends of the arc.

    References
    ----------
    Wang 2002, Med. Phys. 29, 1634-1636 (displaced detector). Parker 1982, Med. Phys. 9, 254-257 (short scan); Silver
    2000, Med. Phys. 27, 773-774 (arcs longer than the shortest).
    """
    if g.beyond_view and g.displaced:
        toward = math.copysign(1.0, g.detector_shift_mm)
        nearer = max(g.detectors * g.pitch_mm / 2 - abs(g.detector_shift_mm) / g.magnification, g.pitch_mm / 2)
        shares = displaced_weights(torch.from_numpy(g.positions_mm) * toward, nearer)
        return shares.float().expand(len(g.angles_rad), -1)
    covered = arc(g.angles_rad, 2 * math.pi) if isinstance(g, FanBeam) and len(g.angles_rad) > 1 else None
    if covered is None or not isinstance(g, FanBeam):
        return None
    start, length = covered
    past = torch.tensor([(angle - start) % (2 * math.pi) for angle in g.angles_rad], dtype=torch.float64)
    return short_scan_weights(past[:, None], -torch.from_numpy(g.fan_rad), length).float()


def displaced_weights(position: Tensor, nearer: float) -> Tensor:
    """Wang's weights: from 0 at the `nearer` end of the detector, at a negative position, to 1 where it has no twin."""
    return 0.5 + 0.5 * torch.sin(math.pi / 2 * (position / nearer).clamp(-1, 1))


def short_scan_weights(past: Tensor, fan: Tensor, length: float) -> Tensor:
    """Parker's weights of rays at an angle `past` the beginning of an arc of any `length` below a whole turn.

    The ray at ``(past, fan)`` comes back at ``(past + pi + 2 fan, -fan)``; angles in radians.
    """
    margin = (length - math.pi) / 2
    # A ray has its twin within the arc if it lies so near its beginning, or its end.
    first, last = 2 * (margin - fan), 2 * (margin + fan)
    left = length - past
    rising = torch.sin(math.pi / 2 * past / first.clamp(min=1e-9)).square()
    falling = torch.sin(math.pi / 2 * left / last.clamp(min=1e-9)).square()
    return torch.where(past < first, rising, torch.where(left < last, falling, 1.0))


def beyond_detector(g: ParallelBeam) -> tuple[int, int]:
    """Detector elements that are missing at both ends to see the whole image."""
    corner = math.hypot(g.rows, g.cols) / 2 * g.pixel_mm
    furthest = g.ray_position_mm(corner)
    ends = np.array([g.positions_mm[0], g.positions_mm[-1]])
    before, after = np.ceil((furthest - ends * (-1, 1)) / g.pitch_mm)
    return max(int(before), 0), max(int(after), 0)


def _linear(index: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Both neighbours of a fractional `index` among `count` samples and their shares; none outside."""
    low = index.floor()
    fraction = index - low
    inside = (index >= 0) & (index <= count - 1)
    low = low.clamp(0, max(count - 2, 0)).long()
    return [
        (low, torch.where(inside, 1 - fraction, 0.0)),
        ((low + 1).clamp(max=count - 1), torch.where(inside, fraction, 0.0)),
    ]
