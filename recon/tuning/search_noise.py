"""Search for the starting noise of a deterministic solver on reference slices; see `recon.defaults.frozen_noise`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from operators.errors import InputError
from recon.defaults import frozen_noise, lookup
from recon.defaults.frozen_noise import SIGHT, Metric, NoiseFile
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.pipeline.chosen_prior import chosen_prior
from recon.priors import registry
from recon.priors.prior import NetworkPrior
from recon.problem import inverse_problem
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import run
from recon.problem.superresolution import from_planes
from recon.quality import metrics
from recon.quality.perceptual import perceptual_distance
from recon.quality.spectrum import spectral_error
from recon.solvers import registry as solvers
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.job import JobSpec
from recon.spec.methods import Boundary, FrozenNoise
from recon.spec.simulation import Simulation
from recon.training.recipe import Recipe
from recon.training.slices import SliceSet
from recon.tuning.stacks import DIRECTIONS, STACK_NOISE, Direction, usual_stack

FACTORS = (2.0, 3.0, 4.0)
"""Super-resolution factors of the reference set of a prior that is told them, as far as it covers them."""


@dataclass(frozen=True)
class Task:
    """Task of a search: measured reference slices, their source, and the method whose noise is searched."""

    measurement: Measurement
    inverse: InverseProblem
    method: FrozenNoise
    prior: NetworkPrior
    source: list[str]
    simulation: Simulation


def task_of_job(spec: JobSpec, files: dict[str, Path]) -> Task:
    """Make the task from a job on a known volume.

    Raises
    ------
    InputError
        If the job's method draws no noise, or there is no truth.
    """
    method = spec.method
    if not isinstance(method, FrozenNoise):
        raise InputError(
            f"{method.name} has no noise that decides its result",
            field="method.name",
            remedy="use boundary, dds, red-diff or diffusion-mbir",
        )
    measurement = reader.read(spec, files)
    if measurement.truth is None:
        raise InputError(
            "the truth is needed to judge by", field="input", remedy="give a known volume, and simulate for a stack"
        )
    inverse = inverse_problem.build(measurement)
    method = lookup.resolved(method, measurement.acquisition.kind, inverse.problem)
    prior, _ = chosen_prior(method, inverse)
    assert prior is not None
    path = files["input"]
    source = f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return Task(measurement, inverse, method, prior, [source], spec.input.simulate or Simulation())


def tasks_of_prior(
    name: str,
    data: Path,
    slices: int,
    method: Boundary,
    *,
    factors: Sequence[float] | None = None,
    directions: Sequence[Direction] = DIRECTIONS,
    held_out: bool = False,
) -> list[Task]:
    """Make super-resolution tasks of all factors and directions from slices that a prior was trained or judged on.

    The slices, which are all different, are dealt out to the tasks in turn.

    Parameters
    ----------
    name
        A conditional prior, or the path of its card.
    data
        Folder with the files of the prior's recipe.
    slices
        Number of slices, at least one per task.
    method
        Method whose noise is searched for.
    factors
        Default: those of `FACTORS` that the prior covers.
    directions
        In plane, and (``slices``) the slices taken as planes across a thick stack.
    held_out
        Whether the slices are those that the prior was judged on.

    Raises
    ------
    InputError
        If the prior is not for super-resolution, or not by these factors, or there are fewer slices than tasks.
    """
    prior = registry.load(name, field="prior")
    if not prior.card.refines:
        raise InputError(
            f"prior {name!r} is not for super-resolution", field="prior", remedy="give a job specification"
        )
    factors = [f for f in FACTORS if prior.card.for_factor(f)] if factors is None else factors
    for factor in factors:
        if not prior.card.for_factor(factor):
            raise InputError(
                f"x{factor:g}, prior {name!r} is given {prior.card.condition}", field="factors", remedy="leave it out"
            )
    scans = [usual_stack(factor, direction) for factor in factors for direction in directions]
    if slices < len(scans):
        raise InputError(
            f"{slices} for {len(scans)} tasks", field="slices", remedy="give one or more for each factor and direction"
        )
    recipe = Recipe.named(prior.card.name)
    source = (recipe.validation if held_out else recipe.sources)[0]
    chosen = SliceSet.read(data, source)
    images = [np.ascontiguousarray(chosen.planes(i, recipe)[0].numpy()) for i in _spread(chosen, slices)]
    origin = f"{source.file} sha256 {chosen.sha256}"
    dealt = [np.stack(images[number :: len(scans)]) for number in range(len(scans))]
    return [_stack_task(some, scan, prior, method, origin) for some, scan in zip(dealt, scans, strict=True)]


def _stack_task(
    images: NDArray[np.float32], acquisition: MRISuperResolution, prior: NetworkPrior, method: Boundary, origin: str
) -> Task:
    simulation = Simulation(noise_std=STACK_NOISE)
    volume = from_planes(torch.from_numpy(images), acquisition).numpy()
    measurement = simulate(volume, np.diag([0.9, 0.9, 1e9, 1.0]), acquisition, simulation)
    inverse = inverse_problem.build(measurement)
    return Task(measurement, inverse, method, prior.at(inverse.problem.operator.factors), [origin], simulation)


def _spread(chosen: SliceSet, count: int) -> list[int]:
    """Choose slices from as many subjects as possible, from the middle of each, where the brain is large."""
    subjects = list(chosen.subjects().values())
    rounds = -(-count // len(subjects))
    found = []
    for k in range(count):
        own = subjects[k % len(subjects)]
        # The subject's turn, within the middle half of its slices.
        found.append(own[int(len(own) * (0.25 + 0.5 * (k // len(subjects) + 0.5) / rounds))])
    if len(set(found)) < count:
        raise InputError(
            f"{count} slices, {chosen.source.file} has fewer in the middle of its subjects", field="slices"
        )
    return found


@dataclass(frozen=True)
class Judge:
    """Judge of a task's noises: what each slice's image from a seed's noise is worth, beside the truth.

    Parameters
    ----------
    planes
        Arranges a volume of the result as the images that are judged one by one: refined planes, or else slices.
    """

    task: Task
    metric: Metric
    planes: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    truth: NDArray[np.float32]
    quick: dict[str, list[float]]
    """Errors of the quick classical image, to which those of `sight` are relative."""

    @classmethod
    def of(cls, task: Task, metric: Metric) -> Judge:
        """Make the judge, and judge the quick classical image."""
        model, known = task.inverse, task.measurement.truth
        assert known is not None

        def planes(volume: NDArray[np.float32]) -> NDArray[np.float32]:
            return model.planes(torch.from_numpy(volume)).numpy()

        truth = planes(known)
        quick: dict[str, list[float]] = {}
        if metric == "sight":
            first = model.display(model.arranged(model.problem.initial_image()))
            quick = {part: slice_errors(planes(first), truth, part, _refined(task)) for part in SIGHT}
        return cls(task, metric, planes, truth, quick)

    def __call__(self, seed: int) -> dict[str, list[float]]:
        """Errors of every slice by part of the metric, from a seed's noise."""
        found, refined = self.planes(solved(self.task, seed)), _refined(self.task)
        if self.metric != "sight":
            return {self.metric: slice_errors(found, self.truth, self.metric, refined)}
        errors = {part: slice_errors(found, self.truth, part, refined) for part in SIGHT}
        return {part: [e / q for e, q in zip(errors[part], self.quick[part], strict=True)] for part in SIGHT}


def solved(task: Task, seed: int) -> NDArray[np.float32]:
    """Reconstruct a task's slices from one noise for all of them, which is what can be frozen."""
    model = task.inverse
    method = task.method.model_copy(update={"frozen_noise": "random"})
    intensity = model.intensity_map(task.prior.card)
    solver = solvers.start(model.problem, method, prior=task.prior, intensity=intensity, seed=seed)
    return model.display(model.arranged(run(solver)))


def _refined(task: Task) -> tuple[int, ...]:
    """Axes of the judged images along which resolution is lacking: those refined, else both."""
    factors = task.inverse.problem.operator.factors or (2.0, 2.0)
    return tuple(axis for axis in (0, 1) if factors[axis] > 1)


def slice_errors(
    found: NDArray[np.float32], truth: NDArray[np.float32], metric: str, axes: Sequence[int] = (0, 1)
) -> list[float]:
    """Compute the error of each slice by one metric; `axes` are those of the spectrum, for `sharpness`.

    Constant slices have no meaningful error and are left out.

    Raises
    ------
    InputError
        If the metric has no value for a slice, as SSIM for one smaller than its window, or no slice has content.
    """
    pairs = [(a, b) for a, b in zip(found, truth, strict=True) if b.max() > b.min()]
    errors = [_error(a, b, metric, axes) for a, b in pairs]
    if not errors or not np.isfinite(errors).all():
        raise InputError(
            f"{metric} cannot judge {len(pairs)} slices of {truth.shape[1:]}", field="metric", remedy="use nrmse"
        )
    return errors


def _error(found: NDArray[np.float32], truth: NDArray[np.float32], metric: str, axes: Sequence[int]) -> float:
    match metric:
        case "nrmse":
            return metrics.nrmse(found, truth)
        case "ssim":
            return 1 - metrics.ssim(found[None], truth[None])
        case "perceptual":
            return perceptual_distance(found, truth)
        case "sharpness":
            return spectral_error(found[None], truth[None], axes)
        case _:
            raise InputError(f"{metric!r} is no metric of one slice", field="metric")


def search_noise(tasks: Sequence[Task], seeds: Sequence[int], metric: Metric, command: str) -> NoiseFile:
    """Search the seed of the noise that is best on all tasks together; analyse whether the search can help."""
    first = tasks[0]
    judges = [Judge.of(task, metric) for task in tasks]
    by_part: dict[str, list[list[float]]] = {}

    def errors_of(seed: int) -> list[float]:
        judged = [judge(seed) for judge in judges]
        parts = {part: [error for one in judged for error in one[part]] for part in judged[0]}
        for part, errors in parts.items():
            by_part.setdefault(part, []).append(errors)
        return [float(value) for value in np.mean(list(parts.values()), axis=0)]

    seed, errors = frozen_noise.search(errors_of, seeds)
    parts = {part: frozen_noise.analyse(np.array(found)) for part, found in by_part.items()} if len(by_part) > 1 else {}
    return NoiseFile(
        seed=seed,
        method=first.method.model_dump(mode="json"),
        prior=first.prior.card.name,
        prior_sha256=first.prior.card.sha256,
        scans=list(dict.fromkeys(task.inverse.problem.operator.scan for task in tasks)),
        tasks=[_stated(task) for task in tasks],
        reference=list(dict.fromkeys(source for task in tasks for source in task.source)),
        slices=errors.shape[1],
        metric=metric,
        errors={int(s): round(float(e), 6) for s, e in zip(seeds, errors.mean(axis=1), strict=True)},
        analysis=frozen_noise.analyse(errors),
        parts=parts,
        command=command,
    )


def _stated(task: Task) -> dict[str, object]:
    acquisition = task.measurement.acquisition.model_dump(mode="json", exclude_none=True)
    return {"acquisition": acquisition, "simulation": task.simulation.model_dump(mode="json", exclude_defaults=True)}
