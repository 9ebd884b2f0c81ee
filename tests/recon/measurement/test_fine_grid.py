"""The object behind known pixels: their means are kept, and smooth objects come back."""

from __future__ import annotations

import math

import pytest
import torch

from recon.measurement.fine_grid import refined, steepened


@pytest.mark.parametrize("shape", [(2, 17, 9), (1, 1, 5), (1, 64, 64)])
@pytest.mark.parametrize("factor", [2, 3])
def test_means_over_pixels_are_the_given_values(shape: tuple[int, int, int], factor: int) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    fine = refined(images, factor)
    assert fine.shape == (shape[0], shape[1] * factor, shape[2] * factor)
    assert torch.allclose(torch.nn.functional.avg_pool2d(fine, factor), images, atol=1e-6)


def test_air_stays_empty_and_nothing_is_negative() -> None:
    images = torch.zeros(1, 60, 60)
    images[0, 20:30, 20] = torch.rand(10, generator=torch.Generator().manual_seed(0))
    fine = refined(images, 2)
    object_ = images.repeat_interleave(2, 1).repeat_interleave(2, 2) > 0
    assert float(fine.min()) == 0.0 and not bool((fine > 0)[~object_].any())
    assert torch.allclose(torch.nn.functional.avg_pool2d(fine, 2), images, atol=1e-6)


def test_a_smooth_object_comes_back() -> None:
    """A Gaussian of two pixels, whose means over fine pixels are differences of error functions."""

    def means(count: int) -> torch.Tensor:
        edges = (torch.arange(count + 1, dtype=torch.float64) / count - 0.5) * 40
        return torch.diff(torch.erf(edges / 2 / math.sqrt(2))) * count

    coarse, fine = (means(count)[:, None] * means(count)[None] for count in (40, 80))
    found = refined(coarse[None].float(), 2)[0]
    assert float((found - fine).abs().max()) < 2e-3 * float(fine.max())
    assert float((coarse.repeat_interleave(2, 0).repeat_interleave(2, 1) - fine).abs().max()) > 0.1 * float(fine.max())


def test_a_steepened_object_keeps_means_and_range_and_has_sharper_edges() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(2, 20, 24, generator=generator)
    images[:, 5:12, 6:15] += 4
    fine, steep = refined(images, 2), steepened(images, 2, 4.0)
    means = steep.reshape(2, 20, 2, 24, 2).mean((2, 4))
    assert torch.allclose(means, images, atol=1e-5)
    assert float(steep.min()) >= 0 and float(steep.max()) <= float(images.max()) + 1e-6
    edge = torch.zeros(1, 16, 16)
    edge[:, :, :7] = 1
    edge[:, :, 7] = 0.5
    assert steepened(edge, 4, 8.0)[0, 8].diff().abs().max() > 1.5 * refined(edge, 4)[0, 8].diff().abs().max()
    assert torch.equal(steepened(torch.zeros(1, 4, 4), 2, 4.0), torch.zeros(1, 8, 8)) and fine.shape == steep.shape
