"""CT acquisition geometries in physical units, and their checks. No ASTRA, no torch.

World frame: x to the right (columns), y up (row 0 is the largest y), the rotation axis at the origin
in the middle of the image, millimetres throughout. At angle theta the parallel beam travels along
``(sin, -cos)`` and detector coordinates grow along ``(cos, sin)``, as in ASTRA.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError
from operators.interrupt import checkpoint

SamplingPattern = Literal["full", "limited", "lines", "points", "plane", "slices"]
"""Sampling pattern: full or limited angular coverage in CT, lines or points of k-space in MRI; of stacks, what is of
low resolution: planes, or what lies between slices."""
FULL_CIRCLE = 0.9
"""Fraction of all directions above which the angular coverage of a CT scan counts as full."""
SLACK_PIXELS = 2
"""Pixels by which an image may be wider than what every view sees: a disc that fills it does not touch the last one."""
WIDE_GAP = 3.0
"""Multiple of the usual step between views from which a gap is missing data, and not a sparser part of the scan."""
LEAST_DISPLACED = 4
"""Detector elements by which a displaced detector's two ends differ at least in their distance from the axis."""
LARGEST_STEP_RAD, MOST_TURNS = 0.5, 10
"""Step between views and number of turns up to which large angles are taken for radians. In degrees, steps so small
belong to scans of many more degrees than these turns have radians."""

HELD_SHARE, LEAST_HELD, LEAST_DIRECTIONS = 0.1, 8, 4
"""Fraction of the directions that a fold withholds, how many all folds do, and with how many there is any, at least."""
SAME_DIRECTION_RAD = 1e-4
"""Difference below which two views have the same direction."""

MATRIX_COLUMNS = 16
"""Slices multiplied by the system matrix at once. Always exactly this many (the last block is padded with zeros): the
sparse kernel chooses its summation order by the width, so a fixed width gives a slice the same bits in any batch."""
NARROWER = {1: 0.48, 2: 0.52, 8: 0.68}
"""Slices multiplied at once in a job that has no more of them, and the time that it takes over that for
`MATRIX_COLUMNS`: the matrix is read all the same. Four at once take longer than eight."""
MATRIX_LIMIT_BYTES = 3 * 2**30
"""Size limit of the system matrix; above it ASTRA projects slice by slice instead."""
PIXELS_AT_ONCE = 2**18
"""Pixels whose places in the views are found at once: some megabytes, however large the image."""


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
        self._check_axis()

    @property
    def magnification(self) -> float:
        """Detector size over object size at the rotation axis."""
        return 1.0

    @property
    def pitch_mm(self) -> float:
        """Detector pitch at the rotation axis."""
        return self.detector_mm / self.magnification

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """Positions of the detector elements on the virtual detector through the rotation axis."""
        index = np.arange(self.detectors) - (self.detectors - 1) / 2
        return np.asarray(index * self.pitch_mm + self.detector_shift_mm / self.magnification, dtype=np.float64)

    def ray_distance_mm(self, position_mm: float) -> float:
        """Distance from the rotation axis of the ray through a position on the virtual detector, signed."""
        return position_mm

    def ray_position_mm(self, distance_mm: float) -> float:
        """Position on the virtual detector of the ray at a signed distance from the axis; inverse of the above."""
        return distance_mm

    def lines(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """All rays as lines ``x cos(phi) + y sin(phi) = rho``: `phi` in rad and `rho` in mm, ``(views, detectors)``."""
        angles = np.asarray(self.angles_rad)[:, None]
        phi, rho = np.broadcast_arrays(angles, self.positions_mm[None, :])
        return phi, rho

    @property
    def edges_mm(self) -> tuple[float, float]:
        """Signed distances from the rotation axis of the rays through both edges of the detector."""
        half = self.detectors * self.detector_mm / 2
        low, high = ((self.detector_shift_mm + side) / self.magnification for side in (-half, half))
        return self.ray_distance_mm(low), self.ray_distance_mm(high)

    @property
    def field_of_view_mm(self) -> float:
        """Diameter of the disc around the rotation axis that every view sees whole; 0 if the axis is not seen."""
        low, high = self.edges_mm
        return 2 * max(min(-low, high), 0.0)

    @property
    def turn_view_mm(self) -> float:
        """Diameter of the disc that a whole turn sees, if need be each half of it from the other side."""
        low, high = self.edges_mm
        return 2 * max(-low, high)

    @property
    def whole_turn(self) -> bool:
        """Whether the views cover a whole turn, so that every ray is there from both sides."""
        return angular_cover(self.angles_rad, 2 * math.pi) > FULL_CIRCLE

    @property
    def displaced(self) -> bool:
        """Whether a whole turn sees more than every view does: half acquisition, half fan."""
        return self.turn_view_mm - self.field_of_view_mm > LEAST_DISPLACED * self.pitch_mm and self.whole_turn

    @property
    def determined_mm(self) -> float:
        """Diameter of the disc around the axis that the scan determines, as far as its directions go."""
        return self.turn_view_mm if self.displaced else self.field_of_view_mm

    @property
    def beyond_view(self) -> bool:
        """Whether the image is larger than what every view sees."""
        return self.field_of_view_mm < (min(self.rows, self.cols) - SLACK_PIXELS) * self.pixel_mm

    def extended(self, before: int, after: int) -> Self:
        """The same with more detector elements at both ends."""
        shift = self.detector_shift_mm + (after - before) * self.detector_mm / 2
        return replace(self, detectors=self.detectors + before + after, detector_shift_mm=shift)

    def _check_axis(self) -> None:
        low, high = self.edges_mm
        gap = max(low, -high)
        # An element beside the axis is near enough: what it misses is less than a pixel.
        if gap > self.pitch_mm:
            raise GeometryError(
                f"no ray passes near the rotation axis: the detector begins {gap:.4g} mm beside it, which leaves the"
                " middle of the image undetermined",
                field="detector_shift_mm",
                remedy="check detector_shift_mm or rotation_center_column: the axis has to project onto the detector",
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

    def ray_distance_mm(self, position_mm: float) -> float:
        """Distance from the rotation axis of the ray through a position on the virtual detector, signed."""
        return self.source_origin_mm * math.sin(math.atan(position_mm / self.source_origin_mm))

    def ray_position_mm(self, distance_mm: float) -> float:
        """Position on the virtual detector of the ray at a signed distance from the axis; inverse of the above."""
        return self.source_origin_mm * math.tan(math.asin(distance_mm / self.source_origin_mm))

    @property
    def fan_rad(self) -> NDArray[np.float64]:
        """Angle of each detector element's ray to the central one."""
        return np.arctan(self.positions_mm / self.source_origin_mm)

    def lines(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """All rays as lines ``x cos(phi) + y sin(phi) = rho``: `phi` in rad and `rho` in mm, ``(views, detectors)``."""
        phi = np.asarray(self.angles_rad)[:, None] - self.fan_rad[None, :]
        return phi, np.broadcast_to(self.source_origin_mm * np.sin(self.fan_rad), phi.shape)


def check_angles(angles_rad: tuple[float, ...]) -> None:
    """Raise `GeometryError` for no, non-finite or implausible angles (degrees given as radians)."""
    if not angles_rad:
        raise GeometryError("no angles", field="angles_rad", remedy="give one angle for each projection")
    for index, angle in enumerate(angles_rad):
        if not math.isfinite(angle):
            raise GeometryError(f"angle {index} is {angle}", field="angles_rad", remedy="every angle must be finite")
    span = max(angles_rad) - min(angles_rad)
    largest = max(abs(a) for a in angles_rad)
    if largest > 4 * math.pi and not _several_turns(angles_rad, span):
        raise GeometryError(
            f"angles reach {largest:g} rad, more than two full turns: they look like degrees",
            field="angles_rad",
            remedy="multiply by pi / 180; of a scan of several turns in radians, give the angles modulo 2 pi",
        )
    if len(angles_rad) > 1 and span == 0.0:
        raise GeometryError(
            f"all {len(angles_rad)} angles are {largest:g} rad", field="angles_rad", remedy="angles must differ"
        )


def _several_turns(angles_rad: Sequence[float], span: float) -> bool:
    """Whether angles of more than two turns can be radians: a few turns, in steps that are small in radians."""
    steps = [abs(b - a) for a, b in pairwise(angles_rad)]
    return len(steps) > 0 and statistics.median(steps) <= LARGEST_STEP_RAD and span <= MOST_TURNS * 2 * math.pi


def kernel(g: ParallelBeam) -> str:
    """ASTRA's name of the projector for a geometry."""
    if not isinstance(g, FanBeam):
        return "linear"
    # ASTRA's area-weighted fan kernel has no vector form, which a shifted detector needs.
    return "strip_fanflat" if g.detector_shift_mm == 0.0 else "line_fanflat"


def matrix_columns(slices: int) -> int:
    """Slices that the system matrix is multiplied by at once in a job of so many, however it is cut."""
    return next((width for width in NARROWER if slices <= width), MATRIX_COLUMNS)


def estimated_matrix_bytes(g: ParallelBeam) -> int:
    """Bytes of the matrix and its transpose: non-zeros per pixel and view, measured for each kernel, times 16."""
    finer = max(1.0, g.pixel_mm * g.magnification / g.detector_mm)
    per_pixel = {"linear": 1.9, "strip_fanflat": 1.5 + finer, "line_fanflat": 1.5}[kernel(g)]
    if kernel(g) != "strip_fanflat":
        per_pixel *= finer
    return int(per_pixel * g.rows * g.cols * len(g.angles_rad) * 16)


def angular_cover(angles_rad: Sequence[float], period_rad: float = math.pi) -> float:
    """Fraction of a period, half a turn by default, that views cover: all but the largest gap."""
    directions = sorted(angle % period_rad for angle in angles_rad)
    gaps = [b - a for a, b in pairwise([*directions, directions[0] + period_rad])]
    return 1 - (max(gaps) - statistics.median(gaps)) / period_rad


def arc(angles_rad: Sequence[float], period_rad: float) -> tuple[float, float] | None:
    """Beginning and length in radians of the arc that views cover, all but the widest gap; None if they close it."""
    if len(angles_rad) == 1:
        return angles_rad[0], 0.0
    order = sorted(range(len(angles_rad)), key=lambda i: angles_rad[i] % period_rad)
    ordered = [angles_rad[i] % period_rad for i in order]
    gaps = [b - a for a, b in pairwise([*ordered, ordered[0] + period_rad])]
    usual = usual_gap(gaps)
    widest = max(range(len(gaps)), key=lambda i: gaps[i])
    if gaps[widest] <= WIDE_GAP * usual:
        return None
    return angles_rad[order[(widest + 1) % len(order)]] - usual / 2, period_rad - gaps[widest] + usual


def usual_gap(gaps: Sequence[float]) -> float:
    """Usual step between views from the gaps of a period; views that coincide but for rounding say nothing about it."""
    apart = sorted(gap for gap in gaps if gap > 1e-3 * (sum(gaps) - gaps[-1]) / len(gaps))
    return apart[int(0.9 * (len(apart) - 1))]


def limits(g: ParallelBeam) -> list[str]:
    """Say what a scan cannot determine of its image."""
    notes = []
    fan_rad = 2 * math.asin(g.determined_mm / 2 / g.source_origin_mm) if isinstance(g, FanBeam) else 0.0
    turns = g.displaced and g.beyond_view
    covered = arc(g.angles_rad, 2 * math.pi if turns or isinstance(g, FanBeam) else math.pi)
    needed = 2 * math.pi if turns else math.pi + fan_rad
    if covered is not None and covered[1] < needed - LEAST_MISSING_RAD:
        fan = f" + {math.degrees(fan_rad):.0f} for the fan" if isinstance(g, FanBeam) else ""
        whole = "360 for a displaced detector" if turns else f"180{fan}"
        notes.append(
            f"the views cover {math.degrees(covered[1]):.0f} degrees of the {whole} that determine an image: edges"
            " along the missing directions are lost, and grey values may be off"
        )
    if (min(g.rows, g.cols) - SLACK_PIXELS) * g.pixel_mm > g.determined_mm:
        notes.append(
            f"the image is wider than the {g.determined_mm:.4g} mm that are seen in all directions: beyond"
            f" {g.determined_mm / 2:.4g} mm from the rotation axis it is uncertain"
        )
    return notes


LEAST_MISSING_RAD = math.radians(3)
"""Missing arc that is worth a remark."""


def angular_pattern(angles_rad: Sequence[float]) -> SamplingPattern:
    """Angular coverage: ``full`` if views cover all directions, else ``limited``."""
    return "full" if angular_cover(angles_rad) > FULL_CIRCLE else "limited"


def view_folds(g: ParallelBeam) -> list[tuple[int, ...]]:
    """Views to withhold from a scan, see `folds_of`: the two rays along a line count as one in a parallel beam only."""
    return folds_of(g.angles_rad, 2 * math.pi if isinstance(g, FanBeam) else math.pi)


def folds_of(angles_rad: Sequence[float], period_rad: float) -> list[tuple[int, ...]]:
    """Views to withhold from a scan, fold by fold, of which each is judged by what the others reconstruct.

    About `HELD_SHARE` of the directions are withheld in each fold, evenly spread, and in all folds at least
    `LEAST_HELD`: one view says little. Where directions are missing, it is the two ends of the arc, one after the
    other: only what lies beyond the views that stay tells how well a method fills in what no view saw. Views of the
    same direction are withheld together. There is no fold with fewer than `LEAST_DIRECTIONS`.
    """
    order = sorted(range(len(angles_rad)), key=lambda i: angles_rad[i] % period_rad)
    groups: list[list[int]] = []
    for i in order:
        before = angles_rad[groups[-1][0]] % period_rad if groups else -math.inf
        if angles_rad[i] % period_rad - before < SAME_DIRECTION_RAD:
            groups[-1].append(i)
        else:
            groups.append([i])
    count = len(groups)
    if count < LEAST_DIRECTIONS:
        return []
    each = max(1, round(HELD_SHARE * count))
    if angular_pattern(angles_rad) == "limited":
        begin_rad, _ = arc(angles_rad, period_rad) or (0.0, 0.0)
        groups.sort(key=lambda group: (angles_rad[group[0]] - begin_rad) % period_rad)
        chosen = [list(range(each)), list(range(count - each, count))]
    else:
        folds = min(count // each, max(2, math.ceil(LEAST_HELD / each)))
        chosen = [[int((j + (k + 0.5) / folds) * count / each) for j in range(each)] for k in range(folds)]
    return [tuple(sorted(i for index in indices for i in groups[index])) for indices in chosen]


def beyond_ends(g: ParallelBeam, radius_mm: float) -> tuple[int, int]:
    """Detector elements that are missing before and after to see a disc around the axis.

    The nearer end of a displaced detector lacks nothing over a whole turn: the rays beyond it are seen from behind.
    """
    furthest = g.ray_position_mm(radius_mm)
    low, high = (g.ray_position_mm(edge) for edge in g.edges_mm)
    before, after = (max(math.ceil((furthest - edge) / g.pitch_mm - 1e-6), 0) for edge in (-low, high))
    if g.displaced:
        return (0, after) if high > -low else (before, 0)
    return before, after


@lru_cache(maxsize=4)
def within_view(g: ParallelBeam) -> NDArray[np.bool_]:
    """Tell which pixels ``(rows, cols)`` lie within the detector's edges in every view; over half a turn a disc.

    Of a displaced detector that goes round the farther edge counts. Where all rows end in air, nothing lies outside.
    """
    y, x = ((np.arange(n) - (n - 1) / 2) * g.pixel_mm for n in (g.rows, g.cols))
    low, high = ((g.detector_shift_mm + side * g.detectors * g.detector_mm / 2) / g.magnification for side in (-1, 1))
    if g.displaced:
        low, high = (-math.inf, high) if high > -low else (low, math.inf)
    found = np.ones((g.rows, g.cols), dtype=np.bool_)
    if math.hypot(g.rows, g.cols) * g.pixel_mm <= g.determined_mm:
        return found
    block = max(1, PIXELS_AT_ONCE // g.cols)
    for first in range(0, g.rows, block):
        checkpoint()
        # All views see the disc that the scan determines.
        row, col = np.nonzero(y[first : first + block, None] ** 2 + x**2 > (g.determined_mm / 2) ** 2)
        row += first
        found[row, col] = False
        for angle in g.angles_rad:
            along = x[col] * math.cos(angle) - y[row] * math.sin(angle)
            if isinstance(g, FanBeam):
                toward = x[col] * math.sin(angle) + y[row] * math.cos(angle)
                along *= g.source_origin_mm / (g.source_origin_mm - toward)
            seen = (along >= low) & (along <= high)
            row, col = row[seen], col[seen]
        found[row, col] = True
    return found


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
