"""Withheld samples: judge reconstructions of a measurement without known truth by samples that no method is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.tomography import Tomography
from recon.measurement.measurement import Measurement
from recon.problem.problem import Problem
from recon.spec.acquisitions.ct import CT
from recon.spec.acquisitions.mri_cartesian import MRICartesian

SHARE = 0.1
"""Fraction of the measured points of k-space outside the calibration square that is withheld."""

Judge = Callable[[Problem, Tensor], float]
"""Relative misfit ``|A x - y| / |y|`` of a solver's volume over the withheld samples; noise is part of it."""


def withhold(measurement: Measurement, *, every: int = 10, seed: int = 0) -> tuple[Measurement, Judge]:
    """Withhold some samples of a measurement; also returns the function that judges volumes by them.

    Parameters
    ----------
    measurement
        CT: of its views, one in `every` is withheld; if `every` is negative, all but one in ``-every``. MRI: a random
        tenth of the points outside the calibration square.
    every
        See above.
    seed
        Chooses the points of k-space.
    """
    if isinstance(measurement.acquisition, MRICartesian):
        return _points(measurement, seed)
    if isinstance(measurement.acquisition, CT):
        return _views(measurement, measurement.acquisition, every)
    raise InputError("a stack of images has no samples to withhold", field="acquisition.kind")


def _points(measurement: Measurement, seed: int) -> tuple[Measurement, Judge]:
    data = torch.from_numpy(measurement.data)
    sampled = (data != 0).any(dim=1).all(dim=0)
    rows, cols = sampled.shape
    candidates = sampled.clone()
    candidates[rows // 2 - 16 : rows // 2 + 16, cols // 2 - 16 : cols // 2 + 16] = False
    chosen = candidates & (torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < SHARE)
    held = data * chosen

    def judge(problem: Problem, volume: Tensor) -> float:
        assert isinstance(problem.operator, CartesianMRI)
        return _misfit(problem.operator.sampled(chosen)(volume), held)

    return replace(measurement, data=(data * ~chosen).numpy()), judge


def _views(measurement: Measurement, acquisition: CT, every: int) -> tuple[Measurement, Judge]:
    angles = np.array(acquisition.angles())
    index = np.arange(len(angles))
    # The first and the last view stay, so that nothing is extrapolated.
    held = (index % every == every // 2) if every > 0 else (index % -every != 0)
    if not held.any() or held.all():
        raise InputError(f"{len(angles)} views cannot be split with every {every}", field="every")

    def part(chosen: np.ndarray) -> tuple[np.ndarray, CT]:
        taken = acquisition.model_copy(update={"angles_rad": angles[chosen].tolist()})
        return np.ascontiguousarray(measurement.data[:, chosen]), taken

    data, taken = part(~held)
    withheld, _ = part(held)

    def judge(problem: Problem, volume: Tensor) -> float:
        assert isinstance(problem.operator, Tomography)
        turned = replace(problem.operator.geometry, angles_rad=tuple(angles[held].tolist()))
        return _misfit(Tomography(turned)(volume)[..., problem.measured], torch.from_numpy(withheld))

    return replace(measurement, data=data, acquisition=taken), judge


def _misfit(expected: Tensor, held: Tensor) -> float:
    return float(torch.linalg.vector_norm(expected - held) / torch.linalg.vector_norm(held))
