"""Volumes that a job has solved: in memory, or in the files of their finished chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recon.pipeline.chunk_cache import ChunkCache
from recon.planning.chunk_layout import Chunk


class Volume(Protocol):
    """Solved volume ``(slices, rows, cols)``, of which parts can be had."""

    @property
    def slices(self) -> int:
        """Number of slices."""

    def part(self, first: int, last: int) -> Tensor:
        """Slices ``[first, last)``."""

    def parts(self) -> Iterator[Tensor]:
        """All slices in order, no more at once than are held anyway."""


@dataclass(frozen=True)
class HeldVolume:
    """Volume in memory."""

    values: Tensor

    @property
    def slices(self) -> int:
        """Number of slices."""
        return len(self.values)

    def part(self, first: int, last: int) -> Tensor:
        """Slices ``[first, last)``."""
        return self.values[first:last]

    def parts(self) -> Iterator[Tensor]:
        """All slices at once."""
        yield self.values


@dataclass(frozen=True)
class StoredVolume:
    """Volume in the chunk cache of a job; what is read of it is as short-lived as its reader."""

    cache: ChunkCache
    key: str
    chunks: Sequence[Chunk]

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.chunks[-1].last

    def part(self, first: int, last: int) -> Tensor:
        """Slices ``[first, last)``, from the chunks that have some of them."""
        found = [
            self.cache.read(self.key, chunk)[max(first - chunk.first, 0) : last - chunk.first]
            for chunk in self.chunks
            if chunk.first < last and first < chunk.last
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    def parts(self) -> Iterator[Tensor]:
        """All slices, a chunk at a time."""
        for chunk in self.chunks:
            yield self.cache.read(self.key, chunk)


@dataclass(frozen=True)
class ArrangedVolume:
    """Volume as the result has it: `arrange` is what becomes of some of its slices."""

    volume: Volume
    arrange: Callable[[Tensor], Tensor]

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.volume.slices

    def part(self, first: int, last: int) -> Tensor:
        """Slices ``[first, last)``."""
        return self.arrange(self.volume.part(first, last))

    def parts(self) -> Iterator[Tensor]:
        """All slices in order, as they come."""
        return map(self.arrange, self.volume.parts())


def held(volume: Volume) -> HeldVolume:
    """Read a volume into memory."""
    return volume if isinstance(volume, HeldVolume) else HeldVolume(volume.part(0, volume.slices))
