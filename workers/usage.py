"""How much of the store and of the queue a key uses, against what it may."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from operators.errors import NotFound, ResourceLimit
from workers import partial, retention
from workers.index import JobIndex
from workers.keys import Key
from workers.refusals import StorageFull, TooManyJobs


class Usage:
    """Quotas of the keys.

    Parameters
    ----------
    index
        The jobs.
    """

    def __init__(self, index: JobIndex) -> None:
        self.index = index
        self._uploads: dict[str, tuple[str | None, int]] = {}
        self._submitting: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def one_more_job(self, key: Key | None) -> Iterator[None]:
        """Make a job in the block, counted one at a time; raises `TooManyJobs` or `StorageFull`."""
        if key is None:
            yield
            return
        with self._submitting[key.name]:
            if key.max_jobs is not None:
                unfinished = sum(1 for r in self.index.records() if r.owner == key.name and not r.terminal)
                if unfinished >= key.max_jobs:
                    raise TooManyJobs(
                        f"{unfinished} jobs of key {key.name!r} are waiting or running, max_jobs is {key.max_jobs}",
                        field="max_jobs",
                        remedy="wait for one to finish, or cancel one",
                    )
            if self.room(key) == 0:
                raise _full(key)
            yield

    def check(self, key: Key | None, size: int) -> None:
        """Raise `ResourceLimit` or `StorageFull` if a key cannot store `size` bytes more."""
        if key is None or key.max_bytes is None:
            return
        if size > key.max_bytes:
            raise ResourceLimit(
                f"{size} bytes, key {key.name!r} stores at most max_bytes = {key.max_bytes}", field="max_bytes"
            )
        if size > (self.room(key) or 0):
            raise _full(key)

    def room(self, key: Key | None) -> int | None:
        """Bytes that a key may still store; None without a limit."""
        if key is None or key.max_bytes is None:
            return None
        jobs = sum(self.index.stored_bytes(r) for r in self.index.records() if r.owner == key.name)
        coming = sum(p.length for p in partial.reserved(self.index.store) if p.owner == key.name)
        stored = sum(size for owner, size in self.uploads() if owner == key.name)
        return max(0, key.max_bytes - jobs - coming - stored)

    def uploads(self) -> list[tuple[str | None, int]]:
        """Owner and bytes of every upload."""
        store = self.index.store
        names = {p.name for p in store.uploads.iterdir() if not p.name.startswith(".")}
        for name in set(self._uploads) - names:
            self._uploads.pop(name, None)
        for name in names - set(self._uploads):
            try:
                meta = retention.upload_meta(store, name)
            except (NotFound, FileNotFoundError):
                continue  # deleted meanwhile
            self._uploads[name] = (meta["owner"], int(meta["bytes"]))
        return list(self._uploads.values())


def _full(key: Key) -> StorageFull:
    return StorageFull(
        f"key {key.name!r} stores at most max_bytes = {key.max_bytes}, and it is full",
        field="max_bytes",
        remedy="purge finished jobs and delete uploads",
    )
