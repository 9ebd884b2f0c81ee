"""Physics of super-resolution: the inverse problem of a low-resolution stack, and its simulation.

The operator works on planes that hold the direction to be refined; thick slices are seen from the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from operators.resolution import Downsampling, Truncation, thick_slices
from operators.stack_set import Stack, StackSet
from operators.stacks import fine_size
from recon.measurement.measurement import Measurement
from recon.priors.card import Card
from recon.problem.ct import attenuation_map
from recon.problem.inverse_problem import InverseProblem, placed
from recon.problem.problem import IntensityMap, Problem, robust_maximum
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.ct import WATER_PER_MM
from recon.spec.acquisitions.superresolution import CTSuperResolution, MRISuperResolution, SuperResolution
from recon.spec.affine import Affine, voxel_size
from recon.spec.simulation import Simulation

UNLIKE = 0.01
"""Difference of several stacks that counts as noise at least, relative to the brightest tissue: resampling, profile
and brightness are never quite what is modelled."""


@dataclass(frozen=True)
class SuperResolutionProblem(InverseProblem):
    """Inverse problem of super-resolution, whose planes may lie across the volume."""

    acquisition: SuperResolution

    @property
    def noisy_parts(self) -> int:
        """Number of noisy real channels per sample: one, since magnitudes keep only the noise along the image."""
        return 1

    def arranged(self, volume: Tensor) -> Tensor:
        """Arrange the planes as a volume; those of several stacks lie one below the other."""
        rows = volume.shape[1] // self.problem.operator.images
        return from_planes(volume.reshape(-1, rows, volume.shape[2]), self.acquisition)

    def planes(self, volume: Tensor) -> Tensor:
        """Arrange a volume as planes that hold the direction to be refined."""
        return in_planes(volume, self.acquisition)


@dataclass(frozen=True)
class CTSuperResolutionProblem(SuperResolutionProblem):
    """Inverse problem of thick CT slices: of attenuation, which thick slices average, in 1/mm; shown in HU."""

    def display(self, volume: Tensor) -> NDArray[np.float32]:
        """Convert a solution to HU."""
        return ((volume / WATER_PER_MM - 1) * 1000).numpy()

    def intensity_map(self, card: Card) -> IntensityMap:
        """Intensity map: by water if the prior is in HU, else by the robust maximum."""
        if card.intensity_range.unit != "HU":
            return super().intensity_map(card)
        return attenuation_map(card.intensity_range, WATER_PER_MM)


def build(measurement: Measurement) -> SuperResolutionProblem:
    """Set up the inverse problem of a low-resolution stack."""
    acquisition = measurement.acquisition
    assert isinstance(acquisition, SuperResolution)
    stack = torch.from_numpy(measurement.data)
    notes = list(measurement.notes)
    noise = acquisition.noise_std if acquisition.noise_std is not None else measurement.noise_std
    if noise is None:
        noise = 0.0
        notes.append("noise of the stack not given: taken as none")
    factor = acquisition.factor
    plane = acquisition.direction == "plane"
    if not plane and acquisition.profile is None:
        notes.append("profile of the slices not given: taken as a box")
    # A simulated volume need not be a multiple of the factor; the stack covers it, and the result is cropped to it.
    shape = acquisition.result_shape(stack.shape) if measurement.truth is None else measurement.truth.shape
    pixel_mm, slice_mm = acquisition.pixel_mm or 1.0, acquisition.slice_mm or acquisition.pixel_mm or 1.0
    # Truncation keeps the field of view, whatever number of pixels it is cut into.
    finer = stack.shape[2] / acquisition.result_shape(stack.shape)[2] if plane else 1.0
    pixel_mm, slice_mm = pixel_mm * finer, slice_mm if plane else slice_mm / factor
    affine, in_patient = placed(measurement, shape[1], shape[2], pixel_mm, slice_mm, notes)
    if measurement.affine is None and acquisition.pixel_mm is None:
        notes.append("no pixel size in the input: pixels of the stack count as 1 mm")
    across, along, between_mm = voxel_size(affine)
    sides = (across, along) if plane else (along, between_mm)
    if max(sides) > 1.2 * min(sides):
        notes.append(
            f"the refined planes have pixels of {sides[0]:.2f} x {sides[1]:.2f} mm: priors were trained on square ones"
        )
    data = in_planes(physical(stack, acquisition), acquisition)
    others = [name for name in acquisition.VOLUME_FILES if name in measurement.files]
    operator: Downsampling
    if others:
        operator, data = _together(measurement, acquisition, others, shape, data, notes)
    else:
        operator = downsampling(acquisition, shape)
    # Pixels need not be square: planes across the stack are a column apart, and hold the rows.
    distance_mm, side_mm = (between_mm, across) if plane else (across, along)
    # Planes across the stack are cuts of one volume.
    scale = None if plane else robust_maximum(operator.initial_image(data)) or 1.0
    if others and scale is not None and noise < UNLIKE * scale:
        noise = UNLIKE * scale
        notes.append(f"several stacks: {100 * UNLIKE:g} % of the brightest tissue counts as noise, as they differ")
    if isinstance(acquisition, CTSuperResolution):
        problem = Problem(operator, data, noise * WATER_PER_MM / 1000, distance_mm, side_mm, scale=scale)
        return CTSuperResolutionProblem(problem, affine, in_patient, "HU", "ct", notes, acquisition)
    problem = Problem(operator, data, noise, distance_mm, side_mm, scale=scale)
    return SuperResolutionProblem(problem, affine, in_patient, "a.u.", "mri", notes, acquisition)


def physical(volume: Tensor, acquisition: SuperResolution) -> Tensor:
    """Convert HU to attenuation in 1/mm, and magnitudes to complex numbers.

    Magnitudes have lost their phase; the solvers' images are complex, and get theirs from the data: none.
    """
    if isinstance(acquisition, CTSuperResolution):
        return WATER_PER_MM * (volume.to(torch.float32) / 1000 + 1)
    return volume.to(torch.complex64)


def _together(
    measurement: Measurement,
    acquisition: SuperResolution,
    others: Sequence[str],
    shape: Sequence[int],
    data: Tensor,
    notes: list[str],
) -> tuple[StackSet, Tensor]:
    """Operator and data of several stacks, those of the others scaled to the brightness of the first.

    Raises
    ------
    InputError
        If the first stack has no place in the patient.
    GeometryError
        If stacks do not overlap.
    """
    affine = measurement.affine
    if affine is None:
        raise InputError(
            "the first stack has no affine, so that nothing tells how the others lie",
            field=f"acquisition.{others[0]}",
            remedy="give the first as NIfTI too",
        )
    profile, (slices, rows, cols) = acquisition.profile or "box", shape
    thin_mm = min(voxel_size(affine))  # the finest step, with which profiles are integrated
    stacks, values = [], []
    for name in others:
        other, placed_at = measurement.files[name], measurement.files[f"{name}.affine"]
        factor = max(voxel_size(placed_at)[2] / thin_mm, 1.0)
        fine = acquisition.model_copy(update={"factor": factor}).result_affine(placed_at, other.shape)
        size = (other.shape[0], other.shape[1], other.shape[2])
        stacks.append(Stack(size, factor, np.linalg.inv(affine) @ fine, profile, acquisition.gap))
        values.append(torch.from_numpy(other))
    first = Stack((data.shape[1], rows, cols), acquisition.factor, np.eye(4), profile, acquisition.gap)
    operator = StackSet((slices, rows, cols), first, stacks)
    parts = [data.flatten(), *(value.to(torch.complex64).flatten() for value in values)]
    likely = operator.forward(operator.upsample(torch.cat(parts)[None]))[0].split([len(part) for part in parts])
    for number, (name, inside) in enumerate(zip(others, operator.seen(), strict=True), 1):
        seen = inside.flatten()
        mine, expected = parts[number].real * seen, likely[number].real
        gain = float(mine.sum() / expected.sum().clamp(min=1e-30)) or 1.0
        parts[number] = (mine / gain).to(torch.complex64)
        notes.append(
            f"{name.replace('_', ' ')}: {100 * float(inside.float().mean()):.0f} % of it in the volume of the first,"
            f" {gain:.3g} times as bright, which is evened out; motion between the stacks is not corrected"
        )
    return operator, torch.cat(parts)[None]


def simulate(
    volume: Volume, affine: Affine, given: SuperResolution, settings: Simulation, first_slice: int = 0
) -> Measurement:
    """Simulate a low-resolution stack as a scanner exports it: magnitudes with complex noise, or HU.

    The noise is a share of the largest magnitude, or of the 1000 HU between air and water.
    """
    del first_slice  # the noise is a share of the stack's largest value, and differs from stack to stack anyway
    given.check_volume(volume, affine)
    lower = downsampling(given, volume.shape)
    factor = given.factor
    col_mm, _, slice_mm = voxel_size(affine)
    plane = given.direction == "plane"
    coarse_cols = lower.range.shape[1]
    acquisition = given.model_copy(
        update={
            "pixel_mm": col_mm * (fine_size(coarse_cols, factor) / coarse_cols if plane else 1),
            "slice_mm": slice_mm * (1 if plane else factor),
        }
    )
    ct = isinstance(given, CTSuperResolution)
    planes = in_planes(torch.from_numpy(volume).to(torch.float32 if ct else torch.complex64), given)
    low = lower.forward(planes)
    noise_std = settings.noise_std * (1000.0 if ct else float(volume.max()))
    low = low + noise_std * lower.noise(len(low), torch.Generator().manual_seed(settings.seed))
    found = from_planes(low, given)
    return Measurement(
        data=(found if ct else found.abs()).numpy(),
        acquisition=acquisition,
        affine=affine,
        truth=volume,
        noise_std=noise_std,
        provenance={"simulated": settings.model_dump(mode="json")},
    )


def downsampling(acquisition: SuperResolution, shape: Sequence[int]) -> Downsampling:
    """Downsampling operator on the planes of a high-resolution volume of `shape` ``(slices, rows, cols)``."""
    slices, rows, cols = shape
    if isinstance(acquisition, MRISuperResolution) and acquisition.direction == "plane":
        return Truncation(rows, cols, acquisition.factor, filter=acquisition.filter, zero_fill=acquisition.zero_fill)
    profile = acquisition.profile or "box"
    complex_ = acquisition.COMPLEX_VOLUME
    return thick_slices(slices, rows, acquisition.factor, -2, profile=profile, gap=acquisition.gap, complex=complex_)


def in_planes(volume: Tensor, acquisition: SuperResolution) -> Tensor:
    """Arrange ``(slices, rows, cols)`` as the planes that the operator and the prior see.

    In-plane: the slices themselves. Through-plane: one plane ``(slices, rows)`` for every column.
    """
    return volume if acquisition.direction == "plane" else volume.permute(2, 0, 1).contiguous()


def from_planes(planes: Tensor, acquisition: SuperResolution) -> Tensor:
    """Inverse of `in_planes`."""
    return planes if acquisition.direction == "plane" else planes.permute(1, 2, 0).contiguous()
