"""Data augmentation of training images: orientation, size, and the phase, shading and noise of measured MRI.

Every function draws from the generator it is given and from nothing else, so that a resumed run repeats itself.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from operators.resolution import Downsampling, SlabAverage, Truncation, thick_slices
from operators.stacks import KSpaceFilter, SliceProfile
from recon.measurement.fine_grid import steepened
from recon.measurement.off_resonance import AIR, field_hz
from recon.measurement.random_fields import integer, smooth_field, smooth_phase, uniform
from recon.problem.mri_simulation import FINER, LONGEST_ECHO_S, STEEPNESS

MOST_SHADING = 0.5
"""Largest standard deviation of the logarithm of the shading: combined by the root sum of squares, as coil maps of
unit norm do, loops see the rim of a head about three times as bright as its middle."""
FILTERS: tuple[KSpaceFilter, ...] = ("none", "none", "hann", "tukey")
PROFILES: tuple[SliceProfile, ...] = ("box", "gaussian", "slr")
MOST_ZERO_FILL = 2.0
"""Largest zero filling of a stack."""
MOST_GAP = 0.5
"""Largest gap, or overlap, of thick slices relative to their thickness."""
STACK_NOISE = (0.003, 0.06)
"""Range of the noise of a stack before its filter, relative to its brightest tissue."""
PIXEL_MM = (0.7, 1.2)
"""Range of pixels, which only the field of air and tissue depends on."""


def dihedral(planes: Tensor, generator: torch.Generator) -> Tensor:
    """Apply one of the eight flips and quarter turns to ``(planes, rows, cols)``: scans come in every orientation."""
    which = integer(generator, 8)
    turned = torch.rot90(planes, which % 4, dims=(1, 2))
    return turned.flip(2) if which >= 4 else turned


def window(planes: Tensor, size: int | tuple[int, int], generator: torch.Generator) -> Tensor:
    """Cut a random crop of `size`, a square's or rows and columns, from ``(planes, rows, cols)``, as a view."""
    rows, cols = (size, size) if isinstance(size, int) else size
    top, left = (integer(generator, n - m + 1) for n, m in zip(planes.shape[1:], (rows, cols), strict=True))
    return planes[:, top : top + rows, left : left + cols]


def turned_window(planes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Cut a random crop like `window`, rotated by up to 15 degrees and scaled by 0.8 to 1.25.

    Beyond the image its edge is repeated, and the last plane, which says what is known, is 0.
    Interpolation smooths, so this is for a share of the images only, or the prior learns that all are smooth.
    """
    rows, cols = planes.shape[1:]
    angle, scale = uniform(generator, -0.26, 0.26), math.exp(uniform(generator, -0.22, 0.22))
    middle = [uniform(generator, size / 2, n - size / 2) for n in (rows, cols)]
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    offsets = torch.arange(size) - (size - 1) / 2
    down, right = offsets[:, None], offsets
    # grid_sample wants (x, y) with -1 and 1 at the outer edges of the image.
    x = (middle[1] + c * right - s * down) * (2 / cols) - 1
    y = (middle[0] + s * right + c * down) * (2 / rows) - 1
    grid = torch.stack([x, y], dim=-1)[None]
    found = functional.grid_sample(planes[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    found[-1] *= (x.abs() <= 1) & (y.abs() <= 1)
    return found


def measured_like(magnitude: Tensor, generator: torch.Generator) -> Tensor:
    """Make a complex64 image as a scan gives it from a magnitude ``(rows, cols)`` of a head, same shape.

    Gain, the shading that coil combination leaves, and phase. In every second image edges as steep as those of an
    object, which ring at the end of the measured frequencies, and jumps of the phase where tissue ends, as in the
    realistic simulation (`recon.problem.mri_simulation`): volumes come interpolated, and smoother than scans. In every
    third image noise inside the signal, stronger where the coils see less; in half of those the background cut off, as
    coil maps do.
    """
    image = without_noise(magnitude, generator)
    if uniform(generator) < 1 / 3:
        rows, cols = magnitude.shape
        strength = 0.003 * math.exp(uniform(generator, 0.0, 2.0)) * (0.4 * smooth_field(rows, cols, 3, generator)).exp()
        noise = torch.complex(*(torch.randn(rows, cols, generator=generator) for _ in range(2)))
        image = image + strength * noise
        if uniform(generator) < 0.5:
            inside = functional.avg_pool2d(magnitude[None], 9, stride=1, padding=4)[0] > 0.03
            image = image * inside
    return image


def without_noise(magnitude: Tensor, generator: torch.Generator) -> Tensor:
    """Make a complex64 image like `measured_like`, of a scan without noise."""
    rows, cols = magnitude.shape
    gain = uniform(generator, 0.6, 1.3)
    if uniform(generator) < 0.5:
        image = _rescanned(magnitude, generator)
    else:
        image = torch.polar(magnitude, smooth_phase(rows, cols, generator))
    if uniform(generator) < 0.5:
        shading = uniform(generator, 0.1, MOST_SHADING) * smooth_field(rows, cols, 3, generator)
        image = image * shading.exp()
    return gain * image


def _rescanned(magnitude: Tensor, generator: torch.Generator) -> Tensor:
    """Scan a magnitude again: steep edges and phase on a finer grid, of which the image's own frequencies are kept.

    The window is mirrored at its ends, or its cut would ring as well.
    """
    rows, cols = magnitude.shape
    pixel_mm = uniform(generator, *PIXEL_MM)
    fine = steepened(magnitude[None].clamp(min=0), FINER, uniform(generator, 1.0, STEEPNESS))[0]
    phase = smooth_phase(rows * FINER, cols * FINER, generator)
    tissue = (fine > AIR).float()
    echo_s = uniform(generator, 0.0, LONGEST_ECHO_S)
    phase = phase + 2 * math.pi * echo_s * field_hz(tissue, pixel_mm / FINER, pixel_mm / FINER)
    mirrored = torch.polar(fine, phase)
    for axis in (0, 1):
        mirrored = torch.cat([mirrored, mirrored.flip(axis)], axis)
    kept = [torch.fft.fftfreq(2 * n, 1 / (2 * n)).long() for n in (rows, cols)]
    # Centres of fine pixels lie (1 - 1 / FINER) / 2 of a pixel before those of the image's.
    late = [torch.exp(1j * math.pi * (1 - 1 / FINER) * k / (2 * n)) for k, n in zip(kept, (rows, cols), strict=True)]
    spectrum = torch.fft.fft2(mirrored)[kept[0][:, None], kept[1]] * late[0][:, None] * late[1]
    found: Tensor = torch.fft.ifft2(spectrum)[:rows, :cols] / FINER**2
    return found


def stack_scan(rows: int, cols: int, factors: tuple[float, float], generator: torch.Generator) -> Downsampling:
    """Draw the operator of a stack as scanners give it: half of them of low resolution in plane, half of thick slices.

    In plane with the scanner's filter or none, and zero-filled in one of three; thick slices of any profile, half of
    them with gaps or overlaps. Factors are log-uniform, half of them in steps of 0.5, as stacks have them.
    """
    factor = math.exp(uniform(generator, *map(math.log, factors)))
    if uniform(generator) < 0.5:
        factor = min(max(round(2 * factor) / 2, factors[0]), factors[1])
    if uniform(generator) < 0.5:
        window_name = FILTERS[integer(generator, len(FILTERS))]
        zero_fill = uniform(generator, 1.0, MOST_ZERO_FILL) if uniform(generator) < 1 / 3 else 1.0
        return Truncation(rows, cols, factor, filter=window_name, zero_fill=zero_fill)
    axis: Literal[-2, -1] = -2 if uniform(generator) < 0.5 else -1
    gap = uniform(generator, -MOST_GAP, MOST_GAP) if uniform(generator) < 0.5 else 0.0
    profile = PROFILES[integer(generator, len(PROFILES))]
    return thick_slices(rows, cols, factor, axis, profile=profile, gap=gap, complex=True)


def measured_stack(image: Tensor, lower: Downsampling, generator: torch.Generator) -> Tensor:
    """Measure a complex image as a stack of magnitudes, ``(rows, cols)`` to ``(1, rows, cols)`` of low resolution.

    With noise in three of four, and so with the floor that it has in a magnitude; complex64 of zero phase.
    """
    low = lower.forward(image[None])
    if uniform(generator) < 0.75:
        strength = lower.noise_passed * math.exp(uniform(generator, *map(math.log, STACK_NOISE)))
        low = low + strength * lower.noise(1, generator)
    return low.abs().to(torch.complex64)


def low_resolution(rows: int, cols: int, factor: int, generator: torch.Generator) -> Downsampling:
    """Draw a downsampling operator: truncated k-space, or slabs (thick slices) seen from the side."""
    which = integer(generator, 4)
    if which < 2:
        return Truncation(rows, cols, factor)
    return SlabAverage(rows, cols, factor, -2 if which == 2 else -1, complex=True)
