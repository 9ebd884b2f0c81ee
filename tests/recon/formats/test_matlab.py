"""MATLAB files, old and new: sinograms with the geometry that stands beside them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import io, sparse

from operators.errors import ResourceLimit
from recon.formats import htc, reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.job import JobSpec, local_files
from tests.conftest import SAMPLES
from tests.recon.formats.test_formats import refusal

SINOGRAM = np.random.default_rng(0).uniform(0, 2, (12, 16))
DEGREES = np.arange(12) * 30.0


def job(path: Path, acquisition: dict[str, Any] | None = None, **given: Any) -> JobSpec:
    parallel = {"kind": "ct-parallel", "detector_mm": 1.0}
    value = {"input": {"path": str(path), **given}, "acquisition": acquisition or parallel, "method": "fbp"}
    return JobSpec.parse(value)


def measured(wanted: JobSpec) -> Measurement:
    found = reader.read(wanted, local_files(wanted))
    assert reader.check(wanted, local_files(wanted)).shape == found.data.shape
    return found


def new_file(path: Path, variables: dict[str, Any]) -> Path:
    """As version 7.3 is: HDF5 behind a header of 512 bytes, with the last index first."""

    def put(group: h5py.Group, held: dict[str, Any]) -> None:
        for name, value in held.items():
            if isinstance(value, dict):
                put(group.create_group(name), value)
                group[name].attrs["MATLAB_class"] = np.bytes_(b"struct")
            elif isinstance(value, str):
                group[name] = np.frombuffer(value.encode("utf-16-le"), np.uint16)[:, None]
                group[name].attrs["MATLAB_class"] = np.bytes_(b"char")
            else:
                group[name] = np.atleast_2d(value).T
                group[name].attrs["MATLAB_class"] = np.bytes_(b"double")

    with h5py.File(path, "w", userblock_size=512) as file:
        put(file, variables)
        file.create_group("#refs#")["a"] = np.zeros((5, 5))
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return path


def old_file(path: Path, variables: dict[str, Any]) -> Path:
    io.savemat(path, variables, do_compression=True)
    return path


def plain_file(path: Path, variables: dict[str, Any]) -> Path:
    io.savemat(path, variables, format="4")
    return path


WRITERS = [old_file, new_file]


@pytest.mark.parametrize("write", [*WRITERS, plain_file])
def test_the_only_sinogram_is_found_and_turned_as_its_angles_say(tmp_path: Path, write: Any) -> None:
    right = measured(job(write(tmp_path / "a.mat", {"p": SINOGRAM, "theta": DEGREES, "pitch": 0.3})))
    assert np.allclose(right.data, SINOGRAM[None])
    assert np.rad2deg(right.acquisition.angles()) == pytest.approx(DEGREES)  # type: ignore[attr-defined]
    turned = measured(job(write(tmp_path / "b.mat", {"p": SINOGRAM.T, "theta": DEGREES})))
    assert np.array_equal(turned.data, right.data)
    assert any("axes are reordered" in note for note in turned.notes)


@pytest.mark.parametrize("write", WRITERS)
def test_stacks_and_angles_in_radians(tmp_path: Path, write: Any) -> None:
    stack = np.stack([SINOGRAM, 2 * SINOGRAM, 3 * SINOGRAM])
    for order in ((0, 1, 2), (1, 2, 0), (0, 2, 1)):
        path = write(tmp_path / "a.mat", {"sino": stack.transpose(order), "angles_rad": np.deg2rad(DEGREES)})
        found = measured(job(path, slices=[1, 3]))
        assert np.allclose(found.data, stack[1:])
        assert np.rad2deg(found.acquisition.angles()) == pytest.approx(DEGREES)  # type: ignore[attr-defined]


def test_axes_that_angles_do_not_tell_are_said(tmp_path: Path) -> None:
    square = measured(job(old_file(tmp_path / "a.mat", {"p": SINOGRAM[:, :12], "theta": DEGREES})))
    assert np.allclose(square.data, SINOGRAM[None, :, :12]) and "taken as (views, detectors)" in "; ".join(square.notes)
    radon = np.stack([SINOGRAM.T, SINOGRAM.T], -1)  # (detectors, views, slices): the views are in the middle, too
    found = measured(job(old_file(tmp_path / "b.mat", {"p": radon, "theta": DEGREES})))
    assert "(slices, views, detectors), (16, 12, 2); permute it" in "; ".join(found.notes)


@pytest.mark.parametrize("name", ["radon_angles", "angles_rad", "anglesDeg", "grad_theta"])
def test_units_are_words_of_the_name(tmp_path: Path, name: str) -> None:
    values = np.deg2rad(DEGREES) if name == "angles_rad" else DEGREES
    found = measured(job(old_file(tmp_path / "a.mat", {"p": SINOGRAM, name: values, "radius": np.arange(12.0)})))
    assert np.rad2deg(found.acquisition.angles()) == pytest.approx(DEGREES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("write", WRITERS)
def test_one_of_several_arrays_is_chosen(tmp_path: Path, write: Any) -> None:
    acquisition = {"kind": "ct-parallel", "detector_mm": 1.0, "angles_rad": {"count": 12}}
    path = write(tmp_path / "a.mat", {"first": SINOGRAM, "second": 2 * SINOGRAM})
    error = refusal(job(path, acquisition))
    assert error.field == "input.dataset" and "first, second" in str(error.remedy)
    found = measured(job(path, acquisition, dataset="second"))
    assert np.allclose(found.data, 2 * SINOGRAM[None])
    assert isinstance(found.acquisition, CTParallel)
    assert "no variable 'third'" in refusal(job(path, acquisition, dataset="third")).message


def challenge(name: str = "CtDataLimited") -> dict[str, Any]:
    """The struct of the Helsinki Tomography Challenge, with a scan of it."""
    data = htc.read(SAMPLES / "ct_htc2022.npz", "ta_subsample73")[0]
    parameters = {
        "angles": np.arange(299, 329.1, 0.5), "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74,
        "pixelSize": 0.05, "numDetectors": 2240, "pixelSizePost": 0.2, "numDetectorsPost": 560, "detector": "Hamamatsu",
    }  # fmt: skip
    return {name: {"type": "2D", "sinogram": data[0].astype(np.float64), "parameters": parameters}}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("flat", [False, True])
def test_the_struct_of_the_helsinki_challenge_has_its_geometry(tmp_path: Path, write: Any, flat: bool) -> None:
    held = challenge()
    if flat:  # as the walnut of the same group
        (struct,) = held.values()
        held = {"sinogram": struct["sinogram"], **struct["parameters"]}
    path = write(tmp_path / "htc.mat", held)
    wanted = JobSpec.parse({"input": {"path": str(path)}, "method": "fbp"})
    found = measured(wanted)
    data, acquisition = htc.read(SAMPLES / "ct_htc2022.npz", "ta_subsample73")
    assert np.array_equal(found.data, data)
    assert isinstance(found.acquisition, CTFan)
    assert found.acquisition.angles() == pytest.approx(acquisition.angles())
    for name in ("detector_mm", "source_origin_mm", "origin_detector_mm"):
        assert getattr(found.acquisition, name) == pytest.approx(getattr(acquisition, name))


def test_wrong_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    assert "a.mat" in refusal(job(path)).message
    old_file(path, {"theta": DEGREES[:7], "p": SINOGRAM})
    assert "7 angles in theta" in refusal(job(path)).message
    old_file(path, {"A": sparse.eye_array(5).tocsc(), "name": "x"})
    assert "holds no sinogram" in refusal(job(path)).message
    old_file(path, {"p": SINOGRAM * 1j})
    assert refusal(job(path)).field in ("input", "input.dataset")
    struct = challenge()
    struct["CtDataLimited"]["parameters"]["angles"] = DEGREES
    for write in WRITERS:
        assert "12 angles for a sinogram" in refusal(job(write(path, struct))).message
    path.write_bytes(old_file(path, {"p": SINOGRAM}).read_bytes()[:400])
    assert "a.mat" in refusal(job(path)).message
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", "1000000")
    header = old_file(path, {"p": SINOGRAM}).read_bytes()[:128]
    bomb = zlib.compress(bytes(50_000_000))
    path.write_bytes(header + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb)
    assert isinstance(refusal(job(path)), ResourceLimit)
