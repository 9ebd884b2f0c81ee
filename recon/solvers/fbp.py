"""Filtered back-projection as a solver; of a cone beam, Feldkamp's."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from operators.errors import InputError
from recon.problem.problem import Problem, Progress, Solver
from recon.spec.methods import FBP


@runtime_checkable
class Filtering(Protocol):
    """Protocol of a projector that has a filtered back-projection."""

    def filtered_back_projection(self, data: Tensor, window: str) -> Tensor:
        """Reconstruct data ``(slices, *range.shape)`` with a window of the ramp filter."""


def solve(problem: Problem, settings: FBP) -> Solver:
    """Filtered back-projection as a solver of one step."""
    operator = problem.operator
    if not isinstance(operator, Filtering):
        raise InputError("filtered back-projection needs a CT acquisition", field="method.name")
    volume = operator.filtered_back_projection(problem.data, settings.window)
    yield Progress(1, 1, volume, problem)
    return volume
