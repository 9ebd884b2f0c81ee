"""API keys with their quotas. The key file holds only hashes."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import threading
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from operators.errors import InputError

log = logging.getLogger("recon.keys")


class Key(BaseModel):
    """API key; its jobs and uploads belong to its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    max_jobs: Annotated[int, Field(ge=0)] | None = None
    """Quota of unfinished jobs. Default: no limit."""
    max_bytes: Annotated[int, Field(ge=0)] | None = None
    """Quota of bytes stored in uploads and results. Default: no limit."""


_KEYS = TypeAdapter(list[Key])


def make(name: str) -> tuple[str, Key]:
    """Make a random key and its entry for the file; raises `InputError` for a bad name."""
    secret = "rk_" + secrets.token_urlsafe(32)
    try:
        return secret, Key(name=name, sha256=_digest(secret))
    except ValidationError as error:
        raise InputError(
            f"{name!r} is no name of a key", field="name", remedy="use 1 to 64 letters, digits and . _ @ -"
        ) from error


def read(path: Path) -> list[Key]:
    """Read a file of keys, YAML or JSON: a list of entries; raises `InputError`."""
    try:
        value = yaml.safe_load(path.read_text())
        keys = _KEYS.validate_python(value)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", field="RECON_KEYS") from error
    except (yaml.YAMLError, ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise InputError(
            f"{path} is no list of keys: {reason}", field="RECON_KEYS", remedy="`recon key NAME` prints an entry"
        ) from error
    if len({k.name for k in keys}) < len(keys) or not keys:
        raise InputError(f"{path} needs at least one key, and names that differ", field="RECON_KEYS")
    return keys


class KeyRing:
    """Key ring read from a file, again whenever that changes; a damaged new version is logged and not used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._keys, self._stamp = read(path), self._now()

    def find(self, secret: str) -> Key | None:
        """Look up a key in constant time, so that timing reveals nothing; None if it is unknown."""
        return self.of_digest(_digest(secret))

    def of_digest(self, digest: str) -> Key | None:
        """Look up a key by its sha256; None if it is unknown, or was removed from the file."""
        found = None
        for key in self._current():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _now(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def _current(self) -> list[Key]:
        with self._lock:
            stamp = self._now()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._keys = read(self.path)
                except InputError as error:
                    log.error("the keys stay as they were: %s", error)
            return self._keys


def entry(key: Key) -> str:
    """Format the entry as JSON, which is YAML too."""
    return json.dumps([key.model_dump(exclude_none=True)])[1:-1]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
