"""Peak memory and seconds of jobs that read, solve and write slab by slab, by the number of slices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import yaml
from numpy.lib import format as npy
from numpy.typing import NDArray

SIDE, VIEWS, SLAB = 512, 32, 16
FORMATS = {"numpy": ".npy", "hdf5": ".h5"}


@dataclass(frozen=True)
class Row:
    """One job: its size, and what it took."""

    format: str
    slices: int
    gigabytes: float
    """Size of the file that is read."""
    peak_mb: float
    """Resident memory of the process at its peak."""
    planned_mb: float
    seconds: float


def slab(first: int, last: int) -> NDArray[np.float32]:
    """Line integrals of discs that move from slice to slice, with noise: ``(slices, VIEWS, SIDE)``."""
    t = np.linspace(-1, 1, SIDE, dtype=np.float32)
    angles = np.linspace(0, np.pi, VIEWS, endpoint=False, dtype=np.float32)
    z = np.arange(first, last, dtype=np.float32)[:, None, None] / 100
    centre = 0.3 * np.cos(angles[None, :, None] - z)
    chords = np.sqrt(np.maximum(0.36 - (t - centre) ** 2, 0))
    noise = np.random.default_rng(first).standard_normal(chords.shape, dtype=np.float32)
    return np.asarray(2 * chords + 0.01 * noise, dtype=np.float32)


def write(path: Path, slices: int) -> None:
    """Write a sinogram slab by slab, in the format that the name of the file says."""
    shape = (slices, VIEWS, SIDE)
    parts = ((first, slab(first, first + SLAB)) for first in range(0, slices, SLAB))
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            data = file.create_dataset("data", shape, "f4")
            for first, part in parts:
                data[first : first + SLAB] = part
        return
    with path.open("wb") as stream:
        npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for _, part in parts:
            stream.write(part.tobytes())


def compare(folder: Path, counts: list[int], method: str, output: str) -> Iterator[Row]:
    """Run `recon run` on files of ever more slices, in processes of their own."""
    for name, ending in FORMATS.items():
        for slices in counts:
            source, out = folder / f"scan{ending}", folder / "out"
            write(source, slices)
            spec = {
                "input": {"path": source.name, "format": name},
                "acquisition": {"kind": "ct-parallel", "angles_rad": {"count": VIEWS}, "detector_mm": 1.0},
                "method": method,
                "output": {"format": output},
            }
            (folder / "job.yaml").write_text(yaml.safe_dump(spec))
            command = [sys.executable, "-m", "recon.cli.main", "run", "job.yaml", "--out", str(out)]
            began = time.perf_counter()
            running = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            assert running.stderr is not None
            told = running.stderr.read().decode()
            _, status, used = os.wait4(running.pid, 0)
            seconds = time.perf_counter() - began
            if status:
                raise RuntimeError(f"{' '.join(command)}: status {status}\n{told}")
            memory = json.loads((out / "report.json").read_text())["memory"]
            size = source.stat().st_size / 1e9
            yield Row(name, slices, size, used.ru_maxrss / 1e3, memory["planned_bytes"] / 1e6, seconds)
            for path in (*out.iterdir(), source):
                path.unlink()
            out.rmdir()
