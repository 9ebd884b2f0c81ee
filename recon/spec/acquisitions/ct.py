"""CT acquisitions: parallel and flat-detector fan beam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from operators import truncation
from operators.errors import GeometryError, InputError
from operators.geometry import (
    MATRIX_COLUMNS,
    MATRIX_LIMIT_BYTES,
    NARROWER,
    FanBeam,
    ParallelBeam,
    SamplingPattern,
    angular_pattern,
    beyond_ends,
    check_angles,
    estimated_matrix_bytes,
    matrix_columns,
)
from recon.spec.acquisitions.base import Acquisition, Shape, Volume, as_mask
from recon.spec.affine import Affine, voxel_size
from recon.spec.base import Strict
from recon.spec.costs import MachineCosts
from recon.spec.preparation import Preparation
from recon.spec.simulation import Simulation

Size = Annotated[int, Field(ge=1, le=8192)]
WATER_PER_MM = 0.02
"""Attenuation of water near 60 keV in 1/mm, used for simulation."""
HIGHEST_AIR_HU = -300.0
"""Value below which a volume in HU has some voxel: of air, or lung."""
LARGEST_LINE_INTEGRAL = 50.0
"""Largest plausible line integral: exp(-50) of the photons would arrive, so the array holds something else."""


class AngleRange(Strict):
    """Range of equally spaced angles, the end not included."""

    start_rad: float = 0.0
    """First angle in radians."""
    stop_rad: float | None = None
    """End of the range in radians, not included. Default: half a turn after the first angle in `ct-parallel`, a whole
    turn in kinds of scan whose views half a turn apart are no mirror images."""
    count: int = Field(ge=1, le=20_000)
    """Number of angles."""

    def angles(self, turn_rad: float = math.pi) -> tuple[float, ...]:
        """The angles in radians; without an end they go over `turn_rad`."""
        step = (turn_rad if self.stop_rad is None else self.stop_rad - self.start_rad) / self.count
        return tuple(self.start_rad + i * step for i in range(self.count))


class CT(Acquisition):
    """CT acquisition: line integrals of the attenuation, slice by slice."""

    MODALITY = "ct"
    AXES = ("slices", "views", "detectors")
    METHODS: ClassVar[tuple[str, ...]] = (
        "fbp",
        "sirt",
        "cgls",
        "tv",
        "diffpir",
        "dds",
        "red-diff",
        "diffusion-mbir",
        "dps",
    )
    BASELINE = "fbp"
    SUSPECTS = (
        "the rotation centre, the angles, other geometry, units, an object larger than the field of view, or axes of"
        " the array in another order"
    )
    PHYSICS = "recon.problem.ct"
    PREPARE = "recon.measurement.preparation.prepare:prepare"
    TUNED_AS = ("ct",)
    PRECONDITIONED = True
    SLICES_APART = True
    FROM_DATA = frozenset({"object_mm"})
    ALTERNATIVES: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"detector_shift_mm", "rotation_center_column"}),)
    GRID: ClassVar[tuple[str, ...]] = ("pixel_mm", "slice_mm", "rows", "cols")
    RENAMED: ClassVar[dict[str, str]] = {"photons": "photons_per_ray"}

    angles_rad: list[float] | AngleRange | None = None
    """Angle of each view in radians. Default: those of the file."""
    detector_mm: float | None = Field(None, gt=0)
    """Detector pitch in mm. Default: that of the file."""
    detector_shift_mm: float | None = None
    """Position of the detector's centre relative to the rotation axis' projection, in mm. `rotation_center_column` says
    the same in columns. Default: 0."""
    rotation_center_column: float | Literal["auto"] | None = None
    """Detector column onto which the rotation axis projects, or ``auto`` to find it from rays that are measured from
    both sides. Default: the middle, ``(n - 1) / 2``."""
    rows: Size | None = None
    """Number of image rows. Default: as many as columns, or as the field of view needs."""
    cols: Size | None = None
    """Number of image columns. Default: as many as rows, or as the field of view needs."""
    object_mm: float | None = Field(None, gt=0)
    """Diameter in mm of the disc around the rotation axis that holds the object. An object larger than the image is
    solved whole, and the image cut out. Default: as the image, unless the sinogram shows that the object is larger."""
    mu_water_per_mm: float | None = Field(None, gt=0, le=10)
    """Attenuation of water in 1/mm. If given, the result is in HU. Default: the result is in 1/mm."""
    noise_std: float | None = Field(None, ge=0)
    """Standard deviation of the line integrals, root mean square over all rays. Default: derived from
    `photons_per_ray`; without it, estimated from the sinogram, slice by slice."""
    support: Literal["auto", "none"] = "auto"
    """Pixels that are known to be air and left out. `auto`: those on rays through air, those that no ray sees, and,
    where all rows end in air, those outside the disc that every view sees. `none`: every pixel is solved for."""
    photons_per_ray: float | None = Field(None, ge=10, le=1e12)
    """Photons per ray in air (I0). If given, noise is modelled as Poisson and each ray is weighted accordingly.
    Default: the number that flat fields show, or that rays through air show if the noise of the other rays agrees;
    otherwise all rays of a slice have the same noise."""
    preparation: Preparation | None = None
    """Preparation of measured data: raw counts, or line integrals. Default: each step's own."""

    @field_validator("angles_rad")
    @classmethod
    def _plausible(cls, value: list[float] | AngleRange | None) -> list[float] | AngleRange | None:
        if value is not None:
            try:
                check_angles(value.angles() if isinstance(value, AngleRange) else tuple(value))
            except InputError as error:
                raise ValueError(f"{error.message}; {error.remedy}") from error
        return value

    @model_validator(mode="after")
    def _one_centre(self) -> Self:
        if self.detector_shift_mm is not None and self.rotation_center_column is not None:
            raise ValueError("give detector_shift_mm or rotation_center_column, not both")
        return self

    def angles(self) -> tuple[float, ...] | None:
        """The angles in radians, if the specification has them."""
        if isinstance(self.angles_rad, AngleRange):
            return self.angles_rad.angles(self._turn_rad())
        return None if self.angles_rad is None else tuple(self.angles_rad)

    def geometry(self, detectors: int) -> ParallelBeam:
        """The operator's geometry; sizes that were left open follow from the detector.

        An unset pixel is the detector pitch at the rotation axis, an unset image covers the field of view.
        """
        angles = self.angles()
        detector_mm = required(self.detector_mm, "detector_mm")
        if angles is None:
            raise InputError(
                "needed, the file does not carry it",
                field="acquisition.angles_rad",
                remedy="give a list in radians, or start_rad, stop_rad and count",
            )
        shift = self.detector_shift_mm or 0.0
        if self.rotation_center_column == "auto":
            raise InputError(
                "auto finds it in measured data only",
                field="acquisition.rotation_center_column",
                remedy="leave it out, or give a number",
            )
        if self.rotation_center_column is not None:
            shift = ((detectors - 1) / 2 - self.rotation_center_column) * detector_mm
        pixel_mm = self.pixel_mm or detector_mm / self.magnification()
        common: dict[str, Any] = {
            "rows": self.rows or self.cols or 1,
            "cols": self.cols or self.rows or 1,
            "pixel_mm": pixel_mm,
            "angles_rad": angles,
            "detectors": detectors,
            "detector_mm": detector_mm,
            "detector_shift_mm": shift,
        }
        try:
            if not (self.rows or self.cols):
                # An object within what every view sees needs no more than that, also over a whole turn.
                half = detectors * detector_mm / 2
                visible = self.visible_mm(2 * (half - abs(shift)))
                if self.object_mm is not None and visible < self.object_mm and self._beam(common).whole_turn:
                    visible = self.visible_mm(2 * (half + abs(shift)))
                common["rows"] = common["cols"] = max(int(visible / pixel_mm + 1e-6), 1)
            return self._beam(common)
        except GeometryError as error:
            raise error.at(f"acquisition.{error.field}") from error

    def covering(self, detectors: int) -> ParallelBeam:
        """Geometry that is solved: as `geometry`, with image and detector wide enough for the whole object.

        The image of `geometry` lies in the middle, pixel on pixel. Where a whole turn sees what one side of a displaced
        detector misses, that side stays as it is.
        """
        geometry = self.geometry(detectors)
        if self.object_mm is None:
            return geometry
        rows, cols = covering_size(self.object_mm, geometry.pixel_mm, geometry.rows, geometry.cols)
        found = replace(geometry, rows=rows, cols=cols)
        return found.extended(*missing_ends(geometry, self.object_mm, found))

    def magnification(self) -> float:
        """Size on the detector over size at the rotation axis."""
        return 1.0

    def visible_mm(self, detector_mm: float) -> float:
        """Diameter of the disc around the axis that so much of a centred detector sees."""
        return detector_mm

    def _beam(self, common: dict[str, Any]) -> ParallelBeam:
        return ParallelBeam(**common)

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Image size of the geometry."""
        geometry = self.geometry(shape[2])
        return shape[0], geometry.rows, geometry.cols

    def solved_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Image size that the object needs."""
        geometry = self.covering(shape[2])
        return shape[0], geometry.rows, geometry.cols

    def setup_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Data that are continued beyond the detector, with their weights, and the support."""
        del costs
        wide = self.covering(shape[2]).detectors
        continued = 2.0 * self.data_bytes((*shape[:2], wide)) if wide > shape[2] else 0.0
        if self.support == "none":
            return continued
        slices, rows, cols = self.solved_shape(shape)
        # A byte for each voxel, and while it is found three images of each slice of a block.
        return continued + rows * cols * (slices + 12 * min(slices, MATRIX_COLUMNS))

    def completed_from(self, data: NDArray[np.generic]) -> tuple[Self, list[str]]:
        """Tell the object's size from the sinogram, where it is larger than the image or than the detector."""
        if self.angles() is None or self.detector_mm is None or not data.size:
            return self, []
        geometry = self.geometry(data.shape[2])
        extent = truncation.judge(data, geometry, image_given=bool(self.rows or self.cols))
        size_mm = self.object_mm or extent.object_mm
        found = self.model_copy(update={"object_mm": None if size_mm is None else round(size_mm, 3)})
        return found, found.extent_notes(extent, found.geometry(data.shape[2]), found.covering(data.shape[2]))

    def extent_notes(self, extent: truncation.Extent, image: ParallelBeam, solved: ParallelBeam) -> list[str]:
        """Say what the sinogram shows of the object's size, with numbers, and what is solved beyond the image."""
        notes = []
        if extent.level is not None:
            notes.append(
                f"all rows end level at {100 * extent.level:.0f} % of the densest rays: taken for air that is not zero,"
                " which adds to the image; check the flat fields and the beam's drift"
            )
        if extent.truncated is not None:
            views = extent.truncated
            notes.append(
                f"the object reaches beyond the detector: {views.views} of {views.of} views end in rays that are not"
                f" air, at {100 * views.strength:.0f} % (median) of the densest ones; the rows are continued smoothly,"
                f" to an object of {self.object_mm or 0:.4g} mm, on which the image's level depends"
            )
            if not image.whole_turn and image.turn_view_mm > 1.1 * image.field_of_view_mm:
                notes.append(
                    f"the detector is displaced: over a whole turn it would see {image.turn_view_mm:.4g} mm, but the"
                    f" views cover less, which determines only {image.field_of_view_mm:.4g} mm around the rotation axis"
                )
        elif image.displaced and extent.object_mm is not None:
            notes.append(
                f"the detector is displaced, and the views go round: together they see {image.turn_view_mm:.4g} mm,"
                f" each of them {image.field_of_view_mm:.4g} mm"
            )
        if (image.rows, image.cols) != (solved.rows, solved.cols):
            notes.append(
                f"the object is larger than the image of {image.rows} x {image.cols} pixels: solved on"
                f" {solved.rows} x {solved.cols} pixels, from whose middle the image is cut"
            )
        return notes

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """Take sizes from the volume; the detector is wide enough for the image's corners."""
        slices, rows, cols = shape
        col_mm, _, slice_mm = voxel_size(affine)
        found = self._placed(max(rows, cols) * col_mm)
        magnification = found.magnification()
        detector_mm = self.detector_mm or col_mm * magnification
        found = found.model_copy(
            update={
                "rows": rows,
                "cols": cols,
                "pixel_mm": col_mm,
                "slice_mm": slice_mm,
                "detector_mm": detector_mm,
                "mu_water_per_mm": self.mu_water_per_mm or WATER_PER_MM,
                "angles_rad": self.angles_rad or AngleRange(stop_rad=self._turn_rad(), count=settings.views),
                "photons_per_ray": settings.photons_per_ray,
            }
        )
        reach = self._reach() * math.hypot(rows, cols) * col_mm
        detectors = math.ceil(reach * magnification / detector_mm) + 2
        geometry = found.geometry(detectors)
        if geometry.beyond_view and not geometry.displaced:
            # A detector that stands aside has to be wider, unless a turn shows the other half.
            detectors += 2 * max(beyond_ends(geometry, min(rows, cols) * col_mm / 2))
            if found.geometry(detectors).beyond_view:
                raise GeometryError(
                    f"no detector with the axis at column {self.rotation_center_column:g} sees the whole volume",
                    field="acquisition.rotation_center_column",
                    remedy="leave it out, or give detector_shift_mm",
                )
        return found, (slices, len(found.angles() or ()), detectors)

    def _placed(self, object_mm: float) -> Self:
        """Place source and detector for an object of this size, if their distances are not given."""
        del object_mm
        return self

    def _turn_rad(self) -> float:
        return math.pi

    def _reach(self) -> float:
        """Part of the image's diagonal that the detector sees."""
        return 1.0

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """System matrix while it is built; 0 if it would be too large to build."""
        size = estimated_matrix_bytes(self.covering(shape[2]))
        return costs.memory.matrix * size if size <= MATRIX_LIMIT_BYTES else 0.0

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Proportional to the matrix's size; the projector always multiplies a full block of slices."""
        share = NARROWER.get(matrix_columns(shape[0]), 1.0)
        full = share * max(1.0, MATRIX_COLUMNS / per_chunk)
        return full * costs.seconds.per_matrix_byte * estimated_matrix_bytes(self.covering(shape[2])) / 2

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float]:
        """Full or limited angular coverage, and pixels per ray."""
        geometry = self.covering(shape[2])
        ratio = geometry.rows * geometry.cols / (len(geometry.angles_rad) * geometry.detectors)
        return angular_pattern(geometry.angles_rad), ratio

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Check that there is one angle per view, and that values can be line integrals."""
        del files
        self.check_views(data.shape)
        largest, lowest = float(data.max()), float(data.min())
        if largest > LARGEST_LINE_INTEGRAL:
            raise InputError(
                f"line integrals reach {largest:g}: these look like counts or HU, not -log(I / I0)",
                field="input",
                remedy="take -log(I / I0), or use format dxchange for raw counts",
            )
        if lowest < -1.0:
            raise InputError(
                f"line integrals reach {lowest:g}: more photons behind the object than without it",
                field="input",
                remedy="check the flat-field correction and the sign of the logarithm",
            )

    def of_views(self, kept: Sequence[int]) -> dict[str, Any]:
        """Fields that change where only some views are kept."""
        angles = self.angles()
        return {} if angles is None else {"angles_rad": [angles[view] for view in kept]}

    def binned_rows(self, rows: int, by: int) -> dict[str, Any]:
        """Fields that change, beside those of slices, where so many of `rows` detector rows are averaged."""
        del rows, by
        return {}

    def opposite_rays(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sinograms of which views half a turn apart mirror each other, which tells the place of the rotation axis."""
        return data

    def slices_apart(self) -> bool:
        """Whether no step of the preparation needs the rows beside."""
        return self.SLICES_APART and not (self.preparation is not None and self.preparation.couples_rows)

    def planned(self) -> Self:
        """The acquisition with the axis in the middle, if it is to be found."""
        if self.rotation_center_column != "auto":
            return self
        return self.model_copy(update={"rotation_center_column": None})

    def check_views(self, shape: Shape) -> None:
        """Raise `GeometryError` unless there is one angle per view of a sinogram of `shape`."""
        angles = self.angles()
        if angles is not None and shape[1] != len(angles):
            raise GeometryError(
                f"{len(angles)} angles for a sinogram of shape {shape} {self.axes}",
                field="acquisition.angles_rad",
                remedy="give one angle per view; transpose the array if its axes are in another order",
            )

    def read_files(self, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """Convert a mask of bad detector elements to bool."""
        field = "preparation.mask"
        return {name: as_mask(a, f"acquisition.{name}") if name == field else a for name, a in arrays.items()}

    def check_unit(self, volume: Volume, unit: str | None) -> None:
        """Check that the file, the user or the air in the volume says that values are in HU."""
        check_hu(volume, unit)

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Check for square pixels; nothing is prepared where nothing was measured."""
        del volume
        if self.preparation is not None:
            raise InputError(
                "has no effect on a measurement that is simulated",
                field="acquisition.preparation",
                remedy="leave it out",
            )
        col_mm, row_mm, _ = voxel_size(affine)
        if abs(col_mm - row_mm) > 0.01 * col_mm:
            raise InputError(
                f"pixels are {col_mm:.3f} x {row_mm:.3f} mm, projection needs square ones",
                field="input",
                remedy="resample the volume to square pixels",
            )


class CTParallel(CT):
    """Parallel-beam CT."""

    kind: Literal["ct-parallel"] = "ct-parallel"


class Diverging(CT):
    """CT with a point source and a flat detector."""

    source_origin_mm: float | None = Field(None, gt=0)
    """Distance from the source to the rotation axis in mm. Default: that of the file."""
    origin_detector_mm: float | None = Field(None, ge=0)
    """Distance from the rotation axis to the detector in mm. Default: that of the file."""

    def magnification(self) -> float:
        """Magnification: distance source to detector over source to axis."""
        source, behind = self._distances()
        return (source + behind) / source

    def _distances(self) -> tuple[float, float]:
        source = required(self.source_origin_mm, "source_origin_mm")
        return source, required(self.origin_detector_mm, "origin_detector_mm")

    def visible_mm(self, detector_mm: float) -> float:
        """Diameter of the disc that the outermost rays touch."""
        source, _ = self._distances()
        visible = detector_mm / self.magnification()
        return 2 * source * math.sin(math.atan(visible / 2 / source))

    def _beam(self, common: dict[str, Any]) -> ParallelBeam:
        source, behind = self._distances()
        return FanBeam(**common, source_origin_mm=source, origin_detector_mm=behind)

    def _placed(self, object_mm: float) -> Self:
        source = self.source_origin_mm or 4.0 * object_mm
        behind = self.origin_detector_mm if self.origin_detector_mm is not None else source
        return self.model_copy(update={"source_origin_mm": source, "origin_detector_mm": behind})

    def _turn_rad(self) -> float:
        return 2 * math.pi

    def _reach(self) -> float:
        return 1.15  # a margin for the fan's widening


class CTFan(Diverging):
    """Flat-detector fan-beam CT."""

    kind: Literal["ct-fan"] = "ct-fan"


def covering_size(object_mm: float, pixel_mm: float, rows: int, cols: int) -> tuple[int, int]:
    """Rows and columns of an image that holds the whole object, with another image in its middle, pixel on pixel."""
    needed = math.ceil(object_mm / pixel_mm - 1e-6)
    grown = [size + max(-(-(needed - size) // 2), 0) * 2 for size in (rows, cols)]
    return grown[0], grown[1]


def missing_ends(measured: ParallelBeam, object_mm: float, solved: ParallelBeam) -> tuple[int, int]:
    """Detector elements that are missing before and after to see an object; then also the corners of what is solved.

    The corners are known to be air.
    """
    ends = beyond_ends(measured, object_mm / 2)
    return beyond_ends(measured, math.hypot(solved.rows, solved.cols) * solved.pixel_mm / 2) if any(ends) else ends


def required(value: float | None, name: str, unit: str = "millimetres") -> float:
    """Return a number that is needed; raises `InputError` where neither the user nor the file gives it."""
    if value is None:
        raise InputError("needed, the file does not carry it", field=f"acquisition.{name}", remedy=f"give it in {unit}")
    return value


def check_hu(volume: Volume, unit: str | None) -> None:
    """Raise `InputError` unless the file, the user or the air in a volume says that its values are in HU."""
    if unit not in (None, "HU"):
        raise InputError(
            f"the file says that its values are {unit}, not HU",
            field="input",
            remedy="give CT volumes in HU; if these are, say so by input.unit: HU",
        )
    lowest, highest = float(volume.min()), float(volume.max())
    if unit is None and lowest > HIGHEST_AIR_HU:
        raise InputError(
            f"values go from {lowest:g} to {highest:g}, a CT volume in HU has air near -1000",
            field="input",
            remedy="give CT volumes in HU; if these are, but without air, say so by input.unit: HU; for MRI use "
            "acquisition kind mri-cartesian",
        )
