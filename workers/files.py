"""Small files that must never be seen half-written."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recon.storage.disk import sync


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace a JSON file in one step, never by an empty one; `durable` also waits for the folder's entry."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as stream:
        json.dump(value, stream, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    if durable:
        sync(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file exclusively, waiting for it."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def ending(path: Path) -> str:
    """File name ending by content, so that readers need not trust a client's name."""
    with path.open("rb") as stream:
        magic = stream.read(8)
    known = ((b"\x1f\x8b", ".nii.gz"), (b"\x93NUMPY", ".npy"), (b"\x89HDF", ".h5"), (b"PK\x03\x04", ".npz"))
    for start, ending in known:
        if magic.startswith(start):
            return ending
    return ".nii" if magic[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c") else ".bin"
