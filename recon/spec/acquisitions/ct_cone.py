"""Cone-beam CT: a point source and a flat panel around a volume, on a circle, a helix, or anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from operators.errors import GeometryError
from operators.geometry import ParallelBeam
from operators.volume_geometry import VolumeBeam, circular
from recon.spec.acquisitions.base import Shape
from recon.spec.acquisitions.ct import Diverging, required
from recon.spec.acquisitions.ct_volume import CTVolume

HELIX_ROWS = 1.5
"""Way along the axis per turn that a simulated detector's rows cover at the axis, so that helices overlap."""


class CTCone(CTVolume, Diverging):
    """Cone-beam CT with a flat panel: full turn, short scan, helix, or one row of vectors per view."""

    kind: Literal["ct-cone"] = "ct-cone"

    BEAM = "cone"
    PLACED_BY = (
        *CTVolume.PLACED_BY, "source_origin_mm", "origin_detector_mm", "source_shift_mm", "source_rise_mm",
        "detector_tilt_rad", "detector_slant_rad", "rise_mm", "helix_pitch_mm",
    )  # fmt: skip

    source_shift_mm: float | None = None
    """Position of the source along the direction of the detector's columns, in mm, the line through the rotation axis
    being at 0. Default: 0."""
    source_rise_mm: float | None = None
    """Height of the source along the rotation axis over the middle of the volume, in mm. Default: 0."""
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

    @model_validator(mode="after")
    def _one_rise(self) -> Self:
        if self.helix_pitch_mm is not None and self.rise_mm is not None:
            raise ValueError("give helix_pitch_mm or rise_mm, not both")
        return self

    def placed_views(self, plane: ParallelBeam) -> NDArray[np.float64]:
        """Vectors of a source that goes round, or climbs, and of its panel."""
        return circular(
            plane.angles_rad,
            source_origin_mm=required(self.source_origin_mm, "source_origin_mm"),
            origin_detector_mm=required(self.origin_detector_mm, "origin_detector_mm"),
            column_mm=plane.detector_mm,
            row_mm=self.row_mm or plane.detector_mm,
            column_shift_mm=plane.detector_shift_mm,
            row_shift_mm=self.row_shift_mm or 0.0,
            source_shift_mm=self.source_shift_mm or 0.0,
            source_rise_mm=self.source_rise_mm or 0.0,
            roll_rad=self.detector_roll_rad or 0.0,
            tilt_rad=self.detector_tilt_rad or 0.0,
            slant_rad=self.detector_slant_rad or 0.0,
            rise_mm=self._rises_mm(plane.angles_rad),
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

    def not_seen(self, geometry: VolumeBeam) -> list[str]:
        """Say which slices the detector does not see whole."""
        central = geometry.central()
        if central is None:
            return []
        low, high = geometry.heights_on_axis_mm()
        source = float((geometry.vectors[:, :2] ** 2).sum(1).min()) ** 0.5
        radius = min(central.field_of_view_mm, min(geometry.rows, geometry.cols) * geometry.pixel_mm) / 2
        # The side nearer to the source leaves the cone first.
        seen = min(-low, high) * (source - radius) / source
        outside = math.ceil(geometry.slices / 2 - seen / geometry.slice_mm - 1e-6)
        if outside <= 0:
            return []
        return [
            f"the outermost {outside} of {geometry.slices} slices at either end are not seen whole by every view: they"
            " are less certain than the others"
        ]

    def opposite_rays(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows in the middle of the detector, near the plane of the source."""
        middle = len(data) // 2
        return data[max(middle - 1, 0) : middle + 2]

    def of_views(self, kept: Sequence[int]) -> dict[str, Any]:
        """Fields that change where only some views are kept."""
        found = super().of_views(kept)
        if isinstance(self.rise_mm, list):
            found["rise_mm"] = [self.rise_mm[view] for view in kept]
        return found

    @property
    def placed_one_by_one(self) -> bool:
        """Whether some field has one place per view."""
        return super().placed_one_by_one or isinstance(self.rise_mm, list)

    def _panelled(self, found: Self, extent_mm: NDArray[np.float64]) -> Shape:
        """Shape of what a large enough panel measures; on a helix it is as high as its turns need."""
        rows, views, columns = super()._panelled(found, extent_mm)
        if found.helix_pitch_mm is not None:
            row_mm = found.row_mm or required(found.detector_mm, "detector_mm")
            rows = math.ceil(HELIX_ROWS * abs(found.helix_pitch_mm) * found.magnification() / row_mm)
        return rows, views, columns
