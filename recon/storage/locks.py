"""File locks between processes; the kernel frees the lock of a process that dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file, waiting for it: exclusively, or `shared`."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to hold a lock file exclusively without waiting; yields whether that succeeded."""
    with path.open("a") as stream:
        yield try_lock_open(stream)


def try_lock_open(stream: IO[Any]) -> bool:
    """Try to lock an open file without waiting; the lock lasts until every process that has it open closes it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
