"""Benchmark of operators: system matrix against ASTRA's own projector, MRI off the grid against on it, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import astra
import numpy as np
import torch

from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam
from operators.noncartesian import NonCartesianMRI
from operators.tomography import Projector, Tomography
from recon.problem.mri_noncartesian import radial


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


@dataclass(frozen=True)
class NormalTiming:
    """Milliseconds of processor time that the normal operator of a slice takes, on the Cartesian grid and off it."""

    coils: int
    cartesian_ms: float
    radial_ms: float

    @property
    def ratio(self) -> float:
        """Time off the grid over that on it."""
        return self.radial_ms / self.cartesian_ms


def normal_operators(size: int = 256, coils: int = 8, acceleration: float = 6.3, repeats: int = 25) -> NormalTiming:
    """Time the normal operators of a quarter of the points of k-space, and of spokes (64 of 512 samples as it is).

    One thread, the fastest of runs that alternate.
    """
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn((coils, size, size), dtype=torch.complex64, generator=generator)
    trajectory = radial(size, size, acceleration)
    cartesian = CartesianMRI(torch.rand((size, size), generator=generator) < 0.25, maps)
    spokes = NonCartesianMRI(trajectory, maps, torch.ones(len(trajectory)))
    x = torch.randn((1, size, size), dtype=torch.complex64, generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for operator in (cartesian, spokes):
            operator.normal(x)  # the kernel is computed once
        pairs = [tuple(_processor_ms(partial(o.normal, x)) for o in (cartesian, spokes)) for _ in range(repeats)]
    finally:
        torch.set_num_threads(threads)
    return NormalTiming(coils, min(pair[0] for pair in pairs), min(pair[1] for pair in pairs))


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


def _processor_ms(work: Callable[[], object]) -> float:
    """Time of this thread, which others on the machine do not lengthen."""
    started = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - started)
