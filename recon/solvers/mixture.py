"""Mixture of several methods' volumes, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from operators.errors import InputError
from operators.linear import each_slice
from recon.problem.problem import Problem, Progress, Solver
from recon.spec.methods import Auto

STEPS = 1000
"""Steps that all methods together report, since each has its own."""


class Part(NamedTuple):
    """Method of a mixture.

    Parameters
    ----------
    name
        Shown with the progress.
    start
        Starts the method on a part of the problem; another `seed` may be given.
    weights
        Of each slice of the whole volume, ``(slices,)``.
    """

    name: str
    start: Callable[..., Solver]
    weights: Tensor


def solve(problem: Problem, settings: Auto) -> Solver:
    """Refuse a part of a volume: its methods are chosen by the whole job."""
    del problem
    raise InputError(
        f"{settings.name} chooses by the data of a whole job",
        field="method.name",
        remedy="run it by recon.reconstruct, the command line or the API; or name one of its candidates",
    )


def mixture(problem: Problem, parts: Sequence[Part]) -> Solver:
    """Run methods one after another, and add up their volumes by the weights of the problem's slices.

    A method that has no weight in any of them is not run.
    """
    here = slice(problem.first, problem.first + problem.slices)
    chosen = [part for part in parts if bool((part.weights[here] > 0).any())]
    volume = problem.zeros()
    for index, part in enumerate(chosen):
        running = part.start(problem)
        found: Tensor
        try:
            while True:
                at = next(running)
                step = round(STEPS * (index + at.step / at.steps) / len(chosen))
                yield replace(at, step=step, steps=STEPS, stage=part.name)
        except StopIteration as end:
            found = end.value
        finally:
            running.close()
        volume = volume + each_slice(part.weights[here].to(torch.float32), found) * found
    yield Progress(STEPS, STEPS, volume, problem)
    return volume
