"""Automatic choice on a problem in memory: candidates are judged, run and mixed, as in a job that names no method."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.bench.solving import solved
from recon.defaults import lookup
from recon.pipeline.chosen_prior import offered
from recon.pipeline.selection import select, weights_along
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import run
from recon.quality import body
from recon.solvers.mixture import shares
from recon.spec.acquisitions.base import Acquisition
from recon.spec.methods import Auto, Method
from recon.spec.report import Selection


@dataclass(frozen=True)
class Mixed:
    """Mixture of an automatic choice, and what it was made of."""

    volume: Tensor
    """Mixture in physical units."""
    selection: Selection
    candidates: list[Method]
    """Candidates, each with all its settings."""
    volumes: list[Tensor]
    """Reconstruction of each candidate by itself, from all samples; also of those that have no share."""
    judging_s: float
    solving_s: float


def mixed(auto: Auto, acquisition: Acquisition, model: InverseProblem) -> Mixed:
    """Judge the candidates on every slice of a problem, run each on all samples, and mix them.

    Every candidate is run, with or without a share, so that the mixture can be compared with each.
    """
    problem = model.problem
    both = offered(auto, acquisition, model)
    candidates, reserve = ([lookup.resolved(part, acquisition.kind, problem) for part in parts] for parts in both)
    _ = problem.operator.norms, problem.whitened.operator.norms  # outside the clock: judging and solving have them
    began = time.perf_counter()
    positions = np.arange(problem.slices)
    selection = run(select(model, candidates, positions, problem.slices, reserve=reserve, seconds=auto.seconds))
    judging_s = time.perf_counter() - began
    weights = weights_along(selection, problem.slices)
    candidates = [*candidates, *reserve][: len(weights)]
    every = [solved(method.model_dump(), model, acquisition.kind) for method in candidates]
    volumes = [found.volume for found in every]
    first = [w.any() for w in weights].index(True)
    regions = body.regions(volumes[first])
    volume = torch.stack([shares(regions, w) * v for w, v in zip(weights, volumes, strict=True)]).sum(0)
    return Mixed(volume, selection, candidates, volumes, judging_s, sum(found.seconds for found in every))
