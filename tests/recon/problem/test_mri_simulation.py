"""Realistic simulation of MRI: samples in closed form, what is true, coils and their noise, and what a scanner adds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import recon
from operators.errors import InputError
from operators.fourier import inverse_fourier
from recon.measurement import off_resonance
from recon.measurement.measurement import Measurement
from recon.problem import mri_simulation
from recon.problem.mri_noncartesian import radial
from recon.quality import metrics
from recon.spec.acquisitions.mri_noncartesian import radial_size

FINER = mri_simulation.FINER
AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


def head(rows: int = 64, cols: int = 64, slices: int = 1) -> np.ndarray:
    """An ellipse with a bright rim and a dark hole, off the middle so that nothing is symmetric."""
    y, x = np.meshgrid(np.arange(rows) - rows / 2 + 2, np.arange(cols) - cols / 2 - 1, indexing="ij")
    radius = np.hypot(y / (0.4 * rows), x / (0.33 * cols))
    image = 0.4 * (radius < 1) + 0.6 * ((radius < 1) & (radius > 0.9)) - 0.4 * (np.hypot(y + 6, x - 4) < 4)
    return np.repeat(image[None].astype(np.float32), slices, 0)


def samples(found: Measurement) -> np.ndarray:
    return np.asarray(found.data, dtype=np.complex64)


def simulated(volume: np.ndarray, kind: str = "mri-cartesian", **settings: Any) -> Measurement:
    return recon.simulate(volume, kind, affine=AFFINE, **settings)


def box(k: float, first: float, last: float) -> complex:
    """Fourier integral of 1 from `first` to `last`, at a frequency `k`."""
    middle, width = (first + last) / 2, last - first
    return complex(width * np.sinc(k * width) * np.exp(-2j * math.pi * k * middle))


@pytest.mark.parametrize(("object_rows", "rows"), [(16, 16), (15, 15), (16, 10), (15, 22)])
def test_samples_are_the_exact_integrals_of_a_box(object_rows: int, rows: int) -> None:
    """Pixels ``first`` to ``last - 1`` of the volume, whole ones, so that the box ends half a pixel before `first`."""
    cols, (first, last) = 12, (3, 9)
    image = torch.zeros(object_rows * FINER, cols * FINER, dtype=torch.complex64)
    image[first * FINER : last * FINER, first * FINER : last * FINER] = 1
    kspace = mri_simulation.cartesian((object_rows, cols), (rows, cols)).transform(image)
    for m, n in ((0, 0), (rows // 2, cols // 2), (rows - 1, 2), (rows // 2 + 2, cols // 2 - 3)):
        along_rows = box((m - rows // 2) / rows, first - 0.5 - object_rows // 2, last - 0.5 - object_rows // 2)
        along_cols = box((n - cols // 2) / cols, first - 0.5 - cols // 2, last - 0.5 - cols // 2)
        expected = along_rows * along_cols / math.sqrt(rows * cols)
        assert abs(complex(kspace[m, n]) - expected) < 1e-5


def test_spokes_and_lines_sample_the_same_object() -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (18, 15)
    image = torch.randn(shape[0] * FINER, shape[1] * FINER, dtype=torch.complex64, generator=generator)
    for result in (shape, (12, 15)):
        k = [torch.arange(n, dtype=torch.float64) - n // 2 for n in result]
        trajectory = torch.cartesian_prod(*k)
        by_points = mri_simulation.along_spokes(shape, result, trajectory, result[1]).transform(image)
        by_lines = mri_simulation.cartesian(shape, result).transform(image).flatten()
        assert float((by_points - by_lines).abs().max()) < 1e-4 * float(by_lines.abs().max())


def test_the_truth_is_a_fully_sampled_scan_without_noise() -> None:
    found = simulated(head(slices=2), coils=6, acceleration=1.0)
    images = inverse_fourier(torch.from_numpy(found.data))
    assert found.truth is not None and found.truth.shape == (2, 64, 64)
    assert np.allclose(images.abs().square().sum(1).sqrt().numpy(), found.truth, atol=1e-5)
    noisy = simulated(head(slices=2), coils=6, acceleration=4.0, noise_std=0.05, motion_pixels=0.3)
    assert noisy.truth is not None and np.allclose(noisy.truth, found.truth, atol=1e-6)
    assert noisy.noise_std is None and noisy.coil_maps is None and "noise" in noisy.notes[0]


def test_it_rings_where_the_object_ends() -> None:
    """One coil sees everything alike: outside the head there is nothing but what the scan cuts off."""
    found = simulated(head(), coils=1, acceleration=1.0)
    assert found.truth is not None
    outside = head()[0] == 0
    outside[:, 4:-4] &= ~(np.lib.stride_tricks.sliding_window_view(head()[0], 9, 1).max(-1) > 0)
    side = found.truth[0][:, :12]
    assert 0.002 < side[head()[0][:, :12] == 0].max() < 0.1


@pytest.mark.parametrize("kind", ["mri-cartesian", "mri-noncartesian"])
def test_estimated_maps_give_the_truth_back(kind: str) -> None:
    found = simulated(head(), kind, acceleration=1.0, noise_std=0.002)
    result = recon.reconstruct(found, method={"name": "cg-sense", "iterations": 10}, progress=False)
    assert found.truth is not None and any("ESPIRiT" in note for note in result.report.notes)
    assert metrics.psnr(np.abs(result.volume), found.truth) > 30
    assert metrics.psnr(np.abs(result.volume), found.truth) > metrics.psnr(np.abs(result.volume), head()) + 5


def test_a_small_field_of_view_wraps_and_a_large_one_stays_in_place() -> None:
    whole, small, large = (simulated(head(), acceleration=1.0, phase_fov=f) for f in (1.0, 0.5, 1.5))
    for found, rows in ((whole, 64), (small, 32), (large, 96)):
        assert found.truth is not None and found.truth.shape == (*found.data.shape[::2], 64) == (1, rows, 64)
        assert found.affine is not None
    assert whole.truth is not None and small.truth is not None and large.truth is not None
    outer = np.r_[0:4, 28:32]
    assert small.truth[0][outer].max() > 0.3  # where the head continues beyond the edge
    peak = np.unravel_index(whole.truth[0].argmax(), (64, 64))
    again = np.unravel_index(large.truth[0].argmax(), (96, 64))
    assert whole.affine is not None and large.affine is not None
    place, same = (a @ [p[1], p[0], 0, 1] for a, p in ((whole.affine, peak), (large.affine, again)))
    assert np.abs(place - same).max() <= 3.0
    assert abs(large.truth[0, :8]).max() < 0.2 * large.truth.max()


def test_motion_blurs_and_noise_is_that_of_the_slice() -> None:
    still, moved = (simulated(head(), acceleration=1.0, motion_pixels=p) for p in (0.0, 0.1))
    change = np.linalg.norm(samples(moved) - samples(still)) / np.linalg.norm(samples(still))
    assert 1e-3 < change < 0.3
    both, clean = (simulated(head(slices=2), acceleration=1.0, noise_std=s) for s in (0.01, 0.0))
    noise = samples(both) - samples(clean)
    assert not np.allclose(noise[0], noise[1])
    again, alone = (simulated(head(slices=2), slices=(1, 2), acceleration=1.0, noise_std=s) for s in (0.01, 0.0))
    assert np.allclose(samples(again) - samples(alone), noise[1:], atol=1e-4)
    assert np.square(noise.real).mean() ** 0.5 == pytest.approx(0.01, rel=0.1)


def test_fat_is_shifted_along_the_readout() -> None:
    none, shifted = (simulated(head(), coils=1, acceleration=1.0, fat_shift_pixels=p) for p in (0.0, 3.0))
    assert none.truth is not None and shifted.truth is not None
    row, shift = 34, np.argmax(shifted.truth[0, 34, 32:]) - np.argmax(none.truth[0, 34, 32:])
    assert abs(shift) == 3, (row, shift)
    assert np.abs(shifted.truth[0, 20:40, 25:40] - none.truth[0, 20:40, 25:40]).max() < 0.1


def test_the_field_jumps_where_tissue_ends_and_reaches_beyond() -> None:
    assert float(off_resonance.field_hz(torch.ones(32, 32), 1.0, 1.0).abs().max()) < 1e-2  # shims take it away
    tissue = torch.ones(128, 128)
    tissue[60:68, 60:68] = 0
    field = off_resonance.field_hz(tissue, 1.0, 1.0)
    whole = off_resonance.SUSCEPTIBILITY_PPM * off_resonance.MAIN_FIELD_MHZ
    jump = float(field[59, 64] - field[60, 64])
    assert 0.15 * abs(whole) < abs(jump) < 0.45 * abs(whole)  # a third of it, blurred by the pixel
    near, far = float(field[57, 64].abs()), float(field[50, 64].abs())
    assert near > 3 * far > 0.05 * abs(jump)


def test_an_ideal_scan_has_nothing_of_it() -> None:
    with pytest.raises(InputError, match=r"input\.simulate: an ideal simulation has no phase_fov"):
        simulated(head(), model="ideal", phase_fov=0.8)
    found = simulated(head(), model="ideal", acceleration=1.0)
    assert found.noise_std == 0.0 and found.truth is not None and np.array_equal(found.truth, head())


def test_sizes_of_spokes_are_those_of_the_field_of_view() -> None:
    found = simulated(head(), "mri-noncartesian", acceleration=2.0, phase_fov=1.25)
    assert found.truth is not None and found.truth.shape == (1, 80, 64)
    assert found.data.shape[2] == math.prod(radial_size(80, 2.0)) == len(radial(80, 64, 2.0))
