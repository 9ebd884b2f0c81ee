"""Manifest of published results: name, size and sha256 of every file, hashed once at publication."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from recon.storage.atomic import sync


def measured(folder: Path) -> list[dict[str, Any]]:
    """Hash every file of a folder and sync it to disk; returns name, size and sha256."""
    entries = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        sync(path)
        entries.append({"name": path.name, "bytes": path.stat().st_size, "sha256": digest})
    return entries


def manifest(output: Path) -> list[dict[str, Any]]:
    """Read name, size and sha256 of every published result, as they were at publication."""
    stored = output.parent / "manifest.json"
    if not stored.exists():  # published before there were manifests
        return measured(output)
    entries: list[dict[str, Any]] = json.loads(stored.read_text())
    return entries
