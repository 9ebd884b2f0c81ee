"""Warm start: the initial image of a diffusion solver."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from recon.problem.problem import Problem, Progress, Solver
from recon.solvers import tv
from recon.spec.methods import TV

START_STEPS = 10
"""Steps that a warm start counts for in a solver's progress."""
START_ITERATIONS, START_CG = 12, 4
"""ADMM and conjugate gradient iterations of a TV start: enough to remove streaks, far from converged."""


def warm_start(problem: Problem, kind: str, steps: int) -> Solver:
    """Make the initial image of a diffusion solver, in physical units; reports progress before that of its `steps`."""
    if kind == "zero":
        return problem.zeros()
    if kind == "classical":
        volume = problem.initial_image()
        yield Progress(START_STEPS, START_STEPS + steps, volume, problem, "start")
        return volume
    solver = tv.solve(problem, TV(iterations=START_ITERATIONS, cg_iterations=START_CG, dimensions=2))
    while True:
        try:
            p = next(solver)
        except StopIteration as end:
            result: Tensor = end.value
            return result
        yield replace(p, step=p.step * START_STEPS // p.steps, steps=START_STEPS + steps, stage="start")
