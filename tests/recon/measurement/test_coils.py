"""Noise of coils is made white, and coils are combined: against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recon.measurement import coils as preparing
from recon.measurement.coils import Coils, Matrix, covariance_of, whitening
from recon.spec.preparation import CoilPreparation

Array = NDArray[Any]
COUNT, SIZE = 6, 48
Y, X = (np.abs(v - SIZE // 2) / (SIZE // 2) for v in np.mgrid[:SIZE, :SIZE])
RADIUS = np.maximum(Y, X)


def normal(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Noise of one per real channel."""
    generator = np.random.default_rng(seed)
    found: Array = (generator.normal(size=shape) + 1j * generator.normal(size=shape)).astype(np.complex64)
    return found


def correlated(strength: float = 0.9, loud: float = 1.0) -> Matrix:
    """Combination of coils that gives neighbours this correlation, and the third a multiple of the others' noise."""
    distance = np.abs(np.arange(COUNT)[:, None] - np.arange(COUNT))
    scale = np.where(np.arange(COUNT) == 2, loud, 1.0)
    found: Matrix = scale[:, None] * np.linalg.cholesky(strength**distance).astype(np.complex128)
    return found


def prepared(data: Array, noise_known: bool = False, **more: Any) -> Coils:
    settings = CoilPreparation(**more.pop("settings", {}))
    return preparing.prepared(Coils(data, **more), RADIUS, settings, noise_known=noise_known)


@pytest.mark.parametrize("loud", [1.0, 40.0])
def test_the_covariance_of_whitened_noise_is_the_identity(loud: float) -> None:
    samples, mix = 50_000, correlated(loud=loud)
    matrix, usual = whitening(covariance_of(mix @ normal((COUNT, samples))))
    assert usual == pytest.approx(1.0, rel=0.02)  # the usual coil keeps its level
    exact = matrix @ (mix @ mix.conj().T) @ matrix.conj().T
    # Entries of a sampled covariance have a standard deviation of 1 / sqrt(2 samples) and less.
    assert np.abs(exact / usual**2 - np.eye(COUNT)).max() < 6 / np.sqrt(2 * samples)
    again = covariance_of(matrix @ mix @ normal((COUNT, samples), 1))
    assert np.abs(again / usual**2 - np.eye(COUNT)).max() < 12 / np.sqrt(2 * samples)


def test_few_samples_tell_how_loud_each_coil_is_only() -> None:
    found = covariance_of(correlated(loud=40) @ normal((COUNT, 19 * COUNT)))
    assert np.array_equal(found, np.diag(np.diag(found))) and found[2, 2].real > 800
    assert covariance_of(correlated() @ normal((COUNT, 20 * COUNT)))[0, 1].real > 0.5


def test_data_and_maps_are_combined_alike() -> None:
    image, maps = normal((SIZE, SIZE)), normal((COUNT, SIZE, SIZE), 1)
    found = prepared((maps * image)[None], maps=maps, covariance=covariance_of(correlated() @ normal((COUNT, 4000))))
    assert found.maps is not None and found.noise_std == pytest.approx(1.0, rel=0.1)
    np.testing.assert_allclose(found.data[0], found.maps * image, atol=1e-4)
    (step,) = found.steps
    assert step.name == "whitening" and step.changed and step.text in found.notes
    assert step.numbers["largest_correlation"] == pytest.approx(0.9, abs=0.03)


def test_a_file_that_was_measured_in_part_stays_so() -> None:
    data = normal((2, COUNT, SIZE, SIZE))
    data[:, :, ::3] = 0
    found = prepared(data, covariance=covariance_of(correlated() @ normal((COUNT, 4000))))
    assert np.array_equal((found.data == 0).all(1), (data == 0).all(1))


def test_outermost_samples_that_are_noise_tell_its_covariance() -> None:
    mix = correlated(0.7, loud=40)
    data = np.einsum("ij,sjrc->sirc", mix, normal((1, COUNT, SIZE, SIZE)))
    data[..., SIZE // 2 - 8 : SIZE // 2 + 8, SIZE // 2 - 8 : SIZE // 2 + 8] *= 100  # the object
    found = prepared(data.astype(np.complex64))
    assert found.steps[0].changed and "outermost samples" in found.notes[0]
    inner = covariance_of(found.data[0, :, 4:12])
    assert np.linalg.cond(inner) < 2.5 and np.linalg.cond(mix @ mix.conj().T) > 1e3


def test_white_noise_is_left_bit_by_bit() -> None:
    data = normal((1, COUNT, SIZE, SIZE))
    found = prepared(data)
    assert found.data is data and found.notes == [] and not found.steps[0].changed
    assert found.noise_std == pytest.approx(1.0, rel=0.03)


SIGNALS = {
    "falls off": np.exp(-3 * RADIUS),
    "is as strong outside as next to it": np.ones((SIZE, SIZE)),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_signal_is_not_taken_for_noise(name: str) -> None:
    """An object in the middle quarter of the field of view: neighbours in k-space are alike."""
    inside = np.zeros((SIZE, SIZE))
    inside[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = 1
    image = np.fft.fft2(inside * normal((COUNT, SIZE, SIZE)), norm="ortho")
    data = np.einsum("ij,jrc->irc", correlated(), np.fft.fftshift(image, axes=(-2, -1))) * SIGNALS[name]
    found = prepared(data[None].astype(np.complex64))
    assert not found.steps[0].changed and "do not tell" in found.steps[0].text
    assert np.array_equal(found.data[0], data.astype(np.complex64))


def test_what_is_not_wanted_or_known_already_is_not_done() -> None:
    data = np.einsum("ij,sjrc->sirc", correlated(), normal((1, COUNT, SIZE, SIZE))).astype(np.complex64)
    for found in (prepared(data, settings={"whitening": False}), prepared(data, noise_known=True)):
        assert found.data is data and not any(step.changed for step in found.steps)


def test_noise_is_told_in_words() -> None:
    text = preparing.described(np.diag([1.0, 4.0, 1.0, 0.25]).astype(np.complex128))
    assert text == (
        "noise of 4 coils: 1 per real channel of the usual one, others 0.5 to 2 times that, correlated by up to 0.00;"
        " condition of the covariance 16"
    )
    assert preparing.described(np.eye(1, dtype=np.complex128)) == "noise of 1 coil: 1 per real channel"
    assert preparing.described(np.zeros((2, 2), np.complex128)) == "noise of 2 coils: 0 per real channel"


def test_coils_without_any_noise_are_not_whitened() -> None:
    data = normal((1, COUNT, SIZE, SIZE))
    found = prepared(data, covariance=np.zeros((COUNT, COUNT), np.complex128))
    assert found.data is data and found.steps[0].warning and found.steps[0].text in found.notes


def test_noise_is_no_energy_to_keep() -> None:
    """Thirty coils that see five images, with noise of a tenth of their energy."""
    basis = np.linalg.qr(normal((30, 30)))[0][:, :5]
    images = np.einsum("cv,svrx->scrx", basis, normal((1, 5, SIZE, SIZE), 1)) * 3
    data = (images + 0.3 * normal(images.shape, 2)).astype(np.complex64)
    known = prepared(data, noise_known=True, noise_std=0.3)
    unknown = prepared(data, noise_known=True)
    assert known.count == preparing.COMPRESSED == 12 and unknown.count > 20
    assert prepared(data, noise_known=True, settings={"kept_energy": 1}).count == 30
    assert known.steps[-1].numbers["combined"] == 12
    noise = covariance_of(known.data[0, 5:].reshape(7, -1))
    # White in any orthonormal combination; one that is chosen by its energy is as loud as chance makes the loudest.
    loudest = (1 + np.sqrt(30 / SIZE**2)) ** 2 - 1
    assert np.abs(noise / 0.09 - np.eye(7)).max() < 1.1 * loudest
