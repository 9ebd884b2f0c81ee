"""Withheld samples: judge reconstructions of a measurement without known truth by samples that no method is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from operators.fourier import CartesianMRI
from operators.tomography import Tomography, ramped
from recon.measurement.measurement import Measurement
from recon.problem.inverse_problem import InverseProblem
from recon.spec.acquisitions.ct import CT
from recon.spec.acquisitions.mri_cartesian import MRICartesian

SHARE = 0.1
"""Fraction of the measured points of k-space outside the calibration square that is withheld."""


class Judged(NamedTuple):
    """Judgement of a volume by withheld samples.

    Both are of the problem's own data: of coils that were whitened and combined those that are left, moved as the
    others.

    Parameters
    ----------
    misfit
        Relative misfit ``|A x - y| / |y|`` over them; noise is part of it.
    noise
        Misfit of the image without any error, by the noise that the problem knows of.
    error
        Misfit as it counts for the image: views by the root of the frequency (Fourier slice theorem), points alike.
    """

    misfit: float
    noise: float
    error: float


Judge = Callable[[InverseProblem, Tensor], Judged]


def withhold(
    measurement: Measurement, *, every: int = 10, seed: int = 0, chosen: NDArray[np.bool_] | None = None
) -> tuple[Measurement, Judge]:
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
    chosen
        Points of k-space ``(rows, cols)`` in their place.
    """
    if isinstance(measurement.acquisition, MRICartesian):
        return _points(measurement, seed, chosen)
    if isinstance(measurement.acquisition, CT):
        return _views(measurement, measurement.acquisition, every)
    raise InputError(f"{measurement.acquisition.kind} has no samples to withhold", field="acquisition.kind")


def _points(measurement: Measurement, seed: int, given: NDArray[np.bool_] | None) -> tuple[Measurement, Judge]:
    assert isinstance(measurement.acquisition, MRICartesian)
    if measurement.acquisition.in_one_piece():
        raise InputError("lines of 3D k-space are no samples to withhold", field="acquisition.readout")
    data = torch.from_numpy(measurement.data)
    sampled = (data != 0).any(dim=1).all(dim=0)
    rows, cols = sampled.shape
    candidates = sampled.clone()
    candidates[rows // 2 - 16 : rows // 2 + 16, cols // 2 - 16 : cols // 2 + 16] = False
    drawn = torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < SHARE
    chosen = candidates & drawn if given is None else torch.from_numpy(given)
    held = (data * chosen).numpy()

    def judge(inverse: InverseProblem, volume: Tensor) -> Judged:
        operator, expected = inverse.problem.operator, inverse.as_prepared(held)
        assert isinstance(operator, CartesianMRI)
        asked = operator.sampled((expected != 0).any(dim=1).any(dim=0))(volume)
        return _judged(asked, expected, math.sqrt(2) * inverse.problem.noise)

    mask = None if measurement.mask is None else measurement.mask & ~chosen.numpy()
    return replace(measurement, data=(data * ~chosen).numpy(), mask=mask), judge


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

    def judge(inverse: InverseProblem, volume: Tensor) -> Judged:
        problem = inverse.problem
        assert isinstance(problem.operator, Tomography)
        turned = replace(problem.operator.geometry, angles_rad=tuple(angles[held].tolist()))
        asked = Tomography(turned)(volume)[..., problem.measured]
        return _judged(asked, torch.from_numpy(withheld), problem.noise, ramped)

    return replace(measurement, data=data, acquisition=taken), judge


def _judged(
    asked: Tensor, held: Tensor, noise: Tensor, spectra: Callable[[Tensor], Tensor] = lambda samples: samples
) -> Judged:
    """Judge ``(slices, *samples)`` that a volume asks for, with the noise of each slice, of complex samples in all.

    `spectra` maps samples to those whose squares are the image's.
    """
    size = float(torch.linalg.vector_norm(held))
    samples = torch.count_nonzero(held.flatten(1), 1)
    known = float((samples * noise.square()).sum().sqrt())
    error, whole = (float(torch.linalg.vector_norm(spectra(of))) for of in (asked - held, held))
    return Judged(float(torch.linalg.vector_norm(asked - held)) / size, known / size, error / whole)
