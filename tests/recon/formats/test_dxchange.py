"""DXchange as beamlines write it: angles in their unit, geometry where it is stated, axes in any order."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from operators.errors import ResourceLimit
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from tests.conftest import SAMPLES
from tests.recon.formats.test_formats import refusal, spec


def dxchange_file(path: Path, **changed: np.ndarray) -> Path:
    arrays = {
        "data": np.full((6, 2, 20), 5000.0), "data_white": np.full((4, 2, 20), 10100.0),
        "data_dark": np.full((4, 2, 20), 100.0), "theta": np.arange(6) * 30.0, **changed,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[f"exchange/{name}"] = value
    return path


def measured(path: Path) -> Measurement:
    """What is read without an acquisition in the specification."""
    job = spec(path, input={"path": str(path), "format": "dxchange"}, acquisition=None)
    return reader.read(job, local_files(job))


def angles(found: Measurement) -> tuple[float, ...]:
    assert isinstance(found.acquisition, CTParallel)
    return found.acquisition.angles() or ()


def dxchange_job(path: Path, slices: list[int] | None = None, **more: Any) -> JobSpec:
    given = {"path": str(path), "format": "dxchange", "slices": slices}
    return spec(path, input=given, acquisition={"kind": "ct-parallel", "detector_mm": 1.0, **more})


def test_dxchange_takes_flats_and_darks_into_account(tmp_path: Path) -> None:
    found = measured(dxchange_file(tmp_path / "a.h5"))
    assert found.data.shape == (2, 6, 20)
    assert found.data == pytest.approx(-math.log(4900 / 10000), rel=1e-6)
    assert angles(found) == pytest.approx(np.deg2rad(np.arange(6) * 30.0))
    assert found.noise_std is None  # flats that never vary show no noise: it is estimated from the sinogram instead
    assert found.notes == []


def test_dark_fields_may_be_missing_or_a_single_frame(tmp_path: Path) -> None:
    path = dxchange_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["exchange/data_dark"]
    found = measured(path)
    assert found.data == pytest.approx(-math.log(5000 / 10100), rel=1e-6)
    assert any("dark signal is taken as zero" in note for note in found.notes)
    dark = np.full((2, 20), 100.0)
    dark[1] = 200
    found = measured(dxchange_file(tmp_path / "b.h5", data_dark=dark))
    assert found.data[0] == pytest.approx(-math.log(4900 / 10000), rel=1e-6)
    assert found.data[1] == pytest.approx(-math.log(4800 / 9900), rel=1e-6)
    assert found.notes == ["exchange/data_dark has shape (2, 20): it is taken as one frame"]
    job = dxchange_job(tmp_path / "b.h5", slices=[1, 2])
    assert np.array_equal(reader.read(job, local_files(job)).data, found.data[1:])
    flat = measured(dxchange_file(tmp_path / "c.h5", data_white=np.full((2, 20), 10100.0)))
    assert flat.data == pytest.approx(-math.log(4900 / 10000), rel=1e-6)


def test_dark_fields_that_are_a_link_to_nowhere_are_not_taken_as_zero(tmp_path: Path) -> None:
    path = dxchange_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["exchange/data_dark"]
        file["exchange/data_dark"] = h5py.SoftLink("/gone")
    assert "no dataset 'exchange/data_dark'" in refusal(dxchange_job(path)).message


def test_dxchange_noise_comes_from_the_flats(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    flats = 10100 + 100 * generator.standard_normal((40, 2, 20))
    found = measured(dxchange_file(tmp_path / "a.h5", data_white=flats)).acquisition
    assert isinstance(found, CTParallel)
    assert found.photons_per_ray == pytest.approx(10000, rel=0.3)  # their noise is 1 %


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"data": np.full((6, 2, 20), -5.0)}, "240 counts are negative, the first at (0, 0, 0) is -5"),
        ({"data_white": np.full((4, 2, 20), 50.0)}, "not above the dark field at row 0, column 0"),
        ({"theta": np.arange(5) * 30.0}, "5 angles for 6 projections"),
        ({"theta": np.full(6, 30.0)}, "all 6 angles"),
        ({"theta": np.array([0.0, 30, 60, 90, 120, np.nan])}, "not finite"),
        ({"data_dark": np.zeros((4, 2, 19))}, "frames of (2, 19)"),
        ({"data_dark": np.zeros((2, 19))}, "frames of (2, 19)"),
        ({"data": np.full((6, 2, 20), np.inf)}, "not finite"),
        ({"data": np.full((6, 20), 1.0)}, "expected (frames, rows, columns)"),
    ],
)
def test_wrong_dxchange_files(tmp_path: Path, changed: dict[str, np.ndarray], says: str) -> None:
    path = dxchange_file(tmp_path / "a.h5", **changed)
    assert says in refusal(dxchange_job(path)).message


@pytest.mark.parametrize(
    ("theta", "units", "expected_deg", "noted"),
    [
        (np.arange(6) * 30.0, "deg", np.arange(6) * 30.0, False),
        (np.arange(6) * 30.0, "Degrees", np.arange(6) * 30.0, False),
        (np.arange(6) * 0.5, b"radians", np.rad2deg(np.arange(6) * 0.5), False),
        (np.arange(6) * 0.5, None, np.rad2deg(np.arange(6) * 0.5), True),
        (np.arange(6) * 0.5, "deg", np.arange(6) * 0.5, False),
        (np.arange(6) * 215.5, None, np.arange(6) * 215.5 % 360, False),  # three turns
        (np.array([0.0, 90, 180, 45, 135, 225]), None, np.array([0.0, 90, 180, 45, 135, 225]), False),  # interlaced
    ],
)
def test_dxchange_angles_are_read_in_their_unit(
    tmp_path: Path, theta: np.ndarray, units: str | bytes | None, expected_deg: np.ndarray, noted: bool
) -> None:
    path = dxchange_file(tmp_path / "a.h5", theta=theta)
    with h5py.File(path, "a") as file:
        if units is not None:
            file["exchange/theta"].attrs["units"] = units
    found = measured(path)
    assert np.rad2deg(angles(found)) == pytest.approx(expected_deg)
    assert any("taken as radians" in note for note in found.notes) == noted


def test_dxchange_angles_of_an_unknown_unit_are_refused(tmp_path: Path) -> None:
    path = dxchange_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = "gon"
    error = refusal(dxchange_job(path))
    assert error.field == "exchange/theta" and "'gon'" in error.message


def beamline_file(path: Path, **changed: Any) -> Path:
    """As tomoScan and tomopy-cli write it: no angles, but what the scan was to do, and set by hand."""
    values = {"rotation_start": 10.0, "rotation_step": 30.0, "num_angles": 6, "resolution": 1.25, "axis": b"8.5"}
    values |= changed
    dxchange_file(path)
    with h5py.File(path, "a") as file:
        del file["exchange/theta"]
        for name in ("rotation_start", "rotation_step", "num_angles"):
            file[f"process/acquisition/rotation/{name}"] = np.array([values[name]])
        objective = file.create_group("measurement/instrument/detection_system/objective")
        objective["resolution"] = np.array([values["resolution"]])
        objective["resolution"].attrs["units"] = np.bytes_(b"microns")
        file["process/tomopy-cli-0.2/find-rotation-axis/rotation-axis"] = np.array([values["axis"]])
        file["process/tomopy-cli-0.2/find-rotation-axis/rotation-axis-auto"] = np.array([b"manual"])
    return path


def test_dxchange_geometry_comes_from_the_beamlines_own_records(tmp_path: Path) -> None:
    found = measured(beamline_file(tmp_path / "a.h5"))
    assert isinstance(found.acquisition, CTParallel)
    assert np.rad2deg(angles(found)) == pytest.approx(10 + np.arange(6) * 30.0)
    assert found.acquisition.detector_mm == pytest.approx(0.00125)
    assert found.acquisition.rotation_center_column == 8.5
    assert len([note for note in found.notes if "process/" in note or "measurement/" in note]) == 3
    job = dxchange_job(tmp_path / "a.h5", rotation_center_column=10.0)
    given = reader.read(job, local_files(job)).acquisition
    assert isinstance(given, CTParallel)
    assert (given.rotation_center_column, given.detector_mm) == (10.0, 1.0)  # what the user says counts


def test_dxchange_records_that_cannot_be_are_not_used(tmp_path: Path) -> None:
    found = measured(beamline_file(tmp_path / "a.h5", resolution=0.0, axis=b"1553.0", num_angles=6401))
    assert isinstance(found.acquisition, CTParallel)
    assert found.acquisition.detector_mm is None and found.acquisition.rotation_center_column is None
    said = " ".join(found.notes)
    assert "no pixel size, not used" in said and "column 1553 of 20: not used" in said
    assert "to take 6401 views; the file has 6" in said
    error = refusal(dxchange_job(beamline_file(tmp_path / "b.h5", num_angles=5)))
    assert error.message == "5 angles for 6 projections"


@pytest.mark.parametrize("named", [True, False])
def test_dxchange_views_may_be_another_axis(tmp_path: Path, named: bool) -> None:
    generator = np.random.default_rng(0)
    data, flats = generator.uniform(4000, 6000, (6, 2, 20)), generator.uniform(10000, 10100, (4, 2, 20))
    right = measured(dxchange_file(tmp_path / "a.h5", data=data, data_white=flats))
    moved = {"data": data.transpose(1, 0, 2), "data_white": flats.transpose(1, 0, 2)}
    path = dxchange_file(tmp_path / "b.h5", **moved)
    with h5py.File(path, "a") as file:
        if named:
            file["exchange/data"].attrs["axes"] = "y:theta:x"
    found = measured(path)
    assert np.array_equal(found.data, right.data)
    assert any("views are axis 1" in note for note in found.notes) != named


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).uniform(4000, 6000, (6, 50, 20))
    fields = {"data_white": np.full((4, 50, 20), 10100.0), "data_dark": np.full((4, 50, 20), 100.0)}
    path = dxchange_file(tmp_path / "a.h5", data=data, **fields)
    whole = measured(path).data
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", str(data.nbytes // 10))
    job = dxchange_job(path, slices=[3, 5])
    assert np.array_equal(reader.read(job, local_files(job)).data, whole[3:5])
    header = reader.check(job, local_files(job))
    assert header.shape == (2, 6, 20) and header.source_bytes < data.nbytes // 10
    assert isinstance(refusal(dxchange_job(path)), ResourceLimit)
    assert refusal(dxchange_job(path, slices=[49, 51])).message == "slices [49, 51], the input has 50"


def test_the_measured_tooth_is_read_as_it_is() -> None:
    found = measured(SAMPLES / "ct_tooth.h5")
    assert found.data.shape == (2, 181, 640)
    zinger, centre = found.notes
    assert zinger == "1 samples too bright and 0 without signal, in 1 views, were replaced"  # 24 times the noise
    assert "rotation axis at column 295.87" in centre and "not at 319.50" in centre
    assert angles(found)[0] == 0 and np.rad2deg(angles(found)[-1]) == pytest.approx(180, abs=1)
    assert isinstance(found.acquisition, CTParallel)
    assert found.acquisition.photons_per_ray == pytest.approx(42000, rel=0.1)
