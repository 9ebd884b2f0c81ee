"""Benchmark of CT methods on a known volume, all on the same simulated measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from recon.bench.solving import chosen_slices, solved
from recon.formats import nifti
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.quality import metrics
from recon.spec.acquisitions.ct import AngleRange, CTParallel
from recon.spec.affine import shifted_affine
from recon.spec.simulation import Simulation
from recon.spec.validation import invalid
from recon.training.recipe import Recipe
from recon.training.slices import SliceSet


@dataclass(frozen=True)
class Row:
    """Score of one method on one measurement."""

    views: int
    method: str
    psnr: float
    data_misfit: float
    seconds: float
    network_seconds: float
    """Part of `seconds` spent in the network."""


def simulation(model: str, photons: float | None) -> Simulation:
    """Settings of simulation as options give them; raises `InputError`."""
    try:
        return Simulation.model_validate({"model": model, "photons_per_ray": photons})
    except ValidationError as error:
        raise invalid(error, "the options") from error


def ct_measurement(
    volume: Path, slices: tuple[int, int], views: int, settings: Simulation, every: int = 1, degrees: float = 180.0
) -> Measurement:
    """Simulate a parallel-beam measurement of slices ``[first, last)`` of a known volume.

    `volume` is NIfTI in HU, or the ``.npz`` of slices that the ``ct`` recipe validates on, for tuning. Of these
    only `every` so-manyth is taken: neighbours show the same anatomy, but some methods want them. The views are spread
    evenly over `degrees`, the last not included.
    """
    values, affine = _tuning_slices(volume, every) if volume.suffix == ".npz" else nifti.read(volume)
    chosen = chosen_slices(values, slices, volume.name)
    acquisition = CTParallel(angles_rad=AngleRange(stop_rad=math.radians(degrees), count=views))
    return simulate(chosen, shifted_affine(affine, slices[0]), acquisition, settings, slices[0])


def _tuning_slices(path: Path, every: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    source = Recipe.named("ct").validation[0]
    stored = SliceSet.read(path.parent, source.model_copy(update={"file": path.name})).stored
    volume = np.stack(stored[::every]).astype(np.float32) * source.slope + source.intercept
    apart = TUNING_SLICE_MM * every if every < FAR else 1e9
    return volume.astype(np.float32), np.diag([1.4, 1.4, apart, 1.0])


TUNING_SLICE_MM = 3.0
FAR = 4
"""Distance in slices beyond which no method couples them."""


def compare(measurement: Measurement, views: int, methods: list[dict[str, Any]]) -> Iterator[Row]:
    """Run each method, given as its settings with a name, and judge it against the truth."""
    model = inverse_problem.build(measurement)
    assert measurement.truth is not None
    model.problem.operator.forward(torch.zeros_like(model.problem.zeros()))  # build the matrix outside the clock
    _ = model.problem.operator.norms
    for given in methods:
        found = solved(given, model, measurement.acquisition.kind)
        quality = metrics.psnr(model.display(found.volume), measurement.truth)
        settings = " ".join(f"{k}={v}" for k, v in given.items() if k != "name")
        name = f"{given['name']} {settings}".strip()
        yield Row(views, name, quality, found.misfit, found.seconds, found.network_seconds)
