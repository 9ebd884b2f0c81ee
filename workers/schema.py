"""Schema version of the store: each JSON file of a job states the version of its layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from operators.errors import ReconError
from recon.storage.atomic import write_json

SCHEMA_VERSION = 1
"""Schema version; raise it whenever an older program would misread what this one writes."""
FIELD = "schema_version"


class NewerStore(ReconError):
    """A newer version of this program wrote the file."""

    code, status, exit_code = "newer_store", 500, 3


def write(path: Path, value: dict[str, Any], *, durable: bool = True) -> None:
    """Write a file of this version, see `recon.storage.atomic.write_json`."""
    write_json(path, {FIELD: SCHEMA_VERSION, **value}, durable=durable)


def read(path: Path, upgrade: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> dict[str, Any]:
    """Read a file of this version or of an older one.

    Parameters
    ----------
    upgrade
        Converts a file without a version to today's form; None if that has not changed.

    Raises
    ------
    NewerStore
        If a newer one wrote it.
    ValueError
        If it is damaged.
    """
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no mapping")
    if FIELD not in value:
        return value if upgrade is None else upgrade(value)
    version = value.pop(FIELD)
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{path.name} has {FIELD} {version!r}")
    if version > SCHEMA_VERSION:
        raise NewerStore(
            f"{path.parent.name}/{path.name} has version {version}, this program reads up to {SCHEMA_VERSION}",
            field=FIELD,
            remedy="upgrade diffusion-recon to the version that wrote the store",
        )
    return value
