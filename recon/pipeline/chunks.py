"""Solve a volume in chunks of slices, to limit memory and to resume or share finished work.

Where slices are independent the chunks give what the whole volume would. Methods that couple neighbours get halo
slices on both sides, which are computed and thrown away. Idle workers may take chunks of a job that another one runs:
who takes which is settled by locks, and what is finished by files, so that nothing else has to live or be remembered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from recon.pipeline.chunk_cache import ChunkCache, digest
from recon.planning.chunk_layout import CHUNK, HALO, Chunk, layout
from recon.problem.problem import Problem, Progress, Solver
from recon.spec.methods import Method

POLL_S = 0.2
"""Seconds between checks whether another process has finished a chunk."""
LEAST_PATIENCE_S = 60.0
"""Minimum time without progress from other workers before their chunk is recomputed here (or 3 x our slowest chunk)."""
T = TypeVar("T")
log = logging.getLogger("recon.pipeline.chunks")


Steps = Generator[tuple[str, Progress], None, T]
"""Progress of a volume: label of the chunk (empty for a single one), and the state of the whole with its `volume`."""


def solve(
    problem: Problem,
    method: Method,
    start: Callable[[Problem], Solver],
    cache: ChunkCache,
    key: str,
    size: int = CHUNK,
) -> Steps[Tensor]:
    """Solve a problem chunk by chunk, skipping chunks in the cache and those that others are computing.

    Parameters
    ----------
    start
        Function that starts the solver on a part of the problem.
    key
        Hash of everything that the result depends on except `size`, see `digest`.
    """
    chunked = _Chunked(problem, start, cache, digest({"key": key, "size": size, "halo": HALO}))
    chunks = layout(problem.slices, method, size)
    volume, pending = problem.zeros(), []
    for chunk in chunks:
        found = cache.get(chunked.key, chunk)
        if found is None:
            pending.append(chunk)
        else:
            volume[chunk.first : chunk.last] = found
            cache.reused += 1
    if len(chunks) > 1:
        cache.offer(chunked.key, chunks)
    if len(pending) > 1 and cache.invite is not None:
        cache.invite(len(pending) - 1)
    longest = LEAST_PATIENCE_S / 3
    while pending:
        before = len(pending)
        for chunk in tuple(pending):
            begun = time.monotonic()
            found = yield from chunked.compute(chunk, len(chunks) - len(pending), len(chunks))
            if found is not None:
                longest = max(longest, time.monotonic() - begun)
                volume[chunk.first : chunk.last] = found
                pending.remove(chunk)
        if len(pending) == before:
            found = yield from chunked.waited(pending, len(chunks), volume, 3 * longest)
            if found is not None:
                volume[pending[0].first : pending[0].last] = found
                del pending[0]
    return volume


def assist(
    problem: Problem,
    method: Method,
    start: Callable[[Problem], Solver],
    cache: ChunkCache,
    key: str,
    stop: Callable[[], bool] = lambda: False,
    size: int = CHUNK,
) -> Steps[bool]:
    """Help another process: compute chunks of its `solve` that are neither finished nor being computed.

    Parameters
    ----------
    stop
        Asked before each chunk.

    Returns
    -------
    bool
        Whether more help like this would be welcome. A process with another chunk size cannot help.

    Raises
    ------
    FileNotFoundError
        If the cache was cleared meanwhile, because the job has ended.
    """
    chunked = _Chunked(problem, start, cache, digest({"key": key, "size": size, "halo": HALO}))
    chunks = layout(problem.slices, method, size)
    for index, chunk in enumerate(chunks):
        # What is not open is in one piece, or finished, or another host's, whose numbers differ.
        if stop() or not cache.wanted(chunked.key):
            break
        yield from chunked.compute(chunk, index, len(chunks))
    return cache.wanted(chunked.key)


@dataclass(frozen=True)
class _Chunked:
    """Problem to be solved in chunks, with its cache."""

    problem: Problem
    start: Callable[[Problem], Solver]
    cache: ChunkCache
    key: str

    def compute(self, chunk: Chunk, done: int, count: int, *, claim: bool = True) -> Steps[Tensor | None]:
        """Read a chunk from the cache, or compute and store it; None if another process is computing it."""
        problem = self.problem
        alone = count == 1 or not claim
        with nullcontext(True) if alone else self.cache.claim(self.key, chunk) as mine:
            if not mine:
                return None
            found = self.cache.get(self.key, chunk)
            if found is not None:
                self.cache.given += 1
                return found
            label = "" if count == 1 else f"slices {chunk.first}:{chunk.last} of {problem.slices}"
            part = problem if count == 1 else problem.part(chunk.begin, chunk.end)
            computed = yield from _one(self.start(part), label, done, count)
            found = computed[chunk.first - chunk.begin : chunk.last - chunk.begin]
            if count == 1:
                self.cache.folder.mkdir(parents=True, exist_ok=True)
            self.cache.put(self.key, chunk, found)
            return found

    def waited(self, pending: list[Chunk], count: int, volume: Tensor, patience_s: float) -> Steps[Tensor | None]:
        """Wait for other processes; if they take too long, compute the first of their chunks here too."""
        since, done = time.monotonic(), count - len(pending)
        state = Progress(done, count, volume, self.problem)
        while not any(self.ended(chunk) for chunk in pending):
            yield f"{len(pending)} chunks with other workers", state
            if time.monotonic() - since > patience_s:
                log.warning("no chunk from other workers for %.0f s, computing one of theirs", patience_s)
                return (yield from self.compute(pending[0], done, count, claim=False))
            time.sleep(POLL_S)
        return None

    def ended(self, chunk: Chunk) -> bool:
        """Whether no process is computing a chunk any more."""
        with self.cache.claim(self.key, chunk) as mine:
            return mine


def _one(solver: Solver, label: str, done: int, count: int) -> Steps[Tensor]:
    """Drive the solver of one chunk when `done` of `count` are finished; its steps become steps of the whole."""
    try:
        while True:
            p = next(solver)
            yield label, replace(p, step=done * p.steps + p.step, steps=count * p.steps)
    except StopIteration as end:
        volume: Tensor = end.value
        return volume
    finally:
        solver.close()
