"""Interpolation of low-resolution images: the baseline of super-resolution."""

from __future__ import annotations

from operators.errors import InputError
from operators.resolution import Downsampling
from recon.problem.problem import Problem, Progress, Solver
from recon.spec.methods import Interpolation


def solve(problem: Problem, settings: Interpolation) -> Solver:
    """Interpolate by zero-filled k-space, or linearly between thick slices, as a solver of one step.

    From there several stacks are fitted together by a few conjugate gradient iterations.
    """
    if not isinstance(problem.operator, Downsampling):
        raise InputError(f"{settings.name} needs a low-resolution acquisition", field="method.name")
    volume = problem.operator.initial_image(problem.data)
    yield Progress(1, 1, volume, problem)
    return volume
