"""Search of a method's settings on the tuning slices, one setting after the other (coordinate search)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from operators.errors import InputError
from recon.defaults import lookup
from recon.defaults.table import Tuned
from recon.measurement.simulate import simulate
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem import inverse_problem
from recon.problem.problem import run
from recon.problem.superresolution import from_planes
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.spec.acquisitions import Acquisition, methods_of
from recon.spec.acquisitions.ct import AngleRange, CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.acquisitions.superresolution import CTSuperResolution, SuperResolution
from recon.spec.methods import DEFAULT_PRIOR, Diffusion, method_of
from recon.spec.simulation import Simulation
from recon.spec.validation import reason
from recon.training import synthetic
from recon.training.recipe import Recipe
from recon.training.slices import SliceSet
from recon.tuning.stacks import DIRECTIONS, STACK_NOISE, usual_stack

_SPLITTING: dict[str, list[Any]] = {
    "start": ["classical", "tv"],
    "sigma_last": [0.0015, 0.003, 0.005, 0.01, 0.02, 0.04, 0.08],
    # Not below 0.2: the best on three slices, by 0.1 dB, starts lower, and loses 2 dB where the start is worse.
    "sigma_first": [0.2, 0.4, 0.8, 1.6],
    "min_noise_std": [2.5e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2],
    "noise_fraction": [0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0],
    "tv_z_weight": [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
}
GRIDS: dict[str, dict[str, list[Any]]] = {
    "tv": {
        "weight_per_noise": [0.01, 0.03, 0.1, 0.3, 1.0],
        "min_weight": [3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3],
    },
    "l1-wavelet": {
        "weight_per_noise": [0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5],
        "min_weight": [3e-5, 1e-4, 3e-4, 1e-3],
        "iterations": [60, 100, 200],
    },
    "low-rank": {
        "weight_per_noise": [0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
        "block_width": [4, 6, 8, 12],
        "min_weight": [3e-6, 1e-5, 3e-5, 1e-4, 3e-4],
        "iterations": [60, 100, 200],
    },
    "diffpir": _SPLITTING,
    "red-diff": _SPLITTING
    | {
        "equivariant": [False, True],
        "steps": [30, 60, 90],
        "cg_iterations": [2, 3, 8],
        "weight": [0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0],
        "pnp_steps": [0, 8],
    },
    "dds": _SPLITTING | {"eta": [0.3, 0.5, 0.8, 0.95, 1.0]},
    "diffusion-mbir": _SPLITTING | {"tv_z_weight": [0.1, 0.3, 1.0, 2.0, 4.0], "eta": [0.3, 0.5, 0.8, 0.95, 1.0]},
}
"""Candidate values of each setting in rising order; settings are searched in this order."""
SPECIMENS, SIDE, DENSITY_HU = 20_000, 256, 500.0
"""Seed, size and density of the synthetic specimens that a prior of objects is tuned on."""
WHERE = {"plane": "in plane", "slices": "between slices"}
FAR_MM = 1e6
"""Slice distance in mm that stands for an unknown one, so large that slices are independent."""
MIN_GAIN_DB = 0.05
"""Minimum gain in dB; a setting that gains less keeps its default."""


@dataclass(frozen=True)
class Task:
    """Tuning task: a measurement of the tuning slices."""

    name: str
    acquisition: Acquisition
    simulation: Simulation
    slices: tuple[int, int]
    """Range of neighbouring slices of the tuning set, which total variation along z needs."""
    slice_mm: float | None
    """Slice distance in mm; None if unknown: then nothing is regularised across slices."""

    @property
    def modality(self) -> str:
        """Modality of the data."""
        return self.acquisition.MODALITY


def tasks() -> dict[str, Task]:
    """Tasks by name."""
    found = [Task(f"{views} views", CTParallel(), Simulation(views=views), (40, 43), 3.0) for views in (60, 23, 8)]
    found += [
        Task(
            f"{span} of 180 degrees",
            CTParallel(angles_rad=AngleRange(stop_rad=math.radians(span), count=span)), Simulation(), (40, 43), 3.0,
        )
        for span in (90, 120)
    ]  # fmt: skip
    # The last one: as many views as the image asks for, at a low dose.
    photons = {
        "60 views with 1e5 photons": (60, 1e5),
        "23 views with 1e5 photons": (23, 1e5),
        "8 views with 1e5 photons": (8, 1e5),
        "180 views with 2e4 photons": (180, 2e4),
    }
    found += [
        Task(name, CTParallel(), Simulation(views=views, photons_per_ray=each), (40, 43), 3.0)
        for name, (views, each) in photons.items()
    ]
    mri = {
        "equispaced x4": Simulation(acceleration=4, center_fraction=0.08, noise_std=0.005),
        "equispaced x8": Simulation(acceleration=8, center_fraction=0.04, noise_std=0.005),
        "poisson x8": Simulation(pattern="poisson", acceleration=8, center_fraction=0.04, noise_std=0.005),
    }
    # FLAIR slices of one head, whose distance the file does not say: none is regularised across.
    found += [Task(name, MRICartesian(), settings, (20, 23), None) for name, settings in mri.items()]
    for factor, direction in product((2, 4), DIRECTIONS):
        found += _of_stacks(f"stack x{factor} {WHERE[direction]}", usual_stack(factor, direction), (20, 23))
    for factor in (2, 4):
        found += _of_stacks(f"CT stack x{factor}", CTSuperResolution(factor=factor, profile="gaussian"), (40, 43))
    return {task.name: task for task in found}


def _of_stacks(name: str, acquisition: SuperResolution, slices: tuple[int, int]) -> list[Task]:
    """Tasks without and with noise of a stack whose planes are these slices."""
    noisy = Simulation(noise_std=STACK_NOISE)
    return [
        Task(name, acquisition, Simulation(), slices, None),
        Task(f"{name} with noise", acquisition, noisy, slices, None),
    ]


def named(only: str | None) -> list[Task]:
    """Parse comma-separated names of tasks, or ``all``; raises `InputError` for an unknown one."""
    known = tasks()
    names = list(known) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"{name!r} is not one of {', '.join(known)}", field="only")
    return [known[name] for name in names]


def fitting(task: Task, methods: Sequence[str]) -> list[str]:
    """Those methods that fit the acquisition of a task."""
    return [name for name in methods if name in methods_of(task.acquisition)]


def problem(task: Task, data: Path, prior: str | None = None) -> tuple[inverse_problem.InverseProblem, np.ndarray]:
    """Make the inverse problem of a task, and the truth that only the tuning sees.

    It is of the slices that the usual prior is validated on, or of synthetic specimens for a prior trained on such.
    """
    if _of_objects(prior):
        relative = synthetic.specimens(SPECIMENS, task.slices[1] - task.slices[0], SIDE)
        apart = np.diag([1.0, 1.0, FAR_MM, 1.0])
        measurement = simulate(relative * (1000 + DENSITY_HU) - 1000, apart, task.acquisition, task.simulation)
        assert measurement.truth is not None
        return inverse_problem.build(measurement), measurement.truth
    recipe = Recipe.named(DEFAULT_PRIOR[task.modality])
    source = recipe.validation[0]
    stored = SliceSet.read(data, source).stored[task.slices[0] : task.slices[1]]
    if len(stored) < task.slices[1] - task.slices[0]:
        raise InputError(
            f"{source.file} ends before slices {task.slices[0]} to {task.slices[1]}, which {task.name!r} is tuned on",
            field="data",
            remedy="give the folder with the whole tuning set",
        )
    volume = (np.stack(stored).astype(np.float32) * source.slope + source.intercept).astype(np.float32)
    if isinstance(task.acquisition, SuperResolution):
        volume = from_planes(torch.from_numpy(volume), task.acquisition).numpy()
    measurement = simulate(volume, np.diag([1.4, 1.4, task.slice_mm or FAR_MM, 1.0]), task.acquisition, task.simulation)
    assert measurement.truth is not None
    return inverse_problem.build(measurement), measurement.truth


def _of_objects(prior: str | None) -> bool:
    """Whether a prior is shipped with a recipe of synthetic images."""
    return prior is not None and prior in Recipe.shipped() and Recipe.named(prior).synthetic is not None


def tune(
    task: Task, methods: Sequence[str], data: Path, refine: Sequence[str] = (), prior: str | None = None
) -> Iterator[Tuned]:
    """Search the best settings of each method on one task, with the usual prior or another.

    With `refine`, only these settings are searched, from their values in the table on.
    """
    model, truth = problem(task, data, prior)
    # A prior that is given projections knows those it was trained on: other beams have not been tried.
    general = prior is None or _of_objects(prior)
    kind = next(iter(task.acquisition.TUNED_AS), task.acquisition.kind) if general else task.acquisition.kind
    noisy = bool(model.problem.noise.any())
    ratio = round(model.problem.operator.undersampling, 3)
    for name in methods:
        grid = GRIDS[name]
        if task.slice_mm is None:
            grid = {k: v for k, v in grid.items() if k != "tv_z_weight"}
        # The floor counts without noise, the share with it.
        unused = {"noise_fraction", "weight_per_noise"} if not noisy else {"min_noise_std"}
        grid = {k: v for k, v in grid.items() if k not in unused}
        own = {} if prior is None else {"prior": prior}
        try:
            plain = method_of({"name": name, **own})
        except ValidationError as error:
            raise InputError(f"{prior!r}: {reason(error)}", field="prior") from error
        usual = {"prior": prior or DEFAULT_PRIOR[task.modality]} if isinstance(plain, Diffusion) else {}
        like = method_of({"name": name, **usual})
        known = lookup.tuned(like, kind, model.problem) if refine else None
        base = own if known is None else own | known.settings
        grid = {k: v for k, v in grid.items() if not refine or k in refine}
        usual_values = plain.model_dump()
        found, psnr, before = climb(_judge(model, truth, name, base), grid, {**usual_values, **base})
        if known is not None:
            before = _judge(model, truth, name, own)({})
        settings = {k: v for k, v in {**base, **found}.items() if k == "prior" or v != usual_values[k]}
        yield Tuned(
            kind=kind, task=task.name, pattern=model.problem.operator.sampling_pattern, undersampling=ratio,
            noisy=noisy, method=name, settings=settings, psnr=round(psnr, 2), psnr_before=round(before, 2),
        )  # fmt: skip


def _judge(
    model: inverse_problem.InverseProblem, truth: np.ndarray, name: str, base: Mapping[str, Any]
) -> Callable[[Mapping[str, Any]], float]:
    """PSNR of a method with given settings, in addition to those of `base`."""
    _ = model.problem.operator.norms

    def judged(settings: Mapping[str, Any]) -> float:
        method = method_of({"name": name, **base, **settings})
        prior, intensity = chosen_prior(method, model)
        volume: Tensor = run(solvers.start(model.problem, method, prior=prior, intensity=intensity))
        return metrics.psnr(model.display(model.arranged(volume)), truth)

    return judged


def climb(
    judged: Callable[[Mapping[str, Any]], float], grid: Mapping[str, Sequence[float]], start: Mapping[str, Any]
) -> tuple[dict[str, Any], float, float]:
    """Coordinate search; returns settings that differ from where it begins, their score, and the score there.

    Each setting goes from its value there up the others while the score rises, else down. If it has none there, every
    value is tried.
    """
    chosen: dict[str, Any] = {}
    before = best = judged({})
    for name, values in grid.items():
        if start[name] is None:
            scores = {value: judged({**chosen, name: value}) for value in values}
            top = max(values, key=lambda value: scores[value])
            if scores[top] > best:
                best, chosen = scores[top], {**chosen, name: top}
            continue
        below = [value for value in values if value < start[name]]
        above = [value for value in values if value > start[name]]
        for ahead in (above, below[::-1]):
            improved = False
            for value in ahead:
                score = judged({**chosen, name: value})
                if score < best + MIN_GAIN_DB:
                    break
                best, chosen, improved = score, {**chosen, name: value}, True
            if improved:
                break
    return chosen, best, before
