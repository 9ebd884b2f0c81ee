"""Non-Cartesian multi-coil MRI acquisitions: radial, spiral, any trajectory in the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.errors import GeometryError, InputError
from operators.geometry import SamplingPattern
from recon.spec.acquisitions.base import Acquisition, Shape, Volume
from recon.spec.acquisitions.kspace import transformed
from recon.spec.acquisitions.mri_cartesian import (
    as_noise_scan,
    check_magnitudes,
    require_first_axis,
    require_noise_of,
)
from recon.spec.affine import Affine, voxel_size
from recon.spec.costs import MachineCosts
from recon.spec.files import File
from recon.spec.preparation import CoilPreparation
from recon.spec.simulation import Simulation

PRODUCT = 6.0
"""Time of a product over that of a Cartesian one: transforms off the grid, or on twice the grid."""
BEYOND = 1.005
"""Largest spatial frequency over that of the grid: a trajectory may end on its edge, with rounding."""
LEAST_REACH = 0.1
"""Smallest reach of a trajectory over that of the grid; below it the unit is another."""
UNITS = ("trajectory_cycles_per_fov", "trajectory_per_m")


class MRINonCartesian(Acquisition):
    """Non-Cartesian multi-coil MRI: samples along a trajectory in the plane, the same one in every slice and coil."""

    MODALITY = "mri"
    AXES = ("slices", "coils", "samples")
    COMPLEX_DATA = True
    COMPLEX_VOLUME = True
    METHODS = (
        "gridding", "cg-sense", "l1-wavelet", "low-rank", "tv",
        "diffpir", "dds", "red-diff", "diffusion-mbir", "dps",
    )  # fmt: skip
    BASELINE = "gridding"
    SUSPECTS = "the coil maps, the trajectory, its unit, or the order of samples or axes"
    PHYSICS = "recon.problem.mri_noncartesian"
    TUNED_AS = ("mri-cartesian",)
    PRECONDITIONED = True
    ALTERNATIVES = (frozenset(UNITS), frozenset({"density", "density_weights"}))
    GRID: ClassVar[tuple[str, ...]] = ("pixel_mm", "slice_mm", "rows", "cols")

    kind: Literal["mri-noncartesian"] = "mri-noncartesian"
    trajectory_cycles_per_fov: File | None = None
    """Place of each sample in k-space, ``(samples, 2)`` or ``(spokes, samples of a spoke, 2)``, a real .npy: first
    along columns' index (x), then along rows' index (y), in cycles per field of view of the result; the edge of k-space
    is at half the number of columns, or rows."""
    trajectory_per_m: File | None = None
    """The same in 1/m; needs `pixel_mm`."""
    partition_encoding: bool = False
    """Whether the slices were encoded together by Cartesian steps across the plane, as in a stack of stars or spirals:
    the data's first axis then counts partitions, all of them, with k = 0 at index ``n // 2``. Default: what the file
    says, else each slice has samples of its own."""
    rows: int | None = Field(None, ge=8, le=4096)
    """Number of image rows. Default: that of the file."""
    cols: int | None = Field(None, ge=8, le=4096)
    """Number of image columns. Default: as many as rows."""
    density: Literal["ramp", "voronoi"] = "voronoi"
    """Area of k-space that a sample stands for, which `gridding`, `cg-sense` and the starting image need. ``ramp``: in
    proportion to the distance from the centre (spokes). ``voronoi``: the cell of points nearest to the sample (any
    trajectory)."""
    density_weights: File | None = None
    """Known areas ``(samples,)``, a real .npy, instead of `density`; in any unit, since they are scaled to the area
    that is sampled."""
    coil_maps: File | None = None
    """Coil sensitivities ``([slices,] coils, rows, cols)``, a complex .npy. Default: estimated by ESPIRiT from the
    densely sampled centre of k-space."""
    first_axis: Literal["slices", "coils"] | None = None
    """Meaning of the first axis of data that have two: ``slices`` of one coil, or ``coils`` of one slice. Default:
    coils."""
    acs_width: int | None = Field(None, ge=8, le=128)
    """Width of the calibration region for ESPIRiT, in Cartesian points. Default: the densely sampled centre."""
    noise_std: float | None = Field(None, ge=0)
    """Noise standard deviation of the samples, per real channel; after whitening, that of the usual coil. Default: that
    of a noise scan, else estimated from the outermost samples."""
    noise_scan: File | None = None
    """Samples of noise alone, ``([readouts,] coils, samples)``, a complex .npy, received as the samples were: they tell
    the covariance of the coils' noise. Default: the noise readouts of the file."""
    preparation: CoilPreparation | None = None
    """Preparation of the coils. Default: each step's own."""

    @model_validator(mode="after")
    def _one_trajectory(self) -> Self:
        if self.trajectory_cycles_per_fov is not None and self.trajectory_per_m is not None:
            raise ValueError("give trajectory_cycles_per_fov or trajectory_per_m, not both")
        if self.trajectory_per_m is not None and self.pixel_mm is None:
            raise ValueError("a trajectory in 1/m needs pixel_mm")
        return self

    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        rows = self.rows or self.cols
        if rows is None:
            raise InputError(
                "needed, the file does not carry it",
                field="acquisition.rows",
                remedy="give the matrix size: twice the largest distance from the centre in cycles per field of view",
            )
        return rows, self.cols or rows

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Slices, and the matrix."""
        return shape[0], *self.matrix()

    def completed_by(self, given: Acquisition) -> Self:
        """Combine what a file states with what the user gives, who cannot change what slices were encoded by."""
        found = super().completed_by(given)
        if found.partition_encoding != self.partition_encoding:
            holds = ("slices with samples of their own", "partitions that encode all slices")
            raise InputError(
                f"{str(found.partition_encoding).lower()}, but the file holds {holds[self.partition_encoding]}",
                field="acquisition.partition_encoding",
                remedy="leave it out",
            )
        return found

    @property
    def slices_encoded(self) -> bool:
        """Whether the data's first axis counts partitions."""
        return self.partition_encoding

    def of_slices(self, data: NDArray[np.generic], first: int, last: int) -> tuple[Self, NDArray[np.generic]]:
        """Samples of some slices; the transform along partitions leaves each with samples of its own."""
        if not self.partition_encoding:
            return super().of_slices(data, first, last)
        slices = transformed(data.astype(np.complex64, copy=False), 0, inverse=True)
        return self.model_copy(update={"partition_encoding": False}), slices[first:last]

    def missing_axis(self) -> int:
        """Coils if the first axis is said to be slices, else slices."""
        return 1 if self.first_axis == "slices" else 0

    def check_missing_axis(self, shape: Shape) -> None:
        """Raise `InputError` unless it is said whether the first of two axes counts slices or coils."""
        if self.first_axis is None and self.coil_maps is None:
            require_first_axis(shape, self.axes)

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """Radial scan of the volume: as many spokes as leave one pixel in `acceleration` of their circle's worth."""
        slices, object_rows, cols = shape
        rows = settings.field_of_view(object_rows)
        col_mm, _, slice_mm = voxel_size(affine)
        found = self.model_copy(update={"rows": rows, "cols": cols, "pixel_mm": col_mm, "slice_mm": slice_mm})
        spokes, samples = radial_size(max(rows, cols), settings.acceleration)
        return found, (slices, settings.coils, spokes * samples)

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Coil sensitivities, kernel, and transforms of all coils of a slice on a finer grid."""
        del costs
        pixels = math.prod(self.matrix())
        return float(shape[0] * shape[1] * pixels * 8 + 16 * pixels * 8 + shape[1] * (2 * pixels + 2 * shape[2]) * 8)

    def setup_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Size of the library that estimates coil sensitivities, if they are not given."""
        return costs.memory.coil_calibration if self.coil_maps is None and shape[1] > 1 else 0.0

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Proportional to the number of pixels times coils."""
        del per_chunk
        return PRODUCT * costs.seconds.per_coil_pixel * shape[1] * math.prod(self.matrix())

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float]:
        """Scattered points; pixels per sample."""
        return "points", math.prod(self.matrix()) / shape[2]

    def read_files(self, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """Convert trajectories to ``(samples, 2)`` float64, weights to float64, coil maps to complex64."""
        found: dict[str, NDArray[Any]] = {}
        for name in (n for n in UNITS if n in arrays):
            points = arrays[name]
            if points.dtype.kind not in "iuf" or points.ndim < 2 or points.shape[-1] != 2:
                raise InputError(
                    f"shape {points.shape} {points.dtype}, expected real (samples, 2)",
                    field=f"acquisition.{name}",
                    remedy="the last axis holds x (along columns) and y (along rows)",
                )
            found[name] = points.reshape(-1, 2).astype(np.float64)
            if not np.isfinite(found[name]).all():
                raise InputError("values are not finite", field=f"acquisition.{name}", remedy="remove such samples")
        if "density_weights" in arrays:
            weights = arrays["density_weights"]
            areas = weights.reshape(-1).astype(np.float64) if weights.dtype.kind in "iuf" else np.zeros(1)
            if not (np.isfinite(areas) & (areas >= 0)).all() or not areas.any():
                raise InputError(
                    "weights are real, finite, not negative, and not all zero",
                    field="acquisition.density_weights",
                    remedy="give the area of k-space that each sample stands for, or leave them out",
                )
            found["density_weights"] = areas
        if "coil_maps" in arrays:
            maps = arrays["coil_maps"]
            if maps.ndim == 5 and maps.shape[1] > 1:
                raise InputError(
                    f"{maps.shape[1]} sets of coil maps, one is taken off the grid",
                    field="acquisition.coil_maps",
                    remedy="give one set, as by bart ecalib -m1, or leave them out: they are estimated",
                )
            if maps.dtype.kind != "c" or maps.ndim not in (3, 4, 5):
                raise InputError(
                    f"shape {maps.shape} {maps.dtype}, expected complex ([slices,] coils, rows, cols)",
                    field="acquisition.coil_maps",
                    remedy="write the maps as complex64",
                )
            found["coil_maps"] = maps.astype(np.complex64)
        if "noise_scan" in arrays:
            found["noise_scan"] = as_noise_scan(arrays["noise_scan"])
        return found

    def points(self, files: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Trajectory ``(samples, 2)`` in cycles per field of view, x before y, from the arrays of `read_files`."""
        name = next((n for n in UNITS if n in files), None)
        if name is None:
            raise InputError(
                "needed, the file does not carry it",
                field=f"acquisition.{UNITS[0]}",
                remedy="give where in k-space the samples lie, or its twin in 1/m",
            )
        points: NDArray[np.float64] = files[name]
        if name == "trajectory_per_m":
            assert self.pixel_mm is not None
            points = points * self.pixel_mm * 1e-3 * np.array(self.matrix()[::-1])
        return points

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Check that something was sampled, that sizes fit, and that the trajectory fits the matrix in its unit."""
        given = {name: array for name, array in files.items() if array is not None}
        rows, cols = self.matrix()
        points = self.points(given)
        field = f"acquisition.{next(n for n in UNITS if n in given)}"
        if len(points) != data.shape[2]:
            raise GeometryError(f"{len(points)} places for {data.shape[2]} samples", field=field)
        reach = np.abs(points).max(0) / (np.array([cols, rows]) / 2)
        if reach.max() > BEYOND:
            raise GeometryError(
                f"it reaches {reach.max() * 100:.0f} % of what a matrix of {rows} x {cols} can hold",
                field=field,
                remedy=f"give at least {math.ceil(2 * np.abs(points).max())} rows, or check the unit of the trajectory",
            )
        if reach.max() < LEAST_REACH:
            raise GeometryError(
                f"it reaches {np.abs(points).max():.3g} cycles per field of view, the matrix {max(rows, cols) / 2:g}",
                field=field,
                remedy="in units of 1/pixel (-0.5 to 0.5), multiply by the number of rows; or give a smaller matrix",
            )
        weights, maps = given.get("density_weights"), given.get("coil_maps")
        if weights is not None and len(weights) != data.shape[2]:
            raise GeometryError(f"{len(weights)} for {data.shape[2]} samples", field="acquisition.density_weights")
        require_noise_of(given.get("noise_scan"), data)
        if not np.any(data):
            raise InputError("every sample of k-space is zero", field="input", remedy="check what was exported")
        empty = int((~(data != 0).any((1, 2))).sum()) if self.partition_encoding else 0
        if empty:
            raise InputError(
                f"{empty} of {len(data)} partitions are zero",
                field="input",
                remedy="measure all of them, or estimate the missing ones first: samples may be left out in the plane",
            )
        fits = (data.shape[1], rows, cols)
        if maps is not None and (maps.shape[-3:] != fits or maps.shape[:-3] not in ((), (1,), data.shape[:1])):
            raise GeometryError(
                f"shape {maps.shape}, expected ([{data.shape[0]},] {', '.join(map(str, fits))})",
                field="acquisition.coil_maps",
            )

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Check for magnitudes."""
        del affine
        check_magnitudes(volume)


def radial_size(size: int, acceleration: float) -> tuple[int, int]:
    """Number of spokes, and of samples of each with two-fold oversampling, for a matrix of `size`."""
    return max(math.ceil(math.pi / 2 * size / acceleration), 4), 2 * size
