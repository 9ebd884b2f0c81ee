"""Benchmark of MRI methods: against a known volume, and on measured k-space against withheld samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.bench.solving import chosen_slices, label, solved
from recon.bench.withheld import withhold
from recon.formats import nifti, numpy_files
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.quality import metrics
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.affine import shifted_affine
from recon.spec.simulation import Simulation
from recon.training.recipe import Recipe
from recon.training.slices import tuning_images


@dataclass(frozen=True)
class Row:
    """Score of one method on one measurement: PSNR in dB if the truth is known, else the misfit of withheld samples."""

    data: str
    method: str
    psnr: float | None
    held_out_misfit: float | None
    seconds: float


def simulated(volume: Path, slices: tuple[int, int], settings: Simulation) -> Measurement:
    """Simulate multi-coil k-space of slices ``[first, last)`` of a magnitude volume, with phase and noise.

    `volume` is NIfTI, or the ``.npz`` of slices that the ``brain-mri`` recipe validates on, for tuning.
    """
    values, affine = _tuning_slices(volume) if volume.suffix == ".npz" else nifti.read(volume)
    chosen = chosen_slices(values, slices, volume.name)
    return simulate(chosen, shifted_affine(affine, slices[0]), MRICartesian(), settings)


def _tuning_slices(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    recipe = Recipe.named("brain-mri")
    source = recipe.validation[0].model_copy(update={"file": path.name})
    images = tuning_images(path.parent, recipe.model_copy(update={"validation": [source]}))
    return images.numpy(), np.diag([0.9, 0.9, 1e9, 1.0])


def measured(path: Path) -> Measurement:
    """Read measured k-space ``([slices,] coils, rows, cols)`` from a ``.npy`` file."""
    data = numpy_files.read(path)
    if data.ndim not in (3, 4) or data.dtype.kind != "c":
        raise InputError(f"{path.name} holds {data.shape} {data.dtype}, expected complex k-space", field="data")
    return Measurement(data if data.ndim == 4 else data[None], MRICartesian())


def sampling(case: str, noise: float, model: str = "realistic") -> Simulation:
    """Settings of a case like ``equispacedx4`` or ``poissonx8``; the centre is 8 % up to x4 and 4 % beyond."""
    pattern, _, factor = case.partition("x")
    try:
        center = 0.08 if float(factor) <= 4 else 0.04
        value = {"model": model, "pattern": pattern, "acceleration": factor, "center_fraction": center}
        return Simulation.model_validate({**value, "noise_std": noise})
    except ValueError as error:
        raise InputError(
            f"{case!r} with noise {noise}, {model}, is no sampling",
            field="sampling",
            remedy="write equispacedx4 or poissonx8, realistic or ideal",
        ) from error


def compare(measurement: Measurement, name: str, methods: list[dict[str, Any]], seed: int = 0) -> Iterator[Row]:
    """Run each method, given as its settings with a name."""
    judge = None
    if measurement.truth is None:
        measurement, judge = withhold(measurement, seed=seed)
    model = inverse_problem.build(measurement)
    _ = model.problem.operator.norms  # outside the clock
    for given in methods:
        found = solved(given, model, "mri-cartesian")
        psnr = None
        if measurement.truth is not None:
            psnr = metrics.psnr(model.display(model.arranged(found.volume)), measurement.truth)
        misfit = None if judge is None else judge(model, found.volume).misfit
        yield Row(name, label(given), psnr, misfit, found.seconds)
