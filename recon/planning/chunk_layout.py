"""How a volume is cut into chunks of slices: the same rule for the plan and for the solver. Light."""

from __future__ import annotations

from dataclasses import dataclass

from recon.spec.methods import Method

CHUNK = 16
"""Slices solved at once: what the CT projector multiplies at once. Twice as many are not worth cutting."""
SMALLER = (8, 4, 2, 1)
"""Slices solved at once where memory is short: slower, the projector still multiplies as many."""
HALO = 16
"""Slices computed on both sides of a chunk where the method couples slices. Chunks are then twice as long, which costs
what 8 slices and single length do, with seams below 1e-3 of the range, where 8 left up to 2e-3 (red-diff)."""


@dataclass(frozen=True)
class Chunk:
    """Slices ``[first, last)`` of the result, from computing ``[begin, end)``."""

    first: int
    last: int
    begin: int
    end: int


def layout(slices: int, method: Method, size: int = CHUNK) -> list[Chunk]:
    """The chunks of a volume: one up to twice `size` slices, or for a method that has to see all.

    Chunks have `size` slices, or twice as many and `HALO` more on both sides for a method that couples slices.
    """
    if slices <= 2 * size or method.in_one_piece():
        return [Chunk(0, slices, 0, slices)]
    length, halo = (2 * size, HALO) if method.couples_slices() else (size, 0)
    return [
        Chunk(first, last, max(0, first - halo), min(slices, last + halo))
        for first, last in ((i, min(i + length, slices)) for i in range(0, slices, length))
    ]
