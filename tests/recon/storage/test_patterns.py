"""Several files as one input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from operators.errors import InputError
from recon.formats import reader
from recon.formats.inspect import inspect
from recon.spec.job import Input, JobSpec, local_files
from recon.storage.patterns import gathered, is_pattern, lies_in, matching
from tests.recon.formats import dicom_files, test_nikon, test_nxtomo

REAL = Path(__file__).parents[2] / "data" / "formats"


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


def pair(folder: Path) -> None:
    for name in ("air2.hdr.gz", "air2.img.gz"):
        shutil.copy(REAL / "nifti" / name, folder)


def detached(folder: Path) -> None:
    for name in ("fixed.mhd", "fixed.raw"):
        shutil.copy(REAL / "metaimage" / name, folder)


def linked_nexus(folder: Path) -> None:
    test_nxtomo.frames_file(folder / "scan" / "frames.h5")
    links = [h5py.ExternalLink("scan/frames.h5", f"/entry/{name}") for name in ("detector", "theta")]
    test_nxtomo.master_file(folder, *links)


def fan(folder: Path) -> None:
    test_nikon.scan(folder, test_nikon.projections())


def slices_of(folder: Path) -> None:
    dicom_files.series(folder)


MADE: list[tuple[str, Callable[[Path], None], dict[str, Any], str | None]] = [
    ("*.dcm", slices_of, {}, None),
    ("air2.*", pair, {}, "air2.img.gz"),
    ("fixed.*", detached, {}, "fixed.raw"),
    ("[!.]*", linked_nexus, {}, "scan/frames.h5"),
    ("bar*", fan, {"slices": [2, 3]}, None),
]
"""Patterns, what they match, what else an input says, and the file that others lead to."""


@pytest.mark.parametrize(("pattern", "make", "given", "_"), MADE, ids=[row[0] for row in MADE])
def test_files_that_lead_to_others_are_read_as_those_of_their_folder(
    tmp_path: Path, pattern: str, make: Callable[[Path], None], given: dict[str, Any], _: str | None
) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    make(folder)
    found, whole = (inspect(path, Input(path=str(path), **given)) for path in (folder / pattern, folder))
    assert found.shape is not None and found.values is not None
    assert found.model_copy(update={"specification": {}}) == whole.model_copy(update={"specification": {}})


@pytest.mark.parametrize(
    ("pattern", "make", "given", "leads"), [row for row in MADE if row[3]], ids=[row[0] for row in MADE if row[3]]
)
def test_a_pattern_opens_no_way_out_of_the_folder(
    tmp_path: Path, pattern: str, make: Callable[[Path], None], given: dict[str, Any], leads: str
) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    make(folder)
    (folder / leads).rename(tmp_path / "elsewhere")
    (folder / leads).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="outside of"):
        inspect(folder / pattern, Input(path=str(folder / pattern), **given))


def test_a_slice_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = dicom_files.series(tmp_path / "scan")
    one = next(folder.iterdir())
    one.rename(tmp_path / one.name)
    one.symlink_to(tmp_path / one.name)
    for path in (folder, folder / "*.dcm"):
        with pytest.raises(InputError, match="link to outside of the folder"):
            inspect(path, Input(path=str(path)))


def test_what_lies_in_a_folder_of_links(tmp_path: Path) -> None:
    for name in ("a/b/one.txt", "a/b/two.txt", "c/three.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    links = gathered(tmp_path / "a" / "*")
    assert lies_in(links / "b" / "one.txt", links) and lies_in(links / "b" / "one.txt", links / "b")
    assert lies_in(tmp_path / "a" / "b" / "two.txt", links / "b")
    assert not lies_in(tmp_path / "c" / "three.txt", links)
    assert not lies_in(tmp_path / "a" / "b", tmp_path / "c") and lies_in(tmp_path / "c" / "three.txt", tmp_path)
