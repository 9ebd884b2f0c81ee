"""TIFF: a file or a folder, counts or line integrals, flats and darks by their names, angles beside them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from operators.errors import ResourceLimit
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.test_formats import refusal

SINOGRAMS = np.random.default_rng(0).uniform(0.05, 1.5, (5, 12, 16)).astype(np.float32)
"""Line integrals (slices, views, detectors) with air at both ends."""
SINOGRAMS[..., [0, -1]] = -0.01
PROJECTIONS = SINOGRAMS.transpose(1, 0, 2)
COUNTS = np.round(100 + 50000 * np.exp(-PROJECTIONS)).astype(np.uint16)
FLATS = np.full((3, 5, 16), 50100, np.uint16)
DARKS = np.full((2, 5, 16), 100, np.uint16)


def folder(path: Path, images: np.ndarray, name: str = "scan_{:d}.tif", **options: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        tifffile.imwrite(path / name.format(index), image, **options)
    return path


def job(path: Path, *, fan: bool = False, angles: bool = True, **given: Any) -> JobSpec:
    acquisition: dict[str, Any] = {"kind": "ct-parallel", "detector_mm": 1.0}
    if fan:
        acquisition |= {"kind": "ct-fan", "source_origin_mm": 100.0, "origin_detector_mm": 50.0}
    if angles:
        acquisition["angles_rad"] = {"count": 12}
    return JobSpec.parse({"input": {"path": str(path), **given}, "acquisition": acquisition, "method": "fbp"})


def measured(path: Path, **how: Any) -> Measurement:
    wanted = job(path, **how)
    found = reader.read(wanted, local_files(wanted))
    assert reader.check(wanted, local_files(wanted)).shape == found.data.shape
    return found


def test_a_folder_of_line_integrals_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    found = measured(folder(tmp_path / "scan", PROJECTIONS))  # scan_10 comes after scan_9
    assert np.array_equal(found.data, SINOGRAMS)
    assert any("taken as line integrals" in note for note in found.notes)


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"imagej": True}, {"byteorder": ">"}, {"compression": "zlib"}])
def test_pages_of_one_file_are_projections(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "scan.tiff"
    tifffile.imwrite(path, PROJECTIONS, **options)
    assert np.array_equal(measured(path).data, SINOGRAMS)
    assert np.array_equal(measured(path, slices=[1, 3]).data, SINOGRAMS[1:3])


@pytest.mark.parametrize("way", ["folders", "projections in a folder", "names", "files beside"])
def test_counts_are_corrected_by_the_fields_that_are_called_so(tmp_path: Path, way: str) -> None:
    path = tmp_path / "scan"
    if way == "names":
        folder(path, COUNTS)
        folder(path, FLATS, "scan_flat_{:d}.tif")
        folder(path, DARKS, "scan_dark_{:d}.tif")
    elif way == "files beside":
        path.mkdir()
        for name, images in (("scan", COUNTS), ("flats", FLATS), ("darks", DARKS)):
            tifffile.imwrite(path / f"{name}.tif", images, photometric="minisblack")
        path /= "scan.tif"
    else:
        folder(path / "proj" if "in a folder" in way else path, COUNTS)
        folder(path / "Flats", FLATS, "{:d}.tif")
        folder(path / "darks", DARKS, "{:d}.tif")
    found = measured(path)
    assert found.data == pytest.approx(np.maximum(SINOGRAMS, -0.01), abs=2e-4)
    assert any("3 flats" in note for note in found.notes) and any("2 darks" in note for note in found.notes)
    assert measured(path, slices=[4, 5]).data == pytest.approx(SINOGRAMS[4:], abs=2e-4)


def test_transmissions_are_told_by_their_air(tmp_path: Path) -> None:
    found = measured(folder(tmp_path / "scan", np.exp(-PROJECTIONS)))
    assert found.data == pytest.approx(SINOGRAMS, abs=1e-5)
    assert any("-log is taken" in note for note in found.notes)


def test_sinograms_say_so_or_are_alone(tmp_path: Path) -> None:
    named = measured(folder(tmp_path / "sinograms", SINOGRAMS), slices=[1, 4])
    assert np.array_equal(named.data, SINOGRAMS[1:4])
    tifffile.imwrite(tmp_path / "one.tif", SINOGRAMS[2])
    alone = measured(tmp_path / "one.tif")
    assert np.array_equal(alone.data, SINOGRAMS[2:3])
    assert any("taken as sinograms" in note for note in alone.notes)


@pytest.mark.parametrize(
    ("name", "text", "unit"),
    [
        ("angles.txt", "\n".join(map(str, range(0, 360, 30))), "deg"),
        ("theta_rad.txt", " ".join(str(np.deg2rad(a)) for a in range(0, 360, 30)), "rad"),
        ("angles.csv", "frame,angle (deg)\n" + "\n".join(f"{i},{30 * i}" for i in range(12)), "deg"),
        ("angles.json", f'{{"n": 12, "angles_deg": {list(range(0, 360, 30))}}}', "deg"),
        ("angles.txt", "view angle (deg)\n" + "\n".join(f"{i} {30 * i}" for i in range(12)), "deg"),
        ("theta.txt", "theta deg\n" + "\n".join(str(30 * i) for i in range(12)), "deg"),
        ("scan.rawtlt", "\n".join(f" {30 * i:.2f}" for i in range(12)), "deg"),
        ("angles.txt", "\n".join(str(np.deg2rad(a)) for a in range(0, 360, 30)), "no unit: taken as radians"),
    ],
)
def test_angles_lie_beside_the_images(tmp_path: Path, name: str, text: str, unit: str) -> None:
    path = folder(tmp_path / "scan", PROJECTIONS)
    (path / name).write_text(text)
    found = measured(path, angles=False, fan=True)
    assert isinstance(found.acquisition, CTFan)
    assert np.rad2deg(found.acquisition.angles() or ()) == pytest.approx(np.arange(12) * 30.0)
    assert any(unit in note for note in found.notes)
    given = measured(path).acquisition
    assert isinstance(given, CTParallel) and given.angles() != found.acquisition.angles()  # what the user says counts


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "1\n2,3\n", "one\ntwo\n", "angle,frame,tilt\n1,2\n", "angle\n", '{"angles": "many"}']
)
def test_files_without_angles_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = folder(tmp_path / "scan", PROJECTIONS)
    name = "angles.json" if "{" in text else "angles.txt"
    (path / name).write_text(text)
    assert name in refusal(job(path)).message


def test_wrong_folders(tmp_path: Path) -> None:
    counts = folder(tmp_path / "counts", COUNTS)
    assert "there are no flat fields" in refusal(job(counts)).message
    floats = folder(tmp_path / "floats", COUNTS.astype(np.float32))
    assert "there are no flat fields" in refusal(job(floats)).message
    tifffile.imwrite(counts / "scan_12.tif", np.zeros((5, 17), np.uint16))
    assert "scan_12.tif holds images of (5, 17) uint16" in refusal(job(counts)).message
    colours = folder(tmp_path / "colours", np.zeros((2, 5, 16, 3), np.uint8))
    assert "colours" in refusal(job(colours)).message
    (tmp_path / "empty").mkdir()
    assert "empty holds no files" in refusal(job(tmp_path / "empty")).message
    assert "empty holds no files" in refusal(job(tmp_path / "empty", format="tiff")).message
    assert "no file of the folder ends as numpy" in refusal(job(floats, format="numpy")).message
    two = tmp_path / "two"
    for name in ("a", "b"):
        folder(two / name, PROJECTIONS)
    assert "2 folders of TIFFs: a, b" in refusal(job(two)).message


def test_flat_fields_beside_sinograms_are_not_passed_over(tmp_path: Path) -> None:
    sinograms = folder(tmp_path / "sinograms", SINOGRAMS)
    folder(sinograms / "flats", FLATS)
    error = refusal(job(sinograms))
    assert "sinograms and flats" in error.message and "take the fields away" in str(error.remedy)
    one = folder(tmp_path / "one", COUNTS[:1])
    folder(one / "flats", FLATS)
    assert "one image, taken as a sinogram, and flats" in refusal(job(one)).message


def test_only_the_rows_that_are_asked_for_are_read_of_plain_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "scan", PROJECTIONS)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("a whole page was decoded"))
    assert np.array_equal(measured(path, slices=[1, 3]).data, SINOGRAMS[1:3])


def test_a_frame_that_may_be_missing_is_said(tmp_path: Path) -> None:
    path = folder(tmp_path / "scan", np.concatenate([PROJECTIONS, PROJECTIONS[:1]]))
    (path / "scan_5.tif").unlink()
    assert any("from scan_4.tif to scan_6.tif" in note for note in measured(path).notes)


def test_damaged_files_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PROJECTIONS)
    path.write_bytes(path.read_bytes()[:200])
    assert "not a readable TIFF" in refusal(job(path)).message
    bomb = zlib.compress(bytes(10_000_000))
    tifffile.imwrite(path, iter([bomb]), shape=(5, 16), dtype="f4", compression="zlib", rowsperstrip=5)
    assert "more compressed data" in refusal(job(path)).message
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", "1000")
    assert isinstance(refusal(job(folder(tmp_path / "scan", PROJECTIONS))), ResourceLimit)


def test_real_line_integrals() -> None:
    """Views 0, 225 and 449 of 451 over half a turn."""
    folder_ = Path(__file__).parents[2] / "data" / "formats" / "tiff"
    value = {
        "input": {"path": str(folder_)}, "method": "fbp",
        "acquisition": {"kind": "ct-parallel", "detector_mm": 1.0, "angles_rad": [0.0, 1.5708, 3.1346]},
    }  # fmt: skip
    found = reader.read(JobSpec.parse(value), local_files(JobSpec.parse(value)))
    for index, number in enumerate((0, 225, 449)):
        expected = tifffile.imread(folder_ / f"tomo77_{number:03d}.tiff")
        assert np.array_equal(found.data[:, index], expected)
    assert found.data.shape == (79, 3, 83) and -0.13 < found.data.min() < 0 < found.data.max() < 0.63
    assert any("taken as line integrals" in note for note in found.notes)
    assert any("is a frame missing?" in note for note in found.notes)
