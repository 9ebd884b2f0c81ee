"""Uploads: files received into ``uploads/ID``, hidden until they are complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recon.spec.registry import FORMATS
from recon.storage.atomic import sync, write_json
from workers.store import JobStore, new_id, timestamp

GZIP = b"\x1f\x8b"


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


def publish(store: JobStore, upload_id: str, received: Path, sha256: str, owner: str | None = None) -> dict[str, Any]:
    """Publish a received upload: name the file's ending by its content and make it visible.

    After a crash in here it can be called again with the new name of `received`.
    """
    sync(received)
    data = received.rename(received.with_name("data" + _ending(received)))
    meta = {"id": upload_id, "bytes": data.stat().st_size, "sha256": sha256, "created": timestamp()}
    meta["owner"] = owner
    write_json(data.parent / "meta.json", meta)
    data.parent.rename(store.uploads / upload_id)
    sync(store.uploads)
    return meta


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
