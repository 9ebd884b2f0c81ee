"""A volume in slabs of slices: memory and solver steps stay small, and what is finished need not be computed again.

Where slices are independent the slabs give what the whole volume would. Methods that couple neighbours get halo
slices on both sides, which are computed and thrown away. Idle workers may take slabs of a job that another one runs:
who takes which is settled by locks, and what is finished by files, so that nothing else has to live or be remembered.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from recon.atomic import atomic_write
from recon.locks import try_lock
from recon.measurement import Measurement
from recon.methods import TV, Method, in_one_piece
from recon.plan import HALO, SLAB
from recon.solvers.problem import Problem, Progress, Solver

POLL_S = 0.2
"""Between two looks whether another process has finished a slab."""
LEAST_PATIENCE_S = 60.0
"""A slab of another process is computed again after so long without any, or three times the longest of one's own."""
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""A file system without locks: then nobody helps either."""
T = TypeVar("T")
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


def halo_of(method: Method, neighbours: int = 0) -> int | None:
    """Slices beside a slab that a method needs: 0 where slices are independent, None if it cannot be cut.

    They are not independent either for a prior that sees `neighbours`.

    DiffusionMBIR and DDS in 3D as published make few conjugate gradient steps, whose length depends on the whole
    volume: slabs of it differ by 5e-3 of the range.
    """
    if in_one_piece(method):
        return None
    coupled = method.dimensions == 3 if isinstance(method, TV) else getattr(method, "z_weight", 0.0) > 0
    return HALO if coupled or neighbours else 0


class Shelf:
    """Finished slabs on disk, which several processes may fill at once.

    Stale slabs are never found: their key, of all that they depend on, is another.

    Parameters
    ----------
    folder
        Made by whoever solves; a helper that does not find it is not needed.
    invite
        Called with the number of slabs that others could compute, so that they come and `assist`.
    """

    def __init__(self, folder: Path, invite: Callable[[int], None] | None = None) -> None:
        self.folder, self.invite = folder, invite
        self.reused = 0
        """Slabs that had been computed before."""
        self.given = 0
        """Slabs that others computed meanwhile."""

    def open(self, key: str, slabs: Sequence[Slab]) -> None:
        """Put up what others may help with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{key[:16]}.open").write_text(json.dumps([[s.first, s.last, s.begin, s.end] for s in slabs]))

    def wanted(self, key: str | None = None) -> bool:
        """Whether a slab, of all stages or of one, is neither finished nor being computed."""
        for path in self.folder.glob("*.open" if key is None else f"{key[:16]}.open"):
            for slab in (Slab(*numbers) for numbers in json.loads(path.read_text())):
                with self.claim(path.stem, slab) as free:
                    if free and not self._path(path.stem, slab).exists():
                        return True
        return False

    @contextmanager
    def claim(self, key: str, slab: Slab) -> Iterator[bool]:
        """Whether this process may compute a slab now; until the block ends, or the process dies.

        Where locks do not reach another host, both compute the slab, one as well as the other.
        """
        with ExitStack() as stack:
            try:
                mine = stack.enter_context(try_lock(self._path(key, slab).with_suffix(".lock")))
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                mine = True
            yield mine

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
        return found

    def put(self, key: str, slab: Slab, volume: Tensor) -> None:
        """Keep a slab; it is there whole or not at all, even if the machine stops."""
        with atomic_write(self._path(key, slab)) as stream:
            np.save(stream, volume.numpy())

    def clear(self) -> None:
        """Remove all slabs: the result is published. Whoever still comes to help finds nothing."""
        doomed = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}")
        if self.folder.exists():
            os.replace(self.folder, doomed)
            shutil.rmtree(doomed)

    def _path(self, key: str, slab: Slab) -> Path:
        return self.folder / f"slab-{slab.first:05d}-{slab.last:05d}-{key[:16]}.npy"


Steps = Generator[tuple[str, Progress], None, T]
"""Which slices (empty for a volume in one piece), and the state of the whole: its `volume` is the slab's."""


def solve(
    problem: Problem,
    method: Method,
    start: Callable[[Problem], Solver],
    shelf: Shelf,
    key: str,
    size: int = SLAB,
    neighbours: int = 0,
) -> Steps[Tensor]:
    """Solve a problem slab by slab, skipping those on the shelf and those that others are computing.

    Parameters
    ----------
    start
        The solver of a part of the problem.
    key
        Of all that the result depends on but `size`, see `digest`.
    neighbours
        Slices on each side that the prior sees.
    """
    cut = _Cut(problem, start, shelf, digest({"key": key, "size": size, "halo": HALO}))
    slabs = plan(problem.slices, halo_of(method, neighbours), size)
    volume, pending = problem.zeros(), []
    for slab in slabs:
        found = shelf.get(cut.key, slab)
        if found is None:
            pending.append(slab)
        else:
            volume[slab.first : slab.last] = found
            shelf.reused += 1
    if len(slabs) > 1:
        shelf.open(cut.key, slabs)
    if len(pending) > 1 and shelf.invite is not None:
        shelf.invite(len(pending) - 1)
    longest = LEAST_PATIENCE_S / 3
    while pending:
        before = len(pending)
        for slab in tuple(pending):
            begun = time.monotonic()
            found = yield from cut.compute(slab, len(slabs) - len(pending), len(slabs))
            if found is not None:
                longest = max(longest, time.monotonic() - begun)
                volume[slab.first : slab.last] = found
                pending.remove(slab)
        if len(pending) == before:
            found = yield from cut.waited(pending, len(slabs), volume, 3 * longest)
            if found is not None:
                volume[pending[0].first : pending[0].last] = found
                del pending[0]
    return volume


def assist(
    problem: Problem,
    method: Method,
    start: Callable[[Problem], Solver],
    shelf: Shelf,
    key: str,
    stop: Callable[[], bool] = lambda: False,
    size: int = SLAB,
    neighbours: int = 0,
) -> Steps[bool]:
    """Compute the slabs of `solve` that nobody has computed or is computing, for whoever put up the shelf.

    Parameters
    ----------
    stop
        Asked before each slab.

    Returns
    -------
    bool
        Whether more help like this would be welcome. Slabs of another size, as a process with more memory cuts them,
        or an earlier attempt with less, are nothing that it could help with.

    Raises
    ------
    FileNotFoundError
        If the shelf was cleared meanwhile: nobody needs the slab any more.
    """
    cut = _Cut(problem, start, shelf, digest({"key": key, "size": size, "halo": HALO}))
    slabs = plan(problem.slices, halo_of(method, neighbours), size)
    for index, slab in enumerate(slabs):
        # What is not open is in one piece, or finished, or another host's, whose numbers differ.
        if stop() or not shelf.wanted(cut.key):
            break
        yield from cut.compute(slab, index, len(slabs))
    return shelf.wanted(cut.key)


@dataclass(frozen=True)
class _Cut:
    """A problem to be solved in slabs."""

    problem: Problem
    start: Callable[[Problem], Solver]
    shelf: Shelf
    key: str

    def compute(self, slab: Slab, done: int, count: int, *, claim: bool = True) -> Steps[Tensor | None]:
        """A slab from the shelf, or computed and put there; None if another process is at it."""
        problem = self.problem
        alone = count == 1 or not claim
        with nullcontext(True) if alone else self.shelf.claim(self.key, slab) as mine:
            if not mine:
                return None
            found = self.shelf.get(self.key, slab)
            if found is not None:
                self.shelf.given += 1
                return found
            label = "" if count == 1 else f"slices {slab.first}:{slab.last} of {problem.slices}"
            part = problem if count == 1 else problem.part(slab.begin, slab.end)
            computed = yield from _one(self.start(part), label, done, count)
            found = computed[slab.first - slab.begin : slab.last - slab.begin]
            if count == 1:
                self.shelf.folder.mkdir(parents=True, exist_ok=True)
            self.shelf.put(self.key, slab, found)
            return found

    def waited(self, pending: list[Slab], count: int, volume: Tensor, patience_s: float) -> Steps[Tensor | None]:
        """Wait for other processes; the first slab of theirs, computed here too if they take too long."""
        since, done = time.monotonic(), count - len(pending)
        state = Progress(done, count, volume, self.problem)
        while not any(self.ended(slab) for slab in pending):
            yield f"{len(pending)} slabs with other workers", state
            if time.monotonic() - since > patience_s:
                log.warning("no slab from other workers for %.0f s, computing one of theirs", patience_s)
                return (yield from self.compute(pending[0], done, count, claim=False))
            time.sleep(POLL_S)
        return None

    def ended(self, slab: Slab) -> bool:
        """Whether whoever was computing a slab no longer is."""
        with self.shelf.claim(self.key, slab) as mine:
            return mine


def _one(solver: Solver, label: str, done: int, count: int) -> Steps[Tensor]:
    """Drive the solver of one slab, `done` of `count` being finished; its steps become steps of the whole."""
    try:
        while True:
            p = next(solver)
            yield label, replace(p, step=done * p.steps + p.step, steps=count * p.steps)
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
