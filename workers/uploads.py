"""Uploads: files and folders received into ``uploads/ID``, hidden until they are complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recon.spec.files import LONGEST_NAME
from recon.spec.registry import FORMATS
from recon.storage.atomic import sync, write_json
from workers import archives
from workers.store import FOLDER, JobStore, new_id, timestamp

GZIP = b"\x1f\x8b"


def clean_name(name: str) -> str:
    """Name of a file for people, of what a client calls it: without folders and control characters."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable()).strip()[:LONGEST_NAME]


@contextmanager
def receiving(store: JobStore) -> Iterator[tuple[str, Path]]:
    """Make a hidden folder to receive an upload; it is removed unless `publish` was called."""
    upload_id = new_id()
    hidden = store.uploads / f".{upload_id}"
    hidden.mkdir()
    try:
        yield upload_id, hidden / "data"
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def publish(
    store: JobStore,
    upload_id: str,
    received: Path,
    sha256: str,
    owner: str | None = None,
    *,
    packed: bool = False,
    name: str = "",
) -> dict[str, Any]:
    """Publish a received upload: unpack a folder's archive, or name a file's ending by its content; make it visible.

    After a crash in here it can be called again, with the new name of `received`. `name` is for people: nothing is
    stored under it.

    Raises
    ------
    InputError
        If a folder's archive cannot be unpacked, see `workers.archives.unpack`.
    """
    place, size = received.parent, received.stat().st_size
    meta = {"id": upload_id, "bytes": size, "sha256": sha256, "created": timestamp(), "owner": owner, "name": name}
    if packed:
        meta["files"] = _unpacked(received)
    else:
        sync(received)
        received.rename(place / ("data" + _ending(received)))
    write_json(place / "meta.json", meta)
    place.rename(store.uploads / upload_id)
    sync(store.uploads)
    if packed:
        (store.uploads / upload_id / received.name).unlink(missing_ok=True)
    return meta


def _unpacked(received: Path) -> int:
    """Unpack an archive into ``folder`` beside it, complete or not at all; returns the number of files."""
    unpacking = received.with_name("unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)  # of a process that died
    shutil.rmtree(received.with_name(FOLDER), ignore_errors=True)
    try:
        with received.open("rb") as stream:
            count = archives.unpack(stream, unpacking)
        unpacking.rename(received.with_name(FOLDER))
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    return count


def _ending(path: Path) -> str:
    """Detect the file name ending from the content, so that readers need not trust a client's name."""
    with path.open("rb") as stream:
        first = stream.read(16)
    packed = first.startswith(GZIP)
    for row in FORMATS.values():
        if packed or first.startswith(row.magic):
            for ending in row.endings:
                if ending.endswith(".gz") == packed:
                    return str(ending)
    return ".bin"
