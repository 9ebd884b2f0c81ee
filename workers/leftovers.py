"""Garbage collection: remove what crashed processes left in the store."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from workers.index import JobIndex
from workers.store import FOLDER

LEFT_H = 24.0
"""Hours without a write after which a hidden folder counts as abandoned; far longer than `Settings.idle_s`."""
GONE = ".gone-"
"""Prefix of folders that are being deleted."""
log = logging.getLogger("recon.retention")


def sweep(index: JobIndex, now: datetime) -> None:
    """Remove deletions cut short, uploads and jobs that never became visible, and chunks of jobs that have ended."""
    store, old = index.store, (now - timedelta(hours=LEFT_H)).timestamp()
    for folder in (store.jobs, store.uploads, store.root / "partial"):
        for path in folder.glob(".*"):
            with goes_on(str(path)):
                if path.name.startswith(GONE) or newest(path) < old:
                    shutil.rmtree(path, ignore_errors=True)
    for unpacked in store.uploads.glob(f"*/{FOLDER}"):
        with goes_on(str(unpacked)):
            unpacked.with_name("data").unlink(missing_ok=True)  # the archive, if its process died after publishing
    for record in index.records():
        if record.terminal:
            with goes_on(f"job {record.id}"):
                # An attempt that was cancelled without hearing of it may still be writing.
                if store.left(record.id):
                    with store.running_lock(record.id) as nobody:
                        if nobody:
                            store.clear(record.id)


def newest(folder: Path) -> float:
    """Time of the last write in a folder, in seconds since the epoch; infinite if it disappears meanwhile."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return math.inf


@contextmanager
def goes_on(what: str) -> Iterator[None]:
    """Log an error of the block and go on, so that one bad folder does not stop the sweep."""
    try:
        yield
    except Exception:
        log.exception("%s cannot be swept", what)
