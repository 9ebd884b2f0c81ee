"""Measure what a unit of work takes on this machine, for `recon.planning.plan`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam, estimated_matrix_bytes
from operators.tomography import Tomography
from operators.volume_geometry import VolumeBeam, circular
from operators.volume_tomography import VolumeTomography
from recon.planning import plan
from recon.priors import registry
from recon.spec.costs import NETWORK_BATCH, MachineCosts, Seconds

SIZE, SLICES, VIEWS, COILS = 128, 16, 60, 4


def measured() -> MachineCosts:
    """Measure the cost table with this machine's seconds; memory is the same everywhere."""
    began = time.monotonic()
    prior = registry.load("ct")
    image = torch.zeros(NETWORK_BATCH, SIZE, SIZE)
    prior.denoise(image, 0.1)
    startup = time.monotonic() - began
    network = _fastest(lambda: prior.denoise(image, 0.1)) / image.numel()
    angles = tuple(math.pi * i / VIEWS for i in range(VIEWS))
    geometry = ParallelBeam(SIZE, SIZE, 1.0, angles, math.ceil(1.5 * SIZE), 1.0)
    tomography, volume = Tomography(geometry, "matrix"), torch.ones(SLICES, SIZE, SIZE)
    product = _fastest(lambda: tomography.forward(volume)) / (SLICES * estimated_matrix_bytes(geometry) / 2)
    coils = CartesianMRI(torch.ones(SIZE, SIZE, dtype=torch.bool), torch.ones(COILS, SIZE, SIZE, dtype=torch.complex64))
    complex_volume = volume.to(torch.complex64)
    fourier = _fastest(lambda: coils.forward(complex_volume)) / (COILS * volume.numel())
    turn = [2 * math.pi * i / VIEWS for i in range(VIEWS)]
    vectors = circular(turn, source_origin_mm=400, origin_detector_mm=400, column_mm=2.0, row_mm=2.0)
    cone = VolumeTomography(VolumeBeam(SIZE, SIZE, SIZE, 1.0, 1.0, vectors, SIZE, SIZE))
    whole = torch.ones(1, SIZE, SIZE, SIZE)
    both = _fastest(lambda: cone.normal(whole), 2)
    return MachineCosts(
        memory=plan.table().memory,
        seconds=Seconds(
            startup=startup,
            per_network_pixel=network,
            per_matrix_byte=product,
            per_coil_pixel=fourier,
            per_ray_step=both / 2 / (VIEWS * SIZE**3),
        ),
    )


def _fastest(work: Callable[[], object], repeats: int = 5) -> float:
    """Time the fastest of some runs, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
