"""CT of a whole volume, whose rays cross slices: what cone beams and tilted axes have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from operators import truncation
from operators.errors import GeometryError, InputError
from operators.geometry import FULL_CIRCLE, ParallelBeam, SamplingPattern, angular_cover, angular_pattern
from operators.volume_geometry import Beam, VolumeBeam, panel_for
from recon.spec.acquisitions.base import Shape
from recon.spec.acquisitions.ct import CT, WATER_PER_MM, AngleRange, Size, covering_size, missing_ends, required
from recon.spec.affine import Affine, voxel_size
from recon.spec.costs import MachineCosts
from recon.spec.simulation import Simulation

VECTOR = 12
"""Numbers that describe a view."""
EDGE_SHARE = 0.05
"""Share of the densest rays from which the detector's first or last row is no air."""
RAYS_AT_ONCE = 2**20
"""Rays, about, of the views that are back-projected at once."""


class CTVolume(CT):
    """CT whose rays cross slices, so that the volume is solved in one piece; a row of vectors places each view."""

    AXES = ("detector_rows", "views", "detectors")
    METHODS = ("fbp", "sirt", "cgls", "tv", "diffpir", "dds", "red-diff", "diffusion-mbir")
    PHYSICS = "recon.problem.ct_volume"
    WHOLE_VOLUME = True
    SLICES_APART = False
    FROM_DATA = frozenset({"object_goes_on", "object_mm"})
    ALTERNATIVES: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"detector_shift_mm", "rotation_center_column"}),
        frozenset({"vectors"}),
    )
    GRID = ("pixel_mm", "slice_mm", "rows", "cols", "slices")
    BEAM: ClassVar[Beam]
    """Kind of rays."""
    PLACED_BY: ClassVar[tuple[str, ...]] = (
        "angles_rad", "detector_mm", "row_mm", "detector_shift_mm", "rotation_center_column", "row_shift_mm",
        "detector_roll_rad",
    )  # fmt: skip
    """Fields that place the views, unless vectors do."""

    slices: Size | None = None
    """Number of image slices. Default: as many as lie between the central rays of the detector's first and last row."""
    row_mm: float | None = Field(None, gt=0)
    """Distance of detector rows in mm. Default: that of its columns, `detector_mm`."""
    row_shift_mm: float | None = None
    """Position of the detector's centre along the direction of its rows, in mm: relative to the source's along the
    rotation axis, or in a parallel beam to the middle of the volume's. Default: 0."""
    detector_roll_rad: float | None = None
    """Rotation of the detector in its plane, from columns towards rows, in radians. Default: 0."""
    vectors: list[list[float]] | None = None
    """Twelve numbers per view, in mm, instead of all fields that place views: source (x, y, z), or direction of
    parallel rays; middle of the detector; step from one column to the next; step from one row to the next, as ASTRA's
    ``cone_vec`` and ``parallel3d_vec``; z along the slices, rows of the image from large y to small. Default: those of
    the file, if it has any."""
    object_goes_on: bool | None = None
    """Whether the object goes on along the rotation axis beyond what the detector's rows see. Then slices above and
    below, as far as rays reach, are solved with the others and left out of the result. Default: as the data show."""
    support: Literal["none"] = "none"
    """Every voxel is solved for."""

    @field_validator("vectors")
    @classmethod
    def _twelve_each(cls, value: list[list[float]] | None) -> list[list[float]] | None:
        for view, row in enumerate(value or []):
            if len(row) != VECTOR:
                raise ValueError(
                    f"row {view} has {len(row)} numbers, 12 are needed: source or ray, detector centre, column step,"
                    " row step"
                )
        if value is not None and not value:
            raise ValueError("no views; give one row of 12 numbers per view")
        return value

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
        pixel_mm = self.pixel_mm or _pitch_mm(vectors, self.BEAM)
        slice_mm = self.slice_mm or pixel_mm
        rows, cols = self.rows or self.cols, self.cols or self.rows
        # A voxel where the size is open: it says what the detector sees of the axis.
        grid = (self.slices or 1, rows or 1, cols or 1, pixel_mm, slice_mm)
        probe = VolumeBeam(*grid, vectors, detector_rows, columns, self.BEAM)
        if rows is None or cols is None:
            rows = cols = max(int(_width_mm(probe) / pixel_mm + 1e-6), 1)
        slices = self.slices or max(int(_height_mm(probe) / slice_mm + 1e-6), 1)
        if not self.slices and min(abs(end) for end in _ends_mm(probe)) * 2 < slice_mm:
            raise GeometryError(
                "the detector's rows do not see the middle of the volume",
                field="row_shift_mm",
                remedy="check row_shift_mm and other heights of detector and source, or give slices",
            )
        return replace(probe, slices=slices, rows=rows, cols=cols)

    def view_vectors(self, columns: int) -> NDArray[np.float64]:
        """Twelve numbers per view in mm, for a detector of so many columns."""
        if self.vectors is None:
            return self.placed_views(self.geometry(columns))
        given = [name for name in self.PLACED_BY if getattr(self, name) is not None]
        if given:
            raise GeometryError(
                "has no effect with vectors, which say where the detector and the rays are",
                field=given[0],
                remedy="leave one of them out",
            )
        return np.asarray(self.vectors, dtype=np.float64)

    @abstractmethod
    def placed_views(self, plane: ParallelBeam) -> NDArray[np.float64]:
        """Vectors of the views, from the geometry of the plane normal to the rotation axis and fields of the kind."""

    def not_seen(self, geometry: VolumeBeam) -> list[str]:
        """Say what such a scan does not see of the volume, for the report."""
        del geometry
        return []

    def baseline(self, shape: Shape) -> str:
        """Filtered back-projection where it applies, else conjugate gradients."""
        return self.BASELINE if self.volume_geometry(shape).unfilterable() is None else "cgls"

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Size of the volume."""
        return self.volume_geometry(shape).volume_shape

    def solved_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Size of what is solved: all of the object, beside the image too, and above and below as far as rays pass."""
        return self.covering_geometry(shape).volume_shape

    def covering_geometry(self, shape: Shape) -> VolumeBeam:
        """Geometry that is solved, in whose middle that of `volume_geometry` lies, voxel on voxel."""
        measured = self.volume_geometry(shape)
        rows, cols = self._covering_image(measured)
        geometry = replace(measured, rows=rows, cols=cols).extended(*self.missing_columns(measured))
        if not self.object_goes_on:
            return geometry
        radius = min(geometry.rows, geometry.cols) * geometry.pixel_mm / 2
        more = geometry.reach_mm(radius) - geometry.slices * geometry.slice_mm / 2
        return replace(geometry, slices=geometry.slices + 2 * max(math.ceil(more / geometry.slice_mm - 1e-6), 0))

    def missing_columns(self, measured: VolumeBeam) -> tuple[int, int]:
        """Detector columns that are missing before the first and after the last one to see the whole object."""
        plane = measured.plane()
        if self.object_mm is None or plane is None:
            return 0, 0
        rows, cols = self._covering_image(measured)
        before, after = missing_ends(plane, self.object_mm, replace(plane, rows=rows, cols=cols))
        return (after, before) if measured.reversed_columns else (before, after)

    def _covering_image(self, measured: VolumeBeam) -> tuple[int, int]:
        """Rows and columns of what is solved."""
        if self.object_mm is None:
            return measured.rows, measured.cols
        return covering_size(self.object_mm, measured.pixel_mm, measured.rows, measured.cols)

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
            "the rows of the detector are no slices of the volume: all of them are needed",
            field="input.slices",
            remedy="leave it out; for a part of the volume give acquisition.slices and pixel_mm",
        )

    def completed_from(self, data: NDArray[np.generic]) -> tuple[Self, list[str]]:
        """Tell from the ends of the detector's rows and columns how large the object is."""
        found, notes = self.widened(data)
        ends = found.cut_ends(data)
        if found.object_goes_on is not None or not ends:
            return found, notes
        longer, more = found.going_on(f"the detector's {ends}")
        return longer, [*notes, *more]

    def going_on(self, where: str) -> tuple[Self, list[str]]:
        """The acquisition of an object that goes on along the axis, and a remark that it does so beyond `where`."""
        note = (
            f"the object goes on beyond {where}: slices above and below are solved too, as far as rays reach, and left"
            " out; the outermost ones of the result are less certain than the others"
        )
        return self.model_copy(update={"object_goes_on": True}), [note]

    def widened(self, data: NDArray[np.generic]) -> tuple[Self, list[str]]:
        """Tell by the ends of the detector's rows how far the object reaches beside the image, or beyond the detector.

        Each row is taken for one of a fan beam. Where that is not possible, rows that end in the object are only told.
        """
        placed = self.vectors is not None or (self.angles() is not None and self.detector_mm is not None)
        if not placed or not data.size:
            return self, []
        measured = self.volume_geometry(data.shape)
        plane = measured.plane()
        if plane is None:
            return self, self._cut_rows(data)
        rows = data[..., ::-1] if measured.reversed_columns else data
        extent = truncation.judge(rows, plane, image_given=bool(self.rows or self.cols))
        size_mm = self.object_mm or extent.object_mm
        found = self.model_copy(update={"object_mm": None if size_mm is None else round(size_mm, 3)})
        solved = found.covering_geometry(data.shape)
        return found, found.extent_notes(extent, plane, replace(plane, rows=solved.rows, cols=solved.cols))

    def _cut_rows(self, data: NDArray[np.generic]) -> list[str]:
        """Say that rows end in the object, where these cannot be continued."""
        dense = truncation.ends(truncation.judged(data)).dense
        if not dense.any() or self.object_mm is not None:
            return []
        return [
            f"{100 * dense.any(axis=(0, 2)).mean():.0f} % of the views end in rays that are not air: the object reaches"
            " beyond the detector, and grey values are too bright towards the rim; give object_mm, the diameter that"
            " holds the object, and a method that fits the data"
        ]

    def cut_ends(self, data: NDArray[np.generic]) -> str:
        """Name those of the detector's first and last row that see more than air; empty if none does."""
        dense = float(np.abs(data).max(initial=0.0))
        ends = [name for name, row in (("first", data[0]), ("last", data[-1])) if row.max() > EDGE_SHARE * dense]
        return f"{' and '.join(ends)} row" if ends else ""

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
        u, v = (np.abs(step[:, 2]) / np.linalg.norm(step, axis=1) for step in (vectors[:, 6:9], vectors[:, 9:]))
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
        return found

    @property
    def placed_one_by_one(self) -> bool:
        """Whether some field has one place per view."""
        return self.vectors is not None

    def binned_rows(self, rows: int, by: int) -> dict[str, Any]:
        """Rows are farther apart, and the middle of those that are left moves."""
        if self.placed_one_by_one:
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
        # All corners of the volume have to stay in front of a source.
        placed = self._placed(float(extent.max()))
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
            _, columns = panel_for(straight.view_vectors(1), extent_mm, self.BEAM)
            rows, _ = panel_for(found.view_vectors(columns), extent_mm, self.BEAM)
        else:
            # Where the centre is given as a column, it depends on the number of these.
            vectors = found.vectors or found.model_copy(update={"rotation_center_column": None}).view_vectors(1)
            rows, columns = panel_for(np.asarray(vectors), extent_mm, self.BEAM)
        if found.slices is not None:
            # Rows that lie between slices see two neighbours alike, and not how they differ.
            rows += (rows + found.slices) % 2
        views = len(found.vectors or found.angles() or ())
        return rows, views, columns

    def setup_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Data that are continued beyond the detector, with their weights."""
        del costs
        wide = self._solved_data(shape)
        return 2.0 * self.data_bytes(wide) if wide != tuple(shape) else 0.0

    def _solved_data(self, shape: Shape) -> Shape:
        """Shape of the data with the columns that are continued."""
        return shape[0], shape[1], self.covering_geometry(shape).detector_columns

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Compiled functions, rays of the views that are back-projected at once, and filtered views."""
        shape = self._solved_data(shape)
        return costs.memory.compiled + 40.0 * max(shape[0] * shape[2], RAYS_AT_ONCE) + self.data_bytes(shape)

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Proportional to the steps of all rays; each slice has its share of a product."""
        del per_chunk
        slices, _, _ = self.solved_shape(shape)
        return costs.seconds.per_ray_step * math.prod(self._solved_data(shape)) * self.steps_per_ray(shape) / slices

    def steps_per_ray(self, shape: Shape) -> float:
        """Planes of voxels that a ray crosses one after the other."""
        _, rows, cols = self.solved_shape(shape)
        return max(rows, cols)

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float]:
        """Full or limited angular coverage, and voxels per ray."""
        geometry = self.volume_geometry(shape)
        return angular_pattern(geometry.angles_rad), math.prod(geometry.volume_shape) / math.prod(shape)


def _pitch_mm(vectors: NDArray[np.float64], beam: Beam) -> float:
    """Pitch of detector columns at the rotation axis, mean of all views."""
    try:
        first, centre, u, v = vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
    except ValueError as error:
        raise GeometryError(f"shape {vectors.shape}, give (views, 12)", field="vectors") from error
    pitch = np.linalg.norm(u, axis=1)
    if beam == "cone":
        normal = np.cross(u, v)
        with np.errstate(divide="ignore", invalid="ignore"):
            pitch *= np.einsum("ij,ij->i", -first, normal) / np.einsum("ij,ij->i", centre - first, normal)
    found = float(np.abs(pitch).mean())
    return found if math.isfinite(found) and found > 0 else 1.0


def _ends_mm(g: VolumeBeam) -> tuple[float, float]:
    """Lowest and highest place on the rotation axis that the rays of the detector's first and last row meet."""
    low, high = g.heights_on_axis_mm()
    rises = g.vectors[:, 2] if g.cone else np.zeros(1)
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
