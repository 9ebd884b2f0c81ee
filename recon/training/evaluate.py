"""Evaluation of denoisers: PSNR on whole slices of the tuning set, with the same slices and noise every time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from operators.resolution import Truncation
from recon.measurement.random_fields import smooth_phase
from recon.priors.card import Card
from recon.priors.diagnose import Denoise
from recon.priors.noise import SliceNoise
from recon.problem import conditioning
from recon.training import few_views
from recon.training.recipe import Recipe

JUDGED_FACTOR = 4.0
"""Super-resolution factor at which a prior of many is judged."""
SIGMAS = (0.05, 0.1, 0.25, 0.5)
"""Noise levels of the denoising table, for images that fill [-1, 1]."""


def judged_factors(shape: Card | Recipe) -> tuple[float, float] | None:
    """Factors at which a prior that is told them is judged: 4 in plane, or the largest; None for others."""
    if shape.factors is None:
        return None
    factor = min(JUDGED_FACTOR, shape.factors[1])
    return factor, factor


def conditioner(shape: Card | Recipe) -> Callable[[Tensor], Tensor] | None:
    """Function that makes a prior's condition for images ``(slices, rows, cols)`` on its scale; None if it needs none.

    Truncated k-space for super-resolution; else the least-squares image of 8 views without noise. A prior of stacks
    learnt from magnitudes: there the condition is one, with the image's phase.
    """
    factor = shape.super_resolution
    told = judged_factors(shape)

    def truncated(images: Tensor) -> Tensor:
        assert factor is not None
        lower = Truncation(images.shape[1], images.shape[2], factor)
        return lower.upsample(lower(images))

    def stacked(images: Tensor) -> Tensor:
        assert told is not None
        lower = Truncation(images.shape[1], images.shape[2], told[0])
        magnitude = lower(images.abs().to(images.dtype)).abs().to(images.dtype)
        return torch.polar(lower.upsample(magnitude).abs(), images.angle())

    def scanned(images: Tensor) -> Tensor:
        return conditioning.least_squares(*few_views.evenly(images, shape.intensity_range))

    if shape.least_squares:
        return scanned
    if told is not None:
        return stacked
    return None if factor is None else truncated


def axis_sigma(sigma: float, *, is_complex: bool) -> float:
    """Convert a level of the table to the prior's scale: a complex prior's magnitudes fill [0, 1], half the range."""
    return sigma / 2 if is_complex else sigma


def with_phase(magnitude: Tensor) -> Tensor:
    """Multiply magnitudes ``(slices, rows, cols)`` by a smooth random phase, fixed per slice number; complex64."""
    count, rows, cols = magnitude.shape
    phases = [smooth_phase(rows, cols, torch.Generator().manual_seed(index)) for index in range(count)]
    return torch.polar(magnitude, torch.stack(phases))


def peak_psnr(found: Tensor, truth: Tensor, *, is_complex: bool) -> float:
    """PSNR in dB over all pixels; the peak is 2 for real images (scale [-1, 1]), 1 for magnitudes in [0, 1]."""
    error = float((found - truth).square().mean())
    return 10 * math.log10((1.0 if is_complex else 4.0) / error)


def denoising_psnr(
    denoise: Denoise,
    images: Tensor,
    sigma: float,
    *,
    is_complex: bool,
    condition_of: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """PSNR in dB of the denoised images; of their magnitude for a complex prior.

    Parameters
    ----------
    denoise
        See `recon.priors.diagnose.Denoise`.
    images
        ``(slices, rows, cols)`` on the prior's scale: CT in [-1, 1], MRI magnitudes in [0, 1].
    sigma
        For images that fill [-1, 1] (see `axis_sigma`).
    condition_of
        For a conditional prior: the condition of images without noise, see `conditioner`.
    """
    level = axis_sigma(sigma, is_complex=is_complex)
    clean = with_phase(images) if is_complex else images
    condition = None if condition_of is None else condition_of(clean)
    noisy = clean + level * SliceNoise(1, len(clean)).draw(clean)
    found = denoise(noisy, level, condition)
    return peak_psnr(found.abs() if is_complex else found, images, is_complex=is_complex)
