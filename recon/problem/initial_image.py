"""The quick classical image: where iterations start, and what intensities are measured by."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.linear import conjugate_gradient
from operators.resolution import Resolution
from operators.tomography import Tomography
from recon.problem.fbp import filtered_back_projection
from recon.problem.problem import Problem


def start(problem: Problem) -> Tensor:
    """The quick classical image of a problem: filtered back-projection, interpolation, or a few SENSE iterations."""
    if isinstance(problem.operator, Tomography):
        return filtered_back_projection(problem.data, problem.operator.geometry, "hann").clamp(min=0)
    if isinstance(problem.operator, Resolution):
        return problem.operator.upsample(problem.data)
    right = problem.operator.adjoint(problem.data)
    return conjugate_gradient(problem.operator.normal, right, None, 5)


def robust_maximum(volume: Tensor) -> float:
    """The 99.8th percentile of the magnitude, over at most a million evenly spaced voxels."""
    flat = volume.abs().flatten()
    stride = max(1, flat.numel() // 1_000_000)
    return float(torch.quantile(flat[::stride].float(), 0.998))
