"""Part of a result that no sample determined: what a prior, or a regulariser, drew."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.interrupt import checkpoint
from operators.linear import each_slice, slice_dot
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem
from recon.quality import body
from recon.spec.report import Undetermined

MOST_ITERATIONS = 200
LEAST_MISFIT = 1e-3
"""Misfit relative to the samples at which the least-squares volume counts as found, if the noise is below it."""


def determined(problem: Problem, volume: Tensor) -> Tensor:
    """Least-squares volume of least norm that the samples of `volume` ask for, ``(slices, rows, cols)``.

    Conjugate gradients from zero stay in what the operator sees, and end in each slice where its samples are met within
    the noise of the measured ones: what differs by less was not measured either.

    References
    ----------
    Hestenes and Stiefel 1952, J. Res. Natl. Bur. Stand. 49, 409-436 (CGLS). Hansen 1998, Rank-Deficient and Discrete
    Ill-Posed Problems, section 6.3 (it regularises by its iterations). Bhadra et al. 2021, IEEE Trans. Med. Imaging 40,
    3249-3260 (null-space component of a reconstruction).
    """
    whitened = problem.whitened
    operator = whitened.operator
    left = operator.forward(volume)
    # What continues a truncated row was not measured.
    kept = torch.zeros(left.shape[-1], dtype=torch.bool)
    kept[problem.measured] = True
    left = left * kept
    channels = 2 if left.is_complex() else 1  # real numbers of a sample that have noise
    samples = (whitened.data != 0).flatten(1).sum(1)
    noise = problem.noise * (channels * samples).sqrt()
    limit = noise.maximum(LEAST_MISFIT * slice_dot(left, left).sqrt())
    found = torch.zeros_like(volume)
    gradient = operator.adjoint(left)
    direction, power = gradient, slice_dot(gradient, gradient)
    for _ in range(MOST_ITERATIONS):
        checkpoint()
        open_ = (slice_dot(left, left).sqrt() > limit) & (power > 0)
        if not bool(open_.any()):
            break
        seen = operator.forward(direction) * kept
        step = torch.where(open_, power / slice_dot(seen, seen).clamp(min=1e-38), 0.0)
        found = found + each_slice(step, direction) * direction
        left = left - each_slice(step, seen) * seen
        gradient = operator.adjoint(left)
        before, power = power, slice_dot(gradient, gradient)
        direction = gradient + each_slice(power / before.clamp(min=1e-38), direction) * direction
    return found


def undetermined(inverse: InverseProblem, volume: Tensor) -> tuple[Tensor, Undetermined]:
    """Part of `volume` that no sample determined, as the result is shown, and its share by region.

    Returns
    -------
    Tensor
        ``(slices, rows, cols)`` in the result's unit; of complex volumes the magnitude.
    Undetermined
        Its root mean square in the object and beside it, over that of the result in the object.
    """
    known = determined(inverse.problem, volume)
    part = volume - known
    regions = body.regions(volume)
    level = _level(volume, regions[0])
    inside, beside = (round(_level(part, region) / level, 4) if level > 0 else 0.0 for region in regions)
    if volume.is_complex():
        shown = inverse.display(inverse.arranged(part))
    else:
        shown = inverse.display(inverse.arranged(volume)) - inverse.display(inverse.arranged(known))
    return torch.from_numpy(shown), Undetermined(inside=inside, beside=beside)


def _level(volume: Tensor, region: Tensor) -> float:
    """Root mean square of a volume in a region; 0 where there is none."""
    return float((volume.abs().square() * region).sum().div(region.sum().clamp(min=1)).sqrt())
