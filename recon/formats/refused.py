"""Formats that are refused by name, with what to do instead."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NoReturn

from operators.errors import InputError
from recon.formats.format import Format
from recon.formats.safety import existing
from recon.spec.job import Input


def _read_ge(path: Path, given: Input) -> NoReturn:
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


def _read_gatan(path: Path, given: Input) -> NoReturn:
    del given
    raise InputError(
        f"{existing(path).name} is a file of an electron microscope (Gatan), which is not read",
        field="input",
        remedy="save the tilt series as 32-bit TIFF, its background subtracted and divided so that it stays below 10, "
        "with the angles beside it (.rawtlt), and give the folder as ct-parallel",
    )


def _read_raw(path: Path, given: Input) -> NoReturn:
    del given
    size = existing(path).stat().st_size
    raise InputError(
        f"{path.name} is {size} bytes of numbers without a header that says their shape and type",
        field="input",
        remedy="give the header beside it (.mhd, .nhdr), or convert it: numpy.save of -log(I / I0) as (slices, views, "
        "detectors), with the geometry in the specification",
    )


GE = Format(name="ge", endings=(".7",), certain=True, read=_read_ge, refused=True)
GATAN = Format(name="gatan", endings=(".dm3", ".dm4"), certain=True, read=_read_gatan, refused=True)
RAW = Format(name="raw", endings=(".raw",), certain=True, read=_read_raw, refused=True)
