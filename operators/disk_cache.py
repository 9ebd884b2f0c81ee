"""Cache on disk for what takes longer to build than to read: system matrices, compiled networks.

One folder of the user's, one file per key. Any process may read and write there at any time, and any file may be
removed: what is missing, damaged or another's is built again. Results have the same bits with and without the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]
LARGEST = 0.5
"""Fraction of the size limit above which an entry is not kept: it would push out most others."""
FREE = 0.1
"""Fraction of the free space on the disk above which an entry is not kept."""
ABANDONED_S = 3600.0
"""Age in seconds from which an unfinished file was left by a process that was killed."""
KEY = "key"
"""Name of the array in a file that holds the text of its key."""
_ENTRY = re.compile(r"[a-z]+-[0-9a-f]{32}\.npz")
_UNFINISHED = re.compile(r"\.[a-z]+-[0-9a-f]{32}\.npz\.[0-9a-f]{8}\.tmp")
_DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Errors of numpy, zipfile and those who load, on files that are not what was written."""

log = logging.getLogger("recon.operators.disk_cache")


class DiskCache:
    """Cache of arrays in a folder, up to a number of bytes; what was not used for longest goes first.

    Files are zip archives of arrays without pickles, whose checksums are verified on every read.

    Parameters
    ----------
    folder
        Made where it is missing, for its owner alone. One that others could write to is not used.
    limit_bytes
        Size limit of all files together.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._told = False

    def get(
        self,
        kind: str,
        key: Mapping[str, Any],
        build: Callable[[], T],
        store: Callable[[T], Arrays],
        load: Callable[[Arrays], T],
    ) -> T:
        """Load what a key stands for, or build it now and keep it if that is possible.

        Parameters
        ----------
        kind
            What it is, in lower-case letters, for the file's name.
        key
            Everything that it depends on, as JSON can hold it.
        build, store, load
            Build it; turn it into arrays, and these into it again.
        """
        text = json.dumps(key, sort_keys=True)
        path = self.folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
        usable = self._usable()
        if usable:
            try:
                found = load(_read(path, text))
                os.utime(path)  # it is the last to go
                return found
            except FileNotFoundError:
                log.debug("%s is not kept yet", path.name)
            except _DAMAGED as error:
                log.warning("%s is damaged, building it again: %s", path, error)
        made = build()
        if usable:
            try:
                self._write(path, {**store(made), KEY: np.array(text)})
            except OSError as error:
                self._tell(f"it cannot be written: {error.strerror or error}")
        return made

    def _usable(self) -> bool:
        """Whether the folder is there, and its owner's alone to write."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.folder.stat()
        except OSError as error:
            self._tell(f"it cannot be made: {error.strerror}")
            return False
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            self._tell("others can write to it")
            return False
        return True

    def _tell(self, why: str) -> None:
        """Say once that nothing is kept."""
        if not self._told:
            log.warning("nothing is kept for the next start in %s: %s", self.folder, why)
        self._told = True

    def _write(self, path: Path, arrays: Arrays) -> None:
        """Write a file under another name, rename it, and make room.

        It is not synced: a file that a crash of the machine leaves in pieces is noticed when it is read.
        """
        size = sum(array.nbytes for array in arrays.values())
        if size > min(LARGEST * self.limit_bytes, FREE * shutil.disk_usage(self.folder).free):
            log.info("%s is not kept: it takes %d MB", path.name, size / 1e6)
            return
        hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with hidden.open("xb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type] # numpy types its own option among them
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)
        self._make_room()

    def _make_room(self) -> None:
        """Remove what processes that were killed have left, and what was not used for longest."""
        now, entries = time.time(), []
        for path in self.folder.iterdir():
            try:
                found = path.stat()
            except FileNotFoundError:
                continue  # another process has removed it
            if _ENTRY.fullmatch(path.name):
                entries.append((found.st_mtime, found.st_size, path))
            elif _UNFINISHED.fullmatch(path.name) and now - found.st_mtime > ABANDONED_S:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def _read(path: Path, text: str) -> Arrays:
    """Read a file and verify that it is whole and of the key `text`; raises one of `_DAMAGED`."""
    with path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}  # reading to its end verifies a checksum
    if str(arrays.pop(KEY)) != text:
        raise ValueError("it belongs to something else")
    return arrays


def digest_of(*modules: ModuleType) -> str:
    """Hash (sha256) of the code of modules: what a key says of the code that builds."""
    found = hashlib.sha256()
    for module in modules:
        assert module.__file__ is not None
        found.update(Path(module.__file__).read_bytes())
    return found.hexdigest()


_used: DiskCache | None = None


def use(cache: DiskCache | None) -> None:
    """Choose the cache of this process; None, as at the beginning, for none."""
    global _used
    _used = cache


def kept(
    kind: str,
    key: Callable[[], Mapping[str, Any]],
    build: Callable[[], T],
    store: Callable[[T], Arrays],
    load: Callable[[Arrays], T],
) -> T:
    """`DiskCache.get` of this process's cache, whose `key` is made where there is one; without a cache, `build`."""
    return build() if _used is None else _used.get(kind, key(), build, store, load)
