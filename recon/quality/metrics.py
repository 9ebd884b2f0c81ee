"""Image metrics PSNR, SSIM and NRMSE; the range is that of the whole truth volume, and nothing is rescaled."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

Volume = NDArray[np.float32]
WINDOW = 11


def psnr(volume: Volume, truth: Volume, where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of the voxels in `where`; the peak is the range of the whole truth volume."""
    squares = (volume.astype(np.float64) - truth) ** 2
    error = float(np.mean(squares if where is None else squares[where]))
    span = float(truth.max()) - float(truth.min())
    if error == 0.0:
        return math.inf
    return 10 * math.log10(span**2 / error) if span > 0 else -math.inf


def nrmse(volume: Volume, truth: Volume) -> float:
    """Root mean squared error over the norm of the truth's variation around its mean."""
    error = float(np.sqrt(np.mean((volume.astype(np.float64) - truth) ** 2)))
    spread = float(truth.astype(np.float64).std())
    return error / spread if spread > 0 else math.inf


def ssim(volume: Volume, truth: Volume) -> float:
    """Structural similarity (Wang et al. 2004) slice by slice, mean over slices; the range is that of the truth volume.

    Slices smaller than the window of 11 x 11 pixels have none: NaN, like a truth without range.
    """
    from monai.metrics.regression import compute_ssim_and_cs  # seconds that a job without a truth should not wait

    span = float(truth.max()) - float(truth.min())
    if span <= 0 or min(truth.shape[1:]) < WINDOW:
        return math.nan
    a, b = (torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32))[:, None] for v in (volume, truth))
    image, _ = compute_ssim_and_cs(
        a, b, spatial_dims=2, kernel_size=(WINDOW, WINDOW), kernel_sigma=(1.5, 1.5), data_range=span
    )
    return float(image.mean())
