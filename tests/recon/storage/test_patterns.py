"""Several files as one input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from operators.errors import InputError
from recon.formats import reader
from recon.formats.inspect import inspect
from recon.spec.job import Input, JobSpec, local_files
from recon.storage.patterns import gathered, is_pattern, matching


def scan(folder: Path) -> Path:
    """Projections with flats and angles, and images that do not belong to them."""
    (folder / "flats").mkdir(parents=True)
    for i in range(4):
        tifffile.imwrite(folder / f"proj_{i}.tif", np.full((3, 8), 500, np.uint16))
        tifffile.imwrite(folder / f"other_{i}.tif", np.zeros((9, 9), np.uint8))
    tifffile.imwrite(folder / "flats" / "flat_0.tif", np.full((3, 8), 1000, np.uint16))
    (folder / "angles.txt").write_text("0\n45\n90\n135\n")
    (folder / ".hidden").touch()
    return folder


def test_what_matches_is_one_input(tmp_path: Path) -> None:
    scan(tmp_path / "scan")
    value = {"acquisition": {"kind": "ct-parallel", "detector_mm": 1.0}, "method": "fbp"}
    job = JobSpec.parse({"input": "scan/[!o]*", **value}).with_base(tmp_path)
    files = local_files(job)
    assert reader.read(job, files).data == pytest.approx(np.log(2))
    assert local_files(job) == files and len(list(files["input"].rglob("*.tif"))) == 5
    found = inspect(Path(str(job.input.path)), Input(path=job.input.path))
    assert found.format == "tiff" and found.shape == [3, 4, 8] and found.angles is not None


def test_one_match_is_the_file_and_none_is_an_error(tmp_path: Path) -> None:
    scan(tmp_path / "scan")
    assert gathered(tmp_path / "scan" / "angles.*") == tmp_path / "scan" / "angles.txt"
    assert list(matching(tmp_path / "*" / "angles.txt")) == ["scan/angles.txt"]
    with pytest.raises(InputError, match=r"input\.path: no file matches \*\.nxs in "):
        gathered(tmp_path / "scan" / "*.nxs")
    (tmp_path / "scan[1].npy").touch()
    assert not is_pattern(tmp_path / "scan[1].npy") and is_pattern(tmp_path / "scan[2].npy")
