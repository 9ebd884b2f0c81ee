"""Simulation of MRI measurements with what a real scanner does to its k-space; the ideal ones are with each kind.

The object is finer than the pixels of the result, with sharp edges, and samples are its exact Fourier integrals: a scan
cuts off what lies beyond its own k-space, and its image rings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.fourier import inverse_fourier
from operators.interrupt import checkpoint
from operators.noncartesian import NonCartesianMRI
from recon.measurement.fine_grid import steepened
from recon.measurement.off_resonance import AIR, FAT_HZ, fat_of, field_hz, tissue_of
from recon.measurement.random_fields import smooth_phase, uniform
from recon.measurement.receive_array import ReceiveArray
from recon.priors.noise import key
from recon.spec.acquisitions.base import Volume
from recon.spec.affine import Affine, voxel_size
from recon.spec.simulation import Simulation

FINER = 2
"""Pixels of the object along a pixel of the result."""
STEEPNESS = 4.0
"""Steepness of the object's edges over that of the spline through the volume."""
LONGEST_ECHO_S = 6e-3
"""Longest time over which off-resonance turns the phase: that of a gradient echo; a spin echo undoes it."""
LONGEST_STACK_MM = 200.0
"""Length of a stack beyond which its slices do not lie in one array: each is in the middle of its own."""
REALISTIC = (
    f"simulated from a known volume as a scanner would measure it: an object {FINER} times as fine with sharp edges,"
    " loops as coils, noise that coils share, off-resonance; compared with a fully sampled scan of it without noise"
)


@dataclass(frozen=True)
class Samples:
    """Samples of k-space; `rows` and `cols` broadcast to their shape.

    Parameters
    ----------
    rows, cols
        Spatial frequency along rows' index and along columns' index, in cycles per pixel of the result, float64.
    times
        Time of each sample from the echo, in readouts, from -0.5 to 0.5; broadcasts like the frequencies.
    lines
        Number of the readout that each sample belongs to; broadcasts like the frequencies.
    transform
        Fourier integral of an object ``(rows, cols)`` on the fine grid at these samples, in the scale of the
        orthonormal transform of the result.
    """

    rows: Tensor
    cols: Tensor
    times: Tensor
    lines: Tensor
    transform: Callable[[Tensor], Tensor]

    def shifted(self, row_pixels: Tensor | float, col_pixels: Tensor | float) -> Tensor:
        """Factor of every sample where the object is elsewhere by the given pixels."""
        return _turned(self.rows * row_pixels + self.cols * col_pixels)


def cartesian(object_shape: tuple[int, int], shape: tuple[int, int], *, by_point: bool = False) -> Samples:
    """All of Cartesian k-space ``(rows, cols)`` of an object whose volume has `object_shape` pixels of the same size.

    A field of view that is smaller than the object samples k-space more coarsely, and wraps. With `by_point` both axes
    are phase encodings, and each point is a readout of its own.
    """
    (k_rows, along_rows), (k_cols, along_cols) = (_axis(m, n) for m, n in zip(object_shape, shape, strict=True))
    rows, cols = k_rows[:, None], k_cols[None]
    lines = torch.arange(math.prod(shape)).reshape(shape) if by_point else torch.arange(shape[0])[:, None]
    times = torch.zeros(1, 1, dtype=torch.float64) if by_point else cols
    return Samples(rows, cols, times, lines, lambda image: along_rows @ image @ along_cols.T)


def _turned(turns: Tensor) -> Tensor:
    """Unit phase factor of a delay by some turns, complex128."""
    return torch.exp(-2j * math.pi * turns)


def _axis(object_pixels: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Frequencies of one axis, and the matrix ``(pixels, fine object pixels)`` of its Fourier integrals, complex64."""
    k = (torch.arange(pixels, dtype=torch.float64) - pixels // 2) / pixels
    fine = torch.arange(object_pixels * FINER, dtype=torch.float64)
    positions = (fine + 0.5) / FINER - 0.5 - object_pixels // 2
    width = torch.sinc(k / FINER) / (FINER * math.sqrt(pixels))  # a fine pixel is as wide as the next one is far
    return k, (width[:, None] * _turned(torch.outer(k, positions))).to(torch.complex64)


def along_spokes(
    object_shape: tuple[int, int], shape: tuple[int, int], trajectory: Tensor, spoke_samples: int
) -> Samples:
    """Samples along a trajectory ``(samples, 2)`` in cycles per field of view of the result, rows first.

    Spokes are read so fast that fat does not move: it would be blurred along all of them, as no fully sampled scan of
    another kind shows it.
    """
    pixels = torch.tensor(shape, dtype=torch.float64)
    k_rows, k_cols = (trajectory / pixels).T
    fine_shape = (object_shape[0] * FINER, object_shape[1] * FINER)
    offsets = [(n * FINER // 2 - n // 2 * FINER + 0.5) / FINER - 0.5 for n in object_shape]
    # From the operator's orthonormal transform of the fine grid to that of the result.
    scale = math.sqrt(math.prod(fine_shape) / math.prod(shape)) / FINER**2
    width = torch.sinc(k_rows / FINER) * torch.sinc(k_cols / FINER)
    factor = scale * width * _turned(k_rows * offsets[0] + k_cols * offsets[1])
    factor = factor.to(torch.complex64)
    fine = trajectory / pixels * torch.tensor(object_shape, dtype=torch.float64)
    ones = torch.ones((1, *fine_shape), dtype=torch.complex64)
    operator = NonCartesianMRI(fine, ones, torch.ones(len(fine)))
    samples = torch.arange(len(trajectory))
    return Samples(
        k_rows, k_cols, torch.zeros(1, dtype=torch.float64), samples // spoke_samples,
        lambda image: factor * operator.forward(image[None])[0, 0],
    )  # fmt: skip


def result_affine(affine: Affine, object_rows: int, rows: int) -> Affine:
    """Affine of a field of view of `rows` about the middle row of `object_rows`."""
    moved = affine.copy()
    moved[:3, 3] += (object_rows // 2 - rows // 2) * affine[:3, 1]
    return moved


def measured(
    volume: Volume, affine: Affine, settings: Simulation, samples: Samples, whole: Samples, first_slice: int = 0
) -> tuple[NDArray[np.complex64], Volume]:
    """Measure a magnitude volume ``(slices, rows, cols)`` as a scanner does.

    Coils are loops around the head (`ReceiveArray`), and share noise. The phase is smooth but for the field of air and
    tissue (`off_resonance`), which acts for up to `LONGEST_ECHO_S`; the fat of the scalp is shifted along the readout
    and has a phase of its own. Readout by readout the object is elsewhere, if it moves; coils stay. Not there:
    relaxation, distortion of the readout by off-resonance, waves in the head, motion out of the plane.

    The array, the phase and the motion are drawn from the seed; noise is keyed by (seed, slice).

    Coil maps are not returned, for methods have to do without those of a scan as well: they are estimated from the
    data, few, noisy and ringing as these are, and what is wrong with them is a part of every result.

    Parameters
    ----------
    samples
        What is measured.
    whole
        All of Cartesian k-space, for the truth; may be the same.

    Returns
    -------
    NDArray
        Samples ``(slices, coils, *samples)``, complex64.
    Volume
        Truth: the magnitude ``(slices, rows, cols)`` that a fully sampled scan of the same object gives without noise
        and motion, the root sum of squares of its coils. It rings, wraps and is shaded by the coils as the result has
        to be; against the volume itself every method would be blamed for what the scanner does.
    """
    object_rows, object_cols = volume.shape[1:]
    col_mm, row_mm, slice_mm = voxel_size(affine)
    generator = torch.Generator().manual_seed(settings.seed)
    largest = float(volume.max())
    array = _array(volume, largest, (row_mm, col_mm), settings.coils, generator)
    phase = smooth_phase(object_rows * FINER, object_cols * FINER, generator)
    echo_s = uniform(generator, 0.0, LONGEST_ECHO_S)
    moved = _motion(samples, settings.motion_pixels, generator)
    rows_mm, cols_mm = _fine_mm(object_rows, row_mm), _fine_mm(object_cols, col_mm)
    data, truth = [], []
    for index, z_mm in enumerate(_heights_mm(len(volume), slice_mm)):
        checkpoint()
        image = volume[index]
        fine = steepened(torch.from_numpy(image)[None], FINER, STEEPNESS)[0]
        tissue = (fine > AIR * largest).float()
        turned = torch.polar(fine, phase + 2 * math.pi * echo_s * field_hz(tissue, row_mm / FINER, col_mm / FINER))
        fat_share = torch.from_numpy(fat_of(image, largest, math.sqrt(row_mm * col_mm)))
        fat = turned * fat_share.repeat_interleave(FINER, 0).repeat_interleave(FINER, 1)
        power = torch.zeros((), dtype=torch.float32)
        coils = []
        for sensitivity in array.sensitivities(rows_mm, cols_mm, z_mm):
            seen, seen_fat = sensitivity * turned, sensitivity * fat
            clean = _with_fat(samples, seen, seen_fat, settings.fat_shift_pixels, echo_s)
            full = clean if samples is whole else _with_fat(whole, seen, seen_fat, settings.fat_shift_pixels, echo_s)
            power = power + inverse_fourier(full).abs().square()
            coils.append(clean if moved is None else moved * clean)
        one = torch.stack(coils)
        noise = array.noise(one[0].numel(), torch.Generator().manual_seed(key(settings.seed, first_slice + index)))
        data.append(one + settings.noise_std * largest * noise.reshape(one.shape))
        truth.append(power.sqrt())
    return torch.stack(data).numpy(), torch.stack(truth).numpy()


def _with_fat(samples: Samples, seen: Tensor, seen_fat: Tensor, shift_pixels: float, echo_s: float) -> Tensor:
    """Samples of a coil's image, of which `seen_fat` has another frequency."""
    found = samples.transform(seen)
    if not bool(seen_fat.any()):
        return found
    factor = _turned(samples.times * shift_pixels + FAT_HZ * echo_s) - 1
    return found + factor.to(torch.complex64) * samples.transform(seen_fat)


def _array(
    volume: Volume, largest: float, pixel_mm: tuple[float, float], coils: int, generator: torch.Generator
) -> ReceiveArray:
    """Receive array around all that is not air; around the whole field of view if everything is."""
    tissue: NDArray[np.bool_] = np.any(tissue_of(volume, largest), axis=0)
    centres, halves = [], []
    for axis, mm in ((1, pixel_mm[1]), (0, pixel_mm[0])):  # x along columns comes first
        found = np.flatnonzero(tissue.any(1 - axis))
        count = tissue.shape[axis]
        first, last = (int(found[0]), int(found[-1])) if len(found) else (0, count - 1)
        centres.append(((first + last) / 2 - count // 2) * mm)
        halves.append((last - first + 1) / 2 * mm)
    return ReceiveArray.around((centres[0], centres[1]), (halves[0], halves[1]), coils, generator)


def _fine_mm(pixels: int, pixel_mm: float) -> Tensor:
    """Positions of fine pixels in mm from the middle of the object's grid."""
    return ((torch.arange(pixels * FINER, dtype=torch.float64) + 0.5) / FINER - 0.5 - pixels // 2) * pixel_mm


def _heights_mm(slices: int, slice_mm: float) -> list[float]:
    """Positions of slices along z, from the middle of the array."""
    heights = [(index - (slices - 1) / 2) * slice_mm for index in range(slices)]
    return heights if abs(heights[0]) <= LONGEST_STACK_MM / 2 else [0.0] * slices


def _motion(samples: Samples, pixels: float, generator: torch.Generator) -> Tensor | None:
    """Factor of every sample of an object that is elsewhere in every readout; None if it lies still."""
    if not pixels:
        return None
    places = pixels * torch.randn(int(samples.lines.max()) + 1, 2, generator=generator, dtype=torch.float64)
    here = places[samples.lines]
    return samples.shifted(here[..., 0], here[..., 1]).to(torch.complex64)
