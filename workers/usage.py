"""Usage of store and queue per API key, checked against its quotas."""

from __future__ import annotations

import logging
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from operators.errors import NotFound, ResourceLimit, StorageFull
from workers import resumable_uploads, retention
from workers.http_errors import TooManyJobs
from workers.index import JobIndex
from workers.keys import Key

log = logging.getLogger("recon.store")


class Usage:
    """Quota check of the API keys.

    Parameters
    ----------
    index
        The jobs.
    """

    def __init__(self, index: JobIndex) -> None:
        self.index = index
        self._uploads: dict[str, dict[str, Any]] = {}
        self._submitting: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._keeping: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._arriving: dict[Arriving, None] = {}

    @contextmanager
    def one_more_job(self, key: Key | None) -> Iterator[None]:
        """Check the quota for a job that the block makes, one at a time; raises `TooManyJobs` or `StorageFull`."""
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

    @contextmanager
    def one_more_upload(self, key: Key | None) -> Iterator[Arriving]:
        """Reserve room for an upload that the block receives; the reservation ends with the block."""
        arriving = Arriving(self, key)
        self._arriving[arriving] = None
        try:
            yield arriving
        finally:
            del self._arriving[arriving]

    def keep(self, arriving: Arriving, size: int, *, whole: bool) -> None:
        """See `Arriving.keep`."""
        key = arriving.key
        if key is None or key.max_bytes is None or size <= arriving.kept:
            return
        if size > key.max_bytes:
            raise ResourceLimit(
                f"{size} bytes, key {key.name!r} stores at most max_bytes = {key.max_bytes}", field="max_bytes"
            )
        with self._keeping[key.name]:
            most = arriving.kept + (self.room(key) or 0)
            if size > most:
                raise _full(key)
            # Counting takes a while: who cannot say how much will come gets twice of what has.
            arriving.kept = size if whole else min(2 * size, most)

    def room(self, key: Key | None) -> int | None:
        """Bytes that a key may still store; None if it has no limit."""
        if key is None or key.max_bytes is None:
            return None
        # Before what is stored: an upload that becomes complete meanwhile counts twice rather than not at all.
        arriving = sum(a.kept for a in list(self._arriving) if a.key is not None and a.key.name == key.name)
        coming = sum(p.length for p in resumable_uploads.reserved(self.index.store) if p.owner == key.name)
        jobs = sum(self.index.stored_bytes(r) for r in self.index.records() if r.owner == key.name)
        stored = sum(int(upload["bytes"]) for upload in self.uploads() if upload["owner"] == key.name)
        return max(0, key.max_bytes - arriving - coming - jobs - stored)

    def uploads(self) -> list[dict[str, Any]]:
        """Description of every complete upload, see `workers.retention.upload_meta`."""
        store = self.index.store
        names = {p.name for p in store.uploads.iterdir() if not p.name.startswith(".")}
        for name in set(self._uploads) - names:
            self._uploads.pop(name, None)
        for name in names - set(self._uploads):
            try:
                meta = retention.upload_meta(store, name)
                self._uploads[name] = {**meta, "bytes": int(meta["bytes"])}
            except (NotFound, FileNotFoundError):
                continue  # deleted meanwhile
            except (OSError, ValueError, TypeError, KeyError) as error:
                log.error("%s is no readable upload: %s", store.uploads / name, error)
        return list(self._uploads.values())


class Arriving:
    """Reservation of bytes for an arriving upload, so that concurrent uploads do not get the same room.

    Parameters
    ----------
    usage
        Usage of all keys.
    key
        Owner of the upload.
    """

    def __init__(self, usage: Usage, key: Key | None) -> None:
        self._usage, self.key = usage, key
        self.kept = sys.maxsize if key is None or key.max_bytes is None else 0

    def keep(self, size: int, *, whole: bool) -> None:
        """Reserve room for `size` bytes in all; `whole` says that the upload has no more than these.

        Raises
        ------
        ResourceLimit
            If the key may never store so much.
        StorageFull
            If it may not now.
        """
        self._usage.keep(self, size, whole=whole)


def _full(key: Key) -> StorageFull:
    return StorageFull(
        f"key {key.name!r} stores at most max_bytes = {key.max_bytes}, and it is full",
        field="max_bytes",
        remedy="purge finished jobs and delete uploads",
    )
