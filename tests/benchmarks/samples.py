"""Samples of a prior: what it draws where no measurement says anything, beside images that it was trained on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from recon.priors import registry
from recon.training import synthetic

FIRST, LAST, RHO = 20.0, 0.01, 7.0
"""Noise levels between which the flow is integrated, and how they are spaced (Karras et al. 2022, equation 5)."""


def sampled(prior: str, count: int, side: int, steps: int, seed: int) -> Tensor:
    """Draw images ``(count, side, side)`` on the prior's scale by Heun's method along the probability flow.

    References
    ----------
    Karras et al. 2022 (arXiv 2206.00364, algorithm 1).
    """
    drawn = registry.load(prior)
    ends = (FIRST ** (1 / RHO), LAST ** (1 / RHO))
    levels = [float(v) ** RHO for v in np.linspace(*ends, steps)]
    x = FIRST * torch.randn(count, side, side, generator=torch.Generator().manual_seed(seed))
    for high, low in pairwise(levels):
        slope = (x - drawn.denoise(x, high)) / high
        ahead = x + (low - high) * slope
        x = x + (low - high) * (slope + (ahead - drawn.denoise(ahead, low)) / low) / 2
    return drawn.denoise(x, LAST)


def picture(path: Path, prior: str, count: int, side: int, steps: int, seed: int) -> None:
    """Draw synthetic specimens above, samples of the prior below, in one grey window."""
    known = 2 * torch.from_numpy(synthetic.specimens(seed, count, side)).float() - 1
    rows = {"made by the generator": known, f"drawn by {prior}": sampled(prior, count, side, steps, seed)}
    figure = Figure(figsize=(1.6 * count, 3.5), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(2, count, squeeze=False), rows.items(), strict=True):
        axes[0].set_title(name, fontsize=9, loc="left")
        for axis, image in zip(axes, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=-1, vmax=1)
            axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75, format="png")
