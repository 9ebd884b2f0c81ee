"""Cache of solved chunks on disk, which several processes may fill at once."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.measurement.measurement import Measurement
from recon.planning.chunk_layout import Chunk
from recon.storage.atomic import atomic_write
from recon.storage.locks import try_lock

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""Errors of a file system without locks: then nobody helps either."""
log = logging.getLogger("recon.pipeline.chunks")


class ChunkCache:
    """Finished chunks on disk, which several processes may fill at once.

    Stale chunks are never found: their key, of all that they depend on, is another.

    Parameters
    ----------
    folder
        Made by whoever solves; a helper that does not find it is not needed.
    invite
        Called with the number of chunks that others could compute, so that they come and `assist`.
    """

    def __init__(self, folder: Path, invite: Callable[[int], None] | None = None) -> None:
        self.folder, self.invite = folder, invite
        self.reused = 0
        """Chunks that had been computed before."""
        self.given = 0
        """Chunks that others computed meanwhile."""

    def offer(self, key: str, chunks: Sequence[Chunk]) -> None:
        """Put up what others may help with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{key[:16]}.open").write_text(json.dumps([[s.first, s.last, s.begin, s.end] for s in chunks]))

    def wanted(self, key: str | None = None) -> bool:
        """Whether a chunk, of all stages or of one, is neither finished nor being computed."""
        for path in self.folder.glob("*.open" if key is None else f"{key[:16]}.open"):
            for chunk in (Chunk(*numbers) for numbers in json.loads(path.read_text())):
                with self.claim(path.stem, chunk) as free:
                    if free and not self._path(path.stem, chunk).exists():
                        return True
        return False

    @contextmanager
    def claim(self, key: str, chunk: Chunk) -> Iterator[bool]:
        """Whether this process may compute a chunk now; until the block ends, or the process dies.

        Where locks do not reach another host, both compute the chunk, one as well as the other.
        """
        with ExitStack() as stack:
            try:
                mine = stack.enter_context(try_lock(self._path(key, chunk).with_suffix(".lock")))
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                mine = True
            yield mine

    def get(self, key: str, chunk: Chunk) -> Tensor | None:
        """A finished chunk, or None; one that cannot be read is logged and computed again."""
        path = self._path(key, chunk)
        try:
            found = torch.from_numpy(np.load(path, allow_pickle=False))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the finished chunk %s cannot be read, computing it again: %s", path.name, error)
            return None
        return found

    def put(self, key: str, chunk: Chunk, volume: Tensor) -> None:
        """Keep a chunk; it is there whole or not at all, even if the machine stops."""
        with atomic_write(self._path(key, chunk)) as stream:
            np.save(stream, volume.numpy())

    def clear(self) -> None:
        """Remove all chunks: the result is published. Whoever still comes to help finds nothing."""
        doomed = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}")
        if self.folder.exists():
            os.replace(self.folder, doomed)
            shutil.rmtree(doomed)

    def _path(self, key: str, chunk: Chunk) -> Path:
        return self.folder / f"chunk-{chunk.first:05d}-{chunk.last:05d}-{key[:16]}.npy"


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
