"""Coil maps of whitened coils with the shading of the measured ones, and combination by maps of any norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.coils import shaded_as_measured
from operators.fourier import CartesianMRI, MapSetsMRI
from operators.linear import dot_product_error
from operators.phase import PhaseConstrained

SIZE, COILS = 48, 6
ALL = torch.ones(SIZE, SIZE, dtype=torch.bool)


def places() -> tuple[Tensor, Tensor]:
    at = torch.linspace(-1, 1, SIZE)
    return at[:, None].expand(SIZE, SIZE), at[None].expand(SIZE, SIZE)


def sensitivities(turn: float = 0.0) -> Tensor:
    """Coils around the image, ``(coils, rows, cols)``, whose norm varies, real where the first coil is."""
    y, x = places()
    found = []
    for angle in torch.arange(COILS) * 2 * torch.pi / COILS + turn:
        near = (x - angle.cos()).square() + (y - angle.sin()).square()
        found.append(torch.polar((-near / 1.5).exp(), 0.8 * (x * angle.cos() + y * angle.sin())))
    maps = torch.stack(found)
    return maps * torch.exp(-1j * maps[0].angle())


def image(turn: float = 0.0) -> Tensor:
    y, x = places()
    smooth = torch.exp(-4 * ((x - 0.2).square() + (y + 0.1).square()))
    return torch.polar(smooth * (x.square() + y.square() < 0.8), turn + 0.5 * x)


def whitening(name: str) -> Tensor:
    distance = np.abs(np.arange(COILS)[:, None] - np.arange(COILS))
    mix = np.linalg.cholesky(0.9**distance) if name == "correlated" else np.eye(COILS)
    if name == "one loud coil":
        mix[2, 2] = 40
    return torch.from_numpy(np.linalg.inv(mix)).to(torch.complex64)


def shaded(maps: Tensor, mixing: Tensor) -> Tensor:
    return shaded_as_measured(maps[None], np.linalg.inv(mixing.numpy()).astype(np.complex128))[0]


@pytest.mark.parametrize(("noise", "told"), [("white", 6), ("correlated", 6), ("one loud coil", 5)])
def test_the_image_has_the_shading_of_the_measured_coils(noise: str, told: int) -> None:
    """Exact maps ``W S / |W S|`` of whitened coils become ``W S / |S|``; a coil 40 times as noisy does not count."""
    seen, matrix = sensitivities(), whitening(noise)
    white = torch.einsum("ij,jrc->irc", matrix, seen)
    found = shaded(white / torch.linalg.vector_norm(white, dim=0), matrix)
    counted = seen if told == COILS else seen[[i for i in range(COILS) if i != 2]]
    expected = white / torch.linalg.vector_norm(counted, dim=0)
    inside = image().abs() > 0.02
    assert float((found - expected).abs().amax(0)[inside].max()) < 5e-3 * float(expected.abs().max())


def test_maps_of_two_sets_are_orthonormal_over_the_measured_coils() -> None:
    matrix, both = whitening("correlated"), torch.stack([sensitivities(), sensitivities(0.5).roll(11, 2)])
    white = torch.einsum("ij,kjrc->kirc", matrix, both)
    unit, _ = torch.linalg.qr(white.permute(2, 3, 1, 0))  # orthonormal over the whitened coils, as ESPIRiT's are
    unit = unit.permute(3, 2, 0, 1).contiguous()
    unit[1, :, :5] = 0  # seen by one set alone
    found = shaded(unit, matrix)
    measured = torch.einsum("ij,kjrc->kirc", torch.linalg.inv(matrix), found)
    gram = torch.einsum("kjrc,ljrc->klrc", measured.conj(), measured)
    expected = torch.eye(2)[:, :, None, None].expand(2, 2, SIZE, SIZE).clone()
    expected[1, 1, :5] = 0
    inside = (image().abs() > 0.02) & (image(1.0).roll(9, 1).abs() > 0.02)
    assert float((gram - expected).abs().amax((0, 1))[inside].max()) < 0.02
    assert not bool(found[1, :, :5].any())


def test_coils_that_are_only_combined_keep_their_maps() -> None:
    basis = torch.linalg.qr(torch.randn(COILS, 4, generator=torch.Generator().manual_seed(0)))[0].T.to(torch.complex64)
    maps = sensitivities()[:4]
    kept = shaded_as_measured(maps[None], basis.mH.resolve_conj().numpy().astype(np.complex128))
    assert torch.equal(kept[0], maps)
    assert torch.equal(shaded_as_measured(maps[None], None)[0], maps)


def test_slices_without_signal_stay_so() -> None:
    nothing = torch.zeros(COILS, SIZE, SIZE, dtype=torch.complex64)
    assert not bool(shaded(nothing, whitening("correlated")).any())


@pytest.mark.parametrize("noise", ["correlated", "one loud coil"])
def test_the_adjoint_stays_the_adjoint(noise: str) -> None:
    matrix = whitening(noise)
    white = torch.einsum("ij,jrc->irc", matrix, sensitivities())
    maps = shaded(white / torch.linalg.vector_norm(white, dim=0), matrix)
    lines = (torch.arange(SIZE) % 3 == 0)[:, None].expand(SIZE, SIZE)
    for operator in (CartesianMRI(lines, maps), MapSetsMRI(lines, torch.stack([maps, 1j * maps.roll(7, 2)])[None])):
        assert dot_product_error(operator) < 1e-5


def test_fully_sampled_data_give_the_image_whatever_norm_maps_have() -> None:
    maps, truth = sensitivities(), image()
    one = CartesianMRI(ALL, maps)
    assert torch.allclose(one.combined(one.forward(truth[None])), truth[None], atol=1e-5)
    two = MapSetsMRI(ALL, torch.stack([maps, sensitivities(0.5).roll(17, 2)])[None])
    images = torch.cat([truth, image(1.0).roll(9, 1)])[None]
    assert torch.allclose(two.combined(two.forward(images)), images, atol=1e-3)
    known = PhaseConstrained(one, torch.polar(torch.ones_like(truth.real), truth.angle())[None])
    assert torch.allclose(known.homodyne(one.forward(truth[None])), truth.abs()[None] + 0j, atol=0.02)
