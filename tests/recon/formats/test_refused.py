"""Formats that are refused: by name, and with a way out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from operators.errors import InputError
from recon.formats import reader
from recon.spec.job import JobSpec, local_files


@pytest.mark.parametrize(
    ("name", "content", "says", "way_out"),
    [
        ("P20480.7", struct.pack("<f", 26.002) + bytes(1000), "a GE P file, revision 26.002", "ge_to_ismrmrd"),
        ("P20480.7", b"hello", "a GE raw data file", "ge_to_ismrmrd"),
        ("tilt.dm3", bytes(1000), "an electron microscope", "32-bit TIFF"),
        ("tilt.DM4", bytes(1000), "an electron microscope", ".rawtlt"),
        ("scan.raw", bytes(1000), "1000 bytes of numbers without a header", "numpy.save"),
    ],
)
def test_formats_that_are_not_read(tmp_path: Path, name: str, content: bytes, says: str, way_out: str) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path / name, tmp_path):  # in a folder of its own, too
        job = JobSpec.parse({"input": str(path), "method": "fbp"})
        with pytest.raises(InputError) as error:
            reader.check(job, local_files(job))
        assert says in error.value.message and way_out in str(error.value.remedy) and error.value.exit_code == 2
