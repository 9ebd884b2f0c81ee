"""Image metrics with the range of the whole reference volume; nothing is rescaled before comparison."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]


def psnr(volume: Volume, truth: Volume) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the range of the truth volume."""
    error = float(np.mean((volume.astype(np.float64) - truth) ** 2))
    span = float(truth.max()) - float(truth.min())
    if error == 0.0:
        return math.inf
    return 10 * math.log10(span**2 / error) if span > 0 else -math.inf


def nrmse(volume: Volume, truth: Volume) -> float:
    """Root mean squared error over the norm of the truth's variation around its mean."""
    error = float(np.sqrt(np.mean((volume.astype(np.float64) - truth) ** 2)))
    spread = float(truth.astype(np.float64).std())
    return error / spread if spread > 0 else math.inf
