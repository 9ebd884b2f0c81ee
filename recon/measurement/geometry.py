"""From a completed acquisition to operator geometry and patient coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError
from operators.geometry import FanBeam, ParallelBeam
from recon.spec.job import AngleRange, AnyAcquisition, CTFan, CTParallel, MRICartesian, MRIResolution, Simulation

WATER_PER_MM = 0.02
"""Attenuation of water near 60 keV in 1/mm, used for simulation."""


def ct_geometry(acquisition: CTParallel | CTFan, detectors: int) -> ParallelBeam:
    """The operator's geometry; sizes that were left open follow from the detector.

    An unset pixel is the detector pitch at the rotation axis, an unset image covers the field of view.
    """
    a = acquisition
    angles = a.angles()
    detector_mm = _required(a.detector_mm, "detector_mm")
    if angles is None:
        raise InputError("needed, the file does not carry it", field="acquisition.angles_rad")
    shift = a.detector_shift_mm or 0.0
    if a.rotation_center_column is not None:
        shift = ((detectors - 1) / 2 - a.rotation_center_column) * detector_mm
    fan: dict[str, float] = {}
    magnification = 1.0
    if isinstance(a, CTFan):
        source = _required(a.source_origin_mm, "source_origin_mm")
        behind = _required(a.origin_detector_mm, "origin_detector_mm")
        fan = {"source_origin_mm": source, "origin_detector_mm": behind}
        magnification = (source + behind) / source
    pixel_mm = a.pixel_mm or detector_mm / magnification
    visible = 2 * (detectors * detector_mm / 2 - abs(shift)) / magnification
    if fan:
        visible = 2 * fan["source_origin_mm"] * math.sin(math.atan(visible / 2 / fan["source_origin_mm"]))
    side = max(int(visible / pixel_mm + 1e-6), 1)
    common = {
        "rows": a.rows or a.cols or side,
        "cols": a.cols or a.rows or side,
        "pixel_mm": pixel_mm,
        "angles_rad": angles,
        "detectors": detectors,
        "detector_mm": detector_mm,
        "detector_shift_mm": shift,
    }
    try:
        return FanBeam(**common, **fan) if fan else ParallelBeam(**common)  # type: ignore[arg-type]
    except GeometryError as error:
        raise error.at(f"acquisition.{error.field}") from error


def _required(value: float | None, name: str) -> float:
    if value is None:
        raise InputError(
            "needed, the file does not carry it", field=f"acquisition.{name}", remedy="give it in millimetres"
        )
    return value


def voxel_size(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Column, row and slice spacing in mm of an affine over ``(col, row, slice)``."""
    col, row, slice_ = np.linalg.norm(affine[:3, :3], axis=0)
    return float(col), float(row), float(slice_)


def scanner_affine(rows: int, cols: int, pixel_mm: float, slice_mm: float) -> NDArray[np.float64]:
    """Voxel ``(col, row, slice)`` to the scanner frame: x right, y up (row 0 on top), origin on the axis."""
    affine = np.diag([pixel_mm, -pixel_mm, slice_mm, 1.0])
    affine[:2, 3] = [-(cols - 1) / 2 * pixel_mm, (rows - 1) / 2 * pixel_mm]
    return affine


def shifted_affine(affine: NDArray[np.float64], first_slice: int) -> NDArray[np.float64]:
    """The affine of a volume that starts at `first_slice` of the one `affine` belongs to."""
    moved = affine.copy()
    moved[:3, 3] += first_slice * affine[:3, 2]
    return moved


def finer_shape(shape: Sequence[int], acquisition: MRIResolution) -> tuple[int, int, int]:
    """Shape ``(slices, rows, cols)`` of the high-resolution volume, from that of the low-resolution stack."""
    slices, rows, cols = shape
    factor = acquisition.factor
    return (slices, rows * factor, cols * factor) if acquisition.direction == "plane" else (slices * factor, rows, cols)


def check_divisible(shape: Sequence[int], acquisition: MRIResolution) -> None:
    """Raise `GeometryError` unless a volume ``(slices, rows, cols)`` can be measured with a lower resolution."""
    names = ("rows", "columns") if acquisition.direction == "plane" else ("slices",)
    sizes = dict(zip(("slices", "rows", "columns"), shape, strict=True))
    for name in names:
        if sizes[name] % acquisition.factor:
            raise GeometryError(
                f"{sizes[name]} {name} are no multiple of the factor {acquisition.factor}",
                field="acquisition.factor",
                remedy="crop the volume, or select slices with input.slices",
            )


def finer_affine(
    affine: NDArray[np.float64], shape: tuple[int, int, int], acquisition: MRIResolution
) -> NDArray[np.float64]:
    """The affine of the high-resolution volume, from that of the low-resolution stack and its `shape`."""
    factor, finer = acquisition.factor, affine.copy()
    if acquisition.direction == "slices":
        finer[:3, 2] /= factor
        # A thick slice's centre is the middle of its thin ones.
        finer[:3, 3] -= (factor - 1) / 2 * finer[:3, 2]
        return finer
    finer[:3, :2] /= factor
    for axis, size in ((0, shape[2]), (1, shape[1])):
        # Truncated k-space keeps the grids' centres together, see `operators.resolution.Truncation`.
        first = factor * size // 2 - factor * (size // 2)
        finer[:3, 3] -= first * finer[:3, axis]
    return finer


def simulated_ct(
    shape: Sequence[int], affine: NDArray[np.float64], given: CTParallel | CTFan, settings: Simulation
) -> tuple[CTParallel | CTFan, int]:
    """The acquisition that measures a CT volume ``(slices, rows, cols)``, completed from it, and its detectors."""
    _, rows, cols = shape
    col_mm, _, slice_mm = voxel_size(affine)
    magnification = 1.0
    if isinstance(given, CTFan):
        source = given.source_origin_mm or 4.0 * max(rows, cols) * col_mm
        behind = given.origin_detector_mm if given.origin_detector_mm is not None else source
        given = given.model_copy(update={"source_origin_mm": source, "origin_detector_mm": behind})
        magnification = (source + behind) / source
    turn = 2 * math.pi if isinstance(given, CTFan) else math.pi
    detector_mm = given.detector_mm or col_mm * magnification
    acquisition = given.model_copy(
        update={
            "rows": rows,
            "cols": cols,
            "pixel_mm": col_mm,
            "slice_mm": slice_mm,
            "detector_mm": detector_mm,
            "mu_water_per_mm": given.mu_water_per_mm or WATER_PER_MM,
            "angles_rad": given.angles_rad or AngleRange(stop_rad=turn, count=settings.views),
            "photons": settings.photons,
        }
    )
    # The detector sees the image's corners, and a margin for the fan's widening.
    reach = 1.15 if isinstance(given, CTFan) else 1.0
    return acquisition, math.ceil(reach * math.hypot(rows, cols) * col_mm * magnification / detector_mm) + 2


def simulated(
    shape: Sequence[int], affine: NDArray[np.float64], given: AnyAcquisition, settings: Simulation
) -> tuple[AnyAcquisition, tuple[int, ...]]:
    """The acquisition that measures a volume ``(slices, rows, cols)``, and the shape of what it measures."""
    slices, rows, cols = shape
    if isinstance(given, MRICartesian):
        return given, (slices, settings.coils, rows, cols)
    if isinstance(given, MRIResolution):
        f = given.factor
        return given, (slices, rows // f, cols // f) if given.direction == "plane" else (slices // f, rows, cols)
    acquisition, detectors = simulated_ct(shape, affine, given, settings)
    ct_geometry(acquisition, detectors)
    return acquisition, (slices, len(acquisition.angles() or ()), detectors)
