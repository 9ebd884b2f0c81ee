"""Locks between processes: files locked by the kernel, which frees the lock of a process that dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file, waiting for it: alone, or `shared` with others who hold it so."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock file alone if it is free now; whether it was."""
    with path.open("a") as stream:
        yield try_lock_open(stream)


def try_lock_open(stream: IO[Any]) -> bool:
    """Lock an open file if it is free now; the lock lasts until whoever has the file open, children too, closes it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
