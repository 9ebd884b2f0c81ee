"""What a job is made of once its files are read: the model, and the stages to be solved one after the other.

A worker that runs a job and one that only helps with its slabs prepare it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from operators.errors import InputError
from recon import calibration, defaults, plan, slabs, versions
from recon import model as models
from recon.formats import reader
from recon.job import JobSpec, MRIResolution, check_uncertainty
from recon.job import local_files as local_files
from recon.measurement import Measurement
from recon.methods import DEFAULT_PRIOR, DPS, QUICK, Boundary, Diffusion, Method
from recon.priors import registry as priors
from recon.priors.card import Card
from recon.priors.prior import NetworkPrior
from recon.solvers import registry as solvers
from recon.solvers.problem import Axis, Solver

_METHODS: TypeAdapter[Method] = TypeAdapter(Method)
T = TypeVar("T")
FAR_MM = 12.0
"""Slices that lie farther apart are no neighbours to a prior."""


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: a fraction of the whole, and the stage it is in."""

    fraction: float
    stage: str
    step: int = 0
    steps: int = 0
    measure: Callable[[], float] | None = None
    """The data misfit: takes a projection, so it is for those who show it to call."""

    @cached_property
    def data_misfit(self) -> float | None:
        """Relative misfit of the volume so far, if there is one."""
        return None if self.measure is None else self.measure()


@dataclass(frozen=True)
class Stage:
    """One reconstruction of a job: a baseline or the result.

    Parameters
    ----------
    name
        Of the method.
    label
        For people who follow the progress.
    settings
        Of the method, complete.
    start
        The method on a part of the problem; another `seed` may be given.
    key
        Of all that the result depends on, see `recon.slabs.digest`.
    """

    name: str
    label: str
    settings: Method
    start: Callable[..., Solver]
    key: str
    neighbours: int
    """Slices on each side that its prior sees."""


@dataclass(frozen=True)
class Prepared:
    """A job ready to be solved; its last stage is the result."""

    measurement: Measurement
    planned: plan.Plan
    model: models.Model
    prior: NetworkPrior | None
    axis: Axis | None
    judge: NetworkPrior | None
    """Who tells how familiar the result is."""
    noise: dict[str, Any] | None
    """Noise that is the same in every slice: its seed, and the calibration that chose it."""
    stages: list[Stage]


def prepare(spec: JobSpec, files: Mapping[str, Path]) -> Generator[JobProgress, None, Prepared]:
    """Read a job's files and model the measurement; raises `ReconError`."""
    yield JobProgress(0.0, "reading")
    measurement = reader.read(spec, files)
    _check_uncertainty(spec, measurement)
    planned = plan.make(spec, reader.outline(measurement, files))
    plan.require_fit(planned)  # whoever accepted the job may have more memory
    yield JobProgress(0.02, "modelling")
    model = models.build(measurement)
    kind = measurement.acquisition.kind
    method = defaults.resolved(spec.method, kind, model.problem)
    prior, axis = chosen_prior(method, model)
    measured = {"measurement": slabs.digest_of(measurement), "versions": versions.installed(), "seed": spec.seed}

    def stage(label: str, settings: Method, *, prior: NetworkPrior | None = None, **more: Any) -> Stage:
        start = partial(solvers.start, settings=settings, prior=prior, axis=axis, seed=spec.seed)
        key = slabs.digest({**measured, "method": settings.model_dump(mode="json"), **more})
        return Stage(settings.name, label, settings, start, key, 0 if prior is None else prior.neighbours)

    stages = [
        stage(f"baseline {name}", defaults.resolved(_METHODS.validate_python({"name": name}), kind, model.problem))
        for name in _baselines(spec, measurement)
    ]
    noise = _starting_noise(method, prior, model, spec.seed)
    weights = None if prior is None else prior.card.sha256
    stages.append(stage(method.name, method, prior=prior, noise=noise, weights=weights))
    return Prepared(measurement, planned, model, prior, axis, _judge(prior), noise, stages)


def assist(
    spec: JobSpec, files: Mapping[str, Path], work: Path, stop: Callable[[], bool] = lambda: False
) -> Generator[JobProgress, None, bool]:
    """Compute what can be of a job that another process runs: slabs nobody is at, onto the shelf in `work`.

    `stop` is asked before each slab. Returns whether more help would be welcome. Raises `FileNotFoundError` if the
    shelf was cleared meanwhile.
    """
    job = yield from prepare(spec, files)
    shelf, welcome = slabs.Shelf(work), False
    for stage in job.stages:
        size, neighbours = job.planned.slab, stage.neighbours
        parts = slabs.assist(job.model.problem, stage.settings, stage.start, shelf, stage.key, stop, size, neighbours)
        welcome |= yield from staged(parts, stage.label, (0.0, 1.0))
    return welcome


def staged(parts: slabs.Steps[T], stage: str, span: tuple[float, float]) -> Generator[JobProgress, None, T]:
    """Drive a solver, mapping its steps onto a span of the job's fraction."""
    try:
        while True:
            label, p = next(parts)
            fraction = span[0] + (span[1] - span[0]) * p.step / p.steps
            measure = partial(getattr, p, "data_misfit")
            yield JobProgress(fraction, f"{stage}, {label}" if label else stage, p.step, p.steps, measure)
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


def _baselines(spec: JobSpec, measurement: Measurement) -> list[str]:
    """What to compute beside the result; a method is no baseline of itself."""
    default = [QUICK[measurement.acquisition.kind]]
    wanted = default if spec.output.baselines is None else spec.output.baselines
    return [name for name in wanted if name != spec.method.name]


def chosen_prior(method: Method, model: models.Model) -> tuple[NetworkPrior | None, Axis | None]:
    """The prior that a method uses on a problem and the map to its axis; none for a method without.

    Raises
    ------
    InputError
        If the prior that is named is for other data.
    """
    if not isinstance(method, Diffusion):
        return None, None
    modality = "mri" if model.problem.operator.domain.complex else "ct"
    prior = priors.load(method.prior or _default_prior(method, modality, model.refined))
    if prior.card.modality != modality:
        raise InputError(
            f"prior {prior.card.name!r} is for {prior.card.modality}, the data are {modality}",
            field="method.prior",
            remedy=f"use one for {modality}, as {DEFAULT_PRIOR[modality]}",
        )
    _check_condition(method, model, prior.card)
    if isinstance(method, DPS) or model.problem.slice_mm > FAR_MM:
        prior = prior.apart()  # DPS takes a few slices at a time, whatever lies beside them
    return prior, model.prior_axis(prior.card)


def _judge(prior: NetworkPrior | None) -> NetworkPrior | None:
    """Who tells how familiar the result is: the prior itself, or the one that its card names."""
    if prior is not None and prior.card.judge is not None:
        prior = priors.load(prior.card.judge)
    return None if prior is None or prior.card.familiarity is None else prior


def _check_condition(method: Diffusion, model: models.Model, card: Card) -> None:
    """Refuse a conditional prior whose condition the data do not give, or that the method cannot use."""
    factor = None if model.refined is None else model.refined.factor
    if isinstance(method, Boundary) and card.super_resolution is None:
        raise InputError(
            f"prior {card.name!r} is given {card.condition}, {method.name} needs one of x{factor}",
            field="method.prior",
            remedy="leave it out, or use another method",
        )
    if card.super_resolution not in (None, factor) or (card.least_squares and factor is not None):
        raise InputError(
            f"prior {card.name!r} needs {card.condition}, the data are {'not' if factor is None else f'x{factor}'}",
            field="method.prior",
            remedy="leave it out"
            if isinstance(method, Boundary)
            else f"use one that is not conditional, as {DEFAULT_PRIOR[card.modality]}",
        )
    if card.conditional and isinstance(method, DPS):
        raise InputError(
            f"prior {card.name!r} is conditional, dps takes none that is",
            field="method.prior",
            remedy=f"use {DEFAULT_PRIOR[card.modality]}",
        )


def _default_prior(method: Diffusion, modality: str, refined: MRIResolution | None) -> str:
    name = DEFAULT_PRIOR[modality]
    return f"{name}-x{refined.factor}" if isinstance(method, Boundary) and refined is not None else name


def _starting_noise(
    method: Method, prior: NetworkPrior | None, model: models.Model, seed: int
) -> dict[str, Any] | None:
    """The frozen noise a method used: seed, amplitude, and the calibration that chose them; None if it froze none."""
    if prior is None or not isinstance(method, calibration.Calibrated):
        return None
    if method.calibration is None and not isinstance(method, Boundary):
        return None
    used = calibration.noise_of(method, prior.card, defaults.scan_of(model.problem), seed)
    return {**used._asdict(), "calibration": method.calibration or "shipped"}
