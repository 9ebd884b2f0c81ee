"""Noise of a measurement, estimated from the measurement alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FOURTH_DIFFERENCE = (1.0, -4.0, 6.0, -4.0, 1.0)
SIZE = math.sqrt(70.0)
"""Annihilates cubic trends, so that smooth structure hardly counts; its squared norm is 70."""


def of_sinogram(sinogram: Tensor) -> float:
    """Noise of line integrals ``(slices, angles, detectors)``, the root mean square over the rays.

    Rays through air show the noise and nothing else. Those through the object have as much, or as much more as counting
    photons gives them, ``exp(p / 2)`` times: more than their roughness, to which the object adds, it cannot be.
    Without rays through air all that is known is that roughness, an upper bound. Data without noise have air without
    any, and so have data whose air was set to one value: for those the noise has to be given. Zero for fewer than five
    elements.

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
    """Standard deviation of white noise whose absolute fourth differences these are."""
    return float(rough.median()) / (0.6745 * SIZE)


AIR_SHARE = 0.02
"""Of the densest rays; what absorbs less went past the object."""
LEAST_AIR = 100
"""Rays past the object that tell the noise."""
MOST_DENSE = 12.0
"""Line integral beyond which hardly a photon arrives, whatever the number says."""


def of_photons(sinogram: Tensor, photons: float) -> tuple[float, Tensor]:
    """Noise of line integrals from counting `photons` a ray through air, and what each ray is worth.

    The noise of a ray is ``exp(p / 2) / sqrt(photons)``, with `p` smoothed along the detector: weights that follow each
    ray's own noise would favour the rays that came out too low.

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
"""Detector elements."""


def of_kspace(kspace: Tensor, mask: Tensor) -> float:
    """Noise of k-space ``(slices, coils, rows, cols)`` a real channel, from the outermost sampled points.

    The magnitude of complex noise is Rayleigh distributed, with median 1.1774 sigma. An upper bound: some
    signal reaches the outer points too.
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


def _sampled(values: Tensor) -> Tensor:
    """At most about a million values: a median needs no more."""
    flat = values.flatten()
    return flat[:: max(1, len(flat) // 1_000_000)]
