"""Nikon .xtekct: a cone beam, or its middle row, the right way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from operators.errors import GeometryError, InputError
from operators.tomography import Tomography
from recon.formats import reader
from recon.formats.inspect import inspect
from recon.spec.acquisitions.ct import CTFan
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.job import Input, JobSpec, local_files

HEADER = {
    "Name": "bar", "SrcToObject": 60.0, "SrcToDetector": 120.0, "DetectorPixelsX": 24, "DetectorPixelsY": 4,
    "DetectorPixelSizeX": 0.5, "DetectorPixelSizeY": 0.5, "CentreOfRotationTop": 0.6, "CentreOfRotationBottom": 0.4,
    "WhiteLevel": 60000.0, "Projections": 10, "InitialAngle": 30.0, "AngularStep": 36.0, "InputFolderName": "",
}  # fmt: skip

REAL = Path(__file__).parents[2] / "data" / "formats" / "nikon" / "radiogram.xtekct"


def scan(folder: Path, projections: np.ndarray, **changed: object) -> Path:
    lines = [f"{name}={value}" for name, value in {**HEADER, **changed}.items() if value is not None]
    path = folder / "bar.xtekct"
    path.write_text("\r\n".join(["[XTekCT]", *lines, "[CTPro]", "FilterPreset=0", ""]))
    for index, image in enumerate(projections):
        tifffile.imwrite(folder / f"bar_{index + 1:04d}.tif", image)
    return path


def job(path: Path, slices: list[int] | None = None) -> JobSpec:
    return JobSpec.parse({"input": {"path": str(path), "slices": slices}, "method": "fbp"})


def projections() -> np.ndarray:
    levels = 60000 * np.exp(-np.linspace(0, 1, 24)) * np.ones((10, 4, 1))
    levels[:, 2] /= 2
    return np.round(levels).astype(np.uint16)


def test_the_middle_row_is_a_fan_beam(tmp_path: Path) -> None:
    wanted = job(scan(tmp_path, projections()), [2, 3])
    found = reader.read(wanted, local_files(wanted))
    assert found.data.shape == (1, 10, 24)
    assert found.data[0, 0] == pytest.approx(np.log(2) + np.linspace(1, 0, 24), abs=1e-3)  # from the other side
    assert isinstance(found.acquisition, CTFan)
    assert np.rad2deg(found.acquisition.angles() or ()) == pytest.approx(-150 + 36 * np.arange(10))
    assert found.acquisition.detector_shift_mm == pytest.approx(0.5)
    assert (found.acquisition.source_origin_mm, found.acquisition.origin_detector_mm) == (60.0, 60.0)
    assert any("row 2 of 4" in note for note in found.notes)


def test_transmissions_are_not_divided_again(tmp_path: Path) -> None:
    wanted = job(scan(tmp_path, projections().astype(np.float64) / 60000), [2, 3])
    found = reader.read(wanted, local_files(wanted))
    assert found.data[0, 0] == pytest.approx(np.log(2) + np.linspace(1, 0, 24), abs=1e-3)


def test_a_point_lies_where_it_was(tmp_path: Path) -> None:
    """The object turns clockwise, seen from above, in front of a detector whose columns run from right to left."""
    x, y, offset = 2.0, 1.0, 0.5
    images = np.full((10, 1, 24), 60000, np.uint16)
    for index in range(10):
        turn = np.deg2rad(30.0 + 36.0 * index - 180)
        across, away = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
        place = across * 120.0 / (60.0 + away) - offset  # of the detector's middle
        images[index, 0, round(11.5 - place / 0.5)] = 20000
    wanted = job(scan(tmp_path, images, DetectorPixelsY=1))
    found = reader.read(wanted, local_files(wanted))
    assert isinstance(found.acquisition, CTFan)
    geometry = found.acquisition.geometry(24)
    import torch

    image = Tomography(geometry, "astra").adjoint(torch.from_numpy(np.ascontiguousarray(found.data)))[0].numpy()
    row, col = np.unravel_index(int(image.argmax()), image.shape)
    middle = (geometry.rows - 1) / 2
    assert ((col - middle) * geometry.pixel_mm, (middle - row) * geometry.pixel_mm) == pytest.approx((x, y), abs=0.3)


@pytest.mark.parametrize("slices", [[0, 4], [0, 1]])
def test_rows_of_a_cone_beam_are_no_slices(tmp_path: Path, slices: list[int]) -> None:
    wanted = job(scan(tmp_path, projections()), slices)
    with pytest.raises(InputError, match=r"the 4 rows of a cone beam's detector are no slices .*or give \[2, 3\]"):
        reader.check(wanted, local_files(wanted))


def test_all_rows_are_a_cone_beam_whose_first_row_is_the_highest(tmp_path: Path) -> None:
    wanted = job(scan(tmp_path, projections(), DetectorPixelSizeY=0.4))
    found = reader.read(wanted, local_files(wanted))
    assert found.data.shape == (4, 10, 24)
    assert found.data[1, 0] == pytest.approx(
        np.log(2) + np.linspace(1, 0, 24), abs=1e-3
    )  # the file's row 2, from below
    assert isinstance(found.acquisition, CTCone)
    assert (found.acquisition.row_mm, found.acquisition.detector_mm) == (0.4, 0.5)
    assert found.acquisition.result_shape(found.data.shape)[0] == 3


def test_wrong_nikon_files(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"Projections": 11}, "says 11 projections, 10 are there"),
        ({"DetectorPixelsX": 25}, r"says \(4, 25\)"),
        ({"SrcToObject": None}, "lacks SrcToObject"),
        ({"SrcToObject": 130}, "SrcToObject is 130"),
        ({"AngularStep": "x"}, "AngularStep is 'x'"),
    ]
    for changed, says in cases:
        wanted = job(scan(tmp_path, projections(), **changed), [2, 3])
        with pytest.raises((InputError, GeometryError), match=says):
            reader.check(wanted, local_files(wanted))
    (tmp_path / "bar.xtekct").write_text("nothing")
    wanted = job(tmp_path / "bar.xtekct", [2, 3])
    with pytest.raises(InputError, match=r"no section \[XTekCT\]"):
        reader.check(wanted, local_files(wanted))


def test_a_real_header_shows_its_geometry_without_its_projections(tmp_path: Path) -> None:
    for slices, kind in ((None, "ct-cone"), ((1000, 1001), "ct-fan")):
        found = inspect(REAL, Input(path=str(REAL), slices=slices))
        assert (found.kind, found.shape) == (kind, [2000, 3142, 1500])
        assert [item.field for item in found.missing] == ["input"]
        rows = {"row_mm": 0.2} if kind == "ct-cone" else {}
        assert found.geometry == {
            **rows,
            "detector_mm": 0.2, "source_origin_mm": pytest.approx(76.7512, abs=1e-4),
            "origin_detector_mm": pytest.approx(1050.7128, abs=1e-4),
        }  # fmt: skip
        assert found.angles is not None and found.angles.first_deg == pytest.approx(3.365 - 180)
        assert found.angles.step_deg == pytest.approx(360 / 3142, abs=1e-6)
        assert found.specification["input"]["path"] == str(REAL)


def test_a_real_header_is_read_with_projections_beside_it(tmp_path: Path) -> None:
    """Three projections, and as many in the header; the detector's columns are those of the file."""
    text = REAL.read_text().splitlines()
    few = ["Projections=3" if line.startswith("Projections=") else line for line in text]
    (tmp_path / REAL.name).write_text("\n".join("DetectorPixelsY=1" if "DetectorPixelsY=" in n else n for n in few))
    level = next(float(line.split("=")[1]) for line in text if line.startswith("WhiteLevel="))
    for index in range(3):
        tifffile.imwrite(tmp_path / f"p_{index}.tif", np.full((1, 1500), level / 2, np.float32))
    found = reader.read(job(tmp_path / REAL.name), local_files(job(tmp_path / REAL.name)))
    assert found.data.shape == (1, 3, 1500) and found.data == pytest.approx(np.log(2), rel=1e-3)
