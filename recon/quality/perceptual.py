"""Perceptual distance of images: local statistics of an oriented multi-scale filter bank, without trained weights.

Learnt distances (LPIPS, DISTS) compare features of a network that knows photographs; a prior's own features would
favour what the prior draws. Here the features are the amplitudes of a complex steerable pyramid, the energy model of
complex cells: how much edge or texture there is at each place, scale and orientation, whatever its exact position.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Image = NDArray[np.float32]
Bands = NDArray[np.float64]

SCALES = 4
"""Octaves of the pyramid, from the finest on."""
ORIENTATIONS = 4
"""Orientations of each octave."""
MARGIN = 16
"""Pixels by which images are continued by their mirror image, or filters would join opposite edges."""
WINDOW = 2.0
"""Standard deviation of the window of local statistics, in pixels of the finest octave; it doubles with each."""
VISIBLE = 0.01
"""Amplitude, relative to the range of the truth, below which differences fade out: contrast at the threshold of sight
is about 1 %, and noise in the air beside a head must not outweigh the head."""


def perceptual_distance(found: Image, truth: Image) -> float:
    """Perceptual distance of an image ``(rows, cols)`` from the truth: 0 for equal ones, about 1 for unlike ones.

    In each band the local means of the amplitudes are compared (texture: is there as much?) and their local
    correlation (structure: in the same place?), both as in SSIM; the distance is one minus the mean of both over
    places and bands, all bands alike. A soft image lacks texture in the fine bands; drawn detail has it, and loses
    structure alone. Fine detail that is moved by a fraction of a pixel costs little.

    Parameters
    ----------
    found, truth
        Images of the same shape, in any unit; the distance does not depend on a common scale. NaN for a constant truth.

    References
    ----------
    Portilla and Simoncelli 2000, Int. J. Comput. Vis. 40, 49-71 (texture in a complex steerable pyramid); Sampat et al.
    2009, IEEE Trans. Image Process. 18, 2385-2401 (SSIM there); Ding et al. 2022 (arXiv 2004.07728), equations 3 to 6,
    for texture and structure as two terms.
    """
    stable = (VISIBLE * (float(truth.max()) - float(truth.min()))) ** 2
    if stable == 0:
        return math.nan
    terms = []
    amplitudes = (_amplitudes(found), _amplitudes(truth))
    for scale, (mine, true) in enumerate(zip(*amplitudes, strict=True)):
        width = WINDOW * 2.0**scale / _thinned(scale)
        mean_a, mean_b = _local(mine, width), _local(true, width)
        texture = (2 * mean_a * mean_b + stable) / (mean_a**2 + mean_b**2 + stable)
        covariance = _local(mine * true, width) - mean_a * mean_b
        variances = _local(mine * mine, width) - mean_a**2 + _local(true * true, width) - mean_b**2
        structure = (2 * covariance + stable) / (variances + stable)
        terms.append(float((texture + structure).mean()) / 2)
    return 1 - float(np.mean(terms))


def _local(bands: Bands, width: float) -> Bands:
    """Local means of every band, in a Gaussian window of this standard deviation."""
    return np.asarray(ndimage.gaussian_filter(bands, (0, width, width), mode="nearest", truncate=3.0))


def _thinned(scale: int) -> int:
    """Number of the image's pixels per sample of an octave, which still has all its frequencies."""
    return 1 << max(scale - 1, 0)


def _amplitudes(image: Image) -> list[Bands]:
    """Amplitudes ``(orientations, rows, cols)`` of every octave, finest first, the coarser on thinner grids."""
    margins = [min(MARGIN, size - 1) for size in image.shape]
    continued = np.pad(image.astype(np.float64), [(m, m) for m in margins], mode="reflect")
    spectrum = fft.fftshift(fft.fft2(continued))
    found = []
    for scale, band in enumerate(_bank(*continued.shape)):
        step = _thinned(scale)
        rows, cols = band.shape[1:]
        top, left = (full // 2 - kept // 2 for full, kept in zip(continued.shape, (rows, cols), strict=True))
        kept = spectrum[top : top + rows, left : left + cols] / step**2
        inside = [slice(m // step, n - m // step) for m, n in zip(margins, (rows, cols), strict=True)]
        found.append(np.abs(fft.ifft2(fft.ifftshift(kept * band, axes=(1, 2))))[:, *inside])
    return found


@lru_cache(maxsize=4)
def _bank(rows: int, cols: int) -> list[Bands]:
    """Frequency responses ``(orientations, rows, cols)`` of each octave, finest first, frequency zero in the middle.

    Raised cosines of the logarithm of the frequency, two octaves wide, centred at 1/3 of a cycle per pixel and an
    octave below each other; the finest keeps all above its centre, up to Nyquist. One side of the spectrum alone makes
    a response complex: its amplitude does not oscillate.
    """
    bank = []
    for scale in range(SCALES):
        kept = [-(-size // _thinned(scale)) for size in (rows, cols)]
        frequencies = [(np.arange(n) - n // 2) / size for n, size in zip(kept, (rows, cols), strict=True)]
        down, right = np.meshgrid(*frequencies, indexing="ij")
        radius, angle = np.hypot(down, right), np.arctan2(down, right)
        octaves = np.log2(np.maximum(radius, 1e-9) * 3) + scale
        away = np.clip(octaves, -1, 0 if scale == 0 else 1)
        radial = np.cos(math.pi / 2 * away)
        turns = math.pi * np.arange(ORIENTATIONS)[:, None, None] / ORIENTATIONS
        towards = np.maximum(np.cos(angle - turns), 0)
        bank.append(radial * towards ** (ORIENTATIONS - 1))
    return bank
