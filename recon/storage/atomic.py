"""Atomic writes: a file is complete or absent after any crash, and synced to disk once written."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from operators.errors import Conflict


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Write a hidden temporary file in the block, then rename it to its place.

    Parameters
    ----------
    durable
        Whether to sync the folder's entry too; otherwise the old file may reappear if the machine stops.
    """
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with hidden.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write a JSON file, see `atomic_write`."""
    with atomic_write(path, durable=durable) as stream:
        stream.write(json.dumps(value, allow_nan=False).encode())


def sync(path: Path) -> None:
    """Sync a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_new(folder: Path) -> None:
    """Raise `Conflict` if a folder for results already exists."""
    if folder.exists():
        raise Conflict(f"{folder} exists already", field="output", remedy="choose another folder or remove it")
