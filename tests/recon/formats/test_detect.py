"""Which file of an input is read, in which format, and how far what it names may lead."""

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
from recon.formats import detect, reader
from recon.formats.detect import Found, locate
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import Input, JobSpec
from tests.conftest import SAMPLES
from tests.recon.formats.test_nikon import projections
from tests.recon.formats.test_nikon import scan as nikon_scan
from tests.recon.formats.test_nxtomo import ANGLES, frames_file, master_file, nxtomo_file

UPLOAD = "a" * 26


def located(path: Path, **given: Any) -> Found:
    return locate(path, Input.model_validate({"upload": UPLOAD, **given}))


def own(path: Path) -> None:
    """As `recon simulate` marks it."""
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "diffusion-recon measurement 1"


def ismrmrd(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["scan/data"], file["scan/xml"] = np.zeros(3), "<x/>"


def fastmri(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["kspace"], file["ismrmrd_header"] = np.zeros((2, 3, 4), complex), "<x/>"


def tooth(path: Path) -> None:
    shutil.copy(SAMPLES / "ct_tooth.h5", path)


def htc(path: Path) -> None:
    shutil.copy(SAMPLES / "ct_htc2022.npz", path)


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (own, "data.h5", "hdf5"),
        (tooth, "data.h5", "dxchange"),
        (nxtomo_file, "data.h5", "nxtomo"),
        (ismrmrd, "data.h5", "ismrmrd"),
        (fastmri, "data.h5", "fastmri"),
        (htc, "data.npz", "htc"),
    ],
)
def test_formats_that_share_their_first_bytes_are_told_by_what_files_hold(
    tmp_path: Path, make: Callable[[Path], Any], name: str, kind: str
) -> None:
    make(tmp_path / name)
    found = located(tmp_path / name)
    assert (found.format.name, found.how) == (kind, "what it holds")
    make(tmp_path / "without-ending")
    assert located(tmp_path / "without-ending").format.name == kind


def test_what_cannot_be_told_is_asked(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mine"] = np.zeros((2, 3))
    with pytest.raises(InputError, match=r"input\.format: the format cannot be told from its first bytes"):
        located(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"cannot be told from the name 'a\.h5'"):
        locate(tmp_path / "a.h5", Input(path=str(tmp_path / "a.h5")))
    assert located(tmp_path / "a.h5", format="hdf5").how == "given"


def test_links_of_an_uploaded_folder_lead_anywhere_inside_and_no_further(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "processed").mkdir(parents=True)
    frames_file(folder / "raw" / "frames.h5")
    frames_file(tmp_path / "other" / "frames.h5")

    def job(data: str) -> JobSpec:
        master_file(folder / "processed", h5py.ExternalLink(data, "/entry/detector"), ANGLES)
        return JobSpec.parse({"input": {"upload": UPLOAD, "file": "processed/scan.nxs"}, "method": "fbp"})

    assert reader.read(job("../raw/frames.h5"), {"input": folder}).data.shape == (4, 4, 20)
    for outside in ("../../other/frames.h5", str(tmp_path / "other" / "frames.h5")):
        with pytest.raises(InputError, match="outside of the folder of the file"):
            reader.read(job(outside), {"input": folder})
    found = locate(folder, Input(upload=UPLOAD))  # the master is the only file that names others
    assert found.given.file == "processed/scan.nxs" and found.format.name == "nxtomo"
    assert detect.around(found.path, found.given) == folder


def test_the_files_that_a_master_names_are_no_inputs_of_their_own(tmp_path: Path) -> None:
    nikon_scan(tmp_path, projections())
    found = located(tmp_path)
    assert found.format.name == "nikon" and found.given.file == "bar.xtekct"
    job = JobSpec.parse({"input": {"upload": UPLOAD, "slices": [2, 3]}, "method": "fbp"})
    assert reader.read(job, {"input": tmp_path}).data.shape == (1, 10, 24)


def test_a_folder_of_images_is_read_as_a_whole_wherever_it_lies(tmp_path: Path) -> None:
    """Archives often hold one folder with everything in it."""
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    for i in range(3):
        tifffile.imwrite(place / f"{i}.tif", np.full((4, 6), 0.1, np.float32))
    (place / "angles.txt").write_text("0\n60\n120\n")
    (place / ".DS_Store").write_bytes(b"x")
    found = located(tmp_path)
    assert found.format.name == "tiff" and found.path == place and found.given.file == "a/b"
    value = {"kind": "ct-parallel", "detector_mm": 1.0}
    job = JobSpec.parse({"input": {"upload": UPLOAD}, "acquisition": value, "method": "fbp"})
    acquisition = reader.check(job, {"input": tmp_path}).acquisition
    assert isinstance(acquisition, CTParallel)
    assert acquisition.angles() == pytest.approx((0, np.pi / 3, 2 * np.pi / 3))
    assert located(tmp_path, file="a/b").path == place


def test_several_files_of_a_folder_are_a_question(tmp_path: Path) -> None:
    for name in ("one.npy", "two.npy"):
        np.save(tmp_path / name, np.zeros((6, 20), np.float32))
    with pytest.raises(InputError, match=r"input\.file: 2 files .*\(choose one of: one\.npy, two\.npy\)"):
        located(tmp_path)
    assert located(tmp_path, file="two.npy").path == tmp_path / "two.npy"
    with pytest.raises(InputError, match=r"there is no 'three\.npy' in the folder \(choose one of: one\.npy, two\.npy"):
        located(tmp_path, file="three.npy")
    with pytest.raises(InputError, match="is no folder"):
        located(tmp_path / "one.npy", file="x")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a\0b", "a" * 2000])
def test_the_name_of_a_file_inside_stays_inside(name: str) -> None:
    with pytest.raises(InputError, match=r"input\.file"):
        JobSpec.parse({"input": {"upload": UPLOAD, "file": name}})


def test_files_of_an_acquisition_may_lie_in_a_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.ones((1, 2, 16, 16), np.complex64))
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "half.npy", np.ones((16, 16), bool))
    value: dict[str, Any] = {"input": str(tmp_path / "k.npy"), "method": "zero-filled"}

    def mask(**given: str) -> np.ndarray | None:
        acquisition = {"kind": "mri-cartesian", "mask": {"path": str(tmp_path / "masks"), **given}}
        files = {"input": tmp_path / "k.npy", "acquisition.mask": tmp_path / "masks"}
        return reader.read(JobSpec.parse({**value, "acquisition": acquisition}), files).mask

    assert mask() is not None
    np.save(tmp_path / "masks" / "other.npy", np.ones((16, 16), bool))
    with pytest.raises(InputError, match=r"acquisition\.mask\.file: 2 files"):
        mask()
    assert mask(file="other.npy") is not None
