"""SIRT and CGLS with any projector, for those that ASTRA's algorithms on the CPU do not have."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.linear import each_slice, slice_dot
from recon.problem import resume
from recon.problem.problem import Problem, Progress, Solver, check_finite
from recon.spec.methods import CGLS, SIRT

NOTHING = 1e-6
"""Fraction of the largest sum of a ray, or a voxel, below which it counts as empty."""


def sirt(problem: Problem, settings: SIRT) -> Solver:
    """Simultaneous iterative reconstruction: ``x <- max(x + C A^T R (y - A x), 0)``.

    `R` and `C` are the reciprocal sums of the projector's rows and columns.

    References
    ----------
    Gregor and Benson 2008, IEEE Trans. Med. Imaging 27, 918-924.
    """
    operator, volume = problem.operator, problem.zeros()
    rays = _reciprocal(operator.forward(torch.ones_like(volume)))
    voxels = _reciprocal(operator.adjoint(torch.ones_like(problem.data)))
    found = resume.recalled(settings)
    if found is not None:
        volume = found.tensors["volume"]
    for step in range(1 if found is None else found.step + 1, settings.iterations + 1):
        change = operator.adjoint(rays * (problem.data - operator.forward(volume)))
        volume = problem.supported((volume + voxels * change).clamp(min=0))
        resume.keep(settings, step, {"volume": volume})
        yield Progress(step, settings.iterations, volume, problem)
    return check_finite(volume, settings.name)


def cgls(problem: Problem, settings: CGLS) -> Solver:
    """Conjugate gradients for ``|A x - y|^2`` from zero.

    References
    ----------
    Hestenes and Stiefel 1952, J. Res. Natl. Bur. Stand. 49, 409-436.
    """
    operator, volume = problem.operator, problem.zeros()
    left = problem.data
    direction = problem.supported(operator.adjoint(left))
    power = slice_dot(direction, direction)
    found = resume.recalled(settings)
    if found is not None:
        volume, left, direction, power = (found.tensors[name] for name in ("volume", "left", "direction", "power"))
    for step in range(1 if found is None else found.step + 1, settings.iterations + 1):
        seen = operator.forward(direction)
        length = power / slice_dot(seen, seen).clamp(min=1e-38)
        volume = volume + each_slice(length, volume) * direction
        left = left - each_slice(length, left) * seen
        gradient = problem.supported(operator.adjoint(left))
        before, power = power, slice_dot(gradient, gradient)
        direction = gradient + each_slice(power / before.clamp(min=1e-38), direction) * direction
        resume.keep(settings, step, {"volume": volume, "left": left, "direction": direction, "power": power})
        yield Progress(step, settings.iterations, volume, problem)
    return check_finite(volume, settings.name)


def _reciprocal(sums: Tensor) -> Tensor:
    """Reciprocals; 0 where there is next to nothing."""
    return torch.where(sums > NOTHING * sums.max(), 1 / sums.clamp(min=1e-30), 0.0)
