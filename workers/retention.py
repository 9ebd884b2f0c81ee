"""Retention: delete expired or purged jobs and uploads, and leave a tombstone for each.

A deleted job or upload leaves ``gone/KIND/ID.json``, so that a client is told 410 instead of 404. Jobs that are not
finished, and uploads that such jobs use, are never deleted.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from operators.errors import Conflict, InputError, NotFound, StorageFull
from recon.spec.files import UPLOAD_ID
from recon.storage.atomic import sync, write_json
from recon.storage.locks import locked
from workers import idempotency, leftovers, resumable_uploads, sessions
from workers.index import JobIndex
from workers.leftovers import goes_on
from workers.settings import Settings
from workers.store import JobStore, Record, timestamp

log = logging.getLogger("recon.retention")
Kind = Literal["jobs", "uploads"]
NOTE_DAYS = 90
"""Time for which tombstones are kept."""


@dataclass(frozen=True)
class Note:
    """Tombstone of a deleted job or upload."""

    id: str
    owner: str | None
    at: str
    reason: str


def note(store: JobStore, kind: Kind, found_id: str) -> Note | None:
    """Read the tombstone of a job or upload, if it was deleted."""
    if not re.fullmatch(UPLOAD_ID, found_id):
        return None
    try:
        return Note(**json.loads((store.root / "gone" / kind / f"{found_id}.json").read_text()))
    except FileNotFoundError:
        return None


def notes_since(store: JobStore, kind: Kind, since: datetime) -> list[Note]:
    """Read the tombstones that were left since a time, oldest first."""
    found = []
    for path in (store.root / "gone" / kind).glob("*.json"):
        with suppress(FileNotFoundError):  # it was old, and has been swept
            if path.stat().st_mtime >= since.timestamp():
                found.append(Note(**json.loads(path.read_text())))
    return sorted(found, key=lambda left: left.at)


def purge_job(store: JobStore, record: Record, reason: str) -> None:
    """Delete a finished job and its results.

    Raises
    ------
    Conflict
        If it is not finished.
    """
    if not record.terminal:
        raise Conflict(f"job {record.id} is {record.state}", field="state", remedy="cancel it first, purge it then")
    delete(store, "jobs", store.jobs / record.id, record.owner, reason)


def delete_upload(index: JobIndex, upload_id: str, owner: str | None, reason: str) -> None:
    """Delete an upload; raises `Conflict` if a job that is not finished uses it."""
    with submitting(index.store, exclusive=True):
        if upload_id in used(index, unfinished_only=True):
            raise Conflict(f"upload {upload_id} is used by a job that is not finished", field="id")
        delete(index.store, "uploads", index.store.upload(upload_id).parent, owner, reason)


def delete(store: JobStore, kind: Kind, folder: Path, owner: str | None, reason: str) -> None:
    """Delete a job's or an upload's folder: write the tombstone, hide the folder by a rename, then delete the bytes.

    Does nothing if another process was faster. On a full disk the tombstone comes last: deleting makes room.
    """
    left, hidden = Note(folder.name, owner, timestamp(), reason), folder.with_name(leftovers.GONE + folder.name)
    with locked(store.root / "deleting.lock"):
        if not folder.is_dir():
            return
        try:
            _leave(store, kind, left)
            told = True
        except OSError as error:
            if StorageFull.of(error) is None:
                raise
            told = False
        folder.rename(hidden)
    sync(folder.parent)
    shutil.rmtree(hidden, ignore_errors=True)
    if not told:
        with locked(store.root / "deleting.lock"):
            _leave(store, kind, left)


def _leave(store: JobStore, kind: Kind, left: Note) -> None:
    notes = store.root / "gone" / kind
    notes.mkdir(parents=True, exist_ok=True)
    write_json(notes / f"{left.id}.json", vars(left))


@contextmanager
def submitting(store: JobStore, *, exclusive: bool = False) -> Iterator[None]:
    """Lock on uploads: shared while a job is made from them, exclusive while they are deleted."""
    with locked(store.root / "uploads.lock", shared=not exclusive):
        yield


def used(index: JobIndex, *, unfinished_only: bool) -> set[str]:
    """Ids of the uploads that jobs use; raises `workers.schema.NewerStore` if a newer version wrote a job."""
    index.require_readable()
    found: set[str] = set()
    for record in index.records():
        if not (unfinished_only and record.terminal):
            try:
                found |= index.uploads(record.id)
            except (NotFound, FileNotFoundError):
                continue  # deleted meanwhile
            except (InputError, ValueError) as error:  # damaged: nobody can run it
                log.error("job %s has no readable specification: %s", record.id, error)
    return found


def expires(record: Record, settings: Settings) -> str | None:
    """Time at which a finished job expires."""
    if record.finished is None or settings.retention_days == 0:
        return None
    return (datetime.fromisoformat(record.finished) + timedelta(days=settings.retention_days)).isoformat()


def sweep(index: JobIndex, settings: Settings, now: datetime | None = None) -> None:
    """Delete everything expired: finished jobs, unused and incomplete uploads, keys of requests, sessions, tombstones.

    Also what crashed processes have left. A folder that cannot be deleted is logged; the sweep goes on.
    """
    now, store = now or datetime.now(UTC), index.store
    _sweep_jobs(index, settings, now)
    with goes_on("uploads"):
        if settings.upload_days:
            _sweep_uploads(index, settings, now)
    with goes_on("unfinished uploads"):
        _sweep_unfinished(store, now)
    with goes_on("idempotency keys"):
        idempotency.sweep(store.root / "idempotency")
    with goes_on("sessions"):
        sessions.sweep(store.root / sessions.FOLDER, now)
    leftovers.sweep(index, now)
    for path in (store.root / "gone").glob("*/*.json"):
        if time.time() - path.stat().st_mtime > NOTE_DAYS * 86400:
            path.unlink()


def _sweep_jobs(index: JobIndex, settings: Settings, now: datetime) -> None:
    for record in index.records():
        with goes_on(f"job {record.id}"):
            until = expires(record, settings)
            if until is not None and record.terminal and datetime.fromisoformat(until) <= now:
                purge_job(index.store, record, f"it expired {settings.retention_days} days after its end")
                log.info("job %s has expired", record.id)


def _sweep_uploads(index: JobIndex, settings: Settings, now: datetime) -> None:
    index_used = used(index, unfinished_only=False)  # fills the cache, so that the lock is held shortly
    old = []
    for path in index.store.uploads.glob("[!.]*"):
        if path.name not in index_used:
            with goes_on(f"upload {path.name}"):
                meta = upload_meta(index.store, path.name)
                if datetime.fromisoformat(meta["created"]) + timedelta(days=settings.upload_days) <= now:
                    old.append((path.name, meta["owner"]))
    with submitting(index.store, exclusive=True):
        still_used = used(index, unfinished_only=False)
        for upload_id, owner in old:
            if upload_id not in still_used:
                with goes_on(f"upload {upload_id}"):
                    reason = f"no job used it for {settings.upload_days} days"
                    delete(index.store, "uploads", index.store.uploads / upload_id, owner, reason)
                    log.info("upload %s has expired", upload_id)


def _sweep_unfinished(store: JobStore, now: datetime) -> None:
    for upload_id, owner in resumable_uploads.expired(store, now):
        with goes_on(f"unfinished upload {upload_id}"):
            folder = resumable_uploads.folder(store, upload_id)
            delete(store, "uploads", folder, owner, "it was not finished within a day")
            log.info("unfinished upload %s has expired", upload_id)


def upload_meta(store: JobStore, upload_id: str) -> dict[str, Any]:
    """Read bytes, sha256, time, owner and name of an upload; raises `NotFound`."""
    folder = store.upload(upload_id).parent
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    return {"owner": None, "name": "", **meta}
