"""Automatic choice of a job's method: candidates are judged by withheld samples, and mixed by what these say."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.linear import Withheld
from recon.measurement.sampled import sampled
from recon.pipeline.chosen_prior import chosen_prior
from recon.pipeline.mixing import Mixture, mixed
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem
from recon.solvers import registry as solvers
from recon.spec.methods import Diffusion, Method
from recon.spec.methods.auto import judged_slices
from recon.spec.report import Candidate, Selection

FILLED = 0.05
"""Fraction of the volume's largest sample that a slice must have to be judged."""


class Judging(NamedTuple):
    """How far judging is: work done, all of it, and what is being done."""

    done: int
    steps: int
    stage: str


def select(
    inverse: InverseProblem,
    candidates: Sequence[Method],
    positions: NDArray[np.intp],
    slices: int,
    *,
    seed: int = 0,
    seconds: float | None = None,
) -> Generator[Judging, None, Selection]:
    """Judge candidates on a few slices of a problem by samples that are withheld from them.

    Every slice is judged by itself, what couples slices left out: a method gains less by its neighbours than by what
    it knows of a slice.

    Parameters
    ----------
    inverse
        Inverse problem of the volume, or of a sample of its slices.
    candidates
        Complete settings, one of them at least without a prior.
    positions
        Indices in the whole volume of the slices of `inverse`.
    slices
        Slices of the whole volume.
    seed
        Seed of all random numbers.
    seconds
        Time after which no further fold is begun, once there was one of every slice.

    Raises
    ------
    InputError
        If the scan has no samples to spare.
    """
    began = time.monotonic()
    problem = inverse.problem
    folds = max(problem.operator.folds, 1)  # an operator without any says so when it is asked for one
    # Among the same slices whether the volume is read as a whole or slab by slab.
    known = np.flatnonzero(np.isin(positions, sampled(slices))).tolist()
    judged = _spread(problem, known, judged_slices(slices, folds))
    classical = [i for i, method in enumerate(candidates) if not isinstance(method, Diffusion)]
    groups = problem.apart(judged)
    found: list[list[Tensor]] = [[] for _ in groups]
    count = folds * len(groups) * len(candidates)
    steps = product(range(folds), enumerate(groups))
    for number, (fold, (which, group)) in enumerate(steps):
        if all(found) and seconds is not None and time.monotonic() - began > seconds:
            break
        split = group.operator.withheld(fold)
        spectra = []
        for each, method in enumerate(candidates):
            stage = f"judging {method.name}, fold {fold + 1} of {folds}"
            yield Judging(number * len(candidates) + each, count, stage)
            spectra.append(_residuals(inverse, group, split, method, seed))
        found[which].append(_products(torch.stack(spectra)))
    # Of each group and fold (slices, units, candidates, candidates).
    products = [one for group in found for one in torch.cat(group, dim=1).double()]
    mixtures = [mixed(one.numpy(), classical) for one in products]
    places = [int(positions[index]) for index in judged]
    return _told(candidates, classical, mixtures, places, len(found[0]), time.monotonic() - began)


def weights_along(selection: Selection, slices: int) -> Tensor:
    """Weights of the candidates ``(candidates, slices)``: those of the judged slices, and between them linear."""
    weights = np.asarray(selection.weights)
    found = [np.interp(np.arange(slices), selection.judged_slices, column) for column in weights.T]
    along = np.stack(found)
    return torch.from_numpy(along / along.sum(0))  # the report's figures are rounded


def _spread(problem: Problem, known: Sequence[int], count: int) -> list[int]:
    """Slices to be judged, of those that are known: evenly spaced where anything was measured, or the middle one."""
    sizes = problem.data[known].flatten(1).abs().amax(1)
    largest = float(sizes.max())
    filled = [k for k, size in zip(known, sizes.tolist(), strict=True) if size > FILLED * largest]
    filled = filled or [known[len(known) // 2]]
    count = min(count, len(filled))
    return [filled[int((number + 0.5) * len(filled) / count)] for number in range(count)]


def _residuals(inverse: InverseProblem, part: Problem, split: Withheld, method: Method, seed: int) -> Tensor:
    """Spectra ``(slices, units, n)`` of what a candidate leaves unexplained at the withheld samples."""
    rest = part.without(split)
    prior, intensity = chosen_prior(method, replace(inverse, problem=rest))
    running = solvers.start(rest, method, prior=prior, intensity=intensity, seed=seed)
    try:
        while True:
            next(running)
    except StopIteration as end:
        volume: Tensor = end.value
    residual = split.held(volume) - split.hold(part.data)
    # What continues a truncated row was not measured.
    measured = torch.zeros(residual.shape[-1], dtype=torch.bool)
    measured[part.measured] = True
    return split.spectra(residual * measured)


def _products(spectra: Tensor) -> Tensor:
    """Inner products of residuals ``(candidates, slices, units, n)``, ``(slices, units, candidates, candidates)``."""
    arranged = spectra.permute(1, 2, 0, 3)
    found: Tensor = (arranged @ arranged.conj().transpose(-1, -2)).real
    return found


def _told(
    candidates: Sequence[Method],
    classical: Sequence[int],
    mixtures: Sequence[Mixture],
    places: list[int],
    folds: int,
    seconds: float,
) -> Selection:
    """Selection with its reason in a sentence."""
    weights = np.stack([m.weights for m in mixtures])
    gains = np.mean([m.gains_db for m in mixtures], axis=0)
    gain = float(np.mean([m.gain_db for m in mixtures]))
    confidence = min(m.confidence for m in mixtures)
    share = weights.mean(0)
    best = max(classical, key=lambda i: gains[i])
    named = [f"{share[i]:.0%} {m.name}" for i, m in enumerate(candidates) if share[i] > 0]
    what = "at withheld samples, as the error of the image"
    if share[best] == 1:
        text = f"{candidates[best].name}: {what}, nothing was better beyond doubt"
    else:
        text = f"{' and '.join(named)}: {what}, {gain:+.1f} dB over {candidates[best].name} by itself"
    return Selection(
        candidates=[
            Candidate(method=method.model_dump(mode="json"), gain_db=round(gained, 2), weight=round(weight, 3))
            for method, gained, weight in zip(candidates, gains.tolist(), share.tolist(), strict=True)
        ],
        judged_slices=places,
        folds=folds,
        weights=[[round(float(w), 4) for w in row] for row in weights],
        gain_db=round(gain, 2),
        confidence=round(min(confidence, 1e6), 2),
        seconds=round(seconds, 2),
        text=text,
    )
