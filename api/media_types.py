"""Media types of result files: volumes in the output formats, and the other results."""

from __future__ import annotations

from recon.spec.registry import OUTPUT_FORMATS

# Results have the first ending of their format.
MEDIA_TYPES = {row.endings[0]: row.media_type for row in OUTPUT_FORMATS.values()} | {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
}
OTHER = "application/octet-stream"


def media_type(name: str) -> str:
    """Media type of a result by its file name."""
    return next((kind for ending, kind in MEDIA_TYPES.items() if name.endswith(ending)), OTHER)
