"""CT acquisition geometries in physical units, and their checks. No ASTRA, no torch.

World frame: x to the right (columns), y up (row 0 is the largest y), the rotation axis at the origin
in the middle of the image, millimetres throughout. At angle theta the parallel beam travels along
``(sin, -cos)`` and detector coordinates grow along ``(cos, sin)``, as in ASTRA.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError

SamplingPattern = Literal["full", "limited", "lines", "points"]
"""Sampling pattern: full or limited angular coverage in CT, lines or points of k-space in MRI."""
FULL_CIRCLE = 0.9
"""Fraction of all directions above which the angular coverage of a CT scan counts as full."""

MATRIX_COLUMNS = 16
"""Slices multiplied by the system matrix at once. Always exactly this many (the last block is padded with zeros): the
sparse kernel chooses its summation order by the width, so a fixed width gives a slice the same bits in any batch."""
MATRIX_LIMIT_BYTES = 3 * 2**30
"""Size limit of the system matrix; above it ASTRA projects slice by slice instead."""


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel-beam geometry of one slice.

    Parameters
    ----------
    rows, cols
        Image size in pixels.
    pixel_mm
        Side of a square pixel.
    angles_rad
        Projection angles.
    detectors
        Number of detector elements.
    detector_mm
        Detector pitch.
    detector_shift_mm
        Position of the detector's centre in detector coordinates; 0 when the rotation axis projects
        onto the middle of the detector.
    """

    rows: int
    cols: int
    pixel_mm: float
    angles_rad: tuple[float, ...]
    detectors: int
    detector_mm: float
    detector_shift_mm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("pixel_mm", "detector_mm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise GeometryError(f"{value} is not a positive length", field=name, remedy="give millimetres")
        for name in ("rows", "cols", "detectors"):
            if getattr(self, name) < 1:
                raise GeometryError(f"{getattr(self, name)} is not a positive count", field=name)
        check_angles(self.angles_rad)
        self._check_coverage()

    @property
    def magnification(self) -> float:
        """Detector size over object size at the rotation axis."""
        return 1.0

    @property
    def field_of_view_mm(self) -> float:
        """Diameter of the disc around the rotation axis that every view sees whole."""
        half = self.detectors * self.detector_mm / 2
        return 2 * (half - abs(self.detector_shift_mm)) / self.magnification

    def _check_coverage(self) -> None:
        object_mm = min(self.rows, self.cols) * self.pixel_mm
        # Two pixels of slack: a disc that fills the image does not touch its last pixel.
        if self.field_of_view_mm < object_mm - 2 * self.pixel_mm:
            needed = math.ceil((object_mm * self.magnification + 2 * abs(self.detector_shift_mm)) / self.detector_mm)
            raise GeometryError(
                f"the detector is too small for the object: {self.detectors} elements of {self.detector_mm:g} mm "
                f"see {self.field_of_view_mm:.1f} mm around the rotation axis, the image is {object_mm:.1f} mm wide",
                field="detector_mm",
                remedy=f"use at least {needed} elements, or reconstruct fewer or smaller pixels",
            )


@dataclass(frozen=True)
class FanBeam(ParallelBeam):
    """Flat-detector fan beam: as `ParallelBeam`, with the distances of source and detector from the axis."""

    source_origin_mm: float = 0.0
    origin_detector_mm: float = 0.0

    def __post_init__(self) -> None:
        radius = math.hypot(self.rows, self.cols) * self.pixel_mm / 2
        if not (math.isfinite(self.source_origin_mm) and self.source_origin_mm > radius):
            raise GeometryError(
                f"the source at {self.source_origin_mm:g} mm from the axis lies inside the image, "
                f"whose corner is at {radius:.1f} mm",
                field="source_origin_mm",
                remedy="give the distance from the source to the rotation axis in millimetres",
            )
        if not (math.isfinite(self.origin_detector_mm) and self.origin_detector_mm >= 0):
            raise GeometryError(
                f"{self.origin_detector_mm} is not a distance",
                field="origin_detector_mm",
                remedy="give the distance from the rotation axis to the detector in millimetres",
            )
        super().__post_init__()

    @property
    def magnification(self) -> float:
        """Detector size over object size at the rotation axis."""
        return (self.source_origin_mm + self.origin_detector_mm) / self.source_origin_mm

    @property
    def field_of_view_mm(self) -> float:
        """Diameter of the disc around the rotation axis inside every fan."""
        edge = self.detectors * self.detector_mm / 2 - abs(self.detector_shift_mm)
        if edge <= 0:
            return 0.0
        return 2 * self.source_origin_mm * math.sin(math.atan(edge / (self.source_origin_mm + self.origin_detector_mm)))


def check_angles(angles_rad: tuple[float, ...]) -> None:
    """Raise `GeometryError` for no, non-finite or implausible angles (degrees given as radians)."""
    if not angles_rad:
        raise GeometryError("no angles", field="angles_rad", remedy="give one angle for each projection")
    for index, angle in enumerate(angles_rad):
        if not math.isfinite(angle):
            raise GeometryError(f"angle {index} is {angle}", field="angles_rad", remedy="every angle must be finite")
    span = max(angles_rad) - min(angles_rad)
    largest = max(abs(a) for a in angles_rad)
    if largest > 4 * math.pi:
        raise GeometryError(
            f"angles reach {largest:g} rad, more than two full turns: they look like degrees",
            field="angles_rad",
            remedy="multiply by pi / 180; of a scan of several turns in radians, give the angles modulo 2 pi",
        )
    if len(angles_rad) > 1 and span == 0.0:
        raise GeometryError(
            f"all {len(angles_rad)} angles are {largest:g} rad", field="angles_rad", remedy="angles must differ"
        )


def kernel(g: ParallelBeam) -> str:
    """ASTRA's name of the projector for a geometry."""
    if not isinstance(g, FanBeam):
        return "linear"
    # ASTRA's area-weighted fan kernel has no vector form, which a shifted detector needs.
    return "strip_fanflat" if g.detector_shift_mm == 0.0 else "line_fanflat"


def estimated_matrix_bytes(g: ParallelBeam) -> int:
    """Bytes of the matrix and its transpose: non-zeros per pixel and view, measured for each kernel, times 16."""
    finer = max(1.0, g.pixel_mm * g.magnification / g.detector_mm)
    per_pixel = {"linear": 1.9, "strip_fanflat": 1.5 + finer, "line_fanflat": 1.5}[kernel(g)]
    if kernel(g) != "strip_fanflat":
        per_pixel *= finer
    return int(per_pixel * g.rows * g.cols * len(g.angles_rad) * 16)


def angular_cover(angles_rad: Sequence[float]) -> float:
    """Fraction of all directions, modulo half a turn, that views cover: all but the largest gap."""
    directions = sorted(angle % math.pi for angle in angles_rad)
    gaps = [b - a for a, b in pairwise([*directions, directions[0] + math.pi])]
    return 1 - (max(gaps) - statistics.median(gaps)) / math.pi


def angular_pattern(angles_rad: Sequence[float]) -> SamplingPattern:
    """Angular coverage: ``full`` if views cover all directions, else ``limited``."""
    return "full" if angular_cover(angles_rad) > FULL_CIRCLE else "limited"


def view_vectors(g: ParallelBeam) -> NDArray[np.float64]:
    """Rows ``(ray or source x, y, detector centre x, y, detector step x, y)`` of ASTRA's vector geometries."""
    angles = np.asarray(g.angles_rad, dtype=np.float64)
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    toward = np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    centre = along * g.detector_shift_mm
    if isinstance(g, FanBeam):
        return np.concatenate(
            [toward * g.source_origin_mm, centre - toward * g.origin_detector_mm, along * g.detector_mm], axis=1
        )
    return np.concatenate([toward, centre, along * g.detector_mm], axis=1)
