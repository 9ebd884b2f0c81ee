"""Super-resolution acquisitions: magnitude MRI stacks of low resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from operators.errors import GeometryError, InputError, ResourceLimit
from recon.spec.acquisitions.base import Acquisition, Shape, Volume
from recon.spec.acquisitions.mri_cartesian import check_magnitudes
from recon.spec.affine import Affine
from recon.spec.costs import MachineCosts
from recon.spec.simulation import Simulation

LARGEST_SIDE = 8192
"""Largest side of a result, in voxels."""


class MRISuperResolution(Acquisition):
    """Low-resolution magnitude MRI stack, to be refined: NIfTI, or an array ``(slices, rows, cols)``.

    ``plane``: truncated k-space, `factor` times fewer points in rows and in columns. ``slices``: thick slices
    without gaps, each the mean of `factor` thin ones.
    """

    MODALITY = "mri"
    COMPLEX_VOLUME = True
    AXES = ("slices", "rows", "cols")
    METHODS = ("interpolation", "tv", "boundary", "diffpir", "dds", "red-diff", "diffusion-mbir", "dps")
    BASELINE = "interpolation"
    SUSPECTS = "the factor, the direction, or slices that are not simple means"
    PHYSICS = "recon.problem.superresolution"
    RESAMPLES = False
    MEASURES_VOLUMES = True
    GRID: ClassVar[tuple[str, ...]] = ("pixel_mm", "slice_mm", "factor", "direction")

    kind: Literal["mri-superresolution"] = "mri-superresolution"
    factor: int = Field(2, ge=2, le=8)
    """Super-resolution factor: how many times finer the result is. `boundary` has priors for 2 and 4."""
    direction: Literal["plane", "slices"] = "plane"
    """Direction to refine: pixels in plane, or slices."""
    pixel_mm: float | None = Field(None, gt=0)
    """Pixel size of the input stack in mm. Default: that of the file (NIfTI), or 1, and the report says so."""
    slice_mm: float | None = Field(None, gt=0)
    """Slice distance of the input stack in mm. Default: that of the file (NIfTI), or the pixel size."""
    noise_std: float | None = Field(None, ge=0)
    """Noise standard deviation of the stack, in its unit. Default: no noise, and the report says so."""

    @property
    def refined(self) -> int:
        """The factor."""
        return self.factor

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Shape with `factor` times as many rows and columns, or slices."""
        slices, rows, cols = shape
        if self.direction == "plane":
            return slices, rows * self.factor, cols * self.factor
        return slices * self.factor, rows, cols

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """Shape with `factor` times fewer rows and columns, or slices."""
        del affine, settings
        slices, rows, cols = shape
        f = self.factor
        return self, (slices, rows // f, cols // f) if self.direction == "plane" else (slices // f, rows, cols)

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Zero: the operator stores nothing large."""
        del shape, costs
        return 0.0

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Proportional to the stack's number of pixels."""
        del per_chunk
        return costs.seconds.per_coil_pixel * math.prod(shape[1:])

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Check for magnitudes that are not all zero, and for a result that is not too large."""
        del files
        check_magnitudes(data)
        if not np.any(data):
            raise InputError("every value of the stack is zero", field="input")
        finer = self.result_shape(data.shape)
        if max(finer) > LARGEST_SIDE:
            raise ResourceLimit(
                f"the result would be {finer}, a side has at most {LARGEST_SIDE}",
                field="acquisition.factor",
                remedy="choose a smaller factor or fewer slices",
            )

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Check for magnitudes, and for a grid that the factor divides."""
        del affine
        check_magnitudes(volume)
        names = ("rows", "columns") if self.direction == "plane" else ("slices",)
        sizes = dict(zip(("slices", "rows", "columns"), volume.shape, strict=True))
        for name in names:
            if sizes[name] % self.factor:
                raise GeometryError(
                    f"{sizes[name]} {name} are no multiple of the factor {self.factor}",
                    field="acquisition.factor",
                    remedy="crop the volume, or select slices with input.slices",
                )

    def slices_of_result(self, first: int, last: int) -> tuple[int, int]:
        """Range of thin slices: `factor` per thick slice."""
        finer = self.factor if self.direction == "slices" else 1
        return first * finer, last * finer

    def result_affine(self, affine: Affine, shape: Shape) -> Affine:
        """Affine of the finer grid, whose middle is that of the stack's."""
        factor, finer = self.factor, affine.copy()
        if self.direction == "slices":
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
