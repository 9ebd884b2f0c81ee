"""Chunk layout: cuts a volume into chunks of slices by one rule for the plan and the solver. Light."""

from __future__ import annotations

from dataclasses import dataclass

from recon.spec.methods import Method

CHUNK = 16
"""Slices per chunk: as many as the CT projector multiplies at once. Twice as many are not cut."""
SMALLER = (8, 4, 2, 1)
"""Slices per chunk where memory is short: slower, since the projector still multiplies as many."""
HALO = 16
"""Halo: slices computed on both sides of a chunk if the method couples slices. Chunks are then twice as long, which
costs what 8 slices and single length do, with seams below 1e-3 of the range, where 8 left up to 2e-3 (red-diff)."""


@dataclass(frozen=True)
class Chunk:
    """Chunk: slices ``[first, last)`` of the result, obtained by computing ``[begin, end)``."""

    first: int
    last: int
    begin: int
    end: int


def layout(slices: int, method: Method, size: int = CHUNK) -> list[Chunk]:
    """Cut a volume into chunks: a single one up to twice `size` slices, or for a method that needs all slices at once.

    Chunks have `size` slices, or twice as many and `HALO` more on both sides for a method that couples slices.
    """
    if slices <= 2 * size or method.in_one_piece():
        return [Chunk(0, slices, 0, slices)]
    length, halo = (2 * size, HALO) if method.couples_slices() else (size, 0)
    return [
        Chunk(first, last, max(0, first - halo), min(slices, last + halo))
        for first, last in ((i, min(i + length, slices)) for i in range(0, slices, length))
    ]
