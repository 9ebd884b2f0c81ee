"""Doubts in reports: slices that no image fits, by every method that fits data, and none where all is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.fourier import CartesianMRI
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.pipeline import doubt
from recon.problem import inverse_problem
from recon.problem.mri_cartesian import birdcage_maps
from recon.problem.problem import IntensityMap, run
from recon.solvers import registry
from recon.spec.acquisitions.ct import AngleRange, CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.methods import (
    CGLS,
    DDS,
    FBP,
    SIRT,
    TV,
    CGSense,
    DiffPIR,
    Diffusion,
    DiffusionMBIR,
    Method,
    REDDiff,
    ZeroFilled,
)
from recon.spec.report import Familiarity
from recon.spec.simulation import Simulation
from tests.conftest import GaussianPrior, disc

LEVELS: dict[str, Any] = {"steps": 12, "sigma_first": 0.5}
METHODS: list[Method] = [
    CGLS(),
    SIRT(),
    TV(iterations=30),
    DiffPIR(**LEVELS),
    REDDiff(**LEVELS),
    DDS(**LEVELS),
    DiffusionMBIR(**LEVELS),
]
SIDE = 40


def scan(slices: int = 1, photons: float | None = 1e5, views: int = 60) -> Measurement:
    """Photons counted behind a body with a bone beside its middle, 5 mm pixels."""
    body = -1000 + 1000 * disc(SIDE, 5.0, 70.0) + 800 * disc(SIDE, 5.0, 15.0, x_mm=35.0, y_mm=20.0)
    simulated = Simulation(views=views, photons_per_ray=photons, model="ideal")
    volume = body.numpy().repeat(slices, axis=0)
    return simulate(volume, np.diag([5.0, 5.0, 5.0, 1.0]), CTParallel(), simulated)


def notes(measurement: Measurement, method: Method) -> list[str]:
    """Doubts about a method's result, its prior being white noise about soft tissue."""
    inverse = inverse_problem.build(measurement)
    more: dict[str, Any] = {}
    if isinstance(method, Diffusion):
        is_complex = inverse.problem.operator.domain.complex
        prior = GaussianPrior(-0.5, 0.3, is_complex=is_complex)
        more = {"prior": prior, "intensity": IntensityMap(inverse.problem.scales, 0.0) if is_complex else BODY}
    volume = run(registry.start(inverse.problem, method, **more))
    fit = doubt.Fit.of(inverse, inverse.problem.whitened, volume)
    return doubt.misfitting(method, fit, measurement.acquisition.SUSPECTS)


BODY = IntensityMap(0.025, 0.025)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_wrong_geometry_is_said_by_every_method_that_fits_data(method: Method) -> None:
    right = scan()
    assert not notes(right, method)
    for change in ({"detector_shift_mm": 10.0}, {"angles_rad": AngleRange(stop_rad=6.2, count=60)}):
        wrong = replace(right, acquisition=right.acquisition.model_copy(update=change))
        (note,) = notes(wrong, method)
        assert "misses the data by" in note and "noise alone would leave" in note and "rotation centre" in note


@pytest.mark.parametrize("method", [CGLS(), TV(iterations=30), REDDiff(**LEVELS)], ids=lambda m: m.name)
def test_a_sinogram_with_views_and_columns_exchanged_is_said(method: Method) -> None:
    columns = scan().data.shape[2]
    right = scan(views=columns)
    assert not notes(right, method)
    (note,) = notes(replace(right, data=right.data.transpose(0, 2, 1).copy()), method)
    assert "misses the data by" in note and "axes of the array in another order" in note


def test_back_projection_fits_nothing_and_its_misfit_says_nothing() -> None:
    right = scan()
    off = replace(right, acquisition=right.acquisition.model_copy(update={"detector_shift_mm": 10.0}))
    assert not notes(off, FBP()) and not FBP.FITS_DATA and not ZeroFilled.FITS_DATA


@pytest.mark.parametrize("method", [CGLS(), TV(iterations=30, dimensions=2)], ids=lambda m: m.name)
def test_one_wrong_slice_among_others_is_named(method: Method) -> None:
    """Its share of the whole misfit is small; it is judged by its own noise."""
    right = scan(slices=12)
    data = right.data.copy()
    data[7] = np.roll(data[7], 3, axis=1)
    (note,) = notes(replace(right, data=data), method)
    assert "in 1 of 12 slices, most in slice 7" in note


def test_noise_is_no_fault() -> None:
    """Few photons: the misfit is large, and no larger than the noise."""
    assert not notes(scan(photons=300.0), CGLS()) and not notes(scan(photons=300.0), TV(iterations=30))


def head() -> Tensor:
    """Complex image of a head-like disc off the centre."""
    return (disc(48, 1.0, 16.0, x_mm=3.0) + 0.5 * disc(48, 1.0, 4.0, y_mm=8.0)).to(torch.complex64)


@pytest.mark.parametrize("method", [CGSense(), TV(iterations=30), REDDiff(**LEVELS)], ids=lambda m: m.name)
@pytest.mark.parametrize("wrong", ["right", "conjugated maps", "maps with their middle in the corner"])
def test_maps_of_another_convention_are_said(method: Method, wrong: str) -> None:
    maps = birdcage_maps(6, 48, 48)
    mask = torch.zeros(48, 48, dtype=torch.bool)
    mask[::2], mask[16:32] = True, True
    kspace = CartesianMRI(mask, maps)(head())
    noise = torch.randn(kspace.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    kspace = kspace + 0.01 * mask * noise
    given = maps
    if wrong == "conjugated maps":
        given = maps.conj().resolve_conj()
    elif wrong == "maps with their middle in the corner":
        given = torch.fft.ifftshift(maps, dim=(-2, -1))
    found = notes(Measurement(kspace.numpy(), MRICartesian(), coil_maps=given.numpy()), method)
    assert len(found) == int(wrong != "right") and all("coil maps" in note for note in found)


def test_a_few_slices_that_a_prior_does_not_know_are_said() -> None:
    """One head among chests; one in a hundred is as unusual by chance."""
    summary = Familiarity(median=50.0, lowest=0.0, judge="ct")
    (note,) = doubt.unfamiliar(summary, {0: 40.0, 3: 0.2, 6: 55.0, 9: 80.0})
    assert "prior ct does not know 1 of 4 slices" in note and "0.2 of 100 in slice 3" in note
    assert not doubt.unfamiliar(summary, {index: 0.0 if index == 5 else 50.0 for index in range(16)})
    assert not doubt.unfamiliar(None, {})
    (warned,) = doubt.unfamiliar(summary, {0: 40.0, 3: 0.2, 6: 55.0, 9: 80.0}, intervals=True)
    assert warned.startswith(note) and "intervals" in warned and "intervals" not in note
