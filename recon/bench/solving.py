"""Timed run of one method on one problem, shared by all benchmarks of methods."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from operators.errors import InputError
from recon.bench import peers
from recon.bench.qggmrf import QGGMRF, qggmrf
from recon.defaults import lookup
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem import inverse_problem
from recon.problem.problem import run
from recon.solvers import registry as solvers
from recon.spec.methods import Method, REDDiff
from recon.spec.validation import reason

_METHODS: TypeAdapter[Method] = TypeAdapter(Method)


@dataclass(frozen=True)
class Solved:
    """Result of a timed run: volume in physical units, misfit, seconds, evaluations."""

    volume: Tensor
    misfit: float
    seconds: float
    nfe: float = 0.0
    """Network evaluations per slice."""
    network_seconds: float = 0.0
    """Part of `seconds` spent in the network."""


def chosen_slices(values: NDArray[np.float32], slices: tuple[int, int], name: str) -> NDArray[np.float32]:
    """Slices ``[first, last)`` of a volume that is called `name`; raises if it has none or fewer."""
    first, last = slices
    if not first < last <= len(values):
        raise InputError(
            f"{first}:{last}, {name} has {len(values)} slices",
            field="slices",
            remedy=f"give FIRST:LAST with FIRST below LAST and LAST at most {len(values)}",
        )
    return values[first:last]


def solved(given: dict[str, Any], model: inverse_problem.InverseProblem, kind: str) -> Solved:
    """Run a method, given as its settings with a name: ours with a user's defaults, a classical rival, or a peer.

    Parameters
    ----------
    kind
        Kind of acquisition, on which defaults depend.
    """
    prior, before, busy = None, 0, 0.0
    if given["name"] == QGGMRF:
        solve = qggmrf(model.problem, given)
    else:
        peer = given["name"] in peers.NAMES
        # A peer has settings of its own, and the usual prior.
        settings: Method = REDDiff() if peer else lookup.resolved(method_of(given), kind, model.problem)
        prior, intensity = chosen_prior(settings, model)
        before, busy = (prior.evaluations, prior.seconds) if prior is not None else (0, 0.0)
        if peer:
            assert prior is not None and intensity is not None
            solve = peers.solver(model, given, prior, intensity)
        else:
            running = solvers.start(model.problem, settings, prior=prior, intensity=intensity)

            def solve() -> Tensor:
                return run(running)

    started = time.perf_counter()
    volume = model.problem.supported(solve())  # rivals, too, are told where there is air
    seconds = time.perf_counter() - started
    found = Solved(volume, model.problem.misfit(volume), seconds)
    if prior is None:
        return found
    used = (prior.evaluations - before) / model.problem.slices
    return replace(found, nfe=used, network_seconds=prior.seconds - busy)


def label(given: dict[str, Any]) -> str:
    """Label of a method in tables: its name and the settings given, numbers with their names."""
    return " ".join(v if isinstance(v, str) else f"{k}={v}" for k, v in given.items())


def method_of(given: dict[str, Any]) -> Method:
    """Validate a method's name and settings."""
    try:
        return _METHODS.validate_python(given)
    except ValidationError as error:
        raise InputError(
            f"{given} is no method: {reason(error)}",
            field="methods",
            remedy="see docs/reference/specification.md for the methods",
        ) from error
