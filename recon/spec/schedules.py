"""Noise schedules: falling levels sigma of ``x = x0 + sigma n``, as plain numbers. Imports no torch."""

from __future__ import annotations

import math

DDPM_TIMES = 1000
"""Number of times of the DDPM schedule, on which most published priors were trained."""
DDPM_BETAS = (1e-4, 0.02)


def geometric(first: float, last: float, steps: int) -> list[float]:
    """`steps` noise levels falling geometrically from `first` to `last`."""
    if steps == 1:
        return [first]
    return [first * (last / first) ** (step / (steps - 1)) for step in range(steps)]


def ddpm_alpha_bars() -> list[float]:
    """Cumulative signal power of the linear-beta DDPM schedule at times 0 to 999 (Ho et al. 2020, arXiv 2006.11239)."""
    first, last = DDPM_BETAS
    product, found = 1.0, []
    for time in range(DDPM_TIMES):
        product *= 1 - (first + (last - first) * time / (DDPM_TIMES - 1))
        found.append(product)
    return found


def ddpm(steps: int) -> list[float]:
    """`steps` noise levels at equally spaced DDPM times down to 0: ``sigma = sqrt((1 - abar) / abar)``."""
    times = [DDPM_TIMES * step // steps for step in range(steps)]
    alpha_bars = ddpm_alpha_bars()
    return [math.sqrt((1 - alpha_bars[t]) / alpha_bars[t]) for t in reversed(times)]
