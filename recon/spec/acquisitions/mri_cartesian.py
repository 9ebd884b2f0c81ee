"""Cartesian multi-coil MRI acquisitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from operators.errors import GeometryError, InputError
from recon.spec.acquisitions.base import Acquisition, Shape, Volume, as_mask
from recon.spec.acquisitions.kspace import (
    MOST_SETS,
    SOLVED_AXES,
    Readout,
    across_readout,
    reordered,
    require_plausible,
    require_whole,
)
from recon.spec.affine import Affine
from recon.spec.costs import MachineCosts
from recon.spec.files import File
from recon.spec.preparation import KSpacePreparation
from recon.spec.simulation import Simulation


class MRICartesian(Acquisition):
    """Cartesian multi-coil MRI; points of k-space that are exactly zero in every coil count as not sampled."""

    MODALITY = "mri"
    AXES = ("slices", "coils", "rows", "cols")
    COMPLEX_DATA = True
    COMPLEX_VOLUME = True
    METHODS = (
        "zero-filled", "cg-sense", "l1-wavelet", "low-rank", "tv",
        "diffpir", "dds", "red-diff", "diffusion-mbir", "dps",
    )  # fmt: skip
    BASELINE = "zero-filled"
    SUSPECTS = "the coil maps, the mask, where in the array k = 0 lies, or axes of the array in another order"
    PHYSICS = "recon.problem.mri_cartesian"
    RENAMED: ClassVar[dict[str, str]] = {"calibration_width": "acs_width"}

    kind: Literal["mri-cartesian"] = "mri-cartesian"
    mask: File | None = None
    """Sampling mask ``(rows, cols)``, a .npy of bool or 0/1; of 3D k-space the two axes that are not read out, in the
    order of ``(slices, rows, cols)``. Default: the points where k-space is not zero."""
    coil_maps: File | None = None
    """Coil sensitivities ``([slices,] coils, rows, cols)``, or ``([slices,] sets, coils, rows, cols)`` with two sets, a
    complex .npy, or a .cfl of BART. Default: estimated by ESPIRiT."""
    first_axis: Literal["slices", "coils"] | None = None
    """Meaning of the first axis of k-space that has three: ``slices`` of one coil, or ``coils`` of one slice. Default:
    coils; k-space in HDF5 is refused without it, unless `coil_maps` are given."""
    readout: Readout | None = None
    """Axis of the volume along which 3D k-space was read out, or measured completely. The first axis of k-space then
    is a spatial frequency, not a slice, and `mask` is that of the two other axes. Order the axes so that slices of the
    volume are axial, whatever the readout is: the priors know axial images. Default: what the file says, else each
    slice has 2D k-space of its own."""
    acs_width: int | None = Field(None, ge=8, le=128)
    """Width of the autocalibration region (ACS) for ESPIRiT, in k-space points. Default: the fully sampled centre."""
    noise_std: float | None = Field(None, ge=0)
    """Noise standard deviation of k-space, per real channel; after whitening, that of the usual coil. Default: that of
    a noise scan, else estimated from the outermost points."""
    noise_scan: File | None = None
    """Samples of noise alone, ``([readouts,] coils, samples)``, a complex .npy, received as k-space was: they tell the
    covariance of the coils' noise. Default: the noise readouts of the file."""
    preparation: KSpacePreparation | None = None
    """Preparation of k-space. Default: each step's own."""

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Slices, rows and columns of k-space."""
        return shape[0], shape[2], shape[3]

    @property
    def solved_axes(self) -> tuple[int, int, int]:
        """Axes of the volume ``(slices, rows, cols)`` in the order in which it is solved: planes across the readout."""
        return SOLVED_AXES[self.readout]

    def solved_shape(self, shape: Shape) -> tuple[int, int, int]:
        """Planes across the readout, and their rows and columns."""
        volume = self.result_shape(shape)
        first, second, third = self.solved_axes
        return volume[first], volume[second], volume[third]

    def maps_across(self, maps: NDArray[np.complex64] | None, slices: int) -> NDArray[np.complex64] | None:
        """Coil maps ``([slices,] [sets,] coils, rows, cols)`` of a volume in the order in which it is solved."""
        if maps is None or not self.in_one_piece():
            return maps
        return reordered(np.broadcast_to(maps, (slices, *maps.shape[-3:])), self.solved_axes)

    def completed_by(self, given: Acquisition) -> Self:
        """Combine what a file states with what the user gives; slices of 2D k-space have no readout across them."""
        found = super().completed_by(given)
        if self.readout is None and found.readout is not None:
            raise InputError(
                f"{found.readout!r}, but the file holds slices with 2D k-space of their own",
                field="acquisition.readout",
                remedy="leave it out",
            )
        return found

    @property
    def slices_encoded(self) -> bool:
        """Whether k-space is that of a volume."""
        return self.readout is not None

    def of_slices(self, data: NDArray[np.generic], first: int, last: int) -> tuple[Self, NDArray[np.generic]]:
        """K-space of some slices; of 3D k-space that was measured as a whole along these, after the transform."""
        if self.readout != "slices":
            return super().of_slices(data, first, last)
        kspace = data.astype(np.complex64, copy=False)
        require_whole(kspace, self.readout)
        return self.model_copy(update={"readout": None}), across_readout(kspace, self.readout)[first:last]

    def check_selection(self) -> None:
        """Raise `InputError` for 3D k-space, of which a part is no part of the volume."""
        if self.readout is not None:
            raise InputError(
                "3D k-space has no slices to choose from: all of it is needed for each",
                field="input.slices",
                remedy="leave it out",
            )

    def in_one_piece(self) -> bool:
        """Whether planes lie across the slices that a prior sees."""
        return self.solved_axes != SOLVED_AXES[None]

    def missing_axis(self) -> int:
        """Coils if the first axis is said to be slices, else slices."""
        return 1 if self.first_axis == "slices" else 0

    def check_missing_axis(self, shape: Shape) -> None:
        """Raise `InputError` unless it is said whether the first of three axes counts slices or coils."""
        if self.first_axis is None and self.coil_maps is None:
            require_first_axis(shape, self.axes)

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """Shape of k-space: the volume's, with the simulated number of coils and field of view."""
        del affine
        slices, rows, cols = shape
        return self, (slices, settings.coils, settings.field_of_view(rows), cols)

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Size of the sensitivities, the same as k-space; ESPIRiT works on one slice at a time."""
        del costs
        return float(self.data_bytes(shape))

    def setup_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Size of the library that estimates coil sensitivities, if they are not given."""
        return costs.memory.coil_calibration if self.coil_maps is None and shape[1] > 1 else 0.0

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """Proportional to the number of pixels times coils."""
        del per_chunk
        return costs.seconds.per_coil_pixel * shape[1] * math.prod(self.solved_shape(shape)[1:])

    def read_files(self, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """Convert a mask of 0 and 1 to bool, coil maps to complex64."""
        found: dict[str, NDArray[Any]] = {}
        if "mask" in arrays:
            found["mask"] = as_mask(arrays["mask"], "acquisition.mask")
        if "coil_maps" in arrays:
            maps = arrays["coil_maps"]
            if maps.dtype.kind != "c" or maps.ndim not in (3, 4, 5):
                raise InputError(
                    f"shape {maps.shape} {maps.dtype}, expected complex ([slices,] [sets,] coils, rows, cols)",
                    field="acquisition.coil_maps",
                )
            found["coil_maps"] = maps.astype(np.complex64)
        if "noise_scan" in arrays:
            found["noise_scan"] = as_noise_scan(arrays["noise_scan"])
        return found

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Check that something was sampled, and that mask and coil maps are as large as k-space."""
        mask, maps = files.get("mask"), files.get("coil_maps")
        across = self.solved_shape(data.shape)[1:]
        if mask is not None and mask.shape != across:
            raise GeometryError(
                f"shape {mask.shape}, k-space is {across}",
                field="acquisition.mask",
                remedy="give it as (rows, cols), lines as numpy.broadcast_to(lines[:, None], (rows, cols))",
            )
        if not np.any(data):
            raise InputError("every sample of k-space is zero", field="input")
        if maps is not None:
            self._check_maps(maps, data.shape)
        require_noise_of(files.get("noise_scan"), data)
        kspace = data.astype(np.complex64, copy=False)
        require_whole(kspace, self.readout)
        require_plausible(across_readout(kspace, self.readout), mask, self.maps_across(maps, data.shape[0]))

    def _check_maps(self, maps: NDArray[Any], shape: Shape) -> None:
        sets = maps.shape[1:2] if maps.ndim == 5 else ()
        if maps.shape[-3:] != shape[1:] or maps.shape[:-3] not in ((), (1, *sets), (*shape[:1], *sets)):
            raise GeometryError(f"shape {maps.shape}, k-space is {shape} {self.axes}", field="acquisition.coil_maps")
        if sets and (sets[0] > MOST_SETS or self.readout is not None):
            most = f"{MOST_SETS} are" if self.readout is None else "one is, in planes across a readout,"
            raise InputError(
                f"{sets[0]} sets of coil maps, {most} taken at most",
                field="acquisition.coil_maps",
                remedy="give fewer, as by bart ecalib -m1, or leave them out: they are estimated",
            )

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Check for magnitudes."""
        del affine
        check_magnitudes(volume)


def require_first_axis(shape: Shape, axes: str) -> None:
    """Raise `InputError`, which asks what the first axis of k-space without one of its axes counts, unless it is 1."""
    count = shape[0]
    if count > 1:
        raise InputError(
            f"k-space has shape {shape}: are these {count} slices of one coil, or {count} coils of one slice?",
            field="acquisition.first_axis",
            remedy=f"say slices or coils, or give k-space with all axes {axes}",
        )


def as_noise_scan(array: NDArray[np.generic]) -> NDArray[np.complex64]:
    """Convert samples of noise to complex64 ``(readouts, coils, samples)``; raises `InputError` for other arrays."""
    if array.dtype.kind != "c" or array.ndim not in (2, 3):
        raise InputError(
            f"shape {array.shape} {array.dtype}, expected complex ([readouts,] coils, samples)",
            field="acquisition.noise_scan",
            remedy="write the noise as complex64, coils before samples",
        )
    return array.reshape(-1, *array.shape[-2:]).astype(np.complex64)


def require_noise_of(noise: NDArray[Any] | None, data: NDArray[np.generic]) -> None:
    """Raise `InputError` unless a noise scan, if there is one, holds noise of as many coils as the data have."""
    if noise is None:
        return
    if noise.shape[1] != data.shape[1]:
        raise GeometryError(
            f"{noise.shape[1]} coils of {noise.shape[2]} samples, the data have {data.shape[1]} coils",
            field="acquisition.noise_scan",
            remedy="give the noise of the same coils, as ([readouts,] coils, samples)",
        )
    if not noise.any():
        raise InputError("every sample is zero", field="acquisition.noise_scan", remedy="check what was exported")


def check_magnitudes(volume: NDArray[np.generic]) -> None:
    """Raise `InputError` for negative values."""
    lowest = float(volume.min())
    if lowest < 0:
        raise InputError(
            f"magnitudes are negative, the lowest is {lowest:g}", field="input", remedy="is this a CT volume?"
        )
