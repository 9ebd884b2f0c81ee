"""CT acquisition geometries of whole volumes: one row of vectors per view, and presets that make them. No torch.

World frame as in `operators.geometry`, with a third axis along the rotation axis: x to the right (columns), y up (row
0 is the largest y), z along the slices (slice 0 is the lowest), the origin in the middle of the volume, millimetres
throughout. At angle 0 the source is at negative y, detector columns grow along x and detector rows along z.

A row of vectors has twelve numbers, as ASTRA's ``cone_vec`` and ``parallel3d_vec``: source, or the direction of the
rays; centre of the detector; step from column to column; step from row to row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from operators.errors import GeometryError
from operators.geometry import FULL_CIRCLE, FanBeam, ParallelBeam, angular_cover, check_angles, folds_of

Vectors = NDArray[np.float64]
Beam = Literal["cone", "parallel"]

UNIT_RATIO = 50.0
"""Ratio of the detector's pitch at the object to a voxel from which one of them is taken for another unit."""
CIRCLE = 0.02
"""Fraction of its radius by which an orbit may deviate from a circle around the rotation axis."""
LEVEL = 1e-4
"""Slope up to which a detector's row lies in a plane normal to the rotation axis."""
ALIGNED = 1e-8
"""Difference to 1 that the cosine of an angle may have for two directions to count as the same: 0.1 mrad."""
LEANING_RAD = 0.1
"""Tilt of the axis along a parallel beam up to which views half a turn apart count as mirror images of each other."""


@dataclass(frozen=True, eq=False)
class VolumeBeam:
    """Cone or parallel beam through a whole volume.

    Parameters
    ----------
    slices, rows, cols
        Volume size in voxels.
    pixel_mm, slice_mm
        Side of a square pixel, and distance of slices.
    vectors
        One row of twelve numbers per view, ``(views, 12)``, in millimetres.
    detector_rows, detector_columns
        Number of detector elements along both sides.
    beam
        Whether the first three numbers of a row are the ``cone``'s source, or the direction of ``parallel`` rays.
    """

    slices: int
    rows: int
    cols: int
    pixel_mm: float
    slice_mm: float
    vectors: Vectors
    detector_rows: int
    detector_columns: int
    beam: Beam = "cone"

    def __post_init__(self) -> None:
        for name in ("pixel_mm", "slice_mm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise GeometryError(f"{value} is not a positive length", field=name, remedy="give millimetres")
        for name in ("slices", "rows", "cols", "detector_rows", "detector_columns"):
            if getattr(self, name) < 1:
                raise GeometryError(f"{getattr(self, name)} is not a positive count", field=name)
        self._check_vectors()
        if self.cone:
            self._check_distances()
        self._check_shadow()

    @property
    def cone(self) -> bool:
        """Whether rays start at a source."""
        return self.beam == "cone"

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.vectors)

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """``(slices, rows, cols)``."""
        return self.slices, self.rows, self.cols

    @property
    def data_shape(self) -> tuple[int, int, int]:
        """``(views, detector rows, detector columns)``."""
        return self.views, self.detector_rows, self.detector_columns

    @property
    def size_mm(self) -> NDArray[np.float64]:
        """Voxel size along columns, rows and slices."""
        return np.array([self.pixel_mm, self.pixel_mm, self.slice_mm])

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """Size of the volume along x, y and z."""
        return self.size_mm * (self.cols, self.rows, self.slices)

    @cached_property
    def in_voxels(self) -> Vectors:
        """The vectors in voxels, of which the first has its centre at the origin; y turned round, as rows go down."""
        scale = np.array([1.0, -1.0, 1.0]) / self.size_mm
        middle = (np.array([self.cols, self.rows, self.slices]) - 1) / 2
        found = self.vectors.reshape(-1, 4, 3) * scale
        found[:, 1] += middle
        if self.cone:
            found[:, 0] += middle
        return np.ascontiguousarray(found.reshape(-1, 12))

    @property
    def pitch_mm(self) -> tuple[float, float]:
        """Pitch of detector columns and rows at the middle of the volume, mean of all views."""
        _, _, u, v = self.vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        ratio = 1 / self.magnifications
        found = [float(np.mean(np.linalg.norm(step, axis=1) * ratio)) for step in (u, v)]
        return found[0], found[1]

    @property
    def magnifications(self) -> NDArray[np.float64]:
        """Size on the detector over size at the middle of the volume, in each view."""
        if not self.cone:
            return np.ones(self.views)
        source, centre, u, v = self.vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        normal = np.cross(u, v)
        dots = np.einsum("ij,ij->i", centre - source, normal), np.einsum("ij,ij->i", -source, normal)
        found: NDArray[np.float64] = dots[0] / dots[1]
        return found

    @cached_property
    def angles_rad(self) -> tuple[float, ...]:
        """Angle of each view around the rotation axis: of its source, or of its rays."""
        first = self.vectors[:, :2]
        return tuple(np.arctan2(first[:, 0], -first[:, 1]).tolist())

    @cached_property
    def folds(self) -> list[tuple[int, ...]]:
        """Views to withhold, see `operators.geometry.folds_of`."""
        return folds_of(self.angles_rad, 2 * math.pi if self.cone or self.tilt_rad > LEVEL else math.pi)

    def views_of(self, chosen: Sequence[int]) -> Self:
        """The same with some of the views."""
        return replace(self, vectors=self.vectors[list(chosen)])

    def middle(self, slices: int) -> tuple[Self, slice, slice] | None:
        """The scan of the slices nearest to the plane of the sources alone, by the rows whose rays stay among them.

        Returns
        -------
        tuple or None
            Geometry, detector rows and slices; None where there are no more slices, where the rays of a row cross all
            of them, as those of a helix or of a tilted axis do, or where no row is left.
        """
        source, centre, u, v = self.vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        off_level = [
            np.abs(u[:, 2]) / np.linalg.norm(u, axis=1),
            np.hypot(v[:, 0], v[:, 1]) / np.linalg.norm(v, axis=1),
        ]
        if not self.cone:
            off_level.append(np.abs(self.climb))
        if slices >= self.slices or self.central() is None or np.max(off_level) > LEVEL:
            return None
        plane_mm = float(source[:, 2].mean()) if self.cone else 0.0
        wished = round(plane_mm / self.slice_mm + (self.slices - slices) / 2)
        first = min(max(wished, 0), self.slices - slices)
        # Between the centres of the first and the last one: values are interpolated between slices.
        low_mm, high_mm = ((edge - self.slices / 2) * self.slice_mm for edge in (first + 0.5, first + slices - 0.5))
        # Heights at which the rays of each row enter and leave a cylinder around the axis.
        radius_mm = math.hypot(self.extent_mm[0], self.extent_mm[1]) / 2
        heights = centre[:, 2, None] + v[:, 2, None] * (np.arange(self.detector_rows) - (self.detector_rows - 1) / 2)
        if self.cone:
            orbit_mm = np.hypot(source[:, 0], source[:, 1])[:, None]
            normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v), axis=1)[:, None]
            depth_mm = np.abs(np.einsum("ij,ij->i", centre - source, normal))[:, None]
            slopes = (heights - source[:, 2, None]) / depth_mm
            ends = [source[:, 2, None] + slopes * (orbit_mm + way) for way in (-radius_mm, radius_mm)]
        else:
            ends = [heights]
        stays = np.all([((end >= low_mm) & (end <= high_mm)).all(0) for end in ends], axis=0)
        rows = np.flatnonzero(stays)
        if not len(rows):
            return None
        begin, end = int(rows[0]), int(rows[-1]) + 1
        moved = self.vectors.reshape(-1, 4, 3).copy()
        moved[:, 1] += moved[:, 3] * ((begin + end - self.detector_rows) / 2)
        moved[:, 0 if self.cone else 1 : 2, 2] -= (low_mm + high_mm) / 2  # the origin is the middle of the volume
        part = replace(self, slices=slices, vectors=moved.reshape(-1, 12), detector_rows=end - begin)
        return part, slice(begin, end), slice(first, first + slices)

    def plane(self) -> ParallelBeam | None:
        """Geometry in which each detector row is measured as if it lay in the plane of the sources, see `central`.

        None unless rows lie along circles around the rotation axis. Where `reversed_columns`, its columns run the other
        way round.
        """
        return self.central() if self.aligned else None

    @property
    def reversed_columns(self) -> bool:
        """Whether columns follow each other against the direction of `axes`."""
        along, _ = self.axes()
        return bool(np.einsum("ij,ij->i", self.vectors[:, 6:9], along)[0] < 0)

    def extended(self, before: int, after: int) -> Self:
        """The same with more detector columns at both ends."""
        vectors = self.vectors.copy()
        vectors[:, 3:6] += vectors[:, 6:9] * ((after - before) / 2)
        return replace(self, vectors=vectors, detector_columns=self.detector_columns + before + after)

    def turned(self, angle_rad: float) -> Self:
        """The same with all views turned around the rotation axis."""
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        return replace(self, vectors=(self.vectors.reshape(-1, 4, 3) @ rotation.T).reshape(-1, 12))

    def central(self) -> ParallelBeam | None:
        """Geometry of the plane of the sources; None unless these lie on a circle around the rotation axis.

        Its detector is the one through the rotation axis, of which `operators.fdk` makes the views.
        """
        first = self.vectors[:, :3]
        if not self.cone:
            first = first / np.linalg.norm(first, axis=1, keepdims=True)
        radius = np.hypot(first[:, 0], first[:, 1])
        mean = float(radius.mean())
        if mean == 0 or np.ptp(radius) > CIRCLE * mean or np.ptp(first[:, 2]) > CIRCLE * mean:
            return None
        low, high = (float(ends.mean()) for ends in self._on_axis_plane())
        pitch, _ = self.pitch_mm
        detectors = max(2, round((high - low) / pitch)) if not self.aligned else self.detector_columns
        pitch = (high - low) / detectors
        common = (self.rows, self.cols, self.pixel_mm, self.angles_rad, detectors)
        if not self.cone:
            return ParallelBeam(*common, pitch, (low + high) / 2)
        return FanBeam(*common, pitch, (low + high) / 2, source_origin_mm=mean, origin_detector_mm=0.0)

    def unfilterable(self) -> str | None:
        """Say why filtered back-projection does not apply; None where it does.

        A view of a parallel beam shows the plane through 0 normal to its rays of the object's spectrum. Around a tilted
        axis these planes touch a double cone, and cover what is outside of it twice in a whole turn, but some of it
        twice and some not at all in half of one.
        """
        if self.central() is None:
            if self.cone:
                return "the sources do not lie on a circle around the rotation axis"
            return "the rays do not climb along the rotation axis by the same slope in every view"
        if self.cone or self.tilt_rad <= LEANING_RAD or angular_cover(self.angles_rad, 2 * math.pi) > FULL_CIRCLE:
            return None
        covered = math.degrees(2 * math.pi * angular_cover(self.angles_rad, 2 * math.pi))
        return (
            f"the rotation axis is tilted by {math.degrees(self.tilt_rad):.3g} degrees, and the views cover"
            f" {covered:.0f} of the 360 degrees that determine an image then"
        )

    @cached_property
    def aligned(self) -> bool:
        """Whether columns run along circles around the rotation axis and rows along it, in every view, or all back."""
        _, _, u, v = self.vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        along, _ = self.axes()
        flat = np.einsum("ij,ij->i", u, along) / np.linalg.norm(u, axis=1)
        upright = v[:, 2] / np.linalg.norm(v, axis=1)
        return all(bool((one > 1 - ALIGNED).all() or (one < ALIGNED - 1).all()) for one in (flat, upright))

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Unit vectors of each view: along the detector, and towards the source; both normal to the rotation axis."""
        angles, zero = np.asarray(self.angles_rad), np.zeros(self.views)
        along = np.stack([np.cos(angles), np.sin(angles), zero], 1)
        toward = np.stack([np.sin(angles), -np.cos(angles), zero], 1)
        return along, toward

    @property
    def climb(self) -> NDArray[np.float64]:
        """Slope of parallel rays in each view: how much they rise along the axis on their way towards the source."""
        _, toward = self.axes()
        ray = self.vectors[:, :3]
        found: NDArray[np.float64] = ray[:, 2] / np.einsum("ij,ij->i", ray, toward)
        return found

    @property
    def tilt_rad(self) -> float:
        """Largest tilt of the rotation axis along the rays of a parallel beam in any view; 0 for a cone."""
        return 0.0 if self.cone else float(np.arctan(np.abs(self.climb)).max())

    def heights_on_axis_mm(self) -> tuple[float, float]:
        """Lowest and highest ray on the plane through the rotation axis, over the source of a cone, in any view."""
        points, _ = self._corners_on_axis()
        heights = points[..., 2] - (self.vectors[:, 2] if self.cone else 0.0)
        return float(heights.min()), float(heights.max())

    def reach_mm(self, radius_mm: float) -> float:
        """Largest distance from the middle along the axis of any ray within a cylinder around the axis."""
        points, _ = self._corners_on_axis()
        if not self.cone:
            return float(np.abs(points[..., 2]).max() + radius_mm * np.abs(self.climb).max())
        source = self.vectors[:, :3]
        # Behind the axis rays are farther apart than on the plane through it.
        wider = 1 + radius_mm / np.hypot(source[:, 0], source[:, 1])
        return float(np.abs(source[:, 2] + (points[..., 2] - source[:, 2]) * wider).max())

    def _on_axis_plane(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends of each view's detector, projected onto the plane through the rotation axis."""
        points, along = self._corners_on_axis()
        places = np.einsum("kij,ij->ki", points, along)
        return places.min(0), places.max(0)

    def _corners_on_axis(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of each view's detector projected onto the plane through the axis, ``(4, views, 3)``."""
        first, centre, u, v = self.vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        along, toward = self.axes()
        found = []
        for column, row in product((-0.5, 0.5), (-0.5, 0.5)):
            point = centre + column * self.detector_columns * u + row * self.detector_rows * v
            ray = point - first if self.cone else first
            way = np.einsum("ij,ij->i", point, toward) / np.einsum("ij,ij->i", ray, toward)
            found.append(point - ray * way[:, None])
        return np.stack(found), along

    def _check_vectors(self) -> None:
        vectors = self.vectors
        if vectors.ndim != 2 or vectors.shape[1] != 12 or not len(vectors):
            raise GeometryError(
                f"shape {vectors.shape}, one row of 12 numbers per view is needed: source (or ray), detector centre,"
                " column step, row step",
                field="vectors",
                remedy="give (views, 12)",
            )
        if not np.isfinite(vectors).all():
            view = int(np.nonzero(~np.isfinite(vectors).all(1))[0][0])
            raise GeometryError(f"row {view} is not finite", field="vectors", remedy="every number must be finite")
        first, _, u, v = vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(u, v), axis=1)
        if not (area > 1e-6 * np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)).all():
            raise GeometryError(
                "column step and row step are parallel or zero in some view, which makes no detector",
                field="vectors",
                remedy="each row ends in the step of a column, then that of a row, in mm",
            )
        if not self.cone and not (np.linalg.norm(first, axis=1) > 0).all():
            raise GeometryError("the direction of the rays is zero in some view", field="vectors")

    def _check_distances(self) -> None:
        source, centre, u, v = self.vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        half = self.extent_mm / 2
        inside = (np.abs(source) <= half).all(1)
        if inside.any():
            view = int(np.nonzero(inside)[0][0])
            raise GeometryError(
                f"the source of view {view} at {_spelled(source[view])} mm lies inside the volume, which reaches to"
                f" {_spelled(half)} mm",
                field="source_origin_mm",
                remedy="give the distance from the source to the rotation axis in millimetres, or a smaller volume",
            )
        normal = np.cross(u, v)
        depth = np.einsum("ij,ij->i", centre - source, normal)
        if (depth == 0).any():
            raise GeometryError("the source lies in the plane of the detector in some view", field="vectors")
        normal = normal * np.sign(depth)[:, None]
        corners = np.array(list(product((-1, 1), repeat=3))) * half
        behind = np.einsum("kj,ij->ik", corners, normal) <= np.einsum("ij,ij->i", source, normal)[:, None]
        if behind.any():
            raise GeometryError(
                "the volume reaches behind the source in some view",
                field="source_origin_mm",
                remedy="give distances in millimetres, or a smaller volume",
            )
        lowest = float(self.magnifications.min())
        if lowest < 1 - 1e-9:
            raise GeometryError(
                f"the detector is nearer to the source than the rotation axis: a magnification of {lowest:.3g}",
                field="origin_detector_mm",
                remedy="give the distance from the rotation axis to the detector, behind it as seen from the source",
            )

    def _check_shadow(self) -> None:
        """Check that the detector sees the volume, and that both have the same unit."""
        ratio = self.pitch_mm[0] / self.pixel_mm
        if not 1 / UNIT_RATIO < ratio < UNIT_RATIO:
            raise GeometryError(
                f"detector columns are {self.pitch_mm[0]:.3g} mm apart at the object and voxels {self.pixel_mm:.3g} mm"
                " wide: one of them seems to be in another unit",
                field="vectors",
                remedy="give all lengths in millimetres",
            )
        if not self.sees_volume().any():
            raise GeometryError(
                "the shadow of the volume misses the detector in every view",
                field="vectors",
                remedy="check shifts of detector and source, their signs, and that all are in millimetres",
            )

    def sees_volume(self) -> NDArray[np.bool_]:
        """Whether the shadow of the volume touches the detector, in each view."""
        corners = np.array(list(product((-1, 1), repeat=3))) * self.extent_mm / 2
        column, row = self.project(corners)
        seen = np.ones(self.views, dtype=np.bool_)
        for place, count in ((column, self.detector_columns), (row, self.detector_rows)):
            seen &= (place.max(1) > -0.5) & (place.min(1) < count - 0.5)
        return seen

    def project(self, points_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Detector column and row, fractional, onto which each point ``(points, 3)`` projects, ``(views, points)``."""
        columns, rows = _projected(self.vectors, points_mm, cone=self.cone)
        return columns + (self.detector_columns - 1) / 2, rows + (self.detector_rows - 1) / 2


def _projected(
    vectors: Vectors, points_mm: NDArray[np.float64], *, cone: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows from the middle of the detector to where each point projects, ``(views, points)``."""
    found = []
    for row in vectors:
        first, centre, u, v = row.reshape(4, 3)
        rays = points_mm - first if cone else np.broadcast_to(first, points_mm.shape)
        # point + t ray = centre + column u + row v
        system = np.stack([np.broadcast_to(u, rays.shape), np.broadcast_to(v, rays.shape), -rays], axis=-1)
        found.append(np.linalg.solve(system, (points_mm - centre)[..., None])[..., :2, 0])
    columns, rows = np.moveaxis(np.array(found), -1, 0)
    return columns, rows


def panel_for(vectors: Vectors, extent_mm: NDArray[np.float64], beam: Beam = "cone") -> tuple[int, int]:
    """Number of detector rows and columns with which every view sees a whole volume of this extent along x, y, z."""
    corners = np.array(list(product((-1, 1), repeat=3))) * extent_mm / 2
    columns, rows = _projected(vectors, corners, cone=beam == "cone")
    found = [2 * math.ceil(float(np.abs(place).max())) + 1 for place in (rows, columns)]
    return found[0], found[1]


def circular(
    angles_rad: Sequence[float],
    *,
    source_origin_mm: float,
    origin_detector_mm: float,
    column_mm: float,
    row_mm: float,
    column_shift_mm: float = 0.0,
    row_shift_mm: float = 0.0,
    source_shift_mm: float = 0.0,
    source_rise_mm: float = 0.0,
    roll_rad: float = 0.0,
    tilt_rad: float = 0.0,
    slant_rad: float = 0.0,
    rise_mm: ArrayLike = 0.0,
) -> Vectors:
    """Vectors of a cone beam whose source goes round the object, ``(views, 12)``; short scans by fewer angles.

    Parameters
    ----------
    column_shift_mm, row_shift_mm
        Position of the detector's centre along columns and rows; 0 in line with source and axis.
    source_shift_mm, source_rise_mm
        Position of the source along the columns' direction and along the axis.
    roll_rad
        Rotation of the detector in its plane, from columns towards rows.
    tilt_rad, slant_rad
        Rotation of the detector around its columns' and its rows' direction, which moves the upper rows, or the later
        columns, towards the source.
    rise_mm
        Height of source and detector over the middle of the volume, one number or one per view: a vertical shift, or
        a helix.
    """
    along, toward, up = _frame(angles_rad)
    lift = np.broadcast_to(np.asarray(rise_mm, dtype=np.float64), (len(along),))[:, None] * up
    source = toward * source_origin_mm + along * source_shift_mm + up * source_rise_mm + lift
    centre = -toward * origin_detector_mm + along * column_shift_mm + up * row_shift_mm + lift
    u = along * math.cos(slant_rad) + toward * math.sin(slant_rad)
    v = up * math.cos(tilt_rad) + toward * math.sin(tilt_rad)
    return _rows(source, centre, *_rolled(u, v, roll_rad), column_mm, row_mm)


def helical(
    *,
    turns: float,
    views: int,
    pitch_mm: float,
    source_origin_mm: float,
    origin_detector_mm: float,
    column_mm: float,
    row_mm: float,
    start_rad: float = 0.0,
    column_shift_mm: float = 0.0,
) -> Vectors:
    """Vectors of a helix around the middle of the volume; `pitch_mm` is the way along the axis per turn."""
    angle = start_rad + 2 * math.pi * turns * np.arange(views) / views
    rise = pitch_mm * turns * ((np.arange(views) + 0.5) / views - 0.5)
    return circular(
        (angle % (2 * math.pi)).tolist(),
        source_origin_mm=source_origin_mm,
        origin_detector_mm=origin_detector_mm,
        column_mm=column_mm,
        row_mm=row_mm,
        column_shift_mm=column_shift_mm,
        rise_mm=rise,
    )


def parallel(
    angles_rad: Sequence[float],
    *,
    column_mm: float,
    row_mm: float,
    column_shift_mm: float = 0.0,
    row_shift_mm: float = 0.0,
    roll_rad: float = 0.0,
    axis_tilt_rad: float = 0.0,
) -> Vectors:
    """Vectors of a parallel beam around a rotation axis that may be tilted, ``(views, 12)``.

    Parameters
    ----------
    roll_rad
        Rotation of the detector in its plane, or of the axis as seen on it.
    axis_tilt_rad
        Tilt of the rotation axis along the beam: 0 where it is normal to the beam, laminography at 0.5 and more.
    """
    along, toward, up = _frame(angles_rad)
    ray = toward * math.cos(axis_tilt_rad) + up * math.sin(axis_tilt_rad)
    v = up * math.cos(axis_tilt_rad) - toward * math.sin(axis_tilt_rad)
    centre = along * column_shift_mm + v * row_shift_mm
    return _rows(ray, centre, *_rolled(along, v, roll_rad), column_mm, row_mm)


def _frame(angles_rad: Sequence[float]) -> tuple[Vectors, Vectors, Vectors]:
    check_angles(tuple(angles_rad))
    angles = np.asarray(angles_rad, dtype=np.float64)
    zero, one = np.zeros(len(angles)), np.ones(len(angles))
    return (
        np.stack([np.cos(angles), np.sin(angles), zero], 1),
        np.stack([np.sin(angles), -np.cos(angles), zero], 1),
        np.stack([zero, zero, one], 1),
    )


def _rolled(u: Vectors, v: Vectors, roll_rad: float) -> tuple[Vectors, Vectors]:
    c, s = math.cos(roll_rad), math.sin(roll_rad)
    return u * c + v * s, v * c - u * s


def _rows(first: Vectors, centre: Vectors, u: Vectors, v: Vectors, column_mm: float, row_mm: float) -> Vectors:
    return np.concatenate([first, centre, u * column_mm, v * row_mm], axis=1)


def _spelled(point_mm: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in point_mm)})"
