"""Benchmark of the CT projector: system matrix against ASTRA's own projector, in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import astra
import numpy as np
import torch

from operators.geometry import ParallelBeam
from operators.tomography import Projector, Tomography


@dataclass(frozen=True)
class Timing:
    """Milliseconds per slice of one direction."""

    direction: str
    astra_ms: float
    matrix_ms: float
    largest_difference: float

    @property
    def speed_up(self) -> float:
        """Speed-up of the matrix."""
        return self.astra_ms / self.matrix_ms


def operators(size: int = 256, views: int = 180, slices: int = 16, repeats: int = 5) -> tuple[list[Timing], float]:
    """Time forward and adjoint; returns the timings and the seconds that building the matrix took once."""
    angles = tuple(np.linspace(0, np.pi, views, endpoint=False).tolist())
    geometry = ParallelBeam(size, size, 1.0, angles, int(size * 1.5), 1.0)
    operator = Tomography(geometry, backend="matrix")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((slices, size, size), generator=generator)
    started = time.perf_counter()
    y = operator.forward(x)
    built = time.perf_counter() - started
    projector = Projector(geometry)

    def by_astra(source: torch.Tensor, shape: tuple[int, ...], run: Callable[..., object]) -> torch.Tensor:
        out = torch.empty((slices, *shape))
        for index in range(slices):
            run(projector.id, source[index], out=out[index])
        return out

    cases = [
        ("forward", x, operator.range.shape, astra.projector.direct_FP, operator.forward),
        ("adjoint", y, operator.domain.shape, astra.projector.direct_BP, operator.adjoint),
    ]
    timings = []
    for name, source, shape, run, product in cases:
        reference = by_astra(source, shape, run)
        difference = float((product(source) - reference).abs().max() / reference.abs().max())
        # Alternating runs share whatever else the machine is doing.
        pairs = [
            (_seconds(partial(by_astra, source, shape, run)), _seconds(partial(product, source)))
            for _ in range(repeats)
        ]
        slow, fast = (statistics.median(p[i] for p in pairs) * 1e3 / slices for i in (0, 1))
        timings.append(Timing(name, slow, fast, difference))
    return timings, built


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
