"""OLE2 containers with streams of at least 4096 bytes, which need no mini sectors; shorter ones get zeros behind them.

References
----------
Microsoft, MS-CFB: header, file allocation table, directory entries.
"""

from __future__ import annotations

import struct

SECTOR = 512
NONE, LAST, TABLE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def container(streams: dict[str, bytes]) -> bytes:
    """A file of streams by path, storages between slashes."""
    names = sorted(
        {"/".join(parts[:i]) for name in streams for parts in [name.split("/")] for i in range(1, len(parts))}
    )
    entries = ["", *names, *streams]
    table: list[int] = []
    body = b""

    def store(content: bytes) -> int:
        nonlocal body
        first, count = len(table), max(1, -(-len(content) // SECTOR))
        table.extend([*range(first + 1, first + count), LAST])
        body += content.ljust(count * SECTOR, b"\0")
        return first

    places = {name: (store(held), len(held)) for name, held in ((n, h.ljust(4096, b"\0")) for n, h in streams.items())}
    directory = b""
    for index, name in enumerate(entries):
        children = [i for i, other in enumerate(entries) if i and other.rpartition("/")[0] == name]
        siblings = [i for i, other in enumerate(entries) if i and other.rpartition("/")[0] == name.rpartition("/")[0]]
        after = [i for i in siblings if i > index]
        text = (name.rpartition("/")[2] if index else "Root Entry").encode("utf-16-le")
        first, size = places.get(name, (LAST, 0))
        directory += struct.pack(
            "<64sHBBIII16sIQQIQ", text, len(text) + 2, 5 if not index else 2 if name in places else 1, 1, NONE,
            after[0] if index and after else NONE, children[0] if children and name not in places else NONE, b"", 0, 0,
            0, first, size,
        )  # fmt: skip
    start = store(directory)
    sectors = -(-(len(table) + 1) // 127)  # what describes itself included, with room
    first_table = len(table)
    table += [TABLE] * sectors
    fat = struct.pack(f"<{len(table)}I", *table).ljust(sectors * SECTOR, b"\xff")
    header = struct.pack(
        "<8s16sHHHHH6sIIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"", 0x3E, 3, 0xFFFE, 9, 6, b"", 0, sectors,
        start, 0, 4096, LAST, 0, LAST, 0, first_table,
    )  # fmt: skip
    rest = [first_table + i for i in range(1, sectors)]
    header += struct.pack(f"<{108}I", *rest, *[NONE] * (108 - len(rest)))
    return header + body + fat
