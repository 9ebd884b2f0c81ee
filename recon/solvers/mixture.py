"""Mixture of several methods' volumes, slice by slice and region by region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from operators.errors import InputError
from recon.problem import resume
from recon.problem.problem import Problem, Progress, Solver
from recon.quality import body
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
        Of each region and each slice of the whole volume, ``(regions, slices)``; see `body.regions`.
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

    A method that has no weight in any of them is not run. Regions are those of the first method's volume. Volumes of
    methods that have ended are kept where `recon.problem.resume` keeps states.
    """
    here = slice(problem.first, problem.first + problem.slices)
    chosen = [part for part in parts if bool((part.weights[:, here] > 0).any())]
    volume, regions = problem.zeros(), None
    for index, part in enumerate(chosen):
        found = resume.recalled_volume(index)
        if found is None:
            found = yield from _part(problem, part, index, len(chosen))
            resume.keep_volume(index, found)
        regions = body.regions(found) if regions is None else regions
        volume = volume + shares(regions, part.weights[:, here]) * found
    yield Progress(STEPS, STEPS, volume, problem)
    return volume


def _part(problem: Problem, part: Part, index: int, count: int) -> Solver:
    """Run one of several methods; its steps become steps of the whole."""
    running = part.start(problem)
    try:
        while True:
            at = next(running)
            step = round(STEPS * (index + at.step / at.steps) / count)
            yield replace(at, step=step, steps=STEPS, stage=part.name)
    except StopIteration as end:
        found: Tensor = end.value
        return found
    finally:
        running.close()


def shares(regions: Tensor, weights: Tensor) -> Tensor:
    """Weight of every pixel ``(slices, rows, cols)`` from those of its regions ``(regions, slices)``."""
    shaped = weights.to(regions.dtype).reshape(*weights.shape, *(1,) * (regions.ndim - weights.ndim))
    return (shaped * regions).sum(0)
