"""What combining the coils to the fewest that keep their energy costs in decibels, and saves in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recon.bench.solving import label, solved
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.quality import metrics
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.preparation import KSpacePreparation
from recon.spec.simulation import Simulation

COILS = (12, 32)
ACCELERATION, NOISE_STD = 4.0, 0.005
PIXEL_MM, FAR_MM = 0.9, 1e9
KEPT: tuple[float, ...] = (1.0, 0.999)
"""Shares of the energy that are kept; all of it is no compression."""
METHODS: tuple[dict[str, Any], ...] = ({"name": "cg-sense"}, {"name": "tv"}, {"name": "red-diff"})


@dataclass(frozen=True)
class Row:
    """One method on one scan: how many coils were measured and solved with, PSNR in dB, and seconds."""

    coils: int
    kept_energy: float
    solved_with: int
    method: str
    psnr: float
    seconds: float


def compare(data: Path, number: int, methods: Sequence[dict[str, Any]] = METHODS) -> Iterator[Row]:
    """Every method on slice `number` of the tuning set, seen by few and by many coils, combined and not."""
    image = np.load(data / "tune" / "mri_256_ms.npz")["images"][number : number + 1].astype(np.float32)
    affine = np.diag([PIXEL_MM, PIXEL_MM, FAR_MM, 1.0])
    for coils in COILS:
        for kept in KEPT:
            settings = KSpacePreparation(kept_energy=kept)
            simulation = Simulation(acceleration=ACCELERATION, noise_std=NOISE_STD, coils=coils)
            measurement = simulate(image, affine, MRICartesian(preparation=settings), simulation)
            assert measurement.truth is not None
            inverse = inverse_problem.build(measurement)
            _ = inverse.problem.operator.norms  # outside the clock
            for method in methods:
                found = solved(method, inverse, measurement.acquisition.kind)
                psnr = metrics.psnr(inverse.display(inverse.arranged(found.volume)), measurement.truth)
                yield Row(coils, kept, inverse.problem.data.shape[1], label(method), psnr, found.seconds)
