"""Cone-beam CT: a point source and a flat panel around a volume, on a circle, a helix, or anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from operators.errors import GeometryError, InputError
from operators.geometry import FULL_CIRCLE, SamplingPattern, angular_cover, angular_pattern
from operators.volume_geometry import VolumeBeam, circular, panel_for
from recon.spec.acquisitions.base import Shape
from recon.spec.acquisitions.ct import WATER_PER_MM, AngleRange, Diverging, Size, required
from recon.spec.affine import Affine, voxel_size
from recon.spec.costs import MachineCosts
from recon.spec.simulation import Simulation

VECTOR = 12
"""Numbers that describe a view."""
PLACED_BY = (
    "angles_rad", "detector_mm", "row_mm", "detector_shift_mm", "rotation_center_column", "source_origin_mm",
    "origin_detector_mm", "row_shift_mm", "source_shift_mm", "source_rise_mm", "detector_roll_rad", "detector_tilt_rad",
    "detector_slant_rad", "rise_mm",
)  # fmt: skip
"""Fields that say where source and detector are, unless vectors do."""
HELIX_ROWS = 1.5
"""Way along the axis per turn that a simulated detector's rows cover at the axis, so that helices overlap."""
EDGE_SHARE = 0.05
"""Share of the densest rays from which the detector's first or last row is no air."""


class CTCone(Diverging):
    """Cone-beam CT with a flat panel: full turn, short scan, helix, or one row of vectors per view."""

    kind: Literal["ct-cone"] = "ct-cone"

    AXES = ("detector_rows", "views", "detectors")
    METHODS = ("fbp", "sirt", "cgls", "tv", "diffpir", "dds", "red-diff", "diffusion-mbir")
    PHYSICS = "recon.problem.ct_cone"
    WHOLE_VOLUME = True
    SLICES_APART = False
    ROWS_APART = False
    FROM_DATA = frozenset({"object_goes_on"})
    ALTERNATIVES: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"detector_shift_mm", "rotation_center_column"}),
        frozenset({"vectors"}),
    )
    GRID = ("pixel_mm", "slice_mm", "rows", "cols", "slices")

    slices: Size | None = None
    """Number of image slices. Default: as many as lie between the central rays of the detector's first and last row."""
    row_mm: float | None = Field(None, gt=0)
    """Distance of detector rows in mm. Default: that of its columns, `detector_mm`."""
    row_shift_mm: float | None = None
    """Position of the detector's centre along the rotation axis relative to the source's, in mm. Default: 0."""
    source_shift_mm: float | None = None
    """Position of the source along the direction of the detector's columns, in mm, the line through the rotation axis
    being at 0. Default: 0."""
    source_rise_mm: float | None = None
    """Height of the source along the rotation axis over the middle of the volume, in mm. Default: 0."""
    detector_roll_rad: float | None = None
    """Rotation of the detector in its plane, from columns towards rows, in radians. Default: 0."""
    detector_tilt_rad: float | None = None
    """Rotation of the detector around the direction of its columns, which moves later rows towards the source, in
    radians. Default: 0."""
    detector_slant_rad: float | None = None
    """Rotation of the detector around the direction of its rows, which moves later columns towards the source, in
    radians. Default: 0."""
    rise_mm: float | list[float] | None = None
    """Height of source and detector over the middle of the volume in mm: one number for a vertical shift, or one per
    view. Default: 0, or as `helix_pitch_mm` says."""
    helix_pitch_mm: float | None = None
    """Way of source and detector along the rotation axis per turn, in mm, the middle view being at the middle of the
    volume. Default: none, a circle."""
    vectors: list[list[float]] | None = None
    """Twelve numbers per view, in mm, instead of angles, distances and shifts: source (x, y, z), middle of the
    detector, step from one column to the next, step from one row to the next, as ASTRA's ``cone_vec``; z along the
    slices, rows of the image from large y to small. Default: those of the file, if it has any."""
    object_goes_on: bool | None = None
    """Whether the object goes on along the rotation axis beyond what the detector's rows see. Then slices above and
    below, as far as rays reach, are solved with the others and left out of the result. Default: as the data show."""
    object_mm: None = None
    """Not used: what is solved is the image."""
    support: Literal["none"] = "none"
    """Every voxel is solved for."""

    @field_validator("vectors")
    @classmethod
    def _twelve_each(cls, value: list[list[float]] | None) -> list[list[float]] | None:
        for view, row in enumerate(value or []):
            if len(row) != VECTOR:
                raise ValueError(
                    f"row {view} has {len(row)} numbers, 12 are needed: source, detector centre, column step, row step"
                )
        if value is not None and not value:
            raise ValueError("no views; give one row of 12 numbers per view")
        return value

    @model_validator(mode="after")
    def _one_rise(self) -> Self:
        if self.helix_pitch_mm is not None and self.rise_mm is not None:
            raise ValueError("give helix_pitch_mm or rise_mm, not both")
        return self

    def volume_geometry(self, shape: Shape) -> VolumeBeam:
        """Geometry of the operator for a measurement of `shape`; sizes that were left open follow from the detector.

        Raises
        ------
        GeometryError
            If it contradicts itself or the data.
        """
        try:
            return self._volume_geometry(shape)
        except GeometryError as error:
            field = error.field or ""
            raise error if field.startswith("acquisition") else error.at(f"acquisition.{field}") from error

    def _volume_geometry(self, shape: Shape) -> VolumeBeam:
        detector_rows, _, columns = shape
        vectors = self.view_vectors(columns)
        pixel_mm = self.pixel_mm or _pitch_mm(vectors)
        slice_mm = self.slice_mm or pixel_mm
        rows, cols = self.rows or self.cols, self.cols or self.rows
        # A voxel where the size is open: it says what the detector sees of the axis.
        grid = (self.slices or 1, rows or 1, cols or 1, pixel_mm, slice_mm)
        probe = VolumeBeam(*grid, vectors, detector_rows, columns)
        if rows is None or cols is None:
            rows = cols = max(int(_width_mm(probe) / pixel_mm + 1e-6), 1)
        slices = self.slices or max(int(_height_mm(probe) / slice_mm + 1e-6), 1)
        if not self.slices and min(abs(end) for end in _ends_mm(probe)) * 2 < slice_mm:
            raise GeometryError(
                "the detector's rows do not see the middle of the volume",
                field="row_shift_mm",
                remedy="check row_shift_mm, source_rise_mm and rise_mm, or give slices",
            )
        return replace(probe, slices=slices, rows=rows, cols=cols)

    def view_vectors(self, columns: int) -> NDArray[np.float64]:
        """Twelve numbers per view in mm, for a detector of so many columns."""
        if self.vectors is not None:
            given = [name for name in PLACED_BY if getattr(self, name) is not None]
            if given or self.helix_pitch_mm is not None:
                raise GeometryError(
                    "has no effect with vectors, which say where source and detector are",
                    field=given[0] if given else "helix_pitch_mm",
                    remedy="leave one of them out",
                )
            return np.asarray(self.vectors, dtype=np.float64)
        fan = self.geometry(columns)
        return circular(
            fan.angles_rad,
            source_origin_mm=required(self.source_origin_mm, "source_origin_mm"),
            origin_detector_mm=required(self.origin_detector_mm, "origin_detector_mm"),
            column_mm=fan.detector_mm,
            row_mm=self.row_mm or fan.detector_mm,
            column_shift_mm=fan.detector_shift_mm,
            row_shift_mm=self.row_shift_mm or 0.0,
            source_shift_mm=self.source_shift_mm or 0.0,
            source_rise_mm=self.source_rise_mm or 0.0,
            roll_rad=self.detector_roll_rad or 0.0,
            tilt_rad=self.detector_tilt_rad or 0.0,
            slant_rad=self.detector_slant_rad or 0.0,
            rise_mm=self._rises_mm(fan.angles_rad),
        )

    def _rises_mm(self, angles_rad: Sequence[float]) -> NDArray[np.float64] | float:
        """Height of source and detector in each view, or in all."""
        if self.helix_pitch_mm is not None:
            turned = np.unwrap(np.asarray(angles_rad)) / (2 * math.pi)
            return np.asarray((turned - (turned.min() + turned.max()) / 2) * self.helix_pitch_mm)
        if isinstance(self.rise_mm, list):
            if len(self.rise_mm) != len(angles_rad):
                raise GeometryError(
                    f"{len(self.rise_mm)} heights for {len(angles_rad)} views", field="rise_mm", remedy="give one each"
                )
            return np.asarray(self.rise_mm)
        return self.rise_mm or 0.0

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Size of the volume."""
        return self.volume_geometry(shape).volume_shape

    def solved_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Size of what is solved: with the slices above and below through which rays pass, if there is object."""
        return self.covering_geometry(shape).volume_shape

    def covering_geometry(self, shape: Shape) -> VolumeBeam:
        """Geometry that is solved, whose middle slices are those of `volume_geometry`."""
        geometry = self.volume_geometry(shape)
        if not self.object_goes_on:
            return geometry
        radius = min(geometry.rows, geometry.cols) * geometry.pixel_mm / 2
        more = geometry.reach_mm(radius) - geometry.slices * geometry.slice_mm / 2
        return replace(geometry, slices=geometry.slices + 2 * max(math.ceil(more / geometry.slice_mm - 1e-6), 0))

    def in_one_piece(self) -> bool:
        """Always: rays cross slices."""
        return True

    @property
    def slices_encoded(self) -> bool:
        """Always: every detector row is needed for each slice."""
        return True

    def check_selection(self) -> None:
        """Raise `InputError`: every detector row is needed for each slice."""
        raise InputError(
            "the rows of a cone beam's detector are no slices of the volume: all of them are needed",
            field="input.slices",
            remedy="leave it out; for a part of the volume give acquisition.slices and pixel_mm",
        )

    def completed_from(self, data: NDArray[np.generic]) -> tuple[Self, list[str]]:
        """Tell by the detector's first and last row whether the object goes on beyond them."""
        dense = float(np.abs(data).max(initial=0.0))
        ends = [name for name, row in (("first", data[0]), ("last", data[-1])) if row.max() > EDGE_SHARE * dense]
        if self.object_goes_on is not None or not ends:
            return self, []
        note = (
            f"the object goes on beyond the detector's {' and '.join(ends)} row: slices above and below are solved too,"
            " as far as rays reach, and left out; the outermost ones of the result are less certain than the others"
        )
        return self.model_copy(update={"object_goes_on": True}), [note]

    def check_views(self, shape: Shape) -> None:
        """Raise `GeometryError` unless there is one angle, or one row of vectors, per view."""
        if self.vectors is not None and len(self.vectors) != shape[1]:
            raise GeometryError(
                f"{len(self.vectors)} rows of vectors for data of shape {shape} {self.axes}",
                field="acquisition.vectors",
                remedy="give one row per view; transpose the array if its axes are in another order",
            )
        super().check_views(shape)

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Check the views, and that rows and columns of the detector are not swapped."""
        super().check(data, **files)
        vectors = self.view_vectors(data.shape[2])
        u, v = np.abs(vectors[:, 8]), np.abs(vectors[:, 11])
        if bool((u > v).all()):
            raise GeometryError(
                "the detector's columns follow each other along the rotation axis, and its rows around it: rows and"
                " columns are swapped",
                field="acquisition.vectors" if self.vectors is not None else "acquisition.detector_roll_rad",
                remedy="transpose the data to (detector rows, views, columns), and exchange the last six numbers of"
                " each row",
            )

    def of_views(self, kept: Sequence[int]) -> dict[str, Any]:
        """Fields that change where only some views are kept."""
        found = super().of_views(kept)
        if self.vectors is not None:
            found["vectors"] = [self.vectors[view] for view in kept]
        if isinstance(self.rise_mm, list):
            found["rise_mm"] = [self.rise_mm[view] for view in kept]
        return found

    def binned_rows(self, rows: int, by: int) -> dict[str, Any]:
        """Rows are farther apart, and the middle of those that are left moves."""
        if self.vectors is not None or isinstance(self.rise_mm, list):
            raise InputError(
                "not with one place per view",
                field="acquisition.preparation.binning",
                remedy="average the data beforehand, and give vectors of the coarser detector",
            )
        if by == 1:
            # The default distance of rows is that of columns, which may be averaged.
            return {"row_mm": self.row_mm or self.detector_mm}
        row_mm = self.row_mm or required(self.detector_mm, "detector_mm")
        moved = (self.row_shift_mm or 0.0) - rows % by / 2 * row_mm
        return {"row_mm": row_mm * by, "row_shift_mm": moved or None}

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """Take sizes from the volume; the panel sees all of it, unless a turn sees what one side of it misses."""
        slices, rows, cols = shape
        col_mm, _, slice_mm = voxel_size(affine)
        grid = {"slices": slices, "rows": rows, "cols": cols, "pixel_mm": col_mm, "slice_mm": slice_mm}
        extent = np.array([cols * col_mm, rows * col_mm, slices * slice_mm])
        more = {
            **grid,
            "mu_water_per_mm": self.mu_water_per_mm or WATER_PER_MM,
            "photons_per_ray": settings.photons_per_ray,
        }
        if self.vectors is not None:
            found = self.model_copy(update=more)
            return found, self._panelled(found, extent)
        # All corners of the volume have to stay in front of the source.
        placed = self._placed(max(rows, cols, slices * slice_mm / col_mm) * col_mm)
        turn = self.angles_rad or AngleRange(stop_rad=self._turn_rad(), count=settings.views)
        detector_mm = self.detector_mm or col_mm * placed.magnification()
        found = placed.model_copy(update={**more, "angles_rad": turn, "detector_mm": detector_mm})
        return found, self._panelled(found, extent)

    def _panelled(self, found: Self, extent_mm: NDArray[np.float64]) -> Shape:
        """Shape of what a large enough panel measures."""
        whole = found.vectors is None and angular_cover(found.angles() or (), 2 * math.pi) > FULL_CIRCLE
        if whole and found.detector_shift_mm:
            # A displaced detector that goes round: half of the volume is seen from each side.
            straight = found.model_copy(update={"detector_shift_mm": None})
            _, columns = panel_for(straight.view_vectors(1), extent_mm)
            rows, _ = panel_for(found.view_vectors(columns), extent_mm)
        else:
            # Where the centre is given as a column, it depends on the number of these.
            vectors = found.vectors or found.model_copy(update={"rotation_center_column": None}).view_vectors(1)
            rows, columns = panel_for(np.asarray(vectors), extent_mm)
        if found.slices is not None:
            # Rows that lie between slices see two neighbours alike, and not how they differ.
            rows += (rows + found.slices) % 2
        if found.helix_pitch_mm is not None:
            row_mm = found.row_mm or required(found.detector_mm, "detector_mm")
            rows = math.ceil(HELIX_ROWS * abs(found.helix_pitch_mm) * found.magnification() / row_mm)
        views = len(found.vectors or found.angles() or ())
        return rows, views, columns

    def setup_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Nothing beside the operator."""
        del shape, costs
        return 0.0

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Compiled functions, rays of the views that are back-projected at once, and filtered views."""
        return costs.memory.compiled + 40.0 * max(shape[0] * shape[2], RAYS_AT_ONCE) + self.data_bytes(shape)

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Proportional to the steps of all rays; each slice has its share of a product."""
        del per_chunk
        slices, rows, cols = self.result_shape(shape)
        steps = math.prod(shape) * max(rows, cols)
        return costs.seconds.per_ray_step * steps / slices

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float]:
        """Full or limited angular coverage, and voxels per ray."""
        geometry = self.volume_geometry(shape)
        return angular_pattern(geometry.angles_rad), math.prod(geometry.volume_shape) / math.prod(shape)


RAYS_AT_ONCE = 2**20
"""Rays, about, of the views that are back-projected at once."""


def _pitch_mm(vectors: NDArray[np.float64]) -> float:
    """Pitch of detector columns at the rotation axis, mean of all views."""
    try:
        source, centre, u, v = vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
    except ValueError as error:
        raise GeometryError(f"shape {vectors.shape}, give (views, 12)", field="vectors") from error
    normal = np.cross(u, v)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.einsum("ij,ij->i", -source, normal) / np.einsum("ij,ij->i", centre - source, normal)
        found = float(np.abs(np.linalg.norm(u, axis=1) * near).mean())
    return found if math.isfinite(found) and found > 0 else 1.0


def _ends_mm(g: VolumeBeam) -> tuple[float, float]:
    """Lowest and highest place on the rotation axis that the rays of the detector's first and last row meet."""
    low, high = g.heights_on_axis_mm()
    rises = g.vectors[:, 2]
    return low + float(rises.min()), high + float(rises.max())


def _height_mm(g: VolumeBeam) -> float:
    """Height of the volume around the origin that the detector sees of the axis."""
    low, high = _ends_mm(g)
    return 2 * min(-low, high) if low < 0 < high else 0.0


def _width_mm(g: VolumeBeam) -> float:
    """Diameter of the disc around the rotation axis that is seen: in every view, or by a whole turn together."""
    central = g.central()
    if central is None:
        return g.pitch_mm[0] * g.detector_columns
    return max(central.field_of_view_mm, central.determined_mm)
