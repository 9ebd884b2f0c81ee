"""Chunks of HDF5 datasets, checked before HDF5 reads them: it decompresses without a limit, and outside of Python."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

from operators.errors import InputError
from recon.formats.safety import check_size, limit_bytes

if TYPE_CHECKING:
    import h5py

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
"""Registered numbers of filters."""
_COMPRESS = {_DEFLATE: 1032, _LZF: 88}
"""Filters that compress, with their largest ratio of plain to compressed bytes."""
_KEEP_SIZE = {_SHUFFLE, _FLETCHER32}
"""Filters that leave the size as it is, but for a checksum."""
_EXPANDS, _CHECKSUMS = 1.1, 1000
"""Bytes that a chunk may have above its plain size, as a factor and in addition: of what cannot be compressed."""
_REPACK = "write it again with one filter: h5repack -f GZIP=1"


def chunk_bytes(node: h5py.Dataset) -> int:
    """Bytes of a compressed chunk, the least that is read of it; 0 for a dataset that is not compressed."""
    compressed = node.chunks is not None and node.id.get_create_plist().get_nfilters() > 0
    return math.prod(node.chunks) * node.dtype.itemsize if compressed else 0


def check_chunks(node: h5py.Dataset, field: str = "input") -> None:
    """Check what the chunks of a dataset become when HDF5 reads them.

    Raises
    ------
    InputError
        If they are compressed more than once or by another filter than gzip or LZF, or one of them holds more than a
        chunk.
    ResourceLimit
        If a chunk is larger than the limit.
    """
    if not chunk_bytes(node):
        return
    size = check_size(node.chunks, node.dtype.itemsize, field)
    creation = node.id.get_create_plist()
    filters = [creation.get_filter(i) for i in range(creation.get_nfilters())]
    codes = [found[0] for found in filters]
    compressing = [i for i, code in enumerate(codes) if code in _COMPRESS]
    unknown = [found for found in filters if found[0] not in _COMPRESS.keys() | _KEEP_SIZE]
    if unknown or len(compressing) > 1:
        names = ", ".join(_name(*found) for found in unknown or filters)
        said = f"has the filters {names}" if unknown else f"is compressed {len(compressing)} times ({names})"
        raise InputError(f"{node.name!r} {said}, which are not read", field=field, remedy=_REPACK)
    stored: list[int] = []
    node.id.chunk_iter(lambda chunk: stored.append(chunk.size))
    largest = max(stored, default=0)
    if largest > _EXPANDS * size + _CHECKSUMS:
        raise InputError(
            f"{node.name!r} has a chunk of {largest} compressed bytes for {size}", field=field, remedy="copy it again"
        )
    if not compressing or largest * _COMPRESS[codes[compressing[0]]] <= limit_bytes():
        return
    if codes[compressing[0]] == _LZF:
        raise InputError(
            f"{node.name!r} has an LZF chunk of {largest} bytes, which can become more than the limit",
            field=field,
            remedy=_REPACK,
        )
    node.id.chunk_iter(lambda chunk: _check_inflated(node, chunk.chunk_offset, compressing[0], size, field))


def _name(code: int, _flags: int, _values: tuple[int, ...], name: bytes) -> str:
    return name.decode("utf-8", "replace") or str(code)


def _check_inflated(node: h5py.Dataset, offset: tuple[int, ...], deflate: int, size: int, field: str) -> None:
    """Inflate one chunk no further than it should be; `deflate` is the place of that filter."""
    skipped, compressed = node.id.read_direct_chunk(offset)
    most = size + _CHECKSUMS
    if not skipped >> deflate & 1 and len(zlib.decompressobj().decompress(compressed, most + 1)) > most:
        raise InputError(
            f"{node.name!r} has a chunk that holds more than its {size} bytes", field=field, remedy="copy it again"
        )
