"""NeXus: frames told apart by their key, angles and pixels in their units, links no further than the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from operators.errors import InputError, ReconError
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.test_formats import refusal, spec

KEYS = np.array([1, 1, 2, 0, 0, 3, 0, 0, 1, 2])
LEVEL = np.array([10100, 100, 0, 0])[[0, 0, 1, 2, 2, 3, 2, 2, 0, 1]] + np.array(
    [0, 0, 0, 5100, 5100, 7, 5100, 5100, 0, 0]
)
FRAMES = (np.zeros((10, 4, 20)) + LEVEL[:, None, None]).astype(np.uint16)
FRAMES[[3, 4, 6, 7], 1] = 2600
"""Row 1 absorbs more: transmission 0.25 instead of 0.5."""
ANGLES = np.array([0.0, 0, 0, 0, 30, 45, 60, 90, 120, 120])


def group(file: h5py.Group, name: str, kind: str) -> h5py.Group:
    made = file.require_group(name)
    made.attrs["NX_class"] = kind
    return made


def nxtomo_file(path: Path, change: Callable[[h5py.File], None] = lambda _: None) -> Path:
    """As the definition NXtomo says."""
    with h5py.File(path, "w") as file:
        group(file, "entry", "NXentry")["definition"] = "NXtomo"
        detector = group(file, "entry/instrument/detector", "NXdetector")
        detector["data"], detector["image_key"] = FRAMES, KEYS
        detector["x_pixel_size"], detector["y_pixel_size"] = 6.5e-6, 6.5e-6
        for axis in "xy":
            detector[f"{axis}_pixel_size"].attrs["units"] = "m"
        sample = group(file, "entry/sample", "NXsample")
        sample["rotation_angle"] = ANGLES
        sample["rotation_angle"].attrs["units"] = "degrees"
        group(file, "entry/data", "NXdata")["data"] = h5py.SoftLink("/entry/instrument/detector/data")
        change(file)
    return path


def job(path: Path, **given: Any) -> JobSpec:
    return spec(path, input={"path": str(path), **given}, acquisition=None)


def measured(path: Path, **given: Any) -> Measurement:
    wanted = job(path, **given)
    found = reader.read(wanted, local_files(wanted))
    assert isinstance(found.acquisition, CTParallel)
    assert np.rad2deg(found.acquisition.angles() or ()) == pytest.approx([0, 30, 60, 90])
    return found


def test_nxtomo_is_told_by_its_name_and_read_with_its_geometry(tmp_path: Path) -> None:
    found = measured(nxtomo_file(tmp_path / "a.nxs"))
    assert found.data.shape == (4, 4, 20)
    assert found.data[0] == pytest.approx(np.log(2), rel=1e-3)
    assert found.data[1] == pytest.approx(np.log(4), rel=1e-3)
    assert isinstance(found.acquisition, CTParallel)
    assert found.acquisition.detector_mm == pytest.approx(0.0065) == found.acquisition.slice_mm
    assert any("1 frames" in note and "left out" in note for note in found.notes)


def test_nxtomo_reads_only_the_rows_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nxtomo_file(tmp_path / "a.nxs")
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", "1000")
    assert measured(path, slices=[1, 2]).data == pytest.approx(np.log(4), rel=1e-3)
    assert "the limit is" in refusal(job(path)).message


def master_file(folder: Path, data: object, angles: object) -> Path:
    """As beamlines write it: no definition, no sample, frames and angles elsewhere."""
    path = folder / "scan.nxs"
    with h5py.File(path, "w") as file:
        group(file, "entry", "NXentry")
        for name in ("imaging", "EtherCAT"):
            detector = group(file, f"entry/instrument/{name}", "NXdetector")
            detector["image_key"] = KEYS
            shown = group(file, f"entry/{name}", "NXdata")
            shown["theta_value"], shown["theta_value_set"] = angles, h5py.ExternalLink("gone.h5", "/set")
            detector["data"] = shown["data"] = data if name == "imaging" else h5py.ExternalLink("gone.h5", "/data")
    return path


def frames_file(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["entry/detector"], file["entry/theta"] = FRAMES, ANGLES
    return path


def test_links_lead_to_files_beside_and_what_dangles_does_not_matter(tmp_path: Path) -> None:
    frames_file(tmp_path / "scan" / "frames.h5")
    links = [h5py.ExternalLink("scan/frames.h5", f"/entry/{name}") for name in ("detector", "theta")]
    found = measured(master_file(tmp_path, *links))
    assert found.data[1] == pytest.approx(np.log(4), rel=1e-3)
    assert any("entry/imaging/theta_value" in note and "no unit" in note for note in found.notes)


def test_virtual_frames_are_read_where_all_of_them_are_there(tmp_path: Path) -> None:
    source = frames_file(tmp_path / "scan" / "frames.h5")
    layout = h5py.VirtualLayout(shape=FRAMES.shape, dtype="u2")
    layout[:] = h5py.VirtualSource("scan/frames.h5", "entry/detector", shape=FRAMES.shape)

    def virtual(file: h5py.File) -> None:
        del file["entry/instrument/detector/data"]
        file.create_virtual_dataset("entry/instrument/detector/data", layout)

    path = nxtomo_file(tmp_path / "a.nxs", virtual)
    assert measured(path).data[1] == pytest.approx(np.log(4), rel=1e-3)
    source.unlink()
    assert "'scan/frames.h5', and there is no such file" in refusal(job(path)).message


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    outside = frames_file(tmp_path / "outside.h5")
    (folder / "inside.h5").symlink_to(outside)
    for filename in ("../outside.h5", str(outside), "inside.h5"):
        link = h5py.ExternalLink(filename, "/entry/detector")
        assert "outside of the folder" in refusal(job(master_file(folder, link, ANGLES))).message
    link = h5py.ExternalLink("missing.h5", "/data")
    assert "'missing.h5', and there is no such file" in refusal(job(master_file(folder, link, ANGLES))).message
    circle = h5py.SoftLink("/entry/instrument/imaging/data")
    assert "in a circle" in refusal(job(master_file(folder, circle, ANGLES))).message


def test_links_of_an_upload_lead_nowhere(tmp_path: Path) -> None:
    frames_file(tmp_path / "frames.h5")
    path = master_file(tmp_path, h5py.ExternalLink("frames.h5", "/entry/detector"), ANGLES)
    sent = JobSpec.parse({"input": {"upload": "a" * 26, "format": "nxtomo"}, "method": "fbp"})
    with pytest.raises(InputError, match="the upload is one file"):
        reader.check(sent, {"input": path})


def drop(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def put(name: str, value: Any, units: str | None = None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value
        if units:
            file[name].attrs["units"] = units

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop("entry/instrument/detector/image_key"), "no NXdetector with data and image_key"),
        (put("entry/instrument/detector/image_key", KEYS[:9]), "has shape (9,) for 10 frames"),
        (put("entry/instrument/detector/image_key", KEYS + 5), "has the value 5"),
        (put("entry/instrument/detector/image_key", np.where(KEYS == 1, 0, KEYS)), "no frame as flat field"),
        (put("entry/instrument/detector/image_key", np.ones(10)), "no frame as projection"),
        (put("entry/sample/rotation_angle", ANGLES[:7]), "7 angles in entry/sample/rotation_angle for 10 frames"),
        (put("entry/sample/rotation_angle", ANGLES, "turns"), "neither degrees nor radians"),
        (drop("entry/sample/rotation_angle"), "needed, the file does not carry it"),
        (put("entry/instrument/detector/data", FRAMES[..., 0]), "no NXdetector"),
    ],
)  # fmt: skip
def test_wrong_nexus_files(tmp_path: Path, change: Callable[[h5py.File], None], says: str) -> None:
    path = nxtomo_file(tmp_path / "a.nxs", change)
    with pytest.raises(ReconError) as error:
        reader.check(job(path), local_files(job(path)))
    assert says in str(error.value) and error.value.remedy


def test_frames_that_the_key_marks_as_invalid_are_not_looked_at(tmp_path: Path) -> None:
    frames = FRAMES.astype(np.float32)
    frames[5] = np.nan
    path = nxtomo_file(tmp_path / "a.nxs", put("entry/instrument/detector/data", frames))
    assert measured(path).data[0] == pytest.approx(np.log(2), rel=1e-3)
    path = nxtomo_file(
        tmp_path / "b.nxs", put("entry/instrument/detector/data", np.where(frames == 5100, np.nan, frames))
    )
    assert "not finite" in refusal(job(path)).message


def test_flat_fields_before_and_after_the_projections_are_interpolated(tmp_path: Path) -> None:
    frames = FRAMES.copy()
    frames[8] = 5100  # the beam has half its light at the end, and the object lets all of it through
    path = nxtomo_file(tmp_path / "a.nxs", put("entry/instrument/detector/data", frames))
    seen = measured(path).data[0, :, 0]
    beam = np.interp([3, 4, 6, 7], [0.5, 8], [10000, 5000])
    assert seen == pytest.approx(-np.log(5000 / beam), abs=1e-5)


def test_angles_in_radians_and_without_dark_frames(tmp_path: Path) -> None:
    path = nxtomo_file(tmp_path / "a.nxs", put("entry/sample/rotation_angle", np.deg2rad(ANGLES), "rad"))
    assert measured(path).data.shape == (4, 4, 20)
    keys = np.where(KEYS == 2, 3, KEYS)
    found = measured(nxtomo_file(tmp_path / "b.nxs", put("entry/instrument/detector/image_key", keys)))
    assert found.data[0] == pytest.approx(np.log(10100 / 5100), rel=1e-3)
    assert any("dark signal is taken as zero" in note for note in found.notes)


def test_one_of_several_scans_is_chosen(tmp_path: Path) -> None:
    path = nxtomo_file(tmp_path / "a.nxs", lambda f: f.copy("entry", "again"))
    error = refusal(job(path))
    assert error.field == "input.dataset" and "again/instrument/detector/data" in str(error.remedy)
    assert measured(path, dataset="again/instrument/detector/data").data.shape == (4, 4, 20)


def test_a_real_file_whose_links_dangle_is_refused_with_their_names() -> None:
    path = Path(__file__).parents[2] / "data" / "formats" / "nexus" / "24737_processed.nxs"
    said = refusal(job(path)).message
    assert "'tomo_p1_dark_flat_field_correction.h5', and there is no such file" in said
    assert "24737.nxs', outside of the folder of the file" in said
