"""Diagnostics of a denoiser for its card: asymmetry of the Jacobian, and the familiarity score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recon.priors.card import Familiarity
from recon.priors.network import Denoiser, as_channels
from recon.priors.noise import SliceNoise

Denoise = Callable[[Tensor, float, Tensor | None], Tensor]
"""Denoiser: a function of noisy slices, the noise level on the prior's scale, and the condition or None."""

ASYMMETRY_SIGMAS = (0.05, 0.1, 0.25)
FAMILIARITY_SIGMAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Noise levels of the familiarity score, on the prior's scale: low ones show texture, high ones anatomy."""
CONTENT = 0.05
"""Threshold above the empty background, on the prior's scale, from which a neighbourhood counts as content."""
DISTANCES = 200
"""Number of reference distances kept on a card."""


@torch.no_grad()
def jacobian_asymmetry(
    network: Denoiser,
    images: Tensor,
    sigma: float,
    probes: int = 4,
    condition: Tensor | None = None,
    factors: tuple[float, float] | None = None,
) -> float:
    """Asymmetry of the Jacobian, ``|v^T J w - w^T J v| / (|v^T J w| + |w^T J v|)``, summed over random `v` and `w`.

    Zero for the exact posterior mean, whose Jacobian is a covariance over ``sigma^2``; solvers that minimise
    an objective rely on that (Reehorst and Schniter 2019, arXiv 1806.02296).

    Parameters
    ----------
    network
        In float32.
    images
        Clean slices ``(slices, rows, cols)`` on the prior's scale, of a size the network can take.
    sigma
        Noise level on the prior's scale, added to the images.
    probes
        Pairs of directions per image.
    condition
        For a conditional network: what it is conditioned on, like `images`.
    factors
        For a network that is told them: the super-resolution factors.
    """
    x = as_channels(images + sigma * SliceNoise(2, len(images)).draw(images))
    level = torch.full((1,), sigma)
    more = [] if condition is None else [as_channels(condition)]
    if factors is not None:
        more.append(torch.tensor([factors]))

    def denoise(given: Tensor) -> Tensor:
        estimate: Tensor = network(given, level, *more)
        return estimate

    generator = torch.Generator().manual_seed(3)
    difference, size = torch.zeros(()), torch.zeros(())
    for _ in range(probes):
        v, w = (torch.randn(x.shape, generator=generator) for _ in range(2))
        jw = torch.func.jvp(denoise, (x,), (w,))[1]
        jv = torch.func.jvp(denoise, (x,), (v,))[1]
        left, right = (v * jw).sum(dim=(1, 2, 3)), (w * jv).sum(dim=(1, 2, 3))
        difference += (left - right).abs().sum()
        size += (left.abs() + right.abs()).sum()
    return float(difference / size)


def residuals(denoise: Denoise, images: Tensor, sigmas: Sequence[float] = FAMILIARITY_SIGMAS) -> Tensor:
    """Residual features of slices: logarithm of the denoiser's mean squared error in each slice's content.

    Parameters
    ----------
    denoise
        See `Denoise`; slices are judged each alone.
    images
        Slices ``(slices, rows, cols)`` on the prior's scale, free of noise as far as one knows.
    sigmas
        Noise levels.

    Returns
    -------
    Tensor
        ``(slices, sigmas)`` float32; NaN for a slice without content.
    """
    content = _content(images)
    share = content.mean(dim=(1, 2))
    rows = []
    for sigma in sigmas:
        noisy = images + sigma * SliceNoise(4, len(images)).draw(images)
        error = ((denoise(noisy, sigma, None) - images).abs().square() * content).mean(dim=(1, 2))
        rows.append((error / share).log())
    return torch.where(share[:, None] > 1e-3, torch.stack(rows, dim=1), torch.nan)


def _content(images: Tensor) -> Tensor:
    """Mask that is 1 where a neighbourhood holds more than background: air is -1 on the CT scale, 0 in a magnitude."""
    height = images.abs() if images.is_complex() else images + 1
    return (functional.avg_pool2d(height[:, None].float(), 9, stride=1, padding=4)[:, 0] > CONTENT).float()


def familiarity(features: Sequence[Tensor], names: Sequence[str]) -> Familiarity | None:
    """Summarise the residuals of reference slices, one tensor ``(slices, sigmas)`` per subject.

    The distances kept are those of each subject's slices from the distribution of all the others: a new
    subject of the same kind is expected to lie as far away, not as near as the slices it was fitted to.
    None with fewer than two subjects that have content.
    """
    finite = [(f[f.isfinite().all(dim=1)].double().numpy(), n) for f, n in zip(features, names, strict=True)]
    groups = [group for group, _ in finite if len(group)]
    if len(groups) < 2:
        return None
    distances = []
    for index, group in enumerate(groups):
        rest = [g for other, g in enumerate(groups) if other != index]
        distances.append(_distances(group, *_fit(rest)))
    mean, whitening = _fit(groups)
    kept = np.quantile(np.concatenate(distances), np.linspace(0, 1, DISTANCES))
    return Familiarity(
        sigmas=list(FAMILIARITY_SIGMAS),
        mean=[round(float(m), 4) for m in mean],
        whitening=[[round(float(v), 4) for v in row] for row in whitening],
        distances=[round(float(d), 3) for d in kept],
        reference=[name for group, name in finite if len(group)],
    )


def percentile(known: Familiarity, features: Tensor) -> Tensor:
    """Familiarity: percentage of reference slices that are at least as unusual, for residuals ``(slices, sigmas)``."""
    found = _distances(features.double().numpy(), np.array(known.mean), np.array(known.whitening))
    rank = np.interp(found, known.distances, np.linspace(100.0, 0.0, len(known.distances)))
    return torch.from_numpy(np.where(np.isfinite(found), rank, np.nan))


def _fit(groups: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and whitening matrix; every subject has the same weight, however many slices it has."""
    mean = np.mean([g.mean(axis=0) for g in groups], axis=0)
    covariance = np.mean([(g - mean).T @ (g - mean) / len(g) for g in groups], axis=0)
    # A residual is not known better than to a few percent: this keeps nearly dependent levels from counting too much.
    covariance += 0.05**2 * np.eye(len(mean))
    return mean, np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)), dtype=np.float64)


def _distances(
    features: NDArray[np.float64], mean: NDArray[np.float64], whitening: NDArray[np.float64]
) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.linalg.norm((features - mean) @ whitening.T, axis=1)
    return found
