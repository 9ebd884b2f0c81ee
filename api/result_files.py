"""Result files as they are sent: named after their job, kept by browsers for good, and all together as one zip."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from recon.spec.registry import FORMATS
from workers.store import Record

KEPT = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Authorization, Cookie"}
"""Results never change: a browser need not ask again; another key's browser session has to."""
LONGEST_STEM = 80
CHUNK = 2**20


def stem(record: Record) -> str:
    """Name of a job as the beginning of file names: that of its file without the ending; its id if it has none."""
    endings = sorted({ending for row in FORMATS.values() for ending in row.endings}, key=len, reverse=True)
    name = record.name
    found = next((ending for ending in endings if name.lower().endswith(ending)), "")
    name = name.removesuffix(name[len(name) - len(found) :]) if found else name
    kept = "".join(c if c.isprintable() and c not in '\\/:*?"<>|%' else "_" for c in name).strip(" .")
    return kept[:LONGEST_STEM].rstrip(" .") or record.id


def zipped(folder: Path, record: Record) -> Iterator[bytes]:
    """Make a zip of a job's results while it is sent; nothing is compressed, since volumes are already."""
    buffer, root = _Unseekable(), stem(record)
    at = datetime.fromisoformat(str(record.finished)).timetuple()[:6]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(f"{root}/{path.name}", at)
            entry.external_attr = 0o644 << 16
            with path.open("rb") as stream, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := stream.read(CHUNK):
                    target.write(chunk)
                    yield buffer.taken()
            yield buffer.taken()
    yield buffer.taken()


class _Unseekable(io.RawIOBase):
    """Stream whose bytes are taken out as they come; without `tell` zipfile writes what needs no going back."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """Bytes written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
