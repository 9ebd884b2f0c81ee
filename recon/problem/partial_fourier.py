"""Partial Fourier: k-space that was measured to one side of its centre, and the phase that stands in for the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.fourier import CartesianMRI, fourier, inverse_fourier
from operators.phase import reach, symmetric
from recon.spec.report import Step

ASYMMETRIC = 0.85
"""Points to the shorter side of the centre over those to the longer, below which k-space counts as partial."""
LEAST_SYMMETRIC = 4
"""Points to the shorter side, at least, that tell a phase."""
AXES = ("rows", "columns")


def found_in(mask: Tensor) -> list[int]:
    """Axes, 0 for rows and 1 for columns, along which a mask ``(rows, cols)`` has points to one side mostly."""
    return [axis for axis in (0, 1) if _partial(mask, axis)]


def _partial(mask: Tensor, axis: int) -> bool:
    shorter, longer = sorted(reach(mask, axis))
    measured = mask.any(1 - axis).nonzero().flatten()
    # Of lines that are so far apart, one more would fit; an even number of points has one less after the centre.
    gap = int(measured.diff().max()) if len(measured) > 1 else 1
    return shorter + max(gap, 1) < ASYMMETRIC * longer


def smooth_phase(operator: CartesianMRI, data: Tensor, axes: list[int]) -> Tensor:
    """Phase ``e^(i p)`` of the image, ``(slices, *operator.domain.shape)``, from the centre that both sides have.

    A least-squares image of these points, smoothed along the axes that were measured in part.

    Parameters
    ----------
    operator, data
        Coils, sampling and k-space.
    axes
        Those of `found_in`.
    """
    mask = operator.mask.any(0)
    inside = symmetric(mask)
    central = operator.sampled(operator.mask & inside)
    image = central.initial_image(data * (operator.mask & inside)[:, None])
    apart = image.reshape(len(image), operator.images, *mask.shape)
    window = torch.ones(mask.shape)
    for axis in axes:
        n, half = mask.shape[axis], min(reach(mask, axis)) + 1
        distance = ((torch.arange(n) - n // 2).abs() / half).clamp(max=1.0)
        taper = (math.pi / 2 * distance).cos().square()
        window = window * (taper[:, None] if axis == 0 else taper)
    smooth = inverse_fourier(fourier(apart) * window)
    return torch.polar(torch.ones_like(smooth.real), smooth.angle()).reshape(image.shape)


def step(mask: Tensor, axes: list[int], *, wanted: bool) -> tuple[Step, bool]:
    """Step of preparation for k-space that was measured in part, and whether the phase constrains classical methods."""
    reaches = [reach(mask, axis) for axis in axes]
    share = [(before + after + 1) / (2 * max(before, after) + 1) for before, after in reaches]
    where = " and ".join(
        f"{before} points before and {after} after its centre along the {AXES[axis]}"
        for axis, (before, after) in zip(axes, reaches, strict=True)
    )
    told = min(min(sides) for sides in reaches) >= LEAST_SYMMETRIC
    if not told:
        done = "too few to one side to tell the phase: the image is blurred there"
    elif wanted:
        done = "methods without a prior take the phase of its symmetric centre for the image's"
    else:
        done = "the phase is left free, as asked for"
    text = f"partial Fourier: k-space has {where}; {done}"
    numbers = {f"measured_{AXES[axis]}": round(one, 4) for axis, one in zip(axes, share, strict=True)}
    constrained = told and wanted
    return Step(name="partial_fourier", changed=constrained, warning=not told, text=text, numbers=numbers), constrained
