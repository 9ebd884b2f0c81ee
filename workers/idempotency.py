"""Idempotency keys: a submission that is sent twice makes one job.

One small file per key holds the hash of the request's body and the id of the job, chosen before the job exists, so
that a request repeated after a crash goes on where the first one ended. The file is locked while a request is being
answered; the kernel frees the lock of a process that dies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from operators.errors import InputError
from recon.storage.atomic import sync
from recon.storage.locks import try_lock_open
from workers.http_errors import InProgress
from workers.store import new_id

HEADER = "Idempotency-Key"
KEPT_S = 24 * 3600.0


@contextmanager
def claim(folder: Path, owner: str | None, key: str, body: bytes) -> Iterator[str]:
    """Id of the job that a key stands for; the job exists if the request was answered before.

    If the block raises, the key is forgotten: nothing was accepted.

    Raises
    ------
    InputError
        If the key is none, or was used within the last day with another body.
    InProgress
        If a request with this key is being answered.
    """
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise InputError("a key has 1 to 255 printable ASCII characters", field=HEADER, remedy="send a UUID")
    folder.mkdir(exist_ok=True)
    path = folder / (hashlib.sha256(f"{owner or ''}\0{key}".encode()).hexdigest() + ".json")
    digest = hashlib.sha256(body).hexdigest()
    with _locked(path) as stream:
        entry = _entry(stream)
        if entry is None:
            entry = {"body": digest, "job": new_id(), "at": time.time()}
            stream.truncate(0)
            json.dump(entry, stream)
            stream.flush()
            os.fsync(stream.fileno())
            sync(folder)
        elif entry["body"] != digest:
            raise InputError(
                "this key was used with another body", field=HEADER, remedy="use a new key for another job"
            )
        try:
            yield str(entry["job"])
        except BaseException:
            path.unlink()
            raise


def sweep(folder: Path) -> None:
    """Remove expired keys."""
    if not folder.is_dir():
        return
    for path in folder.glob("*.json"):
        if time.time() - path.stat().st_mtime > KEPT_S:
            try:
                with _locked(path):
                    path.unlink()
            except InProgress:
                continue  # in use this moment


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    while True:
        with path.open("a+") as stream:
            if not try_lock_open(stream):
                raise InProgress(
                    "a request with this key is being answered", field=HEADER, remedy="send it again in a moment"
                )
            if os.fstat(stream.fileno()).st_nlink == 0:  # forgotten while we opened it
                continue
            yield stream
            return


def _entry(stream: IO[str]) -> dict[str, Any] | None:
    """Read a stored key; None if it is expired, or incomplete after a crash, before which no job was made."""
    stream.seek(0)
    try:
        entry: dict[str, Any] = json.load(stream)
    except ValueError:
        return None
    return entry if time.time() - entry["at"] < KEPT_S else None
