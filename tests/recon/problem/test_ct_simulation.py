"""Simulated CT scans: exact where a closed form is known, and with the errors that real scanners make."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import SAME_OPERATOR, simulate
from recon.problem.ct_simulation import REALISTIC
from recon.spec.acquisitions.ct import CT, WATER_PER_MM, CTFan, CTParallel
from recon.spec.job import JobSpec, local_files
from recon.spec.simulation import Simulation
from tests.conftest import disc

SIDE, PIXEL_MM, RADIUS_MM = 64, 2.0, 40.0
AFFINE = np.diag([PIXEL_MM, PIXEL_MM, 3.0, 1.0])
Volume = NDArray[np.float32]


def water(x_mm: float = 0.0, hu: float = 0.0, radius_mm: float = RADIUS_MM) -> Volume:
    """A disc in air, one slice."""
    found: Volume = (-1000 + (1000 + hu) * disc(SIDE, PIXEL_MM, radius_mm, x_mm)).numpy()
    return found


def measured(volume: Volume, acquisition: CT | None = None, **settings: Any) -> NDArray[np.float64]:
    """Line integrals ``(slices, views, detectors)``."""
    return scan(volume, acquisition, **settings).data.astype(np.float64)


def scan(volume: Volume, acquisition: CT | None = None, **settings: Any) -> Measurement:
    return simulate(volume, AFFINE, acquisition or CTParallel(), Simulation(**{"views": 12, **settings}))


def chord(data: NDArray[Any], centre_mm: float = 0.0) -> NDArray[np.float64]:
    """Mean chord of a disc over each element of a parallel detector."""
    detectors = data.shape[-1]
    fine = 200
    at = (np.arange(detectors * fine) - (detectors * fine - 1) / 2) * PIXEL_MM / fine - centre_mm
    exact = 2 * np.sqrt(np.clip(RADIUS_MM**2 - at**2, 0, None))
    found: NDArray[np.float64] = exact.reshape(detectors, fine).mean(1)
    return found


@pytest.mark.parametrize("model", ["ideal", "realistic"])
def test_a_disc_has_the_chords_of_a_circle(model: str) -> None:
    data = measured(water(), model=model)[0] / WATER_PER_MM
    expected = chord(data)
    inner = expected > 20  # at its rim the mean of intensities is not that of lines
    assert np.abs(data - expected)[:, inner].max() < 0.015 * expected.max()
    assert data[:, inner].mean() == pytest.approx(expected[inner].mean(), rel=1e-3)  # no bias from the rays' number


def test_a_fan_sees_a_disc_from_everywhere_alike() -> None:
    fan = CTFan(source_origin_mm=300, origin_detector_mm=200)
    data = measured(water(), fan)[0]
    middle = data[:, data.shape[1] // 2 - 1 : data.shape[1] // 2 + 1] / WATER_PER_MM
    assert np.abs(middle - 2 * RADIUS_MM).max() < 0.012 * 2 * RADIUS_MM


def test_the_truth_is_the_volume_that_was_given() -> None:
    volume = water(8.0, 300.0)
    cases: list[dict[str, Any]] = [{}, {"photons_per_ray": 1e4, "scatter": 0.01, "tube_voltage_kv": 120, "rings": 3}]
    for settings in cases:
        found = scan(volume, **settings)
        assert found.truth is not None and np.abs(found.truth - volume).max() < 1e-3
        assert found.notes == [REALISTIC] and found.noise_std is None
    assert scan(volume, model="ideal").notes == [SAME_OPERATOR]


def test_intensities_are_averaged_and_not_their_logarithms() -> None:
    """Behind an edge more arrives than the mean line integral says, the more so the denser the object."""
    dense, thin = (measured(water(), CTParallel(mu_water_per_mm=mu), view_motion_rad=0)[0] / mu for mu in (0.1, 1e-4))
    expected = chord(dense)
    rim = (expected > 2) & (expected < 25)
    assert np.allclose(thin[:, rim].mean(0), expected[rim], rtol=0.15)  # pixels blur the rim
    assert (dense[:, rim] < 0.98 * thin[:, rim]).all()
    assert np.allclose(dense[:, expected > 70], thin[:, expected > 70], rtol=2e-3)


def test_views_move_during_their_exposure() -> None:
    """A disc beside the axis moves by its distance times the angle, which widens its projection; at three positions."""
    volume, faint, distance_mm = water(40.0, radius_mm=8.0), CTParallel(mu_water_per_mm=1e-5), 40.0
    still, moving = (measured(volume, faint, view_motion_rad=angle)[0].astype(float) for angle in (0.0, 0.2))
    at = (np.arange(still.shape[1]) - (still.shape[1] - 1) / 2) * PIXEL_MM

    def variance(data: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = data / data.sum(1, keepdims=True)
        found: NDArray[np.float64] = weights @ at**2 - (weights @ at) ** 2
        return found

    path_mm = distance_mm * 0.2 * np.abs(np.sin(np.pi * np.arange(12) / 12))
    assert np.allclose(variance(moving) - variance(still), path_mm**2 * 2 / 27, atol=0.15)
    default = measured(volume, faint)[0]
    assert 0 < np.abs(default - still).max() < 0.1 * np.abs(moving - still).max()


@pytest.mark.parametrize("model", ["ideal", "realistic"])
def test_photons_scatter_as_their_number_says(model: str) -> None:
    volume = np.repeat(water(), 40, axis=0)
    photons = 2000.0
    noisy = measured(volume, model=model, photons_per_ray=photons)
    clean = measured(volume[:1], model=model)[0]
    electronic = 9.0 if model == "realistic" else 0.0
    expected = np.exp(clean) / photons + electronic * (np.exp(clean) / photons) ** 2
    ratio = (noisy - clean).var(0) / expected
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    assert ratio[clean > 1].mean() == pytest.approx(1.0, abs=0.05)


def test_scatter_lowers_line_integrals_where_little_arrives() -> None:
    clean, scattered = (measured(water(), scatter=share)[0] for share in (0.0, 0.01))
    assert np.allclose(scattered, -np.log(np.exp(-clean) + 0.01), atol=1e-5)
    lost = clean - scattered
    assert lost[clean > 1.5].min() > 3 * lost[clean < 0.01].max() > 0


def test_wrong_gains_are_the_same_in_every_view() -> None:
    clean = measured(water())[0]
    cases: list[tuple[dict[str, Any], int | None]] = [({"gain_std": 0.01}, None), ({"rings": 4, "ring_gain": 0.03}, 4)]
    for settings, off in cases:
        error = measured(water(), **settings)[0] - clean
        assert np.abs(error - error[:1]).max() < 1e-5
        if off is None:
            assert error[0].std() == pytest.approx(0.01, rel=0.3)
        else:
            wrong = np.abs(error[0]) > 1e-4
            assert wrong.sum() == off and np.abs(error[0][wrong]).min() == pytest.approx(0.03, rel=0.05)


def test_a_spectrum_leaves_water_alone_and_hardens_behind_bone() -> None:
    soft, bone = water(), water(hu=1500.0)
    assert np.abs(measured(soft, tube_voltage_kv=120) - measured(soft)).max() < 2e-3
    mono, poly = (measured(bone, tube_voltage_kv=voltage)[0] for voltage in (None, 120))
    middle = mono.shape[1] // 2
    assert (poly[:, middle] < 0.95 * mono[:, middle]).all()
    ratio = poly.mean(0) / np.maximum(mono.mean(0), 0.05)
    thin = np.argmin(np.abs(mono.mean(0) - 0.5))
    assert ratio[thin] > ratio[middle] + 0.05  # cupping: thick bone shows less than thin


def test_a_slice_is_measured_alike_alone_and_in_any_stack(ct_file: Path) -> None:
    settings = {"photons_per_ray": 1e4, "gain_std": 0.01, "rings": 2, "views": 6}

    def data(slices: list[int], **more: Any) -> NDArray[Any]:
        given = {"path": str(ct_file), "slices": slices, "simulate": settings | more}
        spec = JobSpec.parse({"input": given, "acquisition": "ct-parallel"})
        return reader.read(spec, local_files(spec)).data

    for model in ({}, {"model": "ideal", "gain_std": 0, "rings": 0}):
        stack = data([0, 4], **model)
        assert np.array_equal(stack, data([0, 4], **model))
        assert np.array_equal(stack[2:3], data([2, 3], **model)) and np.array_equal(stack[1:], data([1, 4], **model))
        assert not np.array_equal(stack, data([0, 4], **model, seed=1))
        assert not np.array_equal(stack[0], stack[1])  # the same anatomy, other noise


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"model": "ideal", "scatter": 0.1}, "an ideal simulation has no scatter"),
        ({"model": "ideal", "tube_voltage_kv": 120}, "an ideal simulation has no tube_voltage_kv"),
        ({"electronic_noise": 4.0}, "give photons_per_ray too"),
        ({"tube_voltage_kv": 90}, "tube_voltage_kv"),
        ({"model": "perfect"}, "'realistic' or 'ideal'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        Simulation.model_validate(settings)


def test_electronic_noise_is_that_of_the_setting() -> None:
    assert Simulation(photons_per_ray=1e5).electronic_noise_photons == 3
    assert Simulation(photons_per_ray=1e5, electronic_noise=0).electronic_noise_photons == 0
    assert Simulation().electronic_noise_photons == 0
    assert Simulation(photons_per_ray=1e5, model="ideal").electronic_noise_photons == 0
    assert math.isclose(Simulation(photons_per_ray=1e5, electronic_noise=7).electronic_noise_photons, 7)
    assert torch.tensor(measured(water(), photons_per_ray=50, electronic_noise=20)).isfinite().all()
