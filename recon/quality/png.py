"""Pictures as PNG of 8 bits (ISO/IEC 15948), grey or in the colours of a map; no library of pictures is needed."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Colours = Literal["gray", "inferno"]
GREY, INDEXED = 0, 3
"""Colour types of PNG."""
FASTEST = 1
"""Level of compression: pictures are sent once, and shown at once."""


def windowed(picture: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Values as shades: `low` and below is 0, `high` and above is 255; so is what is not finite 0."""
    shades = (np.nan_to_num(picture.astype(np.float32), nan=low, posinf=high, neginf=low) - low) * (
        255.0 / max(high - low, 1e-12)
    )
    found: NDArray[np.uint8] = np.rint(np.clip(shades, 0, 255)).astype(np.uint8)
    return found


def encode(shades: NDArray[np.uint8], colours: Colours = "gray") -> bytes:
    """Encode shades ``(rows, cols)``, row 0 on top."""
    rows, cols = shades.shape
    kind = GREY if colours == "gray" else INDEXED
    lines = np.zeros((rows, 1 + cols), np.uint8)  # each line begins with its filter, 0 for none
    lines[:, 1:] = shades
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", cols, rows, 8, kind, 0, 0, 0))]
    if kind == INDEXED:
        parts.append(_chunk(b"PLTE", palette(colours)))
    parts += [_chunk(b"IDAT", zlib.compress(lines.tobytes(), FASTEST)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@cache
def palette(colours: Colours) -> bytes:
    """256 colours of a map, three bytes each."""
    from matplotlib import colormaps  # takes its time

    found: NDArray[np.uint8] = np.rint(colormaps[colours](np.arange(256))[:, :3] * 255).astype(np.uint8)
    return found.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
