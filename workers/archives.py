"""Tar archives of untrusted origin, unpacked into a folder: plain files and folders, with limits, and nothing else.

Read strictly forward, a block at a time: no header leads anywhere but to what follows it. Without compression an
archive unpacks to no more bytes than it has.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from operators.errors import InputError
from recon.spec.files import LONGEST_NAME, MOST_FILES, inner_name
from recon.storage.atomic import sync

_BLOCK = tarfile.BLOCKSIZE
_PIECE = 2**20
_LONGEST_HEADER = 2**16
"""Bytes of an extended header, which can hold a name and a size."""
_DEEPEST, _LONGEST_PART = 32, 255
_LONG_NAME = (tarfile.GNUTYPE_LONGNAME,)
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_REMEDY = "send it as `tar --create --dereference --hard-dereference` or `recon submit` makes it, uncompressed"


def unpack(stream: IO[bytes], folder: Path) -> int:
    """Unpack an archive into a new folder and sync it to disk; returns the number of files.

    Raises
    ------
    InputError
        If it is no tar archive or cut short, holds anything but files and folders, names that lead out of the folder or
        occur twice, more files than `MOST_FILES`, or none.
    """
    folder.mkdir()
    names: set[str] = set()
    folders: set[str] = set()
    for name, size, is_folder in _members(stream):
        place = folder / name
        folders |= {str(parent) for parent in PurePosixPath(name).parents} | ({name} if is_folder else set())
        if len(names) >= MOST_FILES or len(folders) > MOST_FILES:
            raise _refused(f"it holds more than {MOST_FILES} files or folders", remedy="send fewer")
        if name in names:
            raise _refused(f"it has {name!r} twice")
        try:
            if is_folder:
                place.mkdir(parents=True, exist_ok=True)
                continue
            names.add(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                _copy(stream, file, size)
        except (FileExistsError, NotADirectoryError) as error:
            raise _refused(f"{name!r} is a file and a folder") from error
    if not names:
        raise _refused("it holds no files")
    for path in (*folder.rglob("*"), folder):
        sync(path)
    return len(names)


def _members(stream: IO[bytes]) -> Iterator[tuple[str, int, bool]]:
    """Name and size of each member, and whether it is a folder; the caller reads so many bytes of the stream."""
    long_name: str | None = None
    long_size: int | None = None
    while True:
        block = stream.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeError, ValueError) as error:
            raise _refused(f"it is no tar archive, or damaged: {error}") from error
        size = header.size if long_size is None else long_size
        if size < 0:
            raise _refused(f"it is damaged: a file has {size} bytes")
        if header.type in _EXTENDED:
            fields = _fields(_small(stream, header.size))
            if any(key.startswith("GNU.sparse") for key in fields):
                raise _refused("it holds a sparse file")
            long_name = fields.get("path", long_name)
            long_size = _number(fields["size"]) if "size" in fields else long_size
        elif header.type in _LONG_NAME:
            long_name = _text(_small(stream, header.size).rstrip(b"\0"))
        elif header.type == tarfile.XGLTYPE:
            _small(stream, header.size)  # comments
        elif header.type in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE) and header.type != tarfile.GNUTYPE_SPARSE:
            is_folder = header.type == tarfile.DIRTYPE
            name = header.name if long_name is None else long_name
            if not (is_folder and name.rstrip("/") in ("", ".")):  # the folder itself, as `tar -c .` has it
                yield _checked(name), 0 if is_folder else size, is_folder
            long_name = long_size = None
        else:
            what = _KINDS.get(header.type, f"something of type {header.type!r}")
            raise _refused(f"{header.name!r} is {what}: only files and folders are unpacked")


def _checked(name: str) -> str:
    try:
        found = inner_name(name)
    except ValueError as error:
        raise _refused(str(error)) from error
    parts = found.encode().split(b"/")
    if sum(map(len, parts)) > LONGEST_NAME or len(parts) > _DEEPEST or max(map(len, parts)) > _LONGEST_PART:
        raise _refused(f"the name {found[:100]!r}... is too long, or too deep")
    return found


def _fields(data: bytes) -> dict[str, str]:
    """Entries ``LENGTH KEY=VALUE`` of an extended header."""
    found: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        size = _number(_text(length[:8]))
        key, equals, value = data[len(length) + 1 : size].partition(b"=")
        if size <= len(length) + 1 or size > len(data) or not equals:
            raise _refused("it is damaged: a header cannot be read")
        name = _text(key)
        if name in ("path", "size") or name.startswith("GNU.sparse"):
            found[name] = _text(value.removesuffix(b"\n"))
        data = data[size:]
    return found


def _small(stream: IO[bytes], size: int) -> bytes:
    """Content of a header that describes the next one."""
    if not 0 <= size <= _LONGEST_HEADER:
        raise _refused(f"it has a header of {size} bytes")
    padded = stream.read(size + -size % _BLOCK)
    if len(padded) < size:
        raise _refused("it is cut short")
    return padded[:size]


def _copy(stream: IO[bytes], file: IO[bytes], size: int) -> None:
    left = size
    while left and (piece := stream.read(min(left, _PIECE))):
        file.write(piece)
        left -= len(piece)
    if left or len(stream.read(-size % _BLOCK)) < -size % _BLOCK:
        raise _refused("it is cut short")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _refused("it has a name that is no UTF-8") from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _refused("it is damaged: a header cannot be read")
    return int(text)


def _refused(message: str, remedy: str = _REMEDY) -> InputError:
    return InputError(f"the archive cannot be unpacked: {message}", field="body", remedy=remedy)
