"""GPU projectors of ASTRA on torch tensors. Written to ASTRA's documentation and not tested: no GPU was at hand.

Only ever called when `astra.use_cuda()` is true: a 3D CUDA call without a GPU kills the process. The
back-projection is voxel-driven, so it is the adjoint only approximately.
"""

from __future__ import annotations

from typing import Any

import astra
import numpy as np
import torch
from torch import Tensor

from operators.errors import BackendUnavailable
from operators.geometry import FanBeam, ParallelBeam, view_vectors
from operators.volume_geometry import VolumeBeam


def apply(geometry: ParallelBeam, data: Tensor, *, adjoint: bool) -> Tensor:
    """Project ``(slices, rows, cols)`` or back-project ``(slices, angles, detectors)``, any torch device.

    A stack in parallel or fan geometry is one 3D problem with as many detector rows as slices (parallel),
    or one slice at a time (fan: a single-row cone beam).
    """
    if not astra.use_cuda():
        raise BackendUnavailable("ASTRA finds no CUDA device", field="backend")
    device = data.device if data.is_cuda else torch.device("cuda")
    work = data.to(device)
    shape = (geometry.rows, geometry.cols) if adjoint else (len(geometry.angles_rad), geometry.detectors)
    step = 1 if isinstance(geometry, FanBeam) else len(work)
    parts = [_block(geometry, block, shape, adjoint=adjoint) for block in work.split(step)]
    return torch.cat(parts).to(data.device)


def _block(g: ParallelBeam, block: Tensor, shape: tuple[int, int], *, adjoint: bool) -> Tensor:
    slices = len(block)
    half_x, half_y = g.cols * g.pixel_mm / 2, g.rows * g.pixel_mm / 2
    # Unit thickness; slices do not mix because detector rows and slices coincide.
    half_z = slices * g.pixel_mm / 2
    volume = astra.create_vol_geom(g.rows, g.cols, slices, -half_x, half_x, -half_y, half_y, -half_z, half_z)
    projections = astra.create_proj_geom(
        "cone_vec" if isinstance(g, FanBeam) else "parallel3d_vec", slices, g.detectors, _vectors(g)
    )
    # ASTRA puts the detector row first, as our stacks do: (slices, angles, detectors).
    # Its 3D volumes have y growing with the row, its 2D ones, and ours, have row 0 on top.
    out = _run(projections, volume, block if adjoint else block.flip(1), (slices, *shape), adjoint=adjoint)
    return out.flip(1) if adjoint else out


def apply_volume(g: VolumeBeam, data: Tensor, *, adjoint: bool) -> Tensor:
    """Project a volume ``(slices, rows, cols)``, or back-project ``(views, detector rows, columns)``, any device."""
    if not astra.use_cuda():
        raise BackendUnavailable("ASTRA finds no CUDA device", field="backend")
    device = data.device if data.is_cuda else torch.device("cuda")
    half_x, half_y, half_z = g.extent_mm / 2
    volume = astra.create_vol_geom(g.rows, g.cols, g.slices, -half_x, half_x, -half_y, half_y, -half_z, half_z)
    kind = "cone_vec" if g.cone else "parallel3d_vec"
    projections = astra.create_proj_geom(kind, g.detector_rows, g.detector_columns, g.vectors)
    work = data.to(device)
    if adjoint:
        # ASTRA's views have the detector row first.
        found = _run(projections, volume, work.transpose(0, 1), g.volume_shape, adjoint=True).flip(1)
    else:
        shape = (g.detector_rows, g.views, g.detector_columns)
        found = _run(projections, volume, work.flip(1), shape, adjoint=False).transpose(0, 1)
    return found.contiguous().to(data.device)


def _run(projections: Any, volume: Any, data: Tensor, shape: tuple[int, ...], *, adjoint: bool) -> Tensor:
    """Project or back-project on the GPU; errors of ASTRA's calls are not raised, so what it left out is found."""
    projector = astra.create_projector("cuda3d", projections, volume)
    try:
        out = torch.full(shape, float("nan"), device=data.device)
        torch.cuda.current_stream().synchronize()
        run = astra.projector3d.direct_BP if adjoint else astra.projector3d.direct_FP
        run(projector, data.contiguous(), out=out)
    finally:
        astra.projector.delete(projector)
    if not bool(torch.isfinite(out).all()):
        raise BackendUnavailable("ASTRA's GPU projector failed", field="backend", remedy="use the CPU backend")
    return out


def _vectors(g: ParallelBeam) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Rows of ASTRA's 3D vector geometries: ray or source, detector centre, column step, row step."""
    flat = view_vectors(g)
    zero = np.zeros(len(flat))
    rise = g.pixel_mm * g.magnification
    return np.column_stack(
        [flat[:, 0:2], zero, flat[:, 2:4], zero, flat[:, 4:6], zero, zero, zero, np.full(len(flat), rise)]
    )
