"""CTSimU: a cone beam in files without headers, the right way round, and what is wrong with such files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from operators.errors import InputError, ReconError
from operators.volume_tomography import VolumeTomography
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.job import JobSpec, local_files

VIEWS, ROWS, COLUMNS, PITCH = 9, 20, 30, 4.0
SOURCE, STAGE, DETECTOR = 0.0, 300.0, 400.0
POINT = (14.0, -9.0, 11.0)


def of(value: float, unit: str | None = None) -> dict[str, Any]:
    return {"value": value} if unit is None else {"value": value, "unit": unit}


def place(x: float, y: float, z: float, unit: str | None = "mm") -> dict[str, Any]:
    return {"x": of(x, unit), "y": of(y, unit), "z": of(z, unit)}


def scenario() -> dict[str, Any]:
    detector = {
        "center": place(DETECTOR, 0, 0), "vector_u": place(0, -1, 0, None), "vector_w": place(1, 0, 0, None),
        "deviations": [],
    }  # fmt: skip
    stage = {"center": place(STAGE, 0, 0), "vector_u": place(1, 0, 0, None), "vector_w": place(0, 0, 1, None)}
    return {
        "file": {"file_type": "CTSimU Scenario"},
        "geometry": {"detector": detector, "source": {"center": place(SOURCE, 0, 0)}, "stage": stage},
        "detector": {
            "columns": of(COLUMNS, "px"), "rows": of(ROWS, "px"),
            "pixel_pitch": {"u": of(PITCH, "mm"), "v": of(PITCH, "mm")},
        },
        "acquisition": {
            "start_angle": of(20, "deg"), "stop_angle": of(380, "deg"), "direction": "CCW",
            "number_of_projections": VIEWS, "include_final_angle": False,
        },
    }  # fmt: skip


def metadata() -> dict[str, Any]:
    return {
        "file": {"name": "ball", "file_type": "CTSimU Metadata"},
        "output": {
            "projections": {
                "filename": "ball.raw", "number": VIEWS, "max_intensity": 60000, "datatype": "uint16",
                "byteorder": "little", "headersize": {"file": 6, "image": 2},
                "dimensions": {"x": of(COLUMNS, "px"), "y": of(ROWS, "px")},
                "dark_field": {"number": 1, "filename": "dark.raw", "projections_corrected": False},
                "flat_field": {"number": 2, "filename": "flat_%04d.raw", "projections_corrected": False},
            }
        },
        "acquisition_geometry": {"path_to_CTSimU_JSON": "../scenario.json"},
    }  # fmt: skip


def frames() -> NDArray[np.uint16]:
    """A small ball on the stage, which turns counterclockwise, in frames whose first row is the highest."""
    found = np.full((VIEWS, ROWS, COLUMNS), 50100, np.uint16)
    for view in range(VIEWS):
        turn = np.deg2rad(20 + 360 / VIEWS * view)
        x = STAGE + POINT[0] * np.cos(turn) - POINT[1] * np.sin(turn)
        y = POINT[0] * np.sin(turn) + POINT[1] * np.cos(turn)
        larger = (DETECTOR - SOURCE) / (x - SOURCE)
        column, row = -y * larger / PITCH + (COLUMNS - 1) / 2, -POINT[2] * larger / PITCH + (ROWS - 1) / 2
        found[view, round(row), round(column)] = 10100
    return found


def write(folder: Path, *, data: dict[str, Any] | None = None, world: dict[str, Any] | None = None) -> Path:
    (folder / "projections").mkdir(exist_ok=True)
    path = folder / "projections" / "ball_metadata.json"
    path.write_text(json.dumps(data or metadata()))
    (folder / "scenario.json").write_text(json.dumps(world or scenario()))
    raw = b"".join(b"\0\0" + frame.astype("<u2").tobytes() for frame in frames())
    (folder / "projections" / "ball.raw").write_bytes(b"header" + raw)
    for name, level in (("dark.raw", 100), ("flat_0000.raw", 50100), ("flat_0001.raw", 50100)):
        frame = np.full((ROWS, COLUMNS), level, "<u2").tobytes()
        (folder / "projections" / name).write_bytes(b"header\0\0" + frame)
    return folder


def read(folder: Path) -> Measurement:
    value = {"path": str(folder), "file": "projections/ball_metadata.json"}
    job = JobSpec.parse({"input": value, "method": "fbp"})
    return reader.read(job, local_files(job))


def test_a_ball_lies_where_it_was(tmp_path: Path) -> None:
    found = read(write(tmp_path))
    assert isinstance(found.acquisition, CTCone) and found.data.shape == (ROWS, VIEWS, COLUMNS)
    assert found.data.max() == pytest.approx(np.log(5), abs=1e-3) and found.data.min() == pytest.approx(0, abs=1e-6)
    g = found.acquisition.volume_geometry(found.data.shape)
    views = torch.from_numpy(found.data).transpose(0, 1)[None].contiguous()
    volume = VolumeTomography(g).adjoint(views)[0].numpy()
    k, i, j = np.unravel_index(int(volume.argmax()), volume.shape)
    middle = (np.array(volume.shape) - 1) / 2
    where = ((j - middle[2]) * g.pixel_mm, (middle[1] - i) * g.pixel_mm, (k - middle[0]) * g.slice_mm)
    assert where == pytest.approx(POINT, abs=g.pixel_mm)


def test_corrected_projections_are_divided_by_the_white_level(tmp_path: Path) -> None:
    data = metadata()
    for name in ("flat", "dark"):
        data["output"]["projections"][f"{name}_field"] = {"filename": None, "projections_corrected": True}
    found = read(write(tmp_path, data=data))
    assert found.data.min() == pytest.approx(np.log(60000 / 50100), abs=1e-3)
    assert any("divided by 60000" in note for note in found.notes)


def changed(value: dict[str, Any], dotted: str, to: Any) -> dict[str, Any]:
    *parents, last = dotted.split(".")
    place = value
    for parent in parents:
        place = place[parent]
    if to is None:
        del place[last]
    else:
        place[last] = to
    return value


@pytest.mark.parametrize(
    ("dotted", "to", "says"),
    [
        ("output.projections.filename", "../../away.raw", "outside what is given"),
        ("output.projections.filename", "ball.tif", "is not .raw|there is no file"),
        ("output.projections.filename", "%d%d.raw", "no pattern of numbered files"),
        ("output.projections.number", 8, "bytes, 8 frames|says 9 projections, the metadata 8"),
        ("output.projections.number", "x", "no number"),
        ("output.projections.datatype", "complex64", "datatype 'complex64' is none of"),
        ("output.projections", None, "lacks output.projections"),
        ("acquisition_geometry.path_to_CTSimU_JSON", "missing.json", "missing.json"),
    ],
)
def test_wrong_metadata(tmp_path: Path, dotted: str, to: Any, says: str) -> None:
    with pytest.raises(ReconError, match=says):
        read(write(tmp_path, data=changed(metadata(), dotted, to)))


@pytest.mark.parametrize(
    ("dotted", "to", "says"),
    [
        ("geometry.detector.deviations", [{"type": "rotation"}], "deviations of the detector, which are not read"),
        ("geometry.stage.center.x", of(1, "furlong"), "the unit of stage.center.x is 'furlong'"),
        ("geometry.stage.vector_w", place(0, 0, 0, None), "a vector of the scenario is zero"),
        ("geometry.source", None, "lacks source"),
        ("detector.rows", of(99, "px"), r"a detector of \(99, 30\), the projections have \(20, 30\)"),
        ("acquisition.number_of_projections", 12, "says 12 projections, the metadata 9"),
        ("geometry.detector.center.x", of(290, "mm"), "magnification of 0.9"),
    ],
)
def test_wrong_scenarios(tmp_path: Path, dotted: str, to: Any, says: str) -> None:
    with pytest.raises(ReconError, match=says):
        measured = read(write(tmp_path, world=changed(scenario(), dotted, to)))
        measured.acquisition.result_shape(measured.data.shape)


def test_the_metadata_alone_ask_for_the_folder(tmp_path: Path) -> None:
    write(tmp_path)
    job = JobSpec.parse({"input": str(tmp_path / "projections" / "ball_metadata.json"), "method": "fbp"})
    with pytest.raises(InputError, match=r"outside what is given .*give the folder that holds both"):
        reader.read(job, local_files(job))
