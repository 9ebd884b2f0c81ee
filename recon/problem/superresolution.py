"""Physics of super-resolution: the inverse problem of a low-resolution stack, and its simulation.

The operator works on planes that hold the direction to be refined; thick slices are seen from the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError
from operators.resolution import Downsampling, Truncation, thick_slices
from operators.stack_set import Stack, StackSet
from operators.stacks import fine_size
from recon.measurement.measurement import Measurement
from recon.problem.inverse_problem import InverseProblem, placed
from recon.problem.problem import Problem, robust_maximum
from recon.spec.acquisitions.base import Volume
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.affine import Affine, voxel_size
from recon.spec.simulation import Simulation

UNLIKE = 0.01
"""Difference of several stacks that counts as noise at least, relative to the brightest tissue: resampling, profile
and brightness are never quite what is modelled."""


@dataclass(frozen=True)
class SuperResolutionProblem(InverseProblem):
    """Inverse problem of super-resolution, whose planes may lie across the volume."""

    acquisition: MRISuperResolution

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


def build(measurement: Measurement) -> SuperResolutionProblem:
    """Set up the inverse problem of a low-resolution stack."""
    acquisition = measurement.acquisition
    assert isinstance(acquisition, MRISuperResolution)
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
    # Magnitudes have lost their phase; the solvers' images are complex, and get theirs from the data: none.
    data = in_planes(stack.to(torch.complex64), acquisition)
    others = [name for name in acquisition.VOLUME_FILES if name in measurement.files]
    operator: Downsampling
    if others:
        operator, data = _together(measurement, acquisition, others, shape, data, notes)
    else:
        operator = downsampling(acquisition, shape)
    between = slice_mm if plane else pixel_mm
    # Planes across the stack are cuts of one volume.
    scale = None if plane else robust_maximum(operator.initial_image(data)) or 1.0
    if others and scale is not None and noise < UNLIKE * scale:
        noise = UNLIKE * scale
        notes.append(f"several stacks: {100 * UNLIKE:g} % of the brightest tissue counts as noise, as they differ")
    problem = Problem(operator, data, noise, between, pixel_mm, scale=scale)
    return SuperResolutionProblem(problem, affine, in_patient, "a.u.", "mri", notes, acquisition)


def _together(
    measurement: Measurement,
    acquisition: MRISuperResolution,
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
    volume: Volume, affine: Affine, given: MRISuperResolution, settings: Simulation, first_slice: int = 0
) -> Measurement:
    """Simulate a low-resolution magnitude stack with complex noise, as a scanner exports it."""
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
    planes = in_planes(torch.from_numpy(volume).to(torch.complex64), given)
    low = lower.forward(planes)
    noise_std = settings.noise_std * float(volume.max())
    low = low + noise_std * lower.noise(len(low), torch.Generator().manual_seed(settings.seed))
    return Measurement(
        data=from_planes(low, given).abs().numpy(),
        acquisition=acquisition,
        affine=affine,
        truth=volume,
        noise_std=noise_std,
        provenance={"simulated": settings.model_dump(mode="json")},
    )


def downsampling(acquisition: MRISuperResolution, shape: Sequence[int]) -> Downsampling:
    """Downsampling operator on the planes of a high-resolution volume of `shape` ``(slices, rows, cols)``."""
    slices, rows, cols = shape
    if acquisition.direction == "plane":
        return Truncation(rows, cols, acquisition.factor, filter=acquisition.filter, zero_fill=acquisition.zero_fill)
    profile = acquisition.profile or "box"
    return thick_slices(slices, rows, acquisition.factor, -2, profile=profile, gap=acquisition.gap, complex=True)


def in_planes(volume: Tensor, acquisition: MRISuperResolution) -> Tensor:
    """Arrange ``(slices, rows, cols)`` as the planes that the operator and the prior see.

    In-plane: the slices themselves. Through-plane: one plane ``(slices, rows)`` for every column.
    """
    return volume if acquisition.direction == "plane" else volume.permute(2, 0, 1).contiguous()


def from_planes(planes: Tensor, acquisition: MRISuperResolution) -> Tensor:
    """Inverse of `in_planes`."""
    return planes if acquisition.direction == "plane" else planes.permute(1, 2, 0).contiguous()
