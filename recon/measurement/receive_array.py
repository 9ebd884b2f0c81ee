"""Receive array of an MRI scanner: loops around the head, what they see of it, and the noise they have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.measurement.random_fields import uniform

CLEARANCE_MM = 30.0
"""Distance from the head to the centres of the loops."""
OVERLAP = 1.5
"""Distance of neighbouring loops over their radius: they overlap so far that they do not induce each other."""
LOOPS_PER_RING = 8
SEGMENTS = 48
WIRE_MM = 5.0
"""Radius of the wire, which keeps its field finite."""
LOSSES = 0.25
"""Noise power of a loop's own resistance over that of the head's."""
GAIN, CLEARANCE = 0.15, 0.15
"""Largest relative deviations of a loop's gain and of its clearance."""
SPACING_MM = 5.0
"""Distance of the points at which fields are computed: between them a cubic spline is right to a part in a thousand."""
HEAD_POINTS = 9
"""Points along each axis of the head at which the loops' electric fields are compared."""


@dataclass(frozen=True)
class ReceiveArray:
    """Loops in rings around a head; millimetres, x along columns, y along rows, z along slices and the main field.

    Fields are quasi-static: at 3 T they also have waves, which turn a loop's phase over the head, and charges on its
    surface, which are left out.

    Parameters
    ----------
    corners
        Corners of every loop's wire, ``(coils, segments, 3)``, float64; none for one coil, which is a volume coil and
        sees everything alike.
    gains
        Complex gain of each coil, ``(coils,)``.
    covariance
        Covariance of the coils' noise, ``(coils, coils)`` complex128, with a mean variance of 1: what the head adds,
        which coils that see the same part of it share, and each coil's own.

    References
    ----------
    Roemer et al. 1990, Magn. Reson. Med. 16, 192-225, equations 3 to 5 (receive arrays and their noise resistance).
    """

    corners: Tensor
    gains: Tensor
    covariance: Tensor

    @classmethod
    def around(
        cls, centre_mm: tuple[float, float], half_axes_mm: tuple[float, float], coils: int, generator: torch.Generator
    ) -> ReceiveArray:
        """Put `coils` loops around an ellipse ``(x, y)``, at an angle and with gains drawn from `generator`.

        Sensitivities are scaled so that their root sum of squares is 1 on average over the head.
        """
        if coils == 1:
            one = torch.ones(1, dtype=torch.complex128)
            return cls(torch.empty(0, SEGMENTS, 3, dtype=torch.float64), one, torch.eye(1, dtype=torch.complex128))
        corners = _rings(centre_mm, half_axes_mm, coils, generator)
        phases = torch.rand(coils, generator=generator, dtype=torch.float64) * 2 * math.pi
        sizes = 1 + GAIN * (2 * torch.rand(coils, generator=generator, dtype=torch.float64) - 1)
        head = _ellipsoid(centre_mm, half_axes_mm)
        seen = torch.polar(sizes, phases)[:, None] * _received(corners, head)
        gains = torch.polar(sizes, phases) / seen.abs().square().sum(0).sqrt().mean()
        potentials = _vector_potential(corners, head)
        resistance = torch.einsum("ipx,jpx->ij", potentials, potentials)
        resistance = resistance + LOSSES * resistance.diagonal().mean() * torch.eye(coils, dtype=torch.float64)
        covariance = torch.outer(gains, gains.conj()) * resistance
        return cls(corners, gains, covariance / covariance.diagonal().real.mean())

    def sensitivities(self, rows_mm: Tensor, cols_mm: Tensor, z_mm: float) -> Tensor:
        """Sensitivities ``(coils, rows, cols)``, complex64, at the given positions of rows and columns of a slice."""
        if not len(self.corners):
            return torch.ones((1, len(rows_mm), len(cols_mm)), dtype=torch.complex64)
        (y, along_rows), (x, along_cols) = _spline(rows_mm), _spline(cols_mm)
        grid = torch.stack(torch.meshgrid(x, y, torch.tensor([z_mm], dtype=torch.float64), indexing="xy"), -1)
        coarse = self.gains[:, None] * _received(self.corners, grid.reshape(-1, 3))
        coarse = coarse.reshape(-1, len(y), len(x))
        return (along_rows @ coarse @ along_cols.T).to(torch.complex64)

    def noise(self, samples: int, generator: torch.Generator) -> Tensor:
        """Draw noise ``(coils, samples)``, complex64, of mean variance 1 per real channel."""
        white = torch.randn(2, len(self.gains), samples, generator=generator, dtype=torch.float32)
        root = torch.linalg.cholesky(self.covariance).to(torch.complex64)
        drawn: Tensor = root @ torch.complex(white[0], white[1])
        return drawn


def _rings(
    centre_mm: tuple[float, float], half_axes_mm: tuple[float, float], coils: int, generator: torch.Generator
) -> Tensor:
    """Corners of loops that face an ellipsoid, in as many rings along z as they need."""
    rings = math.ceil(coils / LOOPS_PER_RING)
    counts = [coils // rings + (ring < coils % rings) for ring in range(rings)]
    usual = sum(half_axes_mm) / 2 + CLEARANCE_MM
    radius = min(2 * math.pi * usual / (max(counts) * OVERLAP), usual)
    turn = uniform(generator, 0.0, 2 * math.pi)
    corners = []
    for ring, count in enumerate(counts):
        z = (ring - (rings - 1) / 2) * OVERLAP * radius
        for loop in range(count):
            clearance = CLEARANCE_MM * (1 + uniform(generator, -CLEARANCE, CLEARANCE))
            angle = turn + 2 * math.pi * (loop + ring / 2) / count
            towards = torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
            reach = torch.tensor([half + clearance for half in half_axes_mm] + [0.0], dtype=torch.float64)
            middle = towards * reach + torch.tensor([*centre_mm, z], dtype=torch.float64)
            corners.append(_loop(middle, towards, radius))
    return torch.stack(corners)


def _loop(middle: Tensor, normal: Tensor, radius: float) -> Tensor:
    """Corners ``(SEGMENTS, 3)`` of a circle about `normal`, which is perpendicular to z."""
    angles = torch.arange(SEGMENTS, dtype=torch.float64) * (2 * math.pi / SEGMENTS)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    beside = torch.linalg.cross(up, normal)
    corners: Tensor = middle + radius * (angles.cos()[:, None] * beside + angles.sin()[:, None] * up)
    return corners


def _ellipsoid(centre_mm: tuple[float, float], half_axes_mm: tuple[float, float]) -> Tensor:
    """Points ``(points, 3)`` inside the head, taken for as long as it is wide on average."""
    line = torch.linspace(-1, 1, HEAD_POINTS, dtype=torch.float64)
    unit = torch.cartesian_prod(line, line, line)
    unit = unit[torch.linalg.vector_norm(unit, dim=1) <= 1]
    half_axes = torch.tensor([*half_axes_mm, sum(half_axes_mm) / 2], dtype=torch.float64)
    return unit * half_axes + torch.tensor([*centre_mm, 0.0], dtype=torch.float64)


def _received(corners: Tensor, points: Tensor) -> Tensor:
    """Receive field ``Bx - i By`` of loops at ``(points, 3)``, by Biot and Savart's law, up to a constant."""
    found = torch.zeros((len(corners), len(points)), dtype=torch.complex128)
    for segment in range(SEGMENTS):
        step, offset, distance = _from_segment(corners, points, segment)
        field = torch.linalg.cross(step.expand_as(offset), offset) / distance[..., None] ** 3
        found += torch.complex(field[..., 0], -field[..., 1])
    return found


def _vector_potential(corners: Tensor, points: Tensor) -> Tensor:
    """Vector potential ``(coils, points, 3)`` of loops, whose change is their electric field, up to a constant."""
    found = torch.zeros((len(corners), len(points), 3), dtype=torch.float64)
    for segment in range(SEGMENTS):
        step, _, distance = _from_segment(corners, points, segment)
        found += step / distance[..., None]
    return found


def _from_segment(corners: Tensor, points: Tensor, segment: int) -> tuple[Tensor, Tensor, Tensor]:
    """One segment of each wire ``(coils, 1, 3)``, the way from its middle to the points, and that way's length."""
    begin, end = corners[:, segment, None], corners[:, (segment + 1) % SEGMENTS, None]
    offset = points - (begin + end) / 2
    return end - begin, offset, (offset.square().sum(-1) + WIRE_MM**2).sqrt()


def _spline(positions_mm: Tensor) -> tuple[Tensor, Tensor]:
    """Coarse positions, and the matrix ``(positions, coarse)`` of the cubic spline from these to the given ones."""
    from scipy.interpolate import make_interp_spline

    first, last = float(positions_mm[0]), float(positions_mm[-1])
    count = max(math.ceil((last - first) / SPACING_MM) + 1, 4)
    coarse = np.linspace(first, last, count)
    matrix = make_interp_spline(coarse, np.eye(count))(positions_mm.numpy())
    return torch.from_numpy(coarse), torch.from_numpy(matrix).to(torch.complex128)
