"""Feldkamp's filtered back-projection of volumes: cone beam on a circle, any detector place, short scans, tilted axes.

Rows are filtered, and rays weighted, on the detector through the rotation axis; views of a detector that is turned,
tilted or not level are interpolated onto it first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from operators.errors import GeometryError
from operators.fbp import beyond_detector, ramp_filter, ray_weights, view_weights
from operators.feldkamp_kernel import back_project
from operators.geometry import FanBeam, ParallelBeam
from operators.interrupt import checkpoint
from operators.volume_geometry import VolumeBeam


def feldkamp(data: Tensor, geometry: VolumeBeam, window: str = "ram-lak") -> Tensor:
    """Reconstruct attenuation in 1/mm from line integrals of a circular scan; exact in the plane of the source.

    Parallel beams around a tilted axis are exact but for what no view shows: waves whose direction is within the tilt
    of the axis, a double cone of the object's spectrum. So a ball comes out at its value times the cosine of the tilt.

    Rays that are measured twice share their weight as those of a fan beam do (`operators.fbp.ray_weights`), by their
    column. Beyond the detector the object has ended, and what no row saw counts as empty.

    Parameters
    ----------
    data
        ``(views, detector rows, detector columns)``.
    window
        ``ram-lak`` (none) or ``hann``.

    Returns
    -------
    Tensor
        ``(slices, rows, cols)`` float32.

    Raises
    ------
    GeometryError
        If the sources do not lie on a circle around the rotation axis, or if this is tilted and no whole turn was seen.

    References
    ----------
    Feldkamp, Davis and Kress 1984, J. Opt. Soc. Am. A 1, 612-619, equations 28 to 30.
    """
    central, refused = geometry.central(), geometry.unfilterable()
    if central is None or refused is not None:
        raise GeometryError(
            f"{refused}: filtered back-projection does not apply", field="method.name", remedy="use sirt, cgls or tv"
        )
    before, after = beyond_detector(central) if central.beyond_view else (0, 0)
    views, place = _on_axis(data.to(torch.float32), geometry, central)
    wide = central.extended(before, after)
    weights = ray_weights(central)
    shares = view_weights(central)
    columns = torch.arange(wide.detectors, dtype=torch.float64) - before
    rows = torch.arange(views.shape[1], dtype=torch.float64)
    filtered = torch.empty((len(views), views.shape[1], wide.detectors))
    # A ray that climbs is longer than its shadow on the plane, that of a cone by what follows from its place.
    slopes = np.ones(geometry.views) if geometry.cone else 1 / np.cos(np.arctan(geometry.climb))
    inverse_radius = 1 / central.source_origin_mm if isinstance(central, FanBeam) else 0.0
    for index, view in enumerate(views):
        checkpoint()
        weighted = pad(view if weights is None else view * weights[index], (before, after))
        first_p, step_p, first_q, step_q = place[index]
        p, q = (first_p + columns * step_p) * inverse_radius, (first_q + rows * step_q) * inverse_radius
        weighted = weighted / (torch.sqrt(1 + p.square() + q[:, None].square()) * slopes[index]).float()
        filtered[index] = ramp_filter(weighted, abs(step_p), window) * shares[index]
    place[:, 0] -= before * place[:, 1]
    return torch.from_numpy(back_project(filtered.numpy(), geometry, place, torch.get_num_threads()))


def _on_axis(data: Tensor, g: VolumeBeam, central: ParallelBeam) -> tuple[Tensor, NDArray[np.float64]]:
    """Views on the detector through the axis, and per view the place of its first column and row and their steps.

    Heights count from the source of a cone, or from the middle of a volume.
    """
    first, centre, u, v = g.vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
    along, toward = g.axes()
    if not g.aligned:
        return _interpolated(data, g, central)
    if g.cone:
        radius = _dot(first, toward)
        ratio = radius / (radius - _dot(centre, toward))
        height = centre[:, 2] - first[:, 2]
    else:
        ratio, height = np.ones(g.views), centre[:, 2]
    if float(_dot(u, along)[0]) < 0:
        data, u = data.flip(2), -u
    step_p, step_q = np.linalg.norm(u, axis=1) * ratio, v[:, 2] * ratio
    first_p = _dot(centre, along) * ratio - (g.detector_columns - 1) / 2 * step_p
    first_q = height * ratio - (g.detector_rows - 1) / 2 * step_q
    return data, np.stack([first_p, step_p, first_q, step_q], axis=1)


def _interpolated(data: Tensor, g: VolumeBeam, central: ParallelBeam) -> tuple[Tensor, NDArray[np.float64]]:
    """Views interpolated onto the detector through the axis; empty where the real one does not reach."""
    along, _ = g.axes()
    p, step_q = central.positions_mm, g.pitch_mm[1]
    low, high = g.heights_on_axis_mm()
    q = low + (np.arange(max(1, round((high - low) / step_q))) + 0.5) * step_q
    up = np.array([0.0, 0.0, 1.0])
    found = torch.empty((g.views, len(q), len(p)))
    for index, row in enumerate(g.vectors):
        checkpoint()
        first, centre, u, v = row.reshape(4, 3)
        points = along[index] * p[None, :, None] + up * q[:, None, None]
        if g.cone:
            points = points + up * first[2]
            rays = points - first
        else:
            rays = np.broadcast_to(first, points.shape)
        normal = np.cross(u, v)
        hit = points + rays * (((centre - points) @ normal) / (rays @ normal))[..., None] - centre
        both = np.linalg.pinv(np.stack([u, v], axis=1))
        counts = np.array([g.detector_columns, g.detector_rows])
        # The first element is at -1, the last one at 1.
        places = 2 * (hit @ both.T) / np.maximum(counts - 1, 1)
        grid = torch.from_numpy(places.astype(np.float32))[None]
        found[index] = grid_sample(data[None, None, index], grid, align_corners=True)[0, 0]
    place = np.broadcast_to(np.array([p[0], central.pitch_mm, q[0], step_q]), (g.views, 4))
    return found, place.copy()


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.einsum("ij,ij->i", a, b)
    return found
