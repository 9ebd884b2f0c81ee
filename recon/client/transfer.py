"""Transfer of files to and from a server, verified by sha256; large ones are sent in pieces that can be retried."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

import httpx

from operators.errors import BackendUnavailable, InputError
from recon.client import archive
from recon.client.connection import Connection, Patience, ServerError
from recon.spec.files import FOLDER_MEDIA_TYPE
from recon.storage.patterns import is_pattern, matching

CHUNK = 2**20
PIECE = 2**25
"""Size in bytes of the pieces in which larger files are sent."""


def upload(connection: Connection, path: Path, field: str = "input.path") -> str:
    """Send a file, a folder with all that is in it, or what matches a pattern, and return the upload's id.

    Parameters
    ----------
    field
        Field of the specification that names it, for errors.

    Raises
    ------
    InputError
        If there is no such file, or a folder that cannot be sent.
    ServerError, BackendUnavailable
        If the server refuses it, or cannot be reached.
    """
    files: Mapping[str, Path] = {}
    name = path.absolute().name
    if is_pattern(path):
        files = matching(path, field)
        path = next(iter(files.values()))
    elif path.is_dir():
        files = archive.files_of(path, field)
    if len(files) > 1 or path.is_dir():
        with archive.Archive(files, field) as packed:
            return _sent(connection, io.BufferedReader(packed, CHUNK), FOLDER_MEDIA_TYPE, name)
    if not path.is_file():
        message = f"there is no file {path.name} in {path.parent.resolve()}"
        raise InputError(message, field=field, remedy="check the path")
    with path.open("rb") as stream:
        return _sent(connection, stream, "application/octet-stream", path.name)


def _sent(connection: Connection, stream: IO[bytes], media_type: str, name: str) -> str:
    headers = {"Content-Type": media_type, "X-Checksum-SHA256": _sha256(stream)}
    params = {"name": name.encode(errors="replace").decode()}  # a file's name may be no text
    size = stream.seek(0, os.SEEK_END)
    if size <= PIECE:
        stream.seek(0)
        content = stream.read()
        answer = connection.request("POST", "/v1/uploads", content=content, headers=headers, params=params, again=True)
        return str(answer.json()["id"])
    headers["Upload-Length"] = str(size)
    begun = connection.request("POST", "/v1/uploads", headers=headers, params=params, again=True)
    where = connection.below(begun.headers["Location"])
    _in_pieces(connection, where, stream, size)
    return where.rpartition("/")[2]


def _in_pieces(connection: Connection, where: str, stream: IO[bytes], size: int) -> None:
    offset, broken, patience = 0, False, connection.patience()
    while True:
        try:
            if broken:
                here = connection.request("HEAD", where).headers
                offset = int(here["Upload-Offset"])
                if here["Upload-Complete"] == "?1":
                    return
            stream.seek(offset)
            headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            answer = connection.request("PATCH", where, content=_chunks(stream, PIECE), headers=headers, again=False)
        except (BackendUnavailable, ServerError) as error:
            # A conflict means that the server has more or less of the file than we think: HEAD tells.
            if isinstance(error, ServerError) and error.status == 409:
                error.passing = True
            broken = True
            patience.spend(error)
            continue
        if answer.status_code == 200:
            return
        offset, broken = int(answer.headers["Upload-Offset"]), False
        patience.renew()
        if offset >= size:  # the server would have said that it is complete
            raise BackendUnavailable("the upload has all its bytes and does not end", field="input.path")


def download(connection: Connection, path: str, target: Path, expected: str) -> None:
    """Download a file, from the beginning again if the connection breaks; `target` is complete or absent.

    Raises
    ------
    BackendUnavailable
        If the server cannot be reached, or what arrived has another sha256.
    ServerError
        If it refuses.
    """
    part, patience = target.with_name(f".{target.name}.partial"), connection.patience()
    try:
        while not _received(connection, path, part, patience):
            pass
        if sha256(part) != expected:
            raise BackendUnavailable(f"{target.name} arrived damaged", field="results", remedy="fetch again")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _received(connection: Connection, path: str, part: Path, patience: Patience) -> bool:
    """Try one download; False, after a pause, if it is worth another attempt."""
    try:
        with connection.stream(path) as answer, part.open("wb") as stream:
            for chunk in answer.iter_bytes(CHUNK):
                stream.write(chunk)
    except httpx.TransportError as error:
        patience.spend(connection.unreachable(error))
    except ServerError as error:
        patience.spend(error)
    else:
        return True
    return False


def sha256(path: Path) -> str:
    """Hash (sha256) of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return _sha256(stream)


def _sha256(stream: IO[bytes]) -> str:
    return hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest()


def _chunks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := stream.read(min(CHUNK, size))):
        size -= len(chunk)
        yield chunk
