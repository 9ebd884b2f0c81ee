"""K-space as files have it: what is mended gives the image that it should, what cannot be is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import recon
from operators.errors import InputError, ReconError
from recon.measurement import kspace as preparing

Array = NDArray[Any]
SIZE, COILS = 64, 6


def transformed(x: Array) -> Array:
    shifted = np.fft.ifftshift(x, axes=(-2, -1))
    found: Array = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))
    return found


def axes(rows: int, cols: int) -> tuple[Array, Array]:
    y, x = np.mgrid[0:rows, 0:cols]
    return (y - (rows - 1) / 2) / rows, (x - (cols - 1) / 2) / cols


def head(rows: int = SIZE, cols: int = SIZE) -> Array:
    """An ellipse with a bright spot to the right and up, and a weaker one to the left and down."""
    y, x = axes(rows, cols)
    image = ((x / 0.4) ** 2 + (y / 0.42) ** 2 < 1) * 1.0
    image += ((x - 0.15) ** 2 + (y + 0.2) ** 2 < 0.06**2) * 1.0
    image += ((x + 0.2) ** 2 + (y - 0.1) ** 2 < 0.04**2) * 0.5
    found: Array = image * np.exp(0.3j)
    return found


def coils(count: int = COILS, rows: int = SIZE, cols: int = SIZE) -> Array:
    y, x = axes(rows, cols)
    maps = []
    for turn in 2 * np.pi * np.arange(count) / count:
        near = (x - 0.5 * np.cos(turn)) ** 2 + (y - 0.5 * np.sin(turn)) ** 2
        maps.append(np.exp(-near / 0.35 + 1j * (turn + 1.5 * x * np.cos(turn) + 1.5 * y * np.sin(turn))))
    found = np.array(maps)
    found /= np.sqrt((np.abs(found) ** 2).sum(0))
    return found


def measured(maps: Array | None = None, noise: float = 0.005) -> Array:
    clean = transformed((coils() if maps is None else maps) * head())
    generator = np.random.default_rng(0)
    noisy = clean + noise * (generator.normal(size=clean.shape) + 1j * generator.normal(size=clean.shape))
    return noisy.astype(np.complex64)


LINES = np.zeros(SIZE, bool)
LINES[::3] = LINES[SIZE // 2 - 8 : SIZE // 2 + 8] = True
MASK = np.broadcast_to(LINES[:, None], (SIZE, SIZE)).copy()


def result(data: Array, method: Any = "cg-sense", **more: Any) -> Any:
    return recon.reconstruct(data.astype(np.complex64), "mri-cartesian", method=method, progress=False, **more)


def error(found: Any, expected: Array | None = None) -> float:
    truth = np.abs(head() if expected is None else expected)
    return float(np.linalg.norm(np.abs(found.volume[0]) - truth) / np.linalg.norm(truth))


def without_image_shift(_: Array) -> Array:
    wrapped = np.fft.fftshift(np.fft.fft2(coils() * head(), norm="ortho"), axes=(-2, -1))
    found: Array = wrapped * MASK
    return found


def off_centre(data: Array) -> Array:
    return np.pad(data[:, :-6, :-4], ((0, 0), (6, 0), (4, 0)))


MENDED: dict[str, tuple[Callable[[Array], Array], str]] = {
    "k = 0 in the corner": (lambda k: np.fft.ifftshift(k, axes=(-2, -1)), "k = 0 was in the corner"),
    "an array that was not shifted": (without_image_shift, "moved by half the field of view"),
    "the centre elsewhere": (off_centre, "peak at row 38, column 36"),
    "a dead coil": (lambda k: np.concatenate([k, 0 * k[:1]]), "coil 6 is zero everywhere"),
    "residues of a transform there and back": (
        lambda k: k + 1e-8 * np.random.default_rng(1).normal(size=k.shape) * ~MASK, "residues of rounding",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_mended_is_and_is_said(name: str) -> None:
    change, says = MENDED[name]
    found = result(change(measured() * MASK))
    assert error(found) < 0.05 and any(says in note for note in found.report.notes), found.report.notes


def test_right_data_are_left_as_they_are() -> None:
    data = (measured() * MASK)[None]
    looked_at = preparing.prepared(data, MASK, coils().astype(np.complex64), placed=False, noise_known=False)
    assert np.array_equal(looked_at.data, data) and looked_at.notes == []


def test_a_loud_coil_costs_nothing() -> None:
    """A coil that hears hardly more than noise, forty times that of the others."""
    generator = np.random.default_rng(2)
    noise = 0.2 * (generator.normal(size=(1, SIZE, SIZE)) + 1j * generator.normal(size=(1, SIZE, SIZE)))
    plain, loud = result(measured() * MASK), result(np.concatenate([measured(), noise]) * MASK)
    assert any("weighted by their noise: 6 (" in note for note in loud.report.notes), loud.report.notes
    assert 20 * np.log10(error(loud) / error(plain)) < 0.2


@pytest.mark.parametrize("method", ["cg-sense", "tv"])
def test_many_coils_are_combined_to_few(method: str) -> None:
    settings = {"name": method, "iterations": 20}
    data = measured(coils(32)) * MASK
    found = result(data, settings)
    assert any("32 coils combined to 12" in note for note in found.report.notes), found.report.notes
    few = preparing.prepared(data[None], None, None, placed=False, noise_known=False)
    assert few.data.shape[1] == 12 and np.array_equal((few.data[0, 0] != 0), MASK)
    assert error(found) < 0.05
    given = result(data, settings, coil_maps=coils(32).astype(np.complex64))
    assert error(given) < 0.05


def test_one_coil_needs_no_calibration() -> None:
    mask = np.random.default_rng(3).random((SIZE, SIZE)) < 0.97
    found = result(transformed(head())[None] * mask)
    assert found.volume.shape == (1, SIZE, SIZE) and error(found) < 0.3


REFUSED_MASKS: dict[str, tuple[Array, str]] = {
    "transposed": (MASK.T, "1024 of the 2048 points .*its transpose would fit"),
    "k = 0 in the corner": (np.fft.ifftshift(MASK), "from the corner to the middle would fit"),
    "lines alone": (LINES, "give it as"),
}


@pytest.mark.parametrize("name", REFUSED_MASKS)
def test_a_mask_over_points_that_were_not_measured_is_refused(name: str) -> None:
    mask, says = REFUSED_MASKS[name]
    with pytest.raises(ReconError, match=rf"acquisition\.mask.*{says}"):
        result(measured() * MASK, mask=mask)


def test_a_mask_over_zeros_that_may_be_measured_is_said() -> None:
    """Noiseless data of a simple object have true zeros: no mask alone tells them from what was not measured."""
    found = result(measured() * MASK, mask=np.ones_like(MASK))
    assert any("2048 of the 4096 points that the mask calls sampled are zero" in note for note in found.report.notes)


def test_a_mask_that_leaves_out_measured_points_is_a_users_right() -> None:
    assert error(result(measured(), mask=MASK.T)) < 0.05


CHANGED_MAPS: dict[str, tuple[Callable[[Array], Array], str]] = {
    "conjugated": (np.conj, "conjugated"),
    "upside down": (lambda m: m[:, ::-1], "upside down"),
    "mirrored": (lambda m: m[:, :, ::-1], "mirrored"),
    "with the centre in the corner": (
        lambda m: np.fft.ifftshift(m, axes=(-2, -1)), "shifted by half the field of view",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED_MAPS)
@pytest.mark.parametrize("method", ["cg-sense", "red-diff"])
def test_coil_maps_of_another_convention_are_refused_with_the_right_one(name: str, method: str) -> None:
    change, says = CHANGED_MAPS[name]
    lopsided = coils() * np.linspace(1, 0.5, COILS)[:, None, None]  # or some mirrored sets would be the same
    data = transformed(lopsided * head()).astype(np.complex64) * MASK
    with pytest.raises(InputError, match=rf"acquisition\.coil_maps.*give them {says}"):
        result(data, method, coil_maps=change(lopsided).astype(np.complex64))
    assert error(result(data, coil_maps=lopsided.astype(np.complex64))) < 0.1


def test_coils_on_the_last_axis_are_refused() -> None:
    with pytest.raises(InputError, match=r"that of 6 like coils .*moveaxis"):
        result(np.moveaxis(measured() * MASK, 0, -1)[None])


def test_magnitudes_are_no_k_space() -> None:
    with pytest.raises(InputError, match=r"must be complex .*without the phase"):
        recon.reconstruct(np.abs(measured()), "mri-cartesian", method="cg-sense", progress=False)
