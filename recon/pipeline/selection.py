"""Automatic choice of a job's method: candidates are judged by withheld samples, and mixed by what these say.

Each region of a slice has weights of its own, the object and what is beside it: a prior that draws the table better
than the classical method may know less of what lies on it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.linear import Withheld
from recon.measurement.sampled import sampled
from recon.pipeline.chosen_prior import chosen_prior
from recon.pipeline.doubt import UNFAMILIAR
from recon.pipeline.mixing import RegionMixture, by_region
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem, run
from recon.quality import body
from recon.solvers import registry as solvers
from recon.spec.methods import Diffusion, Method
from recon.spec.methods.auto import judged_slices, judged_together
from recon.spec.report import Candidate, Selection

MOST = 0.5
"""Share of the judged slices of a candidate from which their being unfamiliar is no chance."""
FILLED = 0.05
"""Fraction of the volume's largest sample that a slice must have to be judged."""


class Judging(NamedTuple):
    """Progress of judging: work done, all of it, and what is being done."""

    done: int
    steps: int
    stage: str


def select(
    inverse: InverseProblem,
    candidates: Sequence[Method],
    positions: NDArray[np.intp],
    slices: int,
    *,
    reserve: Sequence[Method] = (),
    seed: int = 0,
    seconds: float | None = None,
) -> Generator[Judging, None, Selection]:
    """Judge candidates on a few slices of a problem by samples that are withheld from them.

    Every slice is judged by itself, what couples slices left out: a method gains less by its neighbours than by what
    it knows of a slice. Of a whole volume some slices in the middle are judged together, by the rays that stay among
    them.

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
    reserve
        Settings of further candidates, with another prior, for images that the prior of the candidates does not know.
    seed
        Seed of all random numbers.
    seconds
        Time after which no further fold is begun, once there was one of every slice.

    Where no samples can be spared, or slices are no planes of what is solved, nothing is judged: the first candidate
    with a prior is taken, or the mean of those whose priors differ in what they are given, and the text says so.
    """
    began = time.monotonic()
    problem = inverse.problem
    folds = problem.operator.folds
    if problem.prior_axes is not None:
        return _unjudged(candidates, "slices of a scan that is one piece cannot be judged by themselves")
    if folds == 0:
        return _unjudged(candidates, "this scan has no samples that can be withheld")
    groups, places = _judged(problem, positions, slices, folds)
    classical = [i for i, method in enumerate(candidates) if not isinstance(method, Diffusion)]
    found: list[list[Tensor]] = [[] for _ in groups]
    chosen = list(candidates)
    steps = product(range(folds), enumerate(groups))
    for number, (fold, (which, group)) in enumerate(steps):
        if all(found) and seconds is not None and time.monotonic() - began > seconds:
            break
        split = group.operator.withheld(fold)
        rest = group.without(split)
        of = f"fold {fold + 1} of {folds}"
        at = Judging(number * len(chosen), folds * len(groups) * len(chosen), of)
        volumes = yield from _solved(inverse, rest, chosen, seed, at)
        if number == 0 and reserve and not _familiar(inverse, rest, chosen, volumes):
            chosen += reserve
            at = Judging(len(candidates), folds * len(groups) * len(chosen), of)
            volumes += yield from _solved(inverse, rest, reserve, seed, at)
        found[which].append(_products(group, split, volumes))
    # Of each group and fold (slices, units, parts, parts).
    products = [one for group in found for one in torch.cat(group, dim=1)]
    mixtures = [by_region(one.numpy(), len(chosen), classical) for one in products]
    return _told(chosen, classical, mixtures, places, len(found[0]), time.monotonic() - began)


def weights_along(selection: Selection, slices: int) -> Tensor:
    """Weights ``(candidates, regions, slices)``: those of the judged slices, and between them linear."""
    weights = np.asarray(selection.weights)
    at = np.arange(slices)
    found = [[np.interp(at, selection.judged_slices, one) for one in region] for region in weights.transpose(2, 1, 0)]
    along = np.asarray(found)
    return torch.from_numpy(along / along.sum(0))  # the report's figures are rounded


def _unjudged(candidates: Sequence[Method], why: str) -> Selection:
    """Selection for a scan that gives nothing to judge by: the first candidate with a prior, else the first.

    Where priors differ in what they are given, it is the first of each kind, and all count alike: what one gets wrong
    the other need not.
    """
    first: dict[str, int] = {}
    for index, method in enumerate(candidates):
        if isinstance(method, Diffusion):
            first.setdefault(method.CONDITIONS, index)
    chosen = list(first.values()) or [0]
    name = " and ".join(named(candidates[index].model_dump()) for index in chosen)
    if len(chosen) > 1:
        name = f"the mean of {name}"
    weights = np.isin(np.arange(len(candidates)), chosen) / len(chosen)
    return Selection(
        candidates=[
            Candidate(method=method.model_dump(mode="json"), gain_db=0.0, weight=weight)
            for method, weight in zip(candidates, weights.tolist(), strict=True)
        ],
        judged_slices=[0],
        folds=0,
        weights=[[weights.tolist()] * len(body.REGIONS)],
        gain_db=0.0,
        confidence=0.0,
        seconds=0.0,
        text=f"{name}, unjudged: {why}, so compare with the baselines",
    )


def _judged(problem: Problem, positions: NDArray[np.intp], slices: int, folds: int) -> tuple[list[Problem], list[int]]:
    """Problems that are judged, and the places of their slices in the whole volume: of slices judged together one."""
    if problem.operator.whole_volume:
        part, chosen = problem.middle(judged_together(problem.images, folds))
        return [part], [(chosen.start + chosen.stop - 1) // 2]
    # Among the same slices whether the volume is read as a whole or slab by slab.
    known = np.flatnonzero(np.isin(positions, sampled(slices))).tolist()
    judged = _spread(problem, known, judged_slices(slices, folds))
    return problem.apart(judged), [int(positions[index]) for index in judged]


def _spread(problem: Problem, known: Sequence[int], count: int) -> list[int]:
    """Slices to be judged, of those that are known: evenly spaced where anything was measured, or the middle one."""
    sizes = problem.data[known].flatten(1).abs().amax(1)
    largest = float(sizes.max())
    filled = [k for k, size in zip(known, sizes.tolist(), strict=True) if size > FILLED * largest]
    filled = filled or [known[len(known) // 2]]
    count = min(count, len(filled))
    return [filled[int((number + 0.5) * len(filled) / count)] for number in range(count)]


def _solved(
    inverse: InverseProblem, rest: Problem, methods: Sequence[Method], seed: int, at: Judging
) -> Generator[Judging, None, list[Tensor]]:
    """Volumes of candidates from what is left of the samples; `at` says how far judging is before them."""
    volumes: list[Tensor] = []
    for method in methods:
        stage = f"judging {named(method.model_dump())}, {at.stage}"
        yield Judging(at.done + len(volumes), at.steps, stage)
        prior, intensity = chosen_prior(method, replace(inverse, problem=rest))
        volumes.append(run(solvers.start(rest, method, prior=prior, intensity=intensity, seed=seed)))
    return volumes


def _familiar(inverse: InverseProblem, rest: Problem, candidates: Sequence[Method], volumes: Sequence[Tensor]) -> bool:
    """Whether the prior of the candidates knows most of what each made; True where there is none that can tell.

    All of them are asked about: what the prior made looks more familiar to it than the object does.
    """
    for method in candidates:
        prior, intensity = chosen_prior(method, replace(inverse, problem=rest))
        if prior is not None and intensity is not None and prior.card.familiarity is not None:
            images = [intensity.to_prior(volume).flatten(0, -3) for volume in volumes]
            scores = [prior.familiarity(each) for each in images]
            return all(float((score < UNFAMILIAR).float().mean()) < MOST for score in scores)
    return True


def _products(part: Problem, split: Withheld, volumes: Sequence[Tensor]) -> Tensor:
    """Inner products of the parts of the candidates' residuals, ``(slices, units, parts, parts)`` float64.

    Parts are what the first candidate leaves unexplained at the withheld samples, and then, region by region, what the
    other candidates ask for beyond the first: from these the residual of any mixture follows.
    """
    first = volumes[0]
    differences = [(volume - first) * region for region in body.regions(first) for volume in volumes[1:]]
    # What continues a truncated row was not measured.
    asked = [split.held(first) - split.hold(part.data), *map(split.held, differences)]
    measured = torch.zeros(asked[0].shape[-1], dtype=torch.bool)
    measured[part.measured] = True
    arranged = torch.stack([split.spectra(one * measured) for one in asked]).permute(1, 2, 0, 3)
    found: Tensor = (arranged @ arranged.conj().transpose(-1, -2)).real
    return found.double()


def _told(
    candidates: Sequence[Method],
    classical: Sequence[int],
    mixtures: Sequence[RegionMixture],
    places: list[int],
    folds: int,
    seconds: float,
) -> Selection:
    """Selection with its reason in a sentence."""
    weights = np.stack([m.weights for m in mixtures])
    gains = np.mean([m.gains_db for m in mixtures], axis=0)
    gain = float(np.mean([m.gain_db for m in mixtures]))
    confidence = min(m.confidence for m in mixtures)
    share = weights.mean((0, 1))
    best = max(classical, key=lambda i: gains[i])
    what = "at withheld samples, as the error of the image"
    if share[best] == 1:
        text = f"{candidates[best].name}: {what}, nothing was better beyond doubt"
    else:
        told = [_told_shares(candidates, row) for row in weights.mean(0)]
        alike = len(set(told)) == 1
        shares = told[0] if alike else "; ".join(f"{n} in {r}" for n, r in zip(told, body.REGIONS, strict=True))
        text = f"{shares}: {what}, {gain:+.1f} dB over {candidates[best].name} by itself"
    return Selection(
        candidates=[
            Candidate(method=method.model_dump(mode="json"), gain_db=round(gained, 2), weight=round(weight, 3))
            for method, gained, weight in zip(candidates, gains.tolist(), share.tolist(), strict=True)
        ],
        judged_slices=places,
        folds=folds,
        weights=np.round(weights, 4).tolist(),
        gain_db=round(gain, 2),
        confidence=round(min(confidence, 1e6), 2),
        seconds=round(seconds, 2),
        text=text,
    )


def _told_shares(candidates: Sequence[Method], shares: NDArray[np.float64]) -> str:
    """Candidates with their weights, those that have one."""
    every = zip(shares.tolist(), candidates, strict=True)
    return " and ".join(f"{w:.0%} {named(m.model_dump())}" for w, m in every if w > 0)


def named(method: Mapping[str, Any]) -> str:
    """Name of a candidate, with its prior where it is not the usual one."""
    prior = method.get("prior")
    return str(method["name"]) if prior is None else f"{method['name']} with {prior}"
