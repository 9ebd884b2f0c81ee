"""Sparsity of the image's wavelets, slice by slice, for MRI."""

from __future__ import annotations

import math

import numpy as np
import pywt
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.linear import each_slice
from recon.problem.problem import Problem, Progress, Solver, check_finite
from recon.solvers.proximal_gradient import accelerated
from recon.spec.methods import L1Wavelet

WAVELET = "db4"
LEVELS = 4
SMALLEST = 16
"""Least side of the coarsest image."""
REPORT_EVERY = 5


def solve(problem: Problem, settings: L1Wavelet) -> Solver:
    """Minimise ``1/2 |A x / |A| - y / |A||^2 + weight |W x|_1``, with the image scaled to its robust maximum.

    `W` is an orthonormal wavelet transform (Daubechies 4, details only), shifted at random in every iteration, since
    a fixed grid shows as blocks.

    References
    ----------
    Lustig, Donoho and Pauly 2007, Magn. Reson. Med. 58, 1182-1195. Figueiredo and Nowak 2003, IEEE Trans. Image
    Process. 12, 906-916 (random shifts).
    """
    start = problem.initial_image()
    weighted = problem.whitened
    operator = weighted.operator
    norm, scale = each_slice(operator.norms, start), each_slice(problem.scales, start)
    weight = (settings.weight_per_noise * each_slice(problem.noise, start) / (norm * scale)).clamp(settings.min_weight)
    if settings.weight is not None:
        weight = torch.full_like(scale, settings.weight)
    data_side = operator.adjoint(weighted.data) / (norm**2 * scale)
    generator = torch.Generator().manual_seed(0)

    def step(ahead: Tensor) -> Tensor:
        shift = torch.randint(0, 2**LEVELS, (2,), generator=generator).tolist()
        descended = ahead - operator.normal(ahead) / norm**2 + data_side
        return torch.roll(_shrunk(torch.roll(descended, shift, (-2, -1)), weight), [-s for s in shift], (-2, -1))

    for count, found in enumerate(accelerated(start / scale, step, settings.iterations), 1):
        if count % REPORT_EVERY == 0 or count == settings.iterations:
            yield Progress(count, settings.iterations, found * scale, problem, "l1-wavelet")
    return check_finite(found * scale, "l1-wavelet")


def _shrunk(images: Tensor, weight: Tensor) -> Tensor:
    """Soft threshold of the wavelet details of ``(slices, rows, cols)``; what is coarser than these stays."""
    rows, cols = images.shape[-2:]
    levels = max(min(LEVELS, int(math.log2(max(min(rows, cols) / SMALLEST, 1)))), 1)
    # Sides that cannot be halved so often are continued by their last values.
    pad = [(-n) % 2**levels for n in (rows, cols)]
    padded = torch.nn.functional.pad(torch.view_as_real(images).movedim(-1, 1), (0, pad[1], 0, pad[0]), "replicate")
    parts = padded.movedim(1, -1).contiguous()
    found = pywt.wavedec2(torch.view_as_complex(parts).numpy(), WAVELET, "periodization", levels, axes=(-2, -1))
    limit = weight.numpy()
    kept = [found[0], *(tuple(_soft(one, limit) for one in details) for details in found[1:])]
    back = pywt.waverec2(kept, WAVELET, "periodization", axes=(-2, -1))
    return torch.from_numpy(back[..., :rows, :cols].astype("complex64", copy=False))


def _soft(values: NDArray[np.complex64], limit: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Soft threshold of complex values."""
    shrunk: NDArray[np.complex64] = values * (1 - limit / np.maximum(np.abs(values), limit))
    return shrunk
