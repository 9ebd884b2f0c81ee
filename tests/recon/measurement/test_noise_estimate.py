"""Noise from the data alone: slice by slice, and ray by ray where photons are counted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.fourier import fourier
from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.measurement import noise_estimate
from tests.conftest import disc

VIEWS, SIDE = 40, 64


def bodies(*sizes_mm: float) -> Tensor:
    """Line integrals of discs of soft tissue with a bone in each, one a slice; pixels and detector elements of 4 mm."""
    geometry = ParallelBeam(SIDE, SIDE, 4.0, tuple(math.pi * k / VIEWS for k in range(VIEWS)), 92, 4.0)
    slices = [0.02 * disc(SIDE, 4.0, r) + 0.02 * disc(SIDE, 4.0, r / 5, x_mm=r / 2) for r in sizes_mm]
    return Tomography(geometry)(torch.cat(slices))


def counted(clean: Tensor, photons: float | Tensor) -> tuple[Tensor, Tensor]:
    """Line integrals from counted photons, and the root mean square of each slice's noise."""
    expected = torch.as_tensor(photons) * torch.exp(-clean.double())
    noisy = -(torch.poisson(expected, generator=torch.Generator().manual_seed(0)).clamp(min=1) / photons).log()
    return noisy.float(), (1 / expected).mean(dim=(1, 2)).sqrt().float()


@pytest.mark.parametrize("sigma", [0.01, 0.1])
def test_noise_of_one_level_is_found(sigma: float) -> None:
    clean = bodies(100.0, 60.0)
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    std, inverse_std = noise_estimate.of_sinogram(noisy)
    assert inverse_std is None and torch.allclose(std, torch.full((2,), sigma), rtol=0.15)
    middle = clean.shape[-1] // 2
    inside = noisy[..., middle - 8 : middle + 8]  # no ray misses the object
    (found, _), (rough, _) = noise_estimate.of_sinogram(inside), noise_estimate.of_sinogram(clean)
    assert bool((0.7 * sigma < found).all()) and float(found.max()) < 2 * sigma
    assert not bool(rough.any())


def test_counted_photons_are_told_from_the_data() -> None:
    """A dense slice among thin ones: each has its own noise, and each of its rays, as if the photons were given."""
    clean, photons = bodies(30.0, 115.0, 60.0, 25.0), 1e4
    noisy, expected = counted(clean, photons)
    std, inverse_std = noise_estimate.of_sinogram(noisy)
    assert torch.allclose(std, expected, rtol=0.1) and float(std[1]) > 3 * float(std[0])
    assert inverse_std is not None
    given_std, given_inverse = noise_estimate.of_photons(noisy, photons)
    told, given = std.reshape(-1, 1, 1) / inverse_std, given_std.reshape(-1, 1, 1) / given_inverse
    assert torch.allclose(told, given, rtol=0.1)


def test_a_slice_has_the_same_noise_alone_and_in_any_stack() -> None:
    noisy, _ = counted(bodies(30.0, 115.0, 60.0), torch.tensor([1e4, 2e5, 1e4]).reshape(-1, 1, 1))
    std, inverse_std = noise_estimate.of_sinogram(noisy)
    assert inverse_std is not None
    for index in range(3):
        alone, by_ray = noise_estimate.of_sinogram(noisy[index : index + 1])
        assert torch.equal(alone, std[index : index + 1])
        assert by_ray is not None and torch.equal(by_ray, inverse_std[index : index + 1])


def test_a_slice_without_air_looks_at_that_beside_it() -> None:
    """The detector sees no air beside the widest slice: its neighbours tell what photons there are."""
    noisy, expected = counted(bodies(60.0, 250.0, 60.0), 1e5)
    std, inverse_std = noise_estimate.of_sinogram(noisy)
    assert inverse_std is not None and float(std[1]) == pytest.approx(float(expected[1]), rel=0.15)
    alone, by_ray = noise_estimate.of_sinogram(noisy[1:2])
    assert by_ray is None and float(alone) > 0  # an upper bound of its typical ray


def test_k_space_tells_each_slices_noise() -> None:
    generator = torch.Generator().manual_seed(1)
    sigmas = torch.tensor([0.01, 0.1])
    noise = sigmas.reshape(-1, 1, 1, 1) * torch.complex(*torch.randn(2, 2, 4, 64, 64, generator=generator))
    noise[..., 28:36, 28:36] += 5.0
    found = noise_estimate.of_kspace(noise, torch.ones(64, 64, dtype=torch.bool))
    assert torch.allclose(found, sigmas, rtol=0.05)


def test_planes_across_a_readout_have_the_noise_that_those_beside_the_object_tell() -> None:
    """The edges of a sharp phantom reach the outermost samples of the planes that hold it."""
    image = torch.zeros(16, 4, 64, 64, dtype=torch.complex64)
    image[4:12, :, 12:50:3, 14:52] = 3.0
    generator = torch.Generator().manual_seed(0)
    noisy = fourier(image) + 0.01 * torch.complex(*torch.randn(2, 16, 4, 64, 64, generator=generator))
    noisy[0] = 0  # a plane that was left empty
    mask = torch.rand(64, 64, generator=generator) < 0.25
    alone = noise_estimate.of_kspace(noisy * mask, mask)
    assert float(alone.max()) > 0.02
    assert noise_estimate.in_common(alone, noisy * mask).tolist() == pytest.approx(16 * [0.01], rel=0.05)
    assert noise_estimate.in_common(torch.zeros(2), torch.zeros(2, 4, 8, 8)).tolist() == [0, 0]


def test_a_range_is_spelled_where_slices_differ() -> None:
    assert noise_estimate.spelled(torch.tensor([0.02, 0.0205])) == "2.05e-02"
    assert noise_estimate.spelled(torch.tensor([0.02, 0.05])) == "2.00e-02 to 5.00e-02, slice by slice"


@pytest.mark.parametrize("along", ["rows", "cols"])
def test_air_along_whole_lines_tells_the_noise_where_edges_reach_the_end_of_kspace(along: str) -> None:
    """A sharp phantom has signal in its outermost samples, three times the noise; the air beside it has none."""
    noise_std = 0.01
    image = torch.zeros(2, 4, 64, 64, dtype=torch.complex64)
    image[..., 12:50, 14:52] = 1.0
    image[..., 20:22, 16:48] = 3.0
    generator = torch.Generator().manual_seed(0)
    full = fourier(image) + noise_std * torch.randn(image.shape, dtype=torch.complex64, generator=generator) * 2**0.5
    mask = torch.zeros(64, 64, dtype=torch.bool)
    lines = torch.unique(torch.cat([torch.arange(0, 64, 2), torch.arange(26, 38)]))
    if along == "rows":
        mask[lines] = True
    else:
        mask[:, lines] = True
    found = noise_estimate.of_kspace(full * mask, mask)
    assert found.tolist() == pytest.approx(2 * [noise_std], rel=0.1)


@pytest.mark.parametrize("noise_std", [0.002, 0.01])
def test_corners_of_the_centres_image_tell_the_noise_where_points_were_sampled(noise_std: float) -> None:
    """No line of a Poisson disc is whole, and its outermost samples hold the edges of a sharp phantom."""
    rows, cols = torch.meshgrid(torch.arange(128) - 64, torch.arange(128) - 64, indexing="ij")
    head = (((rows / 56) ** 2 + (cols / 44) ** 2) < 1).to(torch.complex64)
    head[40:44, 40:90] += 2.0
    generator = torch.Generator().manual_seed(0)
    shading = torch.linspace(0.5, 1.5, 128)
    image = torch.stack([head * shading, head * shading[:, None], head * shading.flip(0), head])[None]
    noise = torch.complex(*torch.randn(2, 1, 4, 128, 128, generator=generator))
    mask = torch.rand(128, 128, generator=generator) < 0.15
    mask[54:74, 54:74] = True
    data = (fourier(image) + noise_std * noise) * mask
    assert noise_estimate.of_kspace(data, mask).tolist() == pytest.approx([noise_std], rel=0.15)
