"""Turn a job and its files into a `Prepared` job: the inverse problem and the reconstructions to run on it.

A worker that runs a job and one that only helps with its chunks prepare it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from operators.errors import InputError
from recon.defaults import frozen_noise, lookup
from recon.defaults.frozen_noise import Noise
from recon.formats import reader
from recon.formats.format import Format
from recon.measurement.measurement import Measurement
from recon.measurement.sampled import sampled
from recon.pipeline import chunks, peak, versions
from recon.pipeline.chosen_prior import chosen_prior, offered
from recon.pipeline.chunk_cache import ChunkCache, digest, digest_of
from recon.pipeline.selection import Judging, select, weights_along
from recon.pipeline.streamed import Streamed
from recon.planning import plan
from recon.priors.prior import NetworkPrior
from recon.problem import inverse_problem as problems
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import IntensityMap, Problem, Solver
from recon.settings import use_disk_cache
from recon.solvers import registry as solvers
from recon.solvers.mixture import Part, mixture
from recon.spec.job import JobSpec, check_uncertainty
from recon.spec.methods import Auto, FrozenNoise, Method, method_of
from recon.spec.registry import METHODS, OUTPUT_FORMATS
from recon.spec.report import Selection
from recon.storage.atomic import write_json

T = TypeVar("T")


@dataclass(frozen=True)
class JobProgress:
    """Progress of a job: fraction of the whole, and the step it is in."""

    fraction: float
    stage: str
    step: int = 0
    steps: int = 0
    measure: Callable[[], float] | None = None
    """Computes the data misfit; it takes a projection, so it is called only when it is shown."""
    draw: Callable[[], bytes] | None = None
    """Makes a picture of the volume so far, as PNG; called only when it is shown."""

    @cached_property
    def data_misfit(self) -> float | None:
        """Relative misfit of the volume so far, if there is one."""
        return None if self.measure is None else self.measure()


@dataclass(frozen=True)
class Reconstruction:
    """One reconstruction of a job: a baseline or the result.

    Parameters
    ----------
    name
        Name of the method.
    label
        Name shown with the progress.
    settings
        Settings of the method, complete.
    start
        Starts the method on a part of the problem; another `seed` may be given.
    key
        Hash of everything that the result depends on, see `recon.pipeline.chunk_cache.digest`.
    prior
        Diffusion prior; None if the method has none.
    frozen
        Frozen noise, the same in every slice; None if there is none.
    """

    name: str
    label: str
    settings: Method
    start: Callable[..., Solver]
    key: str
    prior: NetworkPrior | None = None
    frozen: Noise | None = None


@dataclass(frozen=True)
class Prepared:
    """Prepared job: the inverse problem and its reconstructions, of which the last is the result."""

    planned: plan.Plan
    measurement: Measurement
    """The measurement; of one that is read slab by slab, the sample."""
    inverse: InverseProblem
    """Its inverse problem."""
    stack: Problem | Streamed
    """Problem that is solved: that of `inverse`, or of slabs that are read when they are needed."""
    reconstructions: list[Reconstruction]
    selection: Selection | None = None
    """Automatic choice of the method; None if the job names one."""

    @property
    def prior(self) -> NetworkPrior | None:
        """Diffusion prior of the result; None if it has none."""
        return self.reconstructions[-1].prior

    @property
    def errors_like(self) -> str:
        """Kind of the result's errors: those of its method, or of the candidate that weighs most."""
        if self.selection is None or self.prior is not None:
            return self.reconstructions[-1].settings.ERRORS_LIKE
        heaviest = max(self.selection.candidates, key=lambda candidate: candidate.weight)
        return str(METHODS[heaviest.method["name"]].ERRORS_LIKE)

    @property
    def frozen(self) -> Noise | None:
        """Frozen noise of the result."""
        return self.reconstructions[-1].frozen

    def slabs(self) -> Iterator[InverseProblem]:
        """Inverse problem of all slices in order: as a whole, or read slab by slab."""
        if not isinstance(self.stack, Streamed):
            yield self.inverse
            return
        for first in range(0, self.stack.slices, self.planned.chunk):
            yield self.stack.inverse(first, min(first + self.planned.chunk, self.stack.slices))


def prepare(
    spec: JobSpec, files: Mapping[str, Path], work: Path | None = None
) -> Generator[JobProgress, None, Prepared]:
    """Read a job's files, set up its inverse problem and choose its method if that is left open.

    What is chosen is kept in the folder `work`, so that a worker that goes on with the job or helps with it does not
    choose again. Raises `ReconError`.
    """
    use_disk_cache()
    yield JobProgress(0.0, "reading")
    streamed, planned = _streamed(spec, files)
    peak.flat(slabs=streamed is not None)
    measurement = reader.read(spec, files) if streamed is None else streamed.sample
    _check_uncertainty(spec, measurement)
    planned = planned or plan.make(spec, reader.header(measurement, spec, files))
    plan.require_fit(planned)  # the machine that accepted the job may have more memory
    yield JobProgress(0.02, "modelling")
    inverse = problems.build(measurement)
    _check_writable(spec, planned, inverse)
    kind, problem = measurement.acquisition.kind, inverse.problem
    measured = {
        "measurement": digest_of(measurement) if streamed is None else streamed.digest(),
        "versions": versions.installed(),
        "seed": spec.seed,
    }

    def reconstruction(label: str, settings: Method, start: Callable[..., Solver], **more: Any) -> Reconstruction:
        key = digest({**measured, "method": settings.model_dump(mode="json"), **more})
        return Reconstruction(settings.name, label, settings, partial(start, settings=settings, seed=spec.seed), key)

    def one(settings: Method, label: str = "") -> Reconstruction:
        prior, intensity = chosen_prior(settings, inverse)
        frozen = _frozen(settings, prior, inverse, spec.seed)
        # Random noise follows the seed of each run; that of a file is read once, here.
        kept = None if isinstance(settings, FrozenNoise) and settings.frozen_noise == "random" else frozen
        start = partial(_start, inverse=inverse, intensity=None if streamed else intensity, prior=prior, frozen=kept)
        noise = None if frozen is None else frozen.seed
        weights = None if prior is None else prior.card.sha256
        found = reconstruction(label or settings.name, settings, start, noise=noise, weights=weights)
        return replace(found, prior=prior, frozen=frozen)

    found = [
        one(lookup.resolved(method_of(name), kind, problem), f"baseline {name}")
        for name in spec.baselines(measurement.acquisition, measurement.data.shape)
    ]
    if not isinstance(spec.method, Auto):
        found.append(one(lookup.resolved(spec.method, kind, problem)))
        return Prepared(planned, measurement, inverse, streamed or problem, found)
    acquisition = measurement.acquisition
    both = offered(spec.method, acquisition, inverse)
    candidates, reserve = ([lookup.resolved(part, kind, problem) for part in parts] for parts in both)
    every = [one(candidate) for candidate in candidates]
    positions = np.arange(problem.slices) if streamed is None else sampled(streamed.slices)
    slices = problem.slices if streamed is None else streamed.slices
    steps = select(inverse, candidates, positions, slices, reserve=reserve, seed=spec.seed, seconds=spec.method.seconds)
    offered_too = [method.model_dump(mode="json") for method in reserve]
    key = digest(
        {**measured, "candidates": [e.key for e in every], "reserve": offered_too, "seconds": spec.method.seconds}
    )
    selection = yield from _kept(steps, work, key)
    weights = weights_along(selection, slices)
    every += [one(candidate) for candidate in reserve[: len(weights) - len(every)]]
    parts = [Part(each.name, each.start, row) for each, row in zip(every, weights, strict=True)]
    chosen = reconstruction(
        spec.method.name, spec.method, partial(_mixed, parts=parts),
        candidates=[each.key for each in every], weights=selection.weights, judged=selection.judged_slices,
    )  # fmt: skip
    prior = next((e.prior for e, row in zip(every, weights, strict=True) if e.prior is not None and row.any()), None)
    found.append(replace(chosen, prior=prior))
    return Prepared(planned, measurement, inverse, streamed or problem, found, _with_priors_named(selection, every))


def _with_priors_named(selection: Selection, candidates: Sequence[Reconstruction]) -> Selection:
    """Name the prior that each candidate got where its settings leave it open."""
    told = [
        one if got.prior is None else one.model_copy(update={"method": {**one.method, "prior": got.prior.card.name}})
        for one, got in zip(selection.candidates, candidates, strict=True)
    ]
    return selection.model_copy(update={"candidates": told})


def _kept(
    steps: Generator[Judging, None, Selection], work: Path | None, key: str
) -> Generator[JobProgress, None, Selection]:
    """Choose the method, or read what was chosen before."""
    path = None if work is None else work / f"selection-{key[:16]}.json"
    if path is not None and path.exists():
        return Selection.model_validate_json(path.read_text())
    try:
        while True:
            at = next(steps)
            yield JobProgress(0.02 + 0.03 * at.done / at.steps, at.stage, at.done, at.steps)
    except StopIteration as end:
        found: Selection = end.value
    finally:
        steps.close()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found.model_dump(mode="json"))
    return found


def _mixed(problem: Problem, settings: Method, *, parts: Sequence[Part], seed: int) -> Solver:
    """Start a mixture on a part of a problem."""
    del settings
    return mixture(problem, [part._replace(start=partial(part.start, seed=seed)) for part in parts])


def _streamed(spec: JobSpec, files: Mapping[str, Path]) -> tuple[Streamed | None, plan.Plan | None]:
    """The measurement slab by slab, with the plan of the job; None for both if it is read as a whole."""
    header = reader.apart(spec, files)
    planned = None if header is None else plan.make(spec, header)
    if header is None or planned is None or not planned.streamed:
        return None, None
    plan.require_fit(planned)
    streamed = Streamed.of(spec, files, header)
    # The sample may show that more is to be solved.
    return streamed, plan.make(spec, reader.as_sampled(header, streamed.sample))


def _start(
    problem: Problem,
    settings: Method,
    *,
    inverse: InverseProblem,
    prior: NetworkPrior | None,
    intensity: IntensityMap | None,
    seed: int,
    frozen: Noise | None,
) -> Solver:
    """Start a method on a part of a problem, with the intensity map of the whole, or of the part if that is all."""
    if intensity is not None:
        intensity = intensity.part(slice(problem.first, problem.first + problem.slices))
    elif prior is not None:
        intensity = replace(inverse, problem=problem).intensity_map(prior.card)
    return solvers.start(problem, settings, prior=prior, intensity=intensity, seed=seed, frozen=frozen)


def assist(
    spec: JobSpec, files: Mapping[str, Path], work: Path, stop: Callable[[], bool] = lambda: False
) -> Generator[JobProgress, None, bool]:
    """Help with a job that another process runs: compute its free chunks into the cache in `work`.

    `stop` is asked before each chunk. Returns whether more help would be welcome. Raises `FileNotFoundError` if the
    cache was cleared meanwhile.
    """
    job = yield from prepare(spec, files, work)
    cache, welcome = ChunkCache(work), False
    for one in job.reconstructions:
        size = job.planned.chunk
        steps = chunks.assist(job.stack, one.settings, one.start, cache, one.key, stop, size)
        welcome |= yield from staged(steps, one.label, (0.0, 1.0))
    return welcome


def staged(
    parts: chunks.Steps[T],
    stage: str,
    span: tuple[float, float],
    picture: Callable[[Tensor], bytes] | None = None,
) -> Generator[JobProgress, None, T]:
    """Drive a solver, and map its steps to a span of the job's fraction; `picture` draws its volume."""
    try:
        while True:
            label, p = next(parts)
            fraction = span[0] + (span[1] - span[0]) * p.step / p.steps
            draw = None if picture is None or p.current is None else partial(picture, p.current)
            yield JobProgress(fraction, f"{stage}, {label}" if label else stage, p.step, p.steps, p.measure, draw)
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        parts.close()


def _check_uncertainty(spec: JobSpec, measurement: Measurement) -> None:
    try:
        check_uncertainty(measurement.acquisition, spec.output.uncertainty)
    except ValueError as error:
        raise InputError(str(error), field="output.uncertainty") from error


def _check_writable(spec: JobSpec, planned: plan.Plan, inverse: InverseProblem) -> None:
    """Raise `InputError` for a result that its format cannot hold, before it is computed."""
    chosen: Format = OUTPUT_FORMATS[spec.output.format]
    if chosen.check is not None:
        chosen.check(planned.shape, inverse.affine)


def _frozen(method: Method, prior: NetworkPrior | None, inverse: InverseProblem, seed: int) -> Noise | None:
    """Frozen noise of a method; None if it freezes none."""
    if prior is None or not isinstance(method, FrozenNoise):
        return None
    return frozen_noise.of_settings(method, prior.card, inverse.problem.operator.scan, seed)
