"""A volume in slabs of slices: memory and solver steps stay small, and what is finished need not be computed again.

Where slices are independent the slabs give what the whole volume would. Methods that couple neighbours get halo
slices on both sides, which are computed and thrown away.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.disk import sync
from recon.measurement import Measurement
from recon.methods import TV, DiffusionMBIR, Method
from recon.plan import HALO, SLAB
from recon.solvers.problem import Problem, Progress, Solver

log = logging.getLogger("recon.slabs")


@dataclass(frozen=True)
class Slab:
    """Slices ``[first, last)`` of the result, from computing ``[begin, end)``."""

    first: int
    last: int
    begin: int
    end: int


def plan(slices: int, halo: int | None, size: int = SLAB) -> list[Slab]:
    """How a volume is cut: not at all up to twice `size`, or without a halo (see `halo_of`).

    Slabs have `size` slices, twice as many if there are neighbours to be computed with them.
    """
    if slices <= 2 * size or halo is None:
        return [Slab(0, slices, 0, slices)]
    length = 2 * size if halo else size
    return [
        Slab(first, last, max(0, first - halo), min(slices, last + halo))
        for first, last in ((i, min(i + length, slices)) for i in range(0, slices, length))
    ]


def halo_of(method: Method) -> int | None:
    """Slices beside a slab that a method needs: 0 where slices are independent, None if it cannot be cut.

    Published DiffusionMBIR makes one conjugate gradient step at a time, whose length depends on the whole volume:
    slabs of it differ by 5e-3 of the range.
    """
    if isinstance(method, DiffusionMBIR) and method.preset == "paper":
        return None
    coupled = method.dimensions == 3 if isinstance(method, TV) else getattr(method, "z_weight", 0.0) > 0
    return HALO if coupled else 0


class Shelf:
    """Finished slabs on disk. Stale ones are never found: their key, of all that they depend on, is another.

    Parameters
    ----------
    folder
        Made when the first slab is put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reused = 0
        """Slabs that had been computed before."""

    def get(self, key: str, slab: Slab) -> Tensor | None:
        """A finished slab, or None; one that cannot be read is logged and computed again."""
        path = self._path(key, slab)
        try:
            found = torch.from_numpy(np.load(path, allow_pickle=False))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the finished slab %s cannot be read, computing it again: %s", path.name, error)
            return None
        self.reused += 1
        return found

    def put(self, key: str, slab: Slab, volume: Tensor) -> None:
        """Keep a slab; it is there whole or not at all, even if the machine stops."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key, slab)
        temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
        with temporary.open("wb") as stream:
            np.save(stream, volume.numpy())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        sync(self.folder)

    def clear(self) -> None:
        """Remove all slabs: the result is published."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _path(self, key: str, slab: Slab) -> Path:
        return self.folder / f"slab-{slab.first:05d}-{slab.last:05d}-{key[:16]}.npy"


def solve(
    problem: Problem, method: Method, start: Callable[[Problem], Solver], shelf: Shelf, key: str, size: int = SLAB
) -> Generator[tuple[str, Progress], None, Tensor]:
    """Solve a problem slab by slab, skipping those on the shelf.

    Parameters
    ----------
    start
        The solver of a part of the problem.
    key
        Of all that the result depends on but `size`, see `digest`.

    Yields
    ------
    tuple of str and Progress
        Which slices (empty for a volume in one piece), and the state of the whole: its `volume` is the slab's.
    """
    slabs = plan(problem.slices, halo_of(method), size)
    key = digest({"key": key, "size": size, "halo": HALO})
    volume = problem.zeros()
    for index, slab in enumerate(slabs):
        label = "" if len(slabs) == 1 else f"slices {slab.first}:{slab.last} of {problem.slices}"
        found = shelf.get(key, slab)
        if found is None:
            part = problem if len(slabs) == 1 else problem.part(slab.begin, slab.end)
            computed = yield from _one(start(part), label, index, len(slabs))
            found = computed[slab.first - slab.begin : slab.last - slab.begin]
            shelf.put(key, slab, found)
        volume[slab.first : slab.last] = found
    return volume


def _one(solver: Solver, label: str, index: int, count: int) -> Generator[tuple[str, Progress], None, Tensor]:
    """Drive the solver of one slab of `count`; its steps become steps of the whole."""
    try:
        while True:
            p = next(solver)
            yield label, Progress(index * p.steps + p.step, count * p.steps, p.data_misfit, p.volume, p.stage)
    except StopIteration as end:
        volume: Tensor = end.value
        return volume
    finally:
        solver.close()


def digest(value: Any) -> str:
    """sha256 of anything JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of(measurement: Measurement) -> str:
    """sha256 of what was measured and how."""
    found = hashlib.sha256(measurement.acquisition.model_dump_json().encode())
    found.update(repr(measurement.noise_std).encode())
    affine = None if measurement.affine is None else np.asarray(measurement.affine)
    for array in (measurement.data, measurement.mask, measurement.coil_maps, affine):
        found.update(b"none" if array is None else f"{array.dtype} {array.shape}".encode())
        if array is not None:
            found.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return found.hexdigest()
