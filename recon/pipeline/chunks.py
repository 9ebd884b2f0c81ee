"""Solve a volume in chunks of slices, to limit memory and to resume or share finished work.

Where slices are independent the chunks give what the whole volume would. Methods that couple neighbours get halo
slices on both sides, which are computed and thrown away. Idle workers may take chunks of a job that another one runs:
who takes which is settled by locks, and what is finished by files, so that nothing else has to live or be remembered.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor

from recon.pipeline.chunk_cache import ChunkCache, digest
from recon.pipeline.volumes import StoredVolume
from recon.planning.chunk_layout import CHUNK, HALO, Chunk, layout
from recon.problem.problem import Problem, Solver
from recon.problem.resume import StateFile, kept_in
from recon.spec.methods import Method

POLL_S = 0.2
"""Seconds between checks whether another process has finished a chunk."""
LEAST_PATIENCE_S = 60.0
"""Minimum time without progress from other workers before their chunk is recomputed here (or 3 x our slowest chunk)."""
T = TypeVar("T")
P = TypeVar("P", covariant=True)
Q = TypeVar("Q")
log = logging.getLogger("recon.pipeline.chunks")


class Stack(Protocol[P]):
    """Problem of a volume, of which parts can be had: `Problem` in memory, or read part by part."""

    @property
    def slices(self) -> int:
        """Number of slices."""

    def part(self, first: int, last: int) -> P:
        """Problem of slices ``[first, last)`` alone."""


class State(NamedTuple):
    """State of a volume that is being solved.

    Parameters
    ----------
    step, steps
        How far it is.
    measure
        Computes the data misfit of the chunk in progress; None if there is none in this process.
    current
        Volume of the chunk in progress as it is now, in physical units; None likewise.
    """

    step: int
    steps: int
    measure: Callable[[], float] | None = None
    current: Tensor | None = None


Steps = Generator[tuple[str, State], None, T]
"""Progress of a volume: label of the chunk (empty for a single one), and the state of the whole."""


def solve(
    stack: Stack[Q],
    method: Method,
    start: Callable[[Q], Solver],
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

    Returns
    -------
    Tensor
        The volume ``(slices, rows, cols)``.
    """
    volume: Tensor | None = None

    def keep(chunk: Chunk, found: Tensor) -> None:
        nonlocal volume
        if found.shape[0] == stack.slices:
            volume = found
            return
        if volume is None:
            volume = found.new_zeros((stack.slices, *found.shape[1:]))
        volume[chunk.first : chunk.last] = found

    yield from _solve(stack, method, start, cache, key, size, keep)
    assert volume is not None
    return volume


def solve_apart(
    stack: Stack[Q], method: Method, start: Callable[[Q], Solver], cache: ChunkCache, key: str, size: int = CHUNK
) -> Steps[StoredVolume]:
    """Solve a problem as `solve` does, and hold no more than a chunk of the volume, which stays in the cache."""
    return (yield from _solve(stack, method, start, cache, key, size, lambda _chunk, _found: None))


def _solve(
    stack: Stack[Q],
    method: Method,
    start: Callable[[Q], Solver],
    cache: ChunkCache,
    key: str,
    size: int,
    keep: Callable[[Chunk, Tensor], None],
) -> Steps[StoredVolume]:
    """Solve a problem chunk by chunk; `keep` gets what is finished."""
    chunked = _Chunked(stack, start, cache, digest({"key": key, "size": size, "halo": HALO}))
    chunks, pending = layout(stack.slices, method, size), []
    cache.folder.mkdir(parents=True, exist_ok=True)
    for chunk in chunks:
        found = cache.get(chunked.key, chunk)
        if found is None:
            pending.append(chunk)
        else:
            keep(chunk, found)
            cache.reused += 1
    if len(pending) > 1 and cache.invite is not None:
        cache.offer(chunked.key, chunks)
        cache.invite(len(pending) - 1)
    longest = LEAST_PATIENCE_S / 3
    while pending:
        before = len(pending)
        for chunk in tuple(pending):
            begun = time.monotonic()
            found = yield from chunked.compute(chunk, len(chunks) - len(pending), len(chunks))
            if found is not None:
                longest = max(longest, time.monotonic() - begun)
                keep(chunk, found)
                pending.remove(chunk)
                gc.collect()  # a slab's tensors hang in cycles of few objects, which nothing else would look for
        if len(pending) == before:
            found = yield from chunked.waited(pending, len(chunks), 3 * longest)
            if found is not None:
                keep(pending[0], found)
                del pending[0]
    return StoredVolume(cache, chunked.key, chunks)


def assist(
    stack: Stack[Q],
    method: Method,
    start: Callable[[Q], Solver],
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
    chunked = _Chunked(stack, start, cache, digest({"key": key, "size": size, "halo": HALO}))
    chunks = layout(stack.slices, method, size)
    for index, chunk in enumerate(chunks):
        # What is not open is in one piece, or finished, or another host's, whose numbers differ.
        if stop() or not cache.wanted(chunked.key):
            break
        yield from chunked.compute(chunk, index, len(chunks))
    return cache.wanted(chunked.key)


@dataclass(frozen=True)
class _Chunked(Generic[Q]):
    """Problem to be solved in chunks, with its cache."""

    stack: Stack[Q]
    start: Callable[[Q], Solver]
    cache: ChunkCache
    key: str

    def compute(self, chunk: Chunk, done: int, count: int, *, claim: bool = True) -> Steps[Tensor | None]:
        """Read a chunk from the cache, or compute and store it; None if another process is computing it."""
        slices = self.stack.slices
        alone = count == 1 or not claim
        with nullcontext(True) if alone else self.cache.claim(self.key, chunk) as mine:
            if not mine:
                return None
            found = self.cache.get(self.key, chunk)
            if found is not None:
                self.cache.given += 1
                return found
            label = "" if count == 1 else f"slices {chunk.first}:{chunk.last} of {slices}"
            part = self.stack.part(chunk.begin, chunk.end)
            # Finished chunks are what a stopped job goes on from; a whole volume has none, but its solver's state.
            whole = isinstance(part, Problem) and part.operator.whole_volume
            state = self.cache.state_of(self.key, chunk) if whole else None
            computed = yield from _one(self.start(part), label, done, count, state)
            found = computed[chunk.first - chunk.begin : chunk.last - chunk.begin]
            self.cache.put(self.key, chunk, found)
            if state is not None:
                state.remove()
            return found

    def waited(self, pending: list[Chunk], count: int, patience_s: float) -> Steps[Tensor | None]:
        """Wait for other processes; if they take too long, compute the first of their chunks here too."""
        since, done = time.monotonic(), count - len(pending)
        while not any(self.ended(chunk) for chunk in pending):
            yield f"{len(pending)} chunks with other workers", State(done, count)
            if time.monotonic() - since > patience_s:
                log.warning("no chunk from other workers for %.0f s, computing one of theirs", patience_s)
                return (yield from self.compute(pending[0], done, count, claim=False))
            time.sleep(POLL_S)
        return None

    def ended(self, chunk: Chunk) -> bool:
        """Whether no process is computing a chunk any more."""
        with self.cache.claim(self.key, chunk) as mine:
            return mine


def _one(solver: Solver, label: str, done: int, count: int, state: StateFile | None) -> Steps[Tensor]:
    """Drive the solver of one chunk when `done` of `count` are finished; its steps become steps of the whole.

    What it needs to go on is kept in the file `state`, if there is one.
    """
    try:
        while True:
            with kept_in(state):
                p = next(solver)
            misfit = partial(getattr, p, "data_misfit")
            yield label, State(done * p.steps + p.step, count * p.steps, misfit, p.volume)
    except StopIteration as end:
        volume: Tensor = end.value
        return volume
    finally:
        solver.close()
