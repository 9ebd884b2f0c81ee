"""Sessions of browsers: an API key was shown once, and a random token stands for it until the session ends.

One small file per session, ``sessions/SHA256.json``, is named by the hash of its token, so that a reader of the store
has no session; it holds the hash of the key, so that a session ends with its key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recon.storage.atomic import write_json
from workers.keys import Key, KeyRing
from workers.store import timestamp

FOLDER = "sessions"
LASTS_H = 24 * 7
"""Hours after which a session ends by itself."""


@dataclass(frozen=True)
class Session:
    """Session of a browser."""

    key_sha256: str
    """Hash of the key that it stands for, as in the file of keys."""
    created: str
    expires: str


def begin(folder: Path, key: Key) -> tuple[str, Session]:
    """Begin a session for a key; returns its token, which is stored nowhere, and what is stored."""
    token, now = secrets.token_urlsafe(32), datetime.now(UTC)
    session = Session(key.sha256, timestamp(), (now + timedelta(hours=LASTS_H)).isoformat())
    folder.mkdir(mode=0o700, exist_ok=True)
    write_json(_path(folder, token), asdict(session))
    return token, session


def find(folder: Path, ring: KeyRing, token: str) -> tuple[Key, Session] | None:
    """Find the session of a token with its key; None if it has ended, or its key was removed."""
    try:
        session = Session(**json.loads(_path(folder, token).read_text()))
    except FileNotFoundError:
        return None
    if datetime.fromisoformat(session.expires) <= datetime.now(UTC):
        return None
    key = ring.of_digest(session.key_sha256)
    return None if key is None else (key, session)


def end(folder: Path, token: str) -> None:
    """End a session; does nothing if it has ended."""
    _path(folder, token).unlink(missing_ok=True)


def sweep(folder: Path, now: datetime) -> None:
    """Remove the sessions that have expired."""
    for path in folder.glob("[!.]*.json"):
        if datetime.fromisoformat(json.loads(path.read_text())["expires"]) <= now:
            path.unlink(missing_ok=True)


def _path(folder: Path, token: str) -> Path:
    return folder / f"{hashlib.sha256(token.encode()).hexdigest()}.json"
