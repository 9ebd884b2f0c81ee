"""Raw counts of a scan whose line integrals are known in closed form, with defects on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.job import JobSpec, local_files

DISCS = ((0.0, 0.0, 20.0, 0.02), (10.0, 5.0, 5.0, 0.03))
"""Discs (x, y, radius in mm, attenuation in 1/mm) that add up."""
COLUMNS, PITCH_MM, ROWS, VIEWS, PHOTONS, DARK = 96, 0.6, 3, 180, 2e4, 100

Frames = dict[str, np.ndarray]
Change = Callable[[Frames], None]


def sinogram(angles_rad: np.ndarray, columns: int = COLUMNS, centre: float | None = None) -> np.ndarray:
    """Line integrals ``(views, columns)`` of the discs, averaged over each element."""
    middle = (columns - 1) / 2 if centre is None else centre
    inside = (np.arange(8) + 0.5) / 8 - 0.5
    place = ((np.arange(columns) - middle)[:, None] + inside) * PITCH_MM
    found = np.zeros((len(angles_rad), columns))
    for x, y, radius, mu in DISCS:
        off = place - (x * np.cos(angles_rad) + y * np.sin(angles_rad))[:, None, None]
        found += (2 * mu * np.sqrt(np.maximum(radius**2 - off**2, 0))).mean(-1)
    return found


def frames(change: Change = lambda _: None, *, angles_deg: np.ndarray | None = None, noise: bool = True) -> Frames:
    """Counts as in ``/exchange``, and `theta` in degrees."""
    angles = np.arange(VIEWS) * 180 / VIEWS if angles_deg is None else angles_deg
    generator = np.random.default_rng(1)
    expected = PHOTONS * np.exp(-sinogram(np.deg2rad(angles)))[:, None, :].repeat(ROWS, 1)
    beam = np.full((10, ROWS, COLUMNS), PHOTONS)
    found = {
        "data": (generator.poisson(expected) if noise else expected.round()) + DARK,
        "data_white": (generator.poisson(beam) if noise else beam) + DARK,
        "data_dark": np.full((10, ROWS, COLUMNS), DARK),
        "theta": angles.astype(np.float32),
    }
    change(found)
    return found


def write(path: Path, found: Frames) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in found.items():
            file[f"exchange/{name}"] = array if name == "theta" else array.clip(0, 65535).astype(np.uint16)
    return path


def job(path: Path, preparation: dict[str, Any] | None = None, **more: Any) -> JobSpec:
    acquisition = {"kind": "ct-parallel", "detector_mm": PITCH_MM, **more.pop("acquisition", {})}
    if preparation is not None:
        acquisition["preparation"] = preparation
    given = {"path": str(path), "format": "dxchange", **more.pop("input", {})}
    return JobSpec.parse({"input": given, "acquisition": acquisition, "method": "fbp", **more})


def read(path: Path, change: Change = lambda _: None, preparation: dict[str, Any] | None = None) -> Measurement:
    """Write a changed scan, and read it."""
    wanted = job(write(path / "scan.h5", frames(change)), preparation)
    return reader.read(wanted, local_files(wanted))
