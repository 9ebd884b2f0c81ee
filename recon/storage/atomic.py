"""Atomic writes: a file is complete or absent after any crash, and synced to disk once written."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from operators.errors import Conflict, InputError


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


def check_new(path: Path, *, replace: bool = False, remedy: str = "choose another one, or remove it") -> None:
    """Check that a file or folder can be made where nothing is yet.

    Parameters
    ----------
    replace
        Whether a file that is there may be replaced.
    remedy
        What to do about one that may not.

    Raises
    ------
    Conflict
        If something is there.
    InputError
        If it cannot be made: it is a link to nothing, lies below a file, or in a folder that may not be written.
    """
    try:
        if path.is_symlink() and not path.exists():
            message = f"{path} cannot be made: it is a link to nothing"
            raise InputError(message, field="output", remedy="remove the link")
        if path.exists() and not (replace and path.is_file()):
            raise Conflict(f"{path} exists already", field="output", remedy=remedy)
        folder = next(parent for parent in path.absolute().parents if parent.exists())
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}", field="output") from error
    if not folder.is_dir():
        raise InputError(f"{path} cannot be made: {folder} is a file", field="output", remedy="choose a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be made: {folder} may not be written", field="output", remedy="choose another")
