"""Noise of a measurement, estimated from the measurement alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FOURTH_DIFFERENCE = (1.0, -4.0, 6.0, -4.0, 1.0)
SIZE = math.sqrt(70.0)
"""Annihilates cubic trends, so that smooth structure hardly counts; its squared norm is 70."""


def of_sinogram(sinogram: Tensor) -> float:
    """Standard deviation of white noise in line integrals ``(slices, angles, detectors)``.

    The median absolute fourth difference along the detector: edges are outliers that the median ignores.
    An upper bound where the object is finer than the detector. Zero for fewer than five elements.
    """
    if sinogram.shape[-1] < len(FOURTH_DIFFERENCE):
        return 0.0
    count = sinogram.shape[-1] - len(FOURTH_DIFFERENCE) + 1
    difference = sum(w * sinogram[..., i : i + count] for i, w in enumerate(FOURTH_DIFFERENCE))
    assert isinstance(difference, Tensor)
    return float(_sampled(difference.abs()).median()) / (0.6745 * SIZE)


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
