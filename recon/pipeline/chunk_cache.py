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
from recon.problem.resume import StateFile
from recon.storage.atomic import atomic_write, write_json
from recon.storage.locks import try_lock

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""Errors of a file system without locks, where no other process can help."""
log = logging.getLogger("recon.pipeline.chunks")


class ChunkCache:
    """Cache of finished chunks on disk, which several processes may fill at once.

    A stale chunk is never found: its key is a hash of everything that it depends on.

    Parameters
    ----------
    folder
        Folder of the chunks, made by the process that runs the job; a helper that does not find it is not needed.
    invite
        Called with the number of chunks that others could compute, so that they come and `assist`.
    """

    def __init__(self, folder: Path, invite: Callable[[int], None] | None = None) -> None:
        self.folder, self.invite = folder, invite
        self.reused = 0
        """Number of chunks that an earlier attempt had computed."""
        self.given = 0
        """Number of chunks that other workers computed."""

    def offer(self, key: str, chunks: Sequence[Chunk]) -> None:
        """Announce chunks with which other workers may help."""
        numbers = [[s.first, s.last, s.begin, s.end] for s in chunks]
        write_json(self.folder / f"{key[:16]}.open", numbers, durable=False)  # helpers may be reading it

    def wanted(self, key: str | None = None) -> bool:
        """Whether a chunk, of all reconstructions or of one, is neither finished nor being computed."""
        for path in self.folder.glob("*.open" if key is None else f"{key[:16]}.open"):
            for chunk in (Chunk(*numbers) for numbers in json.loads(path.read_text())):
                if self._path(path.stem, chunk).exists():
                    continue
                with self.claim(path.stem, chunk) as free:
                    if free and not self._path(path.stem, chunk).exists():
                        return True
        return False

    @contextmanager
    def claim(self, key: str, chunk: Chunk) -> Iterator[bool]:
        """Lock a chunk, until the block ends or the process dies; yields whether this process may compute it.

        Where locks do not reach another host, both compute the chunk, with the same result.
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
        """Read a finished chunk, or None; one that cannot be read is logged and computed again."""
        path = self._path(key, chunk)
        try:
            found = torch.from_numpy(np.load(path, allow_pickle=False))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the finished chunk %s cannot be read, computing it again: %s", path.name, error)
            return None
        return found

    def read(self, key: str, chunk: Chunk) -> Tensor:
        """Read a chunk that was finished; raises `OSError` if it is damaged or gone by now."""
        found = self.get(key, chunk)
        if found is None:
            raise OSError(f"the finished chunk {self._path(key, chunk).name} cannot be read any more")
        return found

    def put(self, key: str, chunk: Chunk, volume: Tensor) -> None:
        """Store a chunk atomically, even if the machine stops."""
        with atomic_write(self._path(key, chunk)) as stream:
            np.save(stream, volume.numpy())

    def state_of(self, key: str, chunk: Chunk) -> StateFile:
        """File for the state of the solver of a chunk that has not ended."""
        return StateFile(self._path(key, chunk).with_suffix(".state"))

    def clear(self) -> None:
        """Remove all chunks once the result is published; late helpers find nothing."""
        doomed = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}")
        if self.folder.exists():
            os.replace(self.folder, doomed)
            shutil.rmtree(doomed)

    def _path(self, key: str, chunk: Chunk) -> Path:
        return self.folder / f"chunk-{chunk.first:05d}-{chunk.last:05d}-{key[:16]}.npy"


def digest(value: Any) -> str:
    """Hash (sha256) of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of(measurement: Measurement) -> str:
    """Hash (sha256) of a measurement: data, acquisition and affine."""
    found = hashlib.sha256(measurement.acquisition.model_dump_json().encode())
    found.update(repr(measurement.noise_std).encode())
    affine = None if measurement.affine is None else np.asarray(measurement.affine)
    files = [measurement.files[name] for name in sorted(measurement.files)]
    given = (measurement.mask, measurement.coil_maps, measurement.noise_covariance)
    for array in (measurement.data, *given, affine, *files):
        found.update(b"none" if array is None else f"{array.dtype} {array.shape}".encode())
        if array is not None:
            found.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return found.hexdigest()
