"""What defects of a detector cost, and what removing stripes does: damaged scans against the same ones without."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from recon.measurement.simulate import simulate
from recon.pipeline.reconstruct import run
from recon.quality import metrics
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from recon.spec.preparation import Stripes
from recon.spec.simulation import Simulation

DEAD, ZINGER_FRAMES, ZINGERS, LOST = 0.01, 0.1, 3, 3
"""Fraction of dead elements; of frames with zingers, and how many these have in a row; number of lost frames."""
DARK = 100
PIXEL_MM = 1.4
METHODS = ("fbp", {"name": "tv", "dimensions": 2}, "red-diff")
Frames = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """A method on one slice of the clean scan, and of the damaged one after its preparation."""

    method: str
    slice: int
    views: int
    clean_psnr: float
    damaged_psnr: float

    @property
    def loss_db(self) -> float:
        """What the damage costs."""
        return self.clean_psnr - self.damaged_psnr


def frames(sinograms: NDArray[np.floating[Any]], photons: float, seed: int = 0) -> Frames:
    """Counts of line integrals ``(rows, views, columns)`` as in DXchange, with gains that differ by 3 %."""
    generator = np.random.default_rng(seed)
    rows, _, columns = sinograms.shape
    beam = photons * (1 + 0.03 * generator.standard_normal((rows, columns))).clip(0.8, 1.2)
    expected = beam * np.exp(-sinograms.transpose(1, 0, 2))
    return {
        "data": generator.poisson(expected) + DARK,
        "data_white": generator.poisson(np.repeat(beam[None], 30, axis=0)) + DARK,
        "data_dark": generator.poisson(DARK, (30, rows, columns)),
    }


def damage(found: Frames, seed: int = 1) -> Frames:
    """The same frames with dead, hot and stuck elements, zingers, and frames that were lost."""
    generator = np.random.default_rng(seed)
    damaged = {name: array.copy() for name, array in found.items()}
    views, rows, columns = found["data"].shape
    for row in range(rows):
        for number, column in enumerate(generator.choice(columns, round(DEAD * columns), replace=False)):
            for name in found:
                # Dead, hot, and stuck ones in turn; no element of a dead detector counts.
                value = (DARK, 65535, 7000)[number % 3] if name != "data_dark" or number % 3 == 1 else DARK
                damaged[name][:, row, column] = value
    for view in generator.choice(views, round(ZINGER_FRAMES * views), replace=False):
        for row in range(rows):
            at = generator.choice(columns, ZINGERS, replace=False)
            damaged["data"][view, row, at] = generator.integers(20_000, 65_536, ZINGERS) + found["data"][view, row, at]
    closed, empty, again = generator.choice(np.arange(1, views), LOST, replace=False)
    damaged["data"][closed] = generator.poisson(DARK, (rows, columns))
    damaged["data"][empty] = 0
    damaged["data"][again] = damaged["data"][again - 1]
    return damaged


def write(path: Path, found: Frames, angles_rad: tuple[float, ...]) -> Path:
    """Write frames as DXchange."""
    with h5py.File(path, "w") as file:
        for name, array in found.items():
            file[f"exchange/{name}"] = array.clip(0, 65535).astype(np.uint16)
        file["exchange/theta"] = np.rad2deg(angles_rad)
    return path


def striped(found: Frames, spread: float, seed: int = 2) -> Frames:
    """The same frames after gains have drifted by `spread` since the flat fields: a stripe in every column."""
    drift = 1 + spread * np.random.default_rng(seed).standard_normal(found["data"].shape[1:])
    return {**found, "data": (DARK + (found["data"] - DARK) * drift).round().clip(0).astype(np.int64)}


@dataclass(frozen=True)
class Scan:
    """Known slices of the tuning set, their counts as a scanner measures them, and how these are described."""

    slices: list[int]
    truth: NDArray[np.float32]
    counts: Frames
    acquisition: CTParallel

    @classmethod
    def simulated(cls, data: Path, slices: int, views: int, photons: float) -> Scan:
        """Simulate counts, realistic but for the noise, which they bring themselves."""
        images = np.load(data / "tune" / "ct_hu.npz")["images"]
        chosen = np.linspace(0, len(images) - 1, slices).round().astype(int)
        volume = (4.0 * images[chosen] - 1024).astype(np.float32)
        affine = np.diag([PIXEL_MM, PIXEL_MM, PIXEL_MM, 1.0])
        known = simulate(volume, affine, CTParallel(), Simulation(model="realistic", views=views))
        acquisition = known.acquisition
        assert isinstance(acquisition, CTParallel) and known.truth is not None
        return cls(chosen.tolist(), known.truth, frames(known.data.astype(np.float64), photons), acquisition)

    def scores(self, counts: Frames, method: Any, preparation: dict[str, Any]) -> tuple[str, list[float]]:
        """Reconstruct counts as a user does; name of the method and PSNR of each slice."""
        geometry = self.acquisition.model_dump(
            include={"kind", "detector_mm", "pixel_mm", "rows", "cols", "mu_water_per_mm"}
        )
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / "scan.h5", counts, self.acquisition.angles() or ())
            spec = JobSpec.parse(
                {
                    "input": {"path": str(path), "format": "dxchange"},
                    "acquisition": {**geometry, "preparation": preparation},
                    "method": method,
                    "output": {"format": "numpy", "montage": False, "baselines": []},
                }
            )
            run(spec, local_files(spec), Path(folder) / "out")
            result = np.load(Path(folder) / "out" / "volume.npy")
        return spec.method.name, [metrics.psnr(one, truth) for one, truth in zip(result, self.truth, strict=True)]


def compare(data: Path, slices: int, views: int, photons: float, methods: tuple[Any, ...] = METHODS) -> Iterator[Row]:
    """Reconstruct slices of the tuning set from clean and from damaged counts."""
    scan = Scan.simulated(data, slices, views, photons)
    damaged = damage(scan.counts)
    for method in methods:
        name, before = scan.scores(scan.counts, method, {})
        _, after = scan.scores(damaged, method, {})
        for index, whole, harmed in zip(scan.slices, before, after, strict=True):
            yield Row(name, index, views, round(whole, 3), round(harmed, 3))


@dataclass(frozen=True)
class StripeRow:
    """A method with a filter of stripes, on clean counts and on those with stripes: mean PSNR of the slices."""

    stripes: str | None
    method: str
    clean_psnr: float
    striped_psnr: float


def stripes(
    data: Path, slices: int, views: int, photons: float, spread: float, methods: tuple[Any, ...] = METHODS
) -> Iterator[StripeRow]:
    """Reconstruct slices of the tuning set with every filter of stripes and without one."""
    scan = Scan.simulated(data, slices, views, photons)
    drifted = striped(scan.counts, spread)
    for chosen in (None, *get_args(Stripes)):
        for method in methods:
            found = [scan.scores(counts, method, {"stripes": chosen}) for counts in (scan.counts, drifted)]
            clean, after = (round(float(np.mean(scores)), 3) for _, scores in found)
            yield StripeRow(chosen, found[0][0], clean, after)
