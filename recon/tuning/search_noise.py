"""Search for the starting noise of a deterministic solver on reference slices; see `recon.defaults.frozen_noise`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from recon.defaults import frozen_noise, lookup
from recon.defaults.frozen_noise import Metric, NoiseFile
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.pipeline.chosen_prior import chosen_prior
from recon.priors import registry
from recon.priors.network import as_channels
from recon.priors.prior import NetworkPrior
from recon.problem import inverse_problem
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import IntensityMap, run
from recon.problem.superresolution import from_planes
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.job import JobSpec
from recon.spec.methods import Boundary, FrozenNoise
from recon.spec.simulation import Simulation
from recon.training.evaluate import JUDGED_FACTOR
from recon.training.recipe import Recipe
from recon.training.slices import SliceSet

Direction = Literal["plane", "slices"]
AMPLITUDES = (0.75, 0.5, 0.25, 0.0)
"""Amplitudes of the starting noise to try besides 1."""
FEATURE_SIGMA = 0.05
"""Noise level given to the encoder when it computes features of a clean image."""


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


def task_of_prior(
    name: str,
    data: Path,
    slices: int,
    method: Boundary,
    direction: Direction,
    *,
    held_out: bool = False,
    factor: float | None = None,
) -> Task:
    """Make a super-resolution task from slices that a conditional prior was trained or judged on.

    In-plane, or (``direction="slices"``) the slices taken as planes across a thick stack. `factor` may be left out of
    a prior of one factor, and is 4 of others unless given.

    Raises
    ------
    InputError
        If the prior is not for super-resolution, or not by this factor.
    """
    prior = registry.load(name, field="prior")
    if not prior.card.refines:
        raise InputError(
            f"prior {name!r} is not for super-resolution", field="prior", remedy="give a job specification"
        )
    factor = factor or prior.card.super_resolution or JUDGED_FACTOR
    if not prior.card.for_factor(factor):
        raise InputError(
            f"x{factor:g}, prior {name!r} is given {prior.card.condition}", field="factor", remedy="leave it out"
        )
    recipe = Recipe.named(name)
    source = (recipe.validation if held_out else recipe.sources)[0]
    chosen = SliceSet.read(data, source)
    multiple = int(factor) if factor == int(factor) else 1
    images = np.stack([_whole(chosen, i, recipe, multiple) for i in _spread(chosen, slices)])
    simulation = Simulation()
    acquisition = MRISuperResolution(factor=factor, direction=direction)
    volume = from_planes(torch.from_numpy(images), acquisition).numpy()
    measurement = simulate(volume, np.diag([0.9, 0.9, 1e9, 1.0]), acquisition, simulation)
    origin = f"{source.file} sha256 {chosen.sha256}"
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


def _whole(chosen: SliceSet, index: int, recipe: Recipe, factor: int) -> NDArray[np.float32]:
    image = chosen.planes(index, recipe)[0].numpy()
    rows, cols = (n // factor * factor for n in image.shape)
    return np.ascontiguousarray(image[:rows, :cols])


class Judge(Protocol):
    """Function that reconstructs the reference slices from a seed's noise."""

    def __call__(self, seed: int, amplitude: float | None = None) -> list[float]:
        """Error of every slice; only `Boundary` has an amplitude."""


def errors_of(task: Task, metric: Metric) -> Judge:
    """Make the function from a seed to the error of every reference slice."""
    model, prior, truth = task.inverse, task.prior, task.measurement.truth
    intensity = model.intensity_map(prior.card)
    assert truth is not None
    # One noise for all slices, which is what can be frozen.
    method = task.method.model_copy(update={"frozen_noise": "random"})

    def settings(amplitude: float | None) -> FrozenNoise:
        return method if amplitude is None else method.model_copy(update={"amplitude": amplitude})

    def planes(volume: Tensor) -> NDArray[np.float32]:
        """Images that are judged one by one: refined planes, or else slices."""
        return model.planes(volume).numpy()

    def errors(seed: int, amplitude: float | None = None) -> list[float]:
        solver = solvers.start(model.problem, settings(amplitude), prior=prior, intensity=intensity, seed=seed)
        return slice_errors(
            planes(torch.from_numpy(model.display(model.arranged(run(solver))))),
            planes(torch.from_numpy(truth)),
            metric,
            prior,
        )

    return errors


def slice_errors(
    found: NDArray[np.float32], truth: NDArray[np.float32], metric: Metric, prior: NetworkPrior
) -> list[float]:
    """Compute the error of each slice: NRMSE, one minus SSIM, or the distance in the prior's encoder.

    Constant slices have no meaningful error and are left out.

    Raises
    ------
    InputError
        If the metric has no value for a slice, as SSIM for one smaller than its window, or no slice has content.
    """
    pairs = [(a, b) for a, b in zip(found, truth, strict=True) if b.max() > b.min()]
    errors = _errors(pairs, truth, metric, prior)
    if not errors or not np.isfinite(errors).all():
        raise InputError(
            f"{metric} cannot judge {len(pairs)} slices of {truth.shape[1:]}", field="metric", remedy="use nrmse"
        )
    return errors


def _errors(
    pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
    truth: NDArray[np.float32],
    metric: Metric,
    prior: NetworkPrior,
) -> list[float]:
    match metric:
        case "nrmse":
            return [metrics.nrmse(a, b) for a, b in pairs]
        case "ssim":
            return [1 - metrics.ssim(a[None], b[None]) for a, b in pairs]
        case "features":
            intensity = _display_map(truth, prior)
            return [feature_distance(prior, *(intensity.to_prior(torch.from_numpy(x)) for x in pair)) for pair in pairs]


def _display_map(truth: NDArray[np.float32], prior: NetworkPrior) -> IntensityMap:
    """Convert images from the prior's scale to display values: HU, or magnitudes."""
    if prior.complex:
        return IntensityMap(float(np.percentile(truth, 99.8)) or 1.0, 0.0)
    window = prior.card.intensity_range
    return IntensityMap((window.high - window.low) / 2, (window.high + window.low) / 2)


@torch.inference_mode()
def feature_distance(prior: NetworkPrior, a: Tensor, b: Tensor) -> float:
    """Perceptual distance of two images ``(rows, cols)`` in a prior's encoder features, 0 for equal ones, up to 4.

    A perceptual distance (Zhang et al. 2018, arXiv 1801.03924) in a network that knows such images: features of every
    level, normalised to unit length per pixel, mean squared difference, mean over levels.
    """
    network = prior.network
    told = None if prior.factors is None else torch.tensor([prior.factors])
    level = network.features(torch.tensor([FEATURE_SIGMA]), told)
    features = []
    for image in (a, b):
        x = as_channels(image[None].to(torch.complex64) if prior.complex else image[None])
        # The image stands in for its condition.
        x = x.repeat(1, 1 + network.condition_channels // network.image_channels, 1, 1)
        side = network.multiple
        x = torch.nn.functional.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side), mode="replicate")
        features.append(network.encode(x / prior.card.sigma_data, level))
    distances = []
    for p, q in zip(*features, strict=True):
        p, q = (torch.nn.functional.normalize(f, dim=1) for f in (p, q))
        distances.append(float((p - q).square().sum(dim=1).mean()))
    return float(np.mean(distances))


def search_noise(task: Task, seeds: Sequence[int], metric: Metric, command: str) -> NoiseFile:
    """Search the seed of the noise and, for an ODE, its amplitude; analyse whether the search can help."""
    errors_at = errors_of(task, metric)
    seed, errors = frozen_noise.search(errors_at, seeds)
    tried = {1.0: float(errors.mean(axis=1).min())}
    # What is drawn on purpose starts from all of the noise, whatever the amplitude.
    if task.method.ALWAYS_FROZEN and task.method.noise_amplitude is None and task.method.uses_levels():
        tried |= {amplitude: float(np.mean(errors_at(seed, amplitude))) for amplitude in AMPLITUDES}
    stated = {"acquisition": task.measurement.acquisition.model_dump(mode="json", exclude_none=True)}
    return NoiseFile(
        seed=seed,
        amplitude=min(tried, key=lambda amplitude: tried[amplitude]),
        method=task.method.model_dump(mode="json"),
        prior=task.prior.card.name,
        prior_sha256=task.prior.card.sha256,
        scan=task.inverse.problem.operator.scan,
        task=stated | {"simulation": task.simulation.model_dump(mode="json")},
        reference=task.source,
        slices=errors.shape[1],
        metric=metric,
        errors={int(s): round(float(e), 6) for s, e in zip(seeds, errors.mean(axis=1), strict=True)},
        amplitudes={k: round(v, 6) for k, v in tried.items()} if len(tried) > 1 else {},
        analysis=frozen_noise.analyse(errors),
        command=command,
    )
