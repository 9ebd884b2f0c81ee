"""Making sure that what was written is on the disk; locks that die with their process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from operators.errors import Conflict


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_new(folder: Path) -> None:
    """Refuse a folder for results that exists already."""
    if folder.exists():
        raise Conflict(f"{folder} exists already", field="output", remedy="choose another folder or remove it")


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether the lock file could be taken at once; the kernel releases it if the process dies."""
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
