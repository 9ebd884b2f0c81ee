"""What defects of a detector cost: a scan with dead elements, zingers and lost frames against the same one without."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from operators.tomography import Tomography
from recon.measurement.simulate import simulate
from recon.pipeline.reconstruct import run
from recon.quality import metrics
from recon.spec.acquisitions.ct import WATER_PER_MM, CTParallel
from recon.spec.job import JobSpec, local_files
from recon.spec.simulation import Simulation

DEAD, ZINGER_FRAMES, ZINGERS, LOST = 0.01, 0.1, 3, 3
"""Fraction of dead elements; of frames with zingers, and how many these have in a row; number of lost frames."""
DARK = 100
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


def compare(data: Path, slices: int, views: int, photons: float, methods: tuple[Any, ...] = METHODS) -> Iterator[Row]:
    """Reconstruct slices of the tuning set from clean and from damaged counts."""
    images = np.load(data / "tune" / "ct_hu.npz")["images"]
    chosen = np.linspace(0, len(images) - 1, slices).round().astype(int)
    volume = (4.0 * images[chosen] - 1024).astype(np.float32)
    pixel_mm = 1.4
    known = simulate(
        volume, np.diag([pixel_mm, pixel_mm, pixel_mm, 1.0]), CTParallel(), Simulation(model="ideal", views=views)
    )
    acquisition = known.acquisition
    assert isinstance(acquisition, CTParallel) and known.truth is not None
    operator = Tomography(acquisition.geometry(known.data.shape[2]))
    attenuation = torch.from_numpy(WATER_PER_MM * (1 + known.truth / 1000)).clamp(min=0)
    found = frames(operator.forward(attenuation).numpy(), photons)
    geometry = acquisition.model_dump(include={"kind", "detector_mm", "pixel_mm", "rows", "cols", "mu_water_per_mm"})
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            scores: dict[str, list[float]] = {}
            for name, counts in (("clean", found), ("damaged", damage(found))):
                path = write(Path(folder) / f"{name}.h5", counts, acquisition.angles() or ())
                output = {"format": "numpy", "montage": False, "baselines": []}
                given = {"path": str(path), "format": "dxchange"}
                spec = JobSpec.parse({"input": given, "acquisition": geometry, "method": method, "output": output})
                out = Path(folder) / f"{name}-{spec.method.name}"
                run(spec, local_files(spec), out)
                result = np.load(out / "volume.npy")
                scores[name] = [metrics.psnr(one, truth) for one, truth in zip(result, known.truth, strict=True)]
            for index, (clean, damaged) in enumerate(zip(scores["clean"], scores["damaged"], strict=True)):
                yield Row(spec.method.name, int(chosen[index]), views, round(clean, 3), round(damaged, 3))
