"""Folder as one stream: a tar archive that is made while it is read, and takes no memory and no disk."""

from __future__ import annotations

import io
import os
import tarfile
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from operators.errors import InputError
from recon.spec.files import LONGEST_NAME, MOST_FILES

_BLOCK = tarfile.BLOCKSIZE
_END = 2 * _BLOCK
"""Bytes of zeros behind the last file."""


def files_of(folder: Path, field: str = "input.path") -> dict[str, Path]:
    """List the files of a folder and of those in it, by their names inside; hidden ones are left out.

    Raises
    ------
    InputError
        If there are none or too many, or something that is neither file nor folder.
    """
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(n for n in (*folders, *names) if not n.startswith(".")):
            path = Path(place, name)
            if path.is_dir() and not path.is_symlink():
                continue
            if not path.is_file():
                raise InputError(
                    f"{path} is no file, or a link to none", field=field, remedy="take it out of the folder, or copy it"
                )
            found[path.relative_to(folder).as_posix()] = path
            if len(found) > MOST_FILES:
                raise InputError(f"{folder} holds more than {MOST_FILES} files", field=field, remedy="send fewer")
    if not found:
        raise InputError(f"{folder} holds no files", field=field, remedy="check the path")
    return found


class Archive(io.RawIOBase):
    """Files as a tar archive: a stream whose bytes depend on the files' names, order and contents alone.

    Parameters
    ----------
    files
        Path of each file by its name in the archive.
    field
        Field of the specification that names the folder, for errors.
    """

    def __init__(self, files: Mapping[str, Path], field: str = "input.path") -> None:
        super().__init__()
        self._field = field
        self._files = [(name, path, path.stat().st_size) for name, path in files.items()]
        self._starts: list[int] = []
        self._position = self._length = 0
        self._open: tuple[int, IO[bytes]] | None = None
        for index, (_, _, size) in enumerate(self._files):
            self._starts.append(self._length)
            self._length += len(self._header(index)) + -(-size // _BLOCK) * _BLOCK
        self._length += _END

    def __len__(self) -> int:
        """Length in bytes."""
        return self._length

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: what lies anywhere is made anew."""
        return True

    def tell(self) -> int:
        """Position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self)}[whence])
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of a header, a file or a gap; raises `InputError` if a file has changed."""
        wanted = memoryview(buffer).cast("B")
        piece = self._piece(len(wanted))
        wanted[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        """Close the file that is being read."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _piece(self, most: int) -> bytes:
        """Read at most `most` bytes from the position on; empty at the end only."""
        if self._position >= len(self) - _END:
            return bytes(min(most, max(0, len(self) - self._position)))
        index = bisect_right(self._starts, self._position) - 1
        header, size = self._header(index), self._files[index][2]
        offset = self._position - self._starts[index]
        if offset < len(header):
            return header[offset : offset + most]
        offset -= len(header)
        if offset < size:
            return self._content(index, offset, min(most, size - offset))
        return bytes(min(most, -offset % _BLOCK))

    def _content(self, index: int, offset: int, most: int) -> bytes:
        _, path, size = self._files[index]
        if self._open is None or self._open[0] != index:
            if self._open is not None:
                self._open[1].close()
            self._open = (index, path.open("rb"))
        stream = self._open[1]
        stream.seek(offset)
        piece = stream.read(most)
        if not piece or os.fstat(stream.fileno()).st_size != size:
            raise InputError(
                f"{path} changed while it was sent", field=self._field, remedy="wait until the scan is written"
            )
        return piece

    def _header(self, index: int) -> bytes:
        name, path, size = self._files[index]
        member = tarfile.TarInfo(name)  # owner, time and mode are those of no file
        member.size = size
        try:
            named = name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the name of {str(path)!r} is no text", field=self._field, remedy="rename it") from error
        if len(named) > LONGEST_NAME:
            raise InputError(
                f"the name of {path} is longer than {LONGEST_NAME} bytes", field=self._field, remedy="rename it"
            )
        return member.tobuf(tarfile.PAX_FORMAT)
