"""Inverse problem of a measurement, with the unit and the affine of its solution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from operators.linear import LinearOperator, each_slice
from recon.measurement.measurement import Measurement
from recon.priors.card import Card
from recon.problem.problem import IntensityMap, Problem
from recon.spec.affine import scanner_affine, voxel_size
from recon.spec.registry import resolve
from recon.spec.report import Step

NO_COORDINATES = "no patient coordinates in the input: the affine is the scanner's frame"
NO_DISTANCE = "no distance of the slices in the input: each is reconstructed by itself; set acquisition.slice_mm"


@dataclass(frozen=True)
class InverseProblem:
    """Inverse problem and how its solution is expressed; kinds of scans have subclasses.

    Parameters
    ----------
    problem
        Operator, data and noise; volumes in 1/mm (CT) or the k-space's unit (MRI).
    affine
        Voxel ``(col, row, slice)`` to millimetres, of the patient or of the scanner.
    in_patient
        Whether `affine` leads into the patient's RAS frame.
    unit
        Unit of the written result: ``HU``, ``1/mm`` or ``a.u.``.
    modality
        Modality of the priors that fit.
    notes
        Remarks for the report.
    codes
        NIfTI's codes of `affine`, for sform and qform, if the input has them.
    steps
        Steps of the preparation that building the problem took.
    as_prepared
        What these did to the data, for others in the shape of the measurement's: samples that were withheld.
    """

    problem: Problem
    affine: NDArray[np.float64]
    in_patient: bool
    unit: str
    modality: Literal["ct", "mri"]
    notes: list[str]
    codes: tuple[int, int] | None = field(default=None, kw_only=True)
    steps: list[Step] = field(default_factory=list, kw_only=True)
    as_prepared: Callable[[NDArray[Any]], Tensor] = field(default=torch.from_numpy, kw_only=True)

    @property
    def noisy_parts(self) -> int:
        """Number of noisy real channels per sample: two if samples are complex."""
        return 2 if self.problem.data.is_complex() else 1

    def arranged(self, volume: Tensor) -> Tensor:
        """Arrange a solver's volume as ``(slices, rows, cols)`` of the result, without what is not asked for."""
        return volume

    def planes(self, volume: Tensor) -> Tensor:
        """Arrange a volume of the result as images of the kind that a prior sees."""
        return volume

    def display(self, volume: Tensor) -> NDArray[np.float32]:
        """Convert a solution to the result's unit; complex ones to magnitude."""
        return (volume.abs() if volume.is_complex() else volume).numpy()

    def measured(self, operator: LinearOperator, clean: Tensor, noise: Tensor) -> Problem:
        """Problem of another scan: its data without noise, and unit noise, which gets this scan's level.

        Raises
        ------
        InputError
            If the noise differs from sample to sample, as it would there too.
        """
        problem = self.problem
        if problem.inverse_std is not None:
            raise InputError(
                "the noise of another scan of this kind is not known",
                field="output.uncertainty",
                remedy="leave it out, or give the acquisition one noise level",
            )
        return replace(problem, operator=operator, data=clean + each_slice(problem.noise, noise) * noise)

    def intensity_map(self, card: Card) -> IntensityMap:
        """Intensity map from a prior's scale to this problem's unit, slice by slice."""
        del card
        return IntensityMap(self.problem.scales, 0.0)


def build(measurement: Measurement) -> InverseProblem:
    """Set up the inverse problem of a measurement by its kind of acquisition."""
    found: InverseProblem = resolve(f"{measurement.acquisition.PHYSICS}:build")(measurement)
    return found if measurement.affine is None else replace(found, codes=measurement.codes)


def placed(
    measurement: Measurement, rows: int, cols: int, pixel_mm: float, slice_mm: float, notes: list[str]
) -> tuple[NDArray[np.float64], bool]:
    """Affine of the result, and whether it leads into the patient; a note where it is the scanner's."""
    if measurement.affine is not None:
        return measurement.affine, measurement.in_patient
    notes.append(NO_COORDINATES)
    return scanner_affine(rows, cols, pixel_mm, slice_mm), False


def placed_stack(
    measurement: Measurement, rows: int, cols: int, notes: list[str]
) -> tuple[NDArray[np.float64], bool, float, float]:
    """Affine of a stack of slices, whether it leads into the patient, pixel size and distance of the slices in mm.

    Slices whose distance is unknown are infinitely far from each other: whatever couples neighbours leaves them alone.
    """
    acquisition = measurement.acquisition
    pixel_mm = acquisition.pixel_mm or 1.0
    affine, in_patient = placed(measurement, rows, cols, pixel_mm, acquisition.slice_mm or pixel_mm, notes)
    if measurement.affine is not None:
        col_mm, _, slice_mm = voxel_size(affine)
        return affine, in_patient, col_mm, slice_mm
    if acquisition.pixel_mm is None:
        notes.append("no pixel size in the input: voxels are written as 1 mm")
    if acquisition.slice_mm is None and len(measurement.data) > 1:
        notes.append(NO_DISTANCE)
    return affine, in_patient, pixel_mm, acquisition.slice_mm or math.inf
