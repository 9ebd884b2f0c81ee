"""Laminography: a parallel beam through a whole volume around an axis that is tilted along the beam."""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from operators.geometry import LEAST_MISSING_RAD, ParallelBeam
from operators.volume_geometry import LEANING_RAD, VolumeBeam, parallel
from recon.spec.acquisitions.base import Shape
from recon.spec.acquisitions.ct import required
from recon.spec.acquisitions.ct_volume import CTVolume

USUAL_TILT_RAD = math.radians(30)
"""Tilt of a simulated scan."""


class CTLaminography(CTVolume):
    """Parallel-beam CT around a tilted axis: laminography, or a tomograph whose axis leans along the beam."""

    kind: Literal["ct-laminography"] = "ct-laminography"

    SUSPECTS = "the tilt of the axis and its sign, " + CTVolume.SUSPECTS
    BEAM = "parallel"
    PLACED_BY = (*CTVolume.PLACED_BY, "axis_tilt_rad")

    axis_tilt_rad: float | None = None
    """Tilt of the rotation axis along the beam in radians, below a quarter of a turn: 0 where the axis is normal to the
    beam, positive where the end with the later slices leans towards the source. Default: that of the file; 30 degrees
    in a simulated scan."""

    @field_validator("axis_tilt_rad")
    @classmethod
    def _below_a_quarter(cls, value: float | None) -> float | None:
        if value is not None and not abs(value) < math.pi / 2:
            raise ValueError(
                f"{value:g} rad is {math.degrees(value):.4g} degrees, and at 90 the axis lies along the beam: give"
                " radians, less than 1.5708"
            )
        return value

    def placed_views(self, plane: ParallelBeam) -> NDArray[np.float64]:
        """Vectors of a parallel beam around the tilted axis."""
        return parallel(
            plane.angles_rad,
            column_mm=plane.detector_mm,
            row_mm=self.row_mm or plane.detector_mm,
            column_shift_mm=plane.detector_shift_mm,
            row_shift_mm=self.row_shift_mm or 0.0,
            roll_rad=self.detector_roll_rad or 0.0,
            axis_tilt_rad=required(self.axis_tilt_rad, "axis_tilt_rad", "radians"),
        )

    def not_seen(self, geometry: VolumeBeam) -> list[str]:
        """Say which faces of the object no view shows."""
        tilt_rad = geometry.tilt_rad
        if tilt_rad < LEAST_MISSING_RAD:
            return []
        tilt = f"{math.degrees(tilt_rad):.3g} degrees"
        notes = [
            f"the rotation axis is tilted by {tilt} along the beam: faces of the object within {tilt} of the plane of"
            " the slices are not determined, and grey values of flat objects may be off"
        ]
        if geometry.central() is not None and (half := geometry.unfilterable()) is not None:
            notes.append(half)
        return notes

    def completed_from(self, data: NDArray[np.generic]) -> tuple[Self, list[str]]:
        """Tell by the first and the last row whether the object goes on, where the axis leans only.

        Around an axis that is tilted farther, these rows see the sides of a flat object as well.
        """
        ends = self.cut_ends(data)
        if self._tilt_rad() <= LEANING_RAD or self.object_goes_on is not None or not ends:
            return super().completed_from(data)
        note = (
            f"the object goes on beyond the detector's {ends}: give object_goes_on: true if it does along the rotation"
            " axis, or larger rows and cols if it does to the sides"
        )
        found, notes = self.widened(data)
        return found, [note, *notes]

    def opposite_rays(self, data: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean of all rows: integrals over planes along the axis, which do not depend on its tilt."""
        found: NDArray[np.float32] = data.mean(axis=0, keepdims=True)
        return found

    def steps_per_ray(self, shape: Shape) -> float:
        """Planes of voxels along the axis of the volume that is nearest to the ray, mean of all views."""
        geometry = self.volume_geometry(shape)
        planes = np.array([geometry.cols, geometry.rows, geometry.slices])
        return float(planes[np.abs(geometry.in_voxels[:, :3]).argmax(axis=1)].mean())

    def _tilt_rad(self) -> float:
        """Largest tilt of the axis in any view."""
        if self.vectors is None:
            return abs(self.axis_tilt_rad or 0.0)
        x, y, z = np.abs(np.asarray(self.vectors)[:, :3]).T
        return float(np.arctan2(z, np.hypot(x, y)).max())

    def _placed(self, object_mm: float) -> Self:
        """Tilt the axis, if it is not said how far."""
        del object_mm
        return self.model_copy(update={"axis_tilt_rad": USUAL_TILT_RAD}) if self.axis_tilt_rad is None else self

    def _turn_rad(self) -> float:
        return 2 * math.pi
