"""Cartesian multi-coil MRI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from operators.errors import GeometryError, InputError
from recon.spec.acquisitions.base import Acquisition, Shape, Volume
from recon.spec.affine import Affine
from recon.spec.costs import MachineCosts
from recon.spec.files import File
from recon.spec.simulation import Simulation


class MRICartesian(Acquisition):
    """Cartesian multi-coil MRI; points of k-space that are exactly zero in every coil count as not sampled."""

    MODALITY = "mri"
    AXES = ("slices", "coils", "rows", "cols")
    COMPLEX_DATA = True
    METHODS = ("zero-filled", "cg-sense", "tv", "diffpir", "dds", "red-diff", "diffusion-mbir", "dps")
    BASELINE = "zero-filled"
    PHYSICS = "recon.problem.mri_cartesian"
    RENAMED: ClassVar[dict[str, str]] = {"calibration_width": "acs_width"}

    kind: Literal["mri-cartesian"] = "mri-cartesian"
    mask: File | None = None
    """Sampled points ``(rows, cols)`` as a .npy of bool or 0/1. Default: where k-space is not zero."""
    coil_maps: File | None = None
    """Sensitivities ``([slices,] coils, rows, cols)`` as a complex .npy. Default: estimated by ESPIRiT."""
    acs_width: int | None = Field(None, ge=8, le=128)
    """Width of the autocalibration region that ESPIRiT uses. Default: what is fully sampled."""
    noise_std: float | None = Field(None, ge=0)
    """Standard deviation of the noise of k-space, per real channel. Default: estimated."""

    def result_shape(self, shape: Shape) -> tuple[int, int, int]:
        """As k-space."""
        return shape[0], shape[2], shape[3]

    def simulated(self, shape: Sequence[int], affine: Affine, settings: Simulation) -> tuple[Self, Shape]:
        """K-space of the volume's size, in so many coils."""
        del affine
        slices, rows, cols = shape
        return self, (slices, settings.coils, rows, cols)

    def operator_bytes(self, shape: Shape, costs: MachineCosts) -> float:
        """Sensitivities are as large as k-space; ESPIRiT works on one slice at a time."""
        del costs
        return float(self.data_bytes(shape))

    def library_bytes(self, costs: MachineCosts) -> float:
        """Those that estimate coil sensitivities."""
        return costs.memory.coils

    def product_seconds(self, shape: Shape, per_chunk: float, costs: MachineCosts) -> float:
        """By the coils' pixels."""
        del per_chunk
        return costs.seconds.per_coil_pixel * math.prod(shape[1:])

    def read_files(self, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
        """A mask of 0 and 1 as bool, coil maps as complex64."""
        found: dict[str, NDArray[Any]] = {}
        if "mask" in arrays:
            mask = arrays["mask"]
            if mask.dtype.kind not in "biuf" or not np.isin(np.unique(mask), (0, 1)).all():
                raise InputError("a mask holds only 0 and 1", field="acquisition.mask")
            found["mask"] = mask.astype(bool)
        if "coil_maps" in arrays:
            maps = arrays["coil_maps"]
            if maps.dtype.kind != "c" or maps.ndim not in (3, 4):
                raise InputError(
                    f"shape {maps.shape} {maps.dtype}, expected complex ([slices,] coils, rows, cols)",
                    field="acquisition.coil_maps",
                )
            found["coil_maps"] = maps.astype(np.complex64)
        return found

    def check(self, data: NDArray[np.generic], **files: NDArray[Any] | None) -> None:
        """Something was sampled, and mask and coil maps are as large as k-space."""
        mask, maps = files.get("mask"), files.get("coil_maps")
        if mask is not None and mask.shape != data.shape[2:]:
            raise GeometryError(f"shape {mask.shape}, k-space is {data.shape[2:]}", field="acquisition.mask")
        if not np.any(data):
            raise InputError("every sample of k-space is zero", field="input")
        if maps is not None and (
            maps.shape[-3:] != data.shape[1:] or maps.shape[:-3] not in ((), (1,), data.shape[:1])
        ):
            raise GeometryError(
                f"shape {maps.shape}, k-space is {data.shape} {self.axes}", field="acquisition.coil_maps"
            )

    def check_volume(self, volume: Volume, affine: Affine) -> None:
        """Magnitudes."""
        del affine
        check_magnitudes(volume)


def check_magnitudes(volume: NDArray[np.generic]) -> None:
    """Raise `InputError` for negative values."""
    lowest = float(volume.min())
    if lowest < 0:
        raise InputError(
            f"magnitudes are negative, the lowest is {lowest:g}", field="input", remedy="is this a CT volume?"
        )
