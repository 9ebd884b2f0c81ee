"""Noise estimation from the measurement alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FOURTH_DIFFERENCE = (1.0, -4.0, 6.0, -4.0, 1.0)
SIZE = math.sqrt(70.0)
"""Norm of the fourth difference, which annihilates cubic trends, so that smooth structure hardly counts."""


def of_sinogram(sinogram: Tensor) -> float:
    """Estimate the noise of line integrals ``(slices, views, detectors)`` as root mean square over the rays.

    Rays through air show only noise. Rays through the object have as much, or ``exp(p / 2)`` times as much if photons
    are counted, but at most their roughness, to which the object adds. Without rays through air the estimate is that
    roughness, an upper bound. It is zero if the air shows no noise, also where the air was set to one value: then the
    noise has to be given. It is zero for fewer than five detector elements.

    The roughness is the median absolute fourth difference along the detector: edges are outliers that it ignores.
    """
    size = len(FOURTH_DIFFERENCE)
    if sinogram.shape[-1] < size:
        return 0.0
    count = sinogram.shape[-1] - size + 1
    rough = sum(w * sinogram[..., i : i + count] for i, w in enumerate(FOURTH_DIFFERENCE))
    smooth = sum(sinogram[..., i : i + count] for i in range(size)) / size
    assert isinstance(rough, Tensor)
    assert isinstance(smooth, Tensor)
    rough, smooth = _sampled(rough.abs()), _sampled(smooth)
    air = smooth < AIR_SHARE * torch.quantile(smooth, 0.99)
    if not LEAST_AIR <= int(air.sum()) < len(air):
        return _spread(rough)
    in_air = _spread(rough[air])
    gain = (smooth.clamp(0.0, MOST_DENSE) / 2).exp()
    if in_air <= _spread((rough / gain)[~air]):
        return in_air * float(gain.square().mean().sqrt())
    return min(in_air, _spread(rough[~air]))


def _spread(rough: Tensor) -> float:
    """Standard deviation of white noise from its absolute fourth differences."""
    return float(rough.median()) / (0.6745 * SIZE)


AIR_SHARE = 0.02
"""Fraction of the densest rays' line integral below which a ray counts as through air."""
LEAST_AIR = 100
"""Minimum number of rays through air for an estimate from them."""
MOST_DENSE = 12.0
"""Line integral beyond which hardly any photon arrives, so that larger values are clipped."""


def of_photons(sinogram: Tensor, photons: float) -> tuple[float, Tensor]:
    """Noise of line integrals for `photons` per ray in air, and the inverse standard deviation of each ray.

    The noise of a ray is ``exp(p / 2) / sqrt(photons)``, with `p` smoothed along the detector: a value from each ray's
    own noisy `p` would favour the rays that came out too low.

    Returns
    -------
    float
        Root mean square of the noise over the rays.
    Tensor
        The reciprocal of each ray's noise in units of that, shape of `sinogram`.

    References
    ----------
    Sauer and Bouman 1993, IEEE Trans. Signal Process. 41, 534-548 (weights of the transmission log-likelihood).
    """
    flat = sinogram.reshape(-1, 1, sinogram.shape[-1])
    smooth = torch.nn.functional.avg_pool1d(flat, SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)
    noise = (smooth.reshape(sinogram.shape).clamp(0.0, math.log(photons)) / 2).exp() / math.sqrt(photons)
    mean = float(noise.square().mean().sqrt())
    return mean, mean / noise


SMOOTHING = 5
"""Width of the smoothing in detector elements."""


def of_kspace(kspace: Tensor, mask: Tensor) -> float:
    """Estimate the noise of k-space ``(slices, coils, rows, cols)`` per real channel, from its outermost samples.

    The magnitude of complex noise is Rayleigh distributed, with median 1.1774 sigma. The estimate is an upper bound:
    some signal reaches the outer points too.
    """
    rows, cols = mask.shape[-2:]
    y = (torch.arange(rows) - rows // 2).abs()[:, None] / (rows / 2)
    x = (torch.arange(cols) - cols // 2).abs()[None, :] / (cols / 2)
    sampled = mask if mask.ndim == 2 else mask.all(0)
    radius = torch.maximum(y.expand(rows, cols), x.expand(rows, cols))[sampled]
    if len(radius) == 0:
        return 0.0
    outer = radius >= torch.quantile(radius.float(), 0.9)
    return float(_sampled(kspace[..., sampled][..., outer].abs()).median()) / 1.1774


def of_samples(data: Tensor, radius: Tensor) -> float:
    """Estimate the noise of k-space off the grid ``(slices, coils, samples)``, as `of_kspace` does.

    Parameters
    ----------
    radius
        Distance of each sample from the centre of k-space, ``(samples,)``.
    """
    outer = radius >= torch.quantile(_sampled(radius).float(), 0.9)
    return float(_sampled(data[..., outer].abs()).median()) / 1.1774


def _sampled(values: Tensor) -> Tensor:
    """Subsample to at most about a million values: a median needs no more."""
    flat = values.flatten()
    return flat[:: max(1, len(flat) // 1_000_000)]
