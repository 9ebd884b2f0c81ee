"""Filtered back-projection for parallel and flat fan beam, any detector shift, any angles.

The ramp filter and the pixel-driven back-projection are our own: ASTRA's CPU filtered back-projection
takes centred parallel beams only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.geometry import FanBeam, ParallelBeam
from operators.interrupt import checkpoint


def filtered_back_projection(sinogram: Tensor, geometry: ParallelBeam, window: str = "ram-lak") -> Tensor:
    """Reconstruct attenuation in 1/mm from line integrals by filtered back-projection.

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
    spaced fan beam). Scans short of a full turn are not Parker-weighted.
    """
    g = geometry
    pitch = g.detector_mm / g.magnification  # on the virtual detector through the rotation axis
    position = (torch.arange(g.detectors) - (g.detectors - 1) / 2) * pitch + g.detector_shift_mm / g.magnification
    weighted = sinogram.to(torch.float32)
    if isinstance(g, FanBeam):
        weighted = weighted * (g.source_origin_mm / torch.sqrt(g.source_origin_mm**2 + position**2))
    filtered = ramp_filter(weighted, pitch, window) * view_weights(g)[None, :, None]
    x = (torch.arange(g.cols) - (g.cols - 1) / 2) * g.pixel_mm
    y = ((g.rows - 1) / 2 - torch.arange(g.rows)) * g.pixel_mm
    y, x = torch.meshgrid(y, x, indexing="ij")
    # Slices last: what a pixel needs of all of them lies side by side.
    columns = filtered.permute(1, 2, 0).contiguous()
    volume = torch.zeros((g.rows * g.cols, len(sinogram)))
    for view, angle in enumerate(g.angles_rad):
        checkpoint()
        along, toward = x * math.cos(angle) + y * math.sin(angle), x * math.sin(angle) - y * math.cos(angle)
        depth = torch.ones_like(along)
        if isinstance(g, FanBeam):
            # The source sits at +toward; a pixel nearer to it is magnified more.
            depth = (g.source_origin_mm - toward) / g.source_origin_mm
        index = ((along / depth - float(position[0])) / pitch).flatten()
        for nearest, share in _linear(index, g.detectors):
            weight = share / depth.flatten().square()
            # Product and sum apart: fused, their rounding would depend on how many slices there are.
            volume += columns[view].index_select(0, nearest).mul_(weight[:, None])
    # Back to slices first in memory too: what starts from here keeps its layout.
    return volume.T.contiguous().reshape(len(sinogram), g.rows, g.cols)


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
    """Angle in radians that each view stands for, summing to half a turn of independent rays at most.

    A parallel view repeats after half a turn, a fan view after a whole one (then each ray is measured
    twice). At a gap (limited angle) a view stands for no more than its usual share.
    """
    period = 2 * math.pi if isinstance(g, FanBeam) else math.pi
    angles = torch.tensor(g.angles_rad, dtype=torch.float64) % period
    order = torch.argsort(angles)
    ordered = angles[order]
    gaps = torch.diff(ordered, append=ordered[:1] + period)
    if len(ordered) == 1:
        return torch.full((1,), math.pi, dtype=torch.float32)
    # Views that coincide but for rounding (a whole turn of parallel beams) say nothing about the usual gap.
    apart = gaps[gaps > 1e-3 * (ordered[-1] - ordered[0]) / len(ordered)]
    usual = torch.quantile(apart, 0.9, interpolation="lower") if len(apart) > 1 else apart[0]
    gaps = torch.where(gaps > 3 * usual, usual, gaps)
    weights = torch.empty_like(angles)
    weights[order] = (gaps + gaps.roll(1)) / 2
    covered = float(weights.sum())
    redundancy = max(1.0, covered / math.pi) if isinstance(g, FanBeam) else 1.0
    return (weights / redundancy).to(torch.float32)


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
