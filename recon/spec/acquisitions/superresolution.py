"""Super-resolution acquisitions: stacks of low resolution, MRI magnitudes and CT in HU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from operators.errors import GeometryError, InputError, ResourceLimit
from operators.geometry import SamplingPattern
from operators.stacks import ROUNDING, KSpaceFilter, SliceProfile, coarse_size, fine_size
from recon.spec.acquisitions.base import Acquisition, Shape, Volume
from recon.spec.acquisitions.ct import check_hu
from recon.spec.acquisitions.mri_cartesian import check_magnitudes
from recon.spec.affine import Affine
from recon.spec.costs import MachineCosts
from recon.spec.files import File
from recon.spec.simulation import Simulation

LARGEST_SIDE = 8192
"""Largest side of a result, in voxels."""


class SuperResolution(Acquisition):
    """Base class of stacks of low resolution, to be refined: a volume file, or an array ``(slices, rows, cols)``.

    ``plane``: truncated k-space, `factor` times fewer points in rows and in columns. ``slices``: thick slices,
    whose centres are `factor` thin ones apart.
    """

    AXES = ("slices", "rows", "cols")
    BASELINE = "interpolation"
    SUSPECTS = "the factor, the direction, or slices that are not simple means"
    PHYSICS = "recon.problem.superresolution"
    RESAMPLES = False
    MEASURES_VOLUMES = True
    GRID: ClassVar[tuple[str, ...]] = ("pixel_mm", "slice_mm", "factor", "direction")

    factor: float = Field(2.0, ge=1, le=8)
    """Super-resolution factor: how many times finer the result is, as 2 or 2.5. The cards of the priors say which
    factors `boundary` has a prior for."""
    direction: Literal["plane", "slices"] = "slices"
    """Direction to refine: pixels in plane, or slices."""
    profile: SliceProfile | None = None
    """Sensitivity of a slice across its thickness: ``box``, ``gaussian`` (full width at half maximum), or ``slr``, flat
    with soft edges. Only with ``direction: slices``. Default: ``box``, and the report says so."""
    gap: float = Field(0.0, ge=-0.8, le=4)
    """Gap between slices relative to their thickness, ``distance / thickness - 1``: 0.1 for slices of 5 mm that are
    5.5 mm apart, negative where they overlap. Only with ``direction: slices``."""
    pixel_mm: float | None = Field(None, gt=0)
    """Pixel size of the input stack in mm. Default: that of the file (NIfTI), or 1, and the report says so."""
    slice_mm: float | None = Field(None, gt=0)
    """Slice distance of the input stack in mm. Default: that of the file (NIfTI), or the pixel size."""
    noise_std: float | None = Field(None, ge=0)
    """Noise standard deviation of the stack, after the scanner's filter, in the stack's unit. Default: no noise, and
    the report says so."""

    @property
    def refined(self) -> float:
        """The factor."""
        return self.factor

    def left_out_of_choice(self) -> tuple[str, ...]:
        """`boundary` between slices, where RED-Diff alone was nearer to the truth (0.1 to 0.3 dB on tuning slices)."""
        return ("boundary",) if self.direction == "slices" else ()

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Shape with `factor` times as many rows and columns, or slices, rounded up."""
        slices, rows, cols = shape
        if self.direction == "plane":
            return slices, fine_size(rows, self.factor), fine_size(cols, self.factor)
        return fine_size(slices, self.factor), rows, cols

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """Shape with `factor` times fewer rows and columns, or slices, rounded up."""
        del affine, settings
        slices, rows, cols = shape
        if self.direction == "plane":
            return self, (slices, coarse_size(rows, self.factor), coarse_size(cols, self.factor))
        return self, (coarse_size(slices, self.factor), rows, cols)

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float] | None:
        """Pattern by the direction that is refined, and voxels of the result over those of the stack."""
        return self.direction, math.prod(self.result_shape(shape)) / math.prod(shape)

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Zero: the operator stores nothing large."""
        del shape, costs
        return 0.0

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Proportional to the stack's number of pixels."""
        del per_chunk
        return costs.seconds.per_coil_pixel * math.prod(shape[1:])

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Check for more than one thick slice, and for a result that is not too large."""
        del files
        self._require_slices(len(data))
        finer = self.result_shape(data.shape)
        if max(finer) > LARGEST_SIDE:
            raise ResourceLimit(
                f"the result would be {finer}, a side has at most {LARGEST_SIDE}",
                field="acquisition.factor",
                remedy="choose a smaller factor or fewer slices",
            )

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Check for more than one thick slice."""
        del affine
        if self.direction == "slices":
            self._require_slices(coarse_size(len(volume), self.factor))

    def _require_slices(self, count: int) -> None:
        if self.direction == "slices" and count < 2:
            raise GeometryError(
                "the stack has one slice, beside which there is nothing to refine between",
                field="acquisition.direction",
                remedy="give two slices or more, or direction: plane",
            )

    def first_of_result(self, first: int) -> float:
        """Thin slice, or part of one, at which a thick one begins."""
        return first if self.direction == "plane" else first * self.factor

    def slices_of_result(self, first: int, last: int) -> tuple[int, int]:
        """Range of thin slices of a known volume: `factor` per thick slice, rounded up at the end.

        Raises
        ------
        InputError
            If the first thick slice does not begin on a thin one.
        """
        if self.direction == "plane":
            return first, last
        begin = self.first_of_result(first)
        if abs(begin - round(begin)) > ROUNDING:
            raise InputError(
                f"slice {first} begins at {begin:g} thin slices of the result, in the middle of one",
                field="input.slices",
                remedy=f"begin at 0, or where the factor {self.factor:g} gives a whole number",
            )
        return round(begin), round(begin) + fine_size(last - first, self.factor)

    def result_affine(self, affine: Affine, shape: Shape) -> Affine:
        """Affine of the finer grid, whose middle is that of the stack's."""
        factor, finer = self.factor, affine.copy()
        if self.direction == "slices":
            finer[:3, 2] /= factor
            # A thick slice's centre is the middle of its thin ones.
            finer[:3, 3] -= (factor - 1) / 2 * finer[:3, 2]
            return finer
        for axis, size in ((0, shape[2]), (1, shape[1])):
            # Truncated k-space keeps the field of view and the grids' centres, see `operators.resolution.Truncation`.
            full = fine_size(size, factor)
            finer[:3, axis] /= full / size
            first = full // 2 - full / size * (size // 2)
            finer[:3, 3] -= first * finer[:3, axis]
        return finer


class MRISuperResolution(SuperResolution):
    """Low-resolution magnitude MRI stack, to be refined: NIfTI, or an array ``(slices, rows, cols)``.

    ``plane``: truncated k-space, `factor` times fewer points in rows and in columns. ``slices``: thick slices,
    whose centres are `factor` thin ones apart.
    """

    MODALITY = "mri"
    COMPLEX_VOLUME = True
    METHODS = ("interpolation", "tv", "boundary", "diffpir", "dds", "red-diff", "diffusion-mbir", "dps")
    VOLUME_FILES = ("second_stack", "third_stack")

    kind: Literal["mri-superresolution"] = "mri-superresolution"
    direction: Literal["plane", "slices"] = "plane"
    """Direction to refine: pixels in plane, or slices."""
    filter: KSpaceFilter = "none"
    """Window with which the scanner apodised the measured k-space, ``hann`` or ``tukey``. Only with ``direction:
    plane``."""
    zero_fill: float = Field(1.0, ge=1, le=4)
    """Factor by which the stack has more pixels, each way, than were measured: scanners interpolate by filling k-space
    with zeros. Only with ``direction: plane``."""
    second_stack: File | None = None
    """Second stack of the same volume, NIfTI, in another orientation, with slices of the same profile and gap; both
    files place their stacks in the patient, and motion between them is not corrected. Only with ``direction:
    slices``."""
    third_stack: File | None = None
    """Third stack, like the second."""

    @model_validator(mode="after")
    def _of_the_direction(self) -> Self:
        of_slices = ("profile", "gap", "second_stack", "third_stack")
        unused = of_slices if self.direction == "plane" else ("filter", "zero_fill")
        for name in unused:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with direction: {self.direction}; leave it out")
        return self

    def sampling(self, shape: Shape) -> tuple[SamplingPattern, float] | None:
        """Pattern and ratio of one stack; of several only the files say how much they measure together."""
        return None if self.files() else super().sampling(shape)

    def in_one_piece(self) -> bool:
        """Whether there are several stacks, of which others lie across the planes."""
        return bool(self.files())

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Zero, or with several stacks a copy of the volume, resampled, for each of the others."""
        del costs
        return len(self.files()) * 16.0 * math.prod(self.result_shape(shape))

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Check for magnitudes that are not all zero, in all stacks, and for a result that is not too large."""
        check_magnitudes(data)
        for name in self.VOLUME_FILES:
            stack = files.get(name)
            if stack is None:
                continue
            if (stack < 0).any():
                raise InputError(
                    "magnitudes are negative", field=f"acquisition.{name}", remedy="give a magnitude stack"
                )
            if len(stack) < 2:
                raise GeometryError("the stack has one slice", field=f"acquisition.{name}", remedy="leave it out")
        if not np.any(data):
            raise InputError("every value of the stack is zero", field="input")
        super().check(data, **files)

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Check for magnitudes, and for more than one thick slice."""
        check_magnitudes(volume)
        super().check_volume(volume, affine)


class CTSuperResolution(SuperResolution):
    """CT stack of thick slices in HU, to be refined between them: NIfTI, or an array ``(slices, rows, cols)``."""

    MODALITY = "ct"
    METHODS = ("interpolation", "tv", "diffpir", "dds", "red-diff", "diffusion-mbir", "dps")

    kind: Literal["ct-superresolution"] = "ct-superresolution"

    @model_validator(mode="after")
    def _between_slices(self) -> Self:
        if self.direction != "slices":
            raise ValueError("direction: plane is for k-space; CT is refined between its slices")
        return self

    def check_unit(self, volume: Volume, unit: str | None) -> None:
        """Check that the file, the user or the air in the volume says that values are in HU."""
        check_hu(volume, unit)
