"""Resumable uploads, which arrive in pieces: ``partial/ID`` grows to the announced length.

The length of the file is the offset, so an upload that was interrupted anywhere goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from operators.errors import Conflict, InputError, NotFound
from recon.spec.files import UPLOAD_ID
from recon.storage.atomic import write_json
from recon.storage.locks import try_lock
from workers import leftovers, uploads
from workers.http_errors import InProgress
from workers.store import JobStore, new_id, timestamp

KEPT_H = 24.0
"""Hours without a new piece after which an incomplete upload is deleted."""
log = logging.getLogger("recon.store")


@dataclass(frozen=True)
class ResumableUpload:
    """Incomplete upload."""

    id: str
    length: int
    sha256: str | None
    owner: str | None
    created: str
    packed: bool = False
    """Whether it is a folder, as an archive."""
    name: str = ""
    """Name of the file, for people."""


def create(
    store: JobStore, length: int, sha256: str | None, owner: str | None, *, packed: bool = False, name: str = ""
) -> ResumableUpload:
    """Start an upload of `length` bytes, `packed` if they are a folder's archive."""
    found = ResumableUpload(new_id(), length, sha256, owner, timestamp(), packed, name)
    hidden = _root(store) / f".{found.id}"
    hidden.mkdir(parents=True)
    (hidden / "data").touch()
    write_json(hidden / "partial.json", asdict(found))
    hidden.rename(folder(store, found.id))
    return found


def find(store: JobStore, upload_id: str) -> ResumableUpload:
    """Read an incomplete upload; raises `NotFound`, also if its description is damaged, which is logged."""
    try:
        if not re.fullmatch(UPLOAD_ID, upload_id):
            raise FileNotFoundError
        return ResumableUpload(**json.loads((folder(store, upload_id) / "partial.json").read_text()))
    except FileNotFoundError as error:
        raise _absent(upload_id) from error
    except (ValueError, TypeError) as error:
        log.error("upload %s is damaged: %s", upload_id, error)
        raise _absent(upload_id) from error


def offset(store: JobStore, upload: ResumableUpload) -> int:
    """Number of bytes received; raises `NotFound` if the upload was completed or deleted meanwhile."""
    try:
        return _data(folder(store, upload.id)).stat().st_size
    except FileNotFoundError as error:
        raise _absent(upload.id) from error


@contextmanager
def appending(store: JobStore, upload: ResumableUpload, at: int) -> Iterator[IO[bytes]]:
    """Open the file to append a piece to it.

    Raises
    ------
    Conflict
        If `at` is not where the upload is.
    InProgress
        If another piece is arriving.
    NotFound
        If the upload was completed or deleted meanwhile.
    """
    place = folder(store, upload.id)
    with ExitStack() as held:
        try:
            free = held.enter_context(try_lock(place / "lock"))
        except FileNotFoundError as error:
            raise _absent(upload.id) from error
        if not free:
            raise InProgress("another piece of this upload is arriving", field="Upload-Offset")
        present = offset(store, upload)
        if at != present:
            raise Conflict(
                f"{present} bytes are here, the piece begins at {at}",
                field="Upload-Offset",
                remedy="ask with HEAD where to go on",
            )
        with _data(place).open("ab") as stream:
            yield stream


def complete(store: JobStore, upload: ResumableUpload) -> dict[str, Any]:
    """Verify an upload that has all its bytes and publish it; a damaged one is deleted.

    Raises
    ------
    InputError
        If its sha256 is not the one announced, or a folder's archive cannot be unpacked.
    """
    place = folder(store, upload.id)
    received = _data(place)
    with received.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        if upload.sha256 not in (None, digest):
            raise InputError(
                f"sha256 {digest} arrived, {upload.sha256} was announced",
                field="X-Checksum-SHA256",
                remedy="upload the file again from its start",
            )
        return uploads.publish(store, upload.id, received, digest, upload.owner, packed=upload.packed, name=upload.name)
    except InputError:
        hidden = place.rename(place.with_name(leftovers.GONE + place.name))
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def reserved(store: JobStore) -> list[ResumableUpload]:
    """List all incomplete uploads; a folder that cannot be read is logged and left out."""
    found = []
    for path in _root(store).glob("[!.]*"):
        try:
            found.append(find(store, path.name))
        except NotFound:
            continue  # completed meanwhile, or damaged
        except OSError as error:
            log.error("%s is no readable upload: %s", path, error)
    return found


def expired(store: JobStore, now: datetime) -> list[tuple[str, str | None]]:
    """List the ids of expired incomplete uploads with their owners; the owner is None if it cannot be read."""
    old = (now - timedelta(hours=KEPT_H)).timestamp()
    owners = {p.id: p.owner for p in reserved(store)}
    aged = [path.name for path in _root(store).glob("[!.]*") if leftovers.newest(path) < old]
    return [(upload_id, owners.get(upload_id)) for upload_id in aged]


def _data(place: Path) -> Path:
    """Path of the growing file; it already has its ending if the process died while publishing the upload."""
    return next(iter(place.glob("data*")), place / "data")


def _absent(upload_id: str) -> NotFound:
    return NotFound(f"there is no upload {upload_id!r}", field="id", remedy="begin a new one")


def _root(store: JobStore) -> Path:
    return store.root / "partial"


def folder(store: JobStore, upload_id: str) -> Path:
    """Folder of an incomplete upload."""
    return _root(store) / upload_id
