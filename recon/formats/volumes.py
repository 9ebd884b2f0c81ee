"""Image volumes, as their formats store them: numbers behind a header, plain or compressed, and files beside it.

No more is read, or inflated, than the header promises, and that is checked against the limit first.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.formats.detect import around
from recon.formats.safety import check_size, existing, limit_bytes
from recon.spec.affine import Affine
from recon.spec.files import File
from recon.spec.job import Input
from recon.storage.patterns import lies_in

_PIECE = 2**20
_ANY_HEADER = 47
"""Window setting of zlib: its own header or that of gzip, whichever there is."""
_SINGULAR = 1e-9
_LARGEST = 1e15
"""Largest number of a header that can mean something."""


def numbers(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    *,
    at: int = 0,
    skip: int = 0,
    compressed: bool = False,
    field: str = "input",
) -> NDArray[np.generic]:
    """Read an array of real numbers, its last axis varying fastest.

    Parameters
    ----------
    at
        Byte of the file at which it begins, plain or compressed.
    skip
        Bytes to leave out from there; of the inflated ones, if `compressed`.

    Raises
    ------
    InputError
        If these are no real numbers, or the file is damaged or shorter than that.
    ResourceLimit
        If they are larger than the limit.
    """
    if dtype.kind not in "iuf":
        raise InputError(f"{path.name} holds {dtype}, expected real numbers", field=field)
    promised = check_size(shape, dtype.itemsize, field)
    if min(at, skip) < 0 or at + skip > path.stat().st_size + limit_bytes():
        raise InputError(f"{path.name} says that its numbers begin at byte {at + skip}", field=field)
    with existing(path, field).open("rb") as stream:
        stream.seek(at if compressed else at + skip)
        if compressed:
            read = _inflated(stream, skip, promised, path, field)
        else:
            read = bytearray(promised)
            del read[stream.readinto(read) :]
    if len(read) < promised:
        raise InputError(
            f"{path.name} is truncated: its header promises {promised} bytes, it holds {len(read)}",
            field=field,
            remedy="copy it again",
        )
    return np.frombuffer(read, dtype).reshape(shape)


def _inflated(stream: IO[bytes], skip: int, count: int, path: Path, field: str) -> bytearray:
    """Inflate `count` bytes after `skip`, and whether their checksum is right if they are the last."""
    found, total = bytearray(), 0
    inflate = zlib.decompressobj(_ANY_HEADER)
    piece = b""
    try:
        while total <= skip + count:  # one more byte tells whether they were the last
            piece = piece or stream.read(_PIECE)
            grown = inflate.decompress(piece, min(_PIECE, skip + count + 1 - total))
            found += grown[max(0, skip - total) :]
            total += len(grown)
            if not piece and not grown and not inflate.eof:
                raise zlib.error("it ends too early")
            piece = inflate.unconsumed_tail
            if inflate.eof:
                piece = inflate.unused_data or stream.read(_PIECE)
                if total >= skip + count or not piece:
                    break
                inflate = zlib.decompressobj(_ANY_HEADER)  # of the next member
    except zlib.error as error:
        raise InputError(
            f"{path.name} is truncated or damaged after {total} bytes: {error}",
            field=field,
            remedy="copy it again",
        ) from error
    del found[count:]
    return found


def scaled(stored: NDArray[np.generic], slope: float = 1.0, intercept: float = 0.0) -> NDArray[np.float32]:
    """Convert stored numbers to float32 by a linear map."""
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is found where it is needed
        if (slope, intercept) == (1.0, 0.0):
            return stored.astype(np.float32)
        found = np.empty(stored.shape, np.float32)
        for part, into in zip(stored, found, strict=True):  # in float64, which would take more memory than both
            into[...] = part.astype(np.float64) * slope + intercept
        return found


def choices(given: Input, names: tuple[str, ...]) -> dict[str, int]:
    """Read ``input.scan``, for instance ``series=3, volume=0``."""
    found = {}
    for part in (given.scan or "").split(","):
        name, _, number = (text.strip() for text in part.partition("="))
        if part.strip():
            if name not in names or not number.isdecimal():
                raise InputError(
                    f"{part.strip()!r} does not say what to read",
                    field="input.scan",
                    remedy=f"give {', '.join(f'{n}=NUMBER' for n in names)}, separated by commas",
                )
            found[name] = int(number)
    return found


def number_of(wanted: dict[str, int], count: int) -> int:
    """Number of the volume to read, of so many; raises if there are several and none is chosen."""
    number = wanted.get("volume", 0)
    if (count > 1 and "volume" not in wanted) or number >= count:
        raise InputError(
            f"there are {count} volumes, of several times, echoes or the like"
            if count > 1
            else f"there is no volume {number}, only one",
            field="input.scan",
            remedy=f"choose one, volume=0 to volume={count - 1}" if count > 1 else "leave it out",
        )
    return number


def which(given: Input, count: int) -> int:
    """Number of the volume to read, of so many in a file."""
    return number_of(choices(given, ("volume",)), count)


def beside(header: Path, name: str, given: File) -> Path:
    """Find the file with the numbers that a header names, in the folder that was given or beside the header.

    Raises
    ------
    InputError
        If there is none, or it lies elsewhere.
    """
    folder = around(header, given)
    if folder is None:
        raise InputError(
            f"its numbers are in another file, {name!r}, and this upload is one file",
            field="input",
            remedy="upload the folder with both, or save them as one file",
        )
    place = (header.parent / name.replace("\\", "/")).resolve()
    if not lies_in(place, folder):
        raise InputError(
            f"{header.name} has its numbers in {name!r}, outside of its folder",
            field="input",
            remedy="put the file beside the header, and its bare name into it",
        )
    if not place.is_file():
        raise InputError(
            f"{header.name} has its numbers in {name!r}, and there is no such file",
            field="input",
            remedy="copy it together with the header",
        )
    return place


def check_affine(affine: Affine, name: str) -> Affine:
    """Return an affine that is finite and not singular."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _SINGULAR:
        raise InputError(f"{name} has an affine that is singular or not finite", field="input")
    return affine


def product(sizes: tuple[int, ...]) -> int:
    """Product of sizes; 1 for none."""
    return math.prod(int(n) for n in sizes)


class Words(dict[str, str]):
    """Entries of a header in text, by name.

    Parameters
    ----------
    found
        Their text.
    name
        Name of the file, for messages.
    """

    def __init__(self, found: dict[str, str], name: str) -> None:
        super().__init__(found)
        self.name = name

    def first(self, *names: str) -> str | None:
        """Return the first of these names that is there."""
        return next((name for name in names if name in self), None)

    def numbers(self, name: str, count: int, default: list[float] | None = None) -> list[float]:
        """Read an entry of so many finite numbers."""
        if name not in self:
            if default is None:
                raise InputError(f"{self.name} lacks {name}", field="input")
            return default
        try:
            found = [float(word) for word in self[name].split()]
        except ValueError:
            found = []
        if len(found) != count or not all(math.isfinite(n) and abs(n) < _LARGEST for n in found):
            raise InputError(f"{self.name}: {name} is {self[name][:40]!r}, expected {count} numbers", field="input")
        return found

    def true(self, name: str) -> bool:
        """Whether an entry is there and says so."""
        return self.get(name, "").lower() in ("true", "1", "t", "yes")
