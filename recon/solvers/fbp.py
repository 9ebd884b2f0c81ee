"""Filtered back-projection as a solver."""

from __future__ import annotations

from operators.errors import InputError
from operators.fbp import filtered_back_projection
from operators.tomography import Tomography
from recon.problem.problem import Problem, Progress, Solver
from recon.spec.methods import FBP


def solve(problem: Problem, settings: FBP) -> Solver:
    """Filtered back-projection as a solver of one step."""
    if not isinstance(problem.operator, Tomography):
        raise InputError("filtered back-projection needs a CT acquisition", field="method.name")
    volume = filtered_back_projection(problem.data, problem.operator.geometry, settings.window)
    yield Progress(1, 1, volume, problem)
    return volume
