"""GE raw data in P files: refused by name, since GE's own library alone reads them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NoReturn

from operators.errors import InputError
from recon.formats.format import Format
from recon.formats.safety import existing
from recon.spec.job import Input


def _read(path: Path, given: Input) -> NoReturn:
    del given
    with existing(path).open("rb") as stream:
        first = stream.read(4)
    revision = struct.unpack("<f", first)[0] if len(first) == 4 else 0.0
    said = f"a GE P file, revision {revision:g}" if 5.0 <= revision <= 100.0 else "a GE raw data file"
    raise InputError(
        f"{path.name} is {said}: only GE's Orchestra library reads it",
        field="input",
        remedy="convert it to ISMRMRD with ge_to_ismrmrd, and give that",
    )


FORMAT = Format(name="ge", endings=(".7",), certain=True, read=_read)
