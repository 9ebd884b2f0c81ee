"""Inspection: what files hold, what they lack, and specifications that run once that is filled in."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from operators.errors import InputError, ReconError, ResourceLimit
from recon.cli.inspect import specification_text
from recon.formats import hdf5, reader, sandbox
from recon.formats.format import Incomplete
from recon.formats.inspect import inspect
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.pipeline.reconstruct import run
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.acquisitions.ct_laminography import CTLaminography
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.contents import Contents
from recon.spec.job import Input, JobSpec, local_files
from recon.spec.report import Report
from recon.spec.simulation import Simulation
from tests.conftest import SAMPLES
from tests.recon.formats.test_matlab import challenge, old_file
from tests.recon.formats.test_nikon import projections
from tests.recon.formats.test_nikon import scan as nikon_scan
from tests.recon.formats.test_nxtomo import nxtomo_file


def inspected(path: Path, **given: Any) -> Contents:
    found = inspect(path, Input.model_validate({"path": str(path), **given}))
    assert Contents.model_validate_json(found.model_dump_json()) == found  # as it goes over HTTP
    return found


def completed(found: Contents, folder: Path, method: str, **filled: Any) -> Report:
    """Run the specification to start from, as printed, with what is missing filled in and a quick method."""
    lines = specification_text(found).splitlines()
    for item in found.missing:
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(item.field.rpartition(".")[2] + ":"))
        assert ("FILL IN" if item.suggestion is None else "CHECK") in lines[at]
        if item.suggestion is None:
            lines[at] = lines[at].replace("null", json.dumps(filled.pop(item.field)))
    assert not filled
    (folder / "job.yaml").write_text("\n".join(lines).replace("method: auto", f"method: {method}"))
    job = JobSpec.read(folder / "job.yaml")
    quick = JobSpec.parse({**job.model_dump(exclude_unset=True), "output": {"baselines": [], "montage": False}})
    return run(quick, local_files(quick), folder / "out")


def missing(found: Contents) -> list[str]:
    return [item.field for item in found.missing]


def test_dxchange(tmp_path: Path) -> None:
    found = inspected(SAMPLES / "ct_tooth.h5")
    assert (found.format, found.told_by, found.holds, found.kind) == (
        "dxchange", "what it holds", "measurement", "ct-parallel",
    )  # fmt: skip
    assert found.shape == [2, 181, 640] and found.axes == ["slices", "views", "detectors"]
    inside = {d.name: d for d in found.datasets}
    assert inside["exchange/data"].shape == [181, 2, 640] and inside["exchange/theta"].unit == "degrees"
    assert inside["measurement/sample/name"].note == "= Tooth"
    assert found.angles is not None and found.angles.count == 181 and found.angles.equispaced
    assert (found.angles.first_deg, found.angles.last_deg) == pytest.approx((0, 179.0055), abs=1e-3)
    assert found.values is not None and found.values.slices == (1, 2)  # one slice was read
    assert missing(found) == ["acquisition.detector_mm"] and "Detector pitch in mm" in found.missing[0].why
    with h5py.File(SAMPLES / "ct_tooth.h5") as whole, h5py.File(tmp_path / "few.h5", "w") as few:
        for name in ("data", "data_white", "data_dark"):
            few[f"exchange/{name}"] = whole[f"exchange/{name}"][..., ::16]
        few["exchange/theta"] = whole["exchange/theta"][()]
    report = completed(inspected(tmp_path / "few.h5"), tmp_path, "fbp", **{"acquisition.detector_mm": 0.16})
    assert report.shape == (2, 40, 40) and report.acquisition["detector_mm"] == 0.16


def test_a_known_volume(tmp_path: Path, ct_file: Path) -> None:
    found = inspected(ct_file)
    assert (found.format, found.holds, found.kind) == ("nifti", "volume", None)
    assert found.shape == [4, 48, 40] and found.axes == ["slices", "rows", "cols"]
    assert found.in_patient and found.orientation == "LPS" and found.affine is not None
    assert found.geometry["pixel_mm"] == pytest.approx(2.0, abs=1e-3)
    assert found.geometry["slice_mm"] == pytest.approx(5.0, abs=1e-2)
    stored = found.datasets[0]
    assert stored.shape == [40, 48, 4] and stored.unit == "mm" and "sform_code 1" in str(stored.note)
    assert missing(found) == ["acquisition.kind"] and found.missing[0].suggestion == "ct-parallel"
    report = completed(found, tmp_path, "fbp")
    assert report.against_truth is not None and report.unit == "HU"


def test_a_volume_that_is_no_ct_is_not_taken_for_one(tmp_path: Path, asymmetric: np.ndarray) -> None:
    from recon.formats import nifti

    nifti.write(tmp_path / "m.nii", asymmetric + 1000, np.diag([2.0, 2, 5, 1]), "test")
    found = inspected(tmp_path / "m.nii")
    assert found.values is not None and found.values.slices == (2, 3)
    assert found.missing[0].suggestion == "mri-cartesian" and "values go from 0 to 1700" in found.missing[0].why
    assert completed(found, tmp_path, "zero-filled").acquisition["kind"] == "mri-cartesian"


def test_matlab_with_its_fan(tmp_path: Path) -> None:
    held = challenge()
    (struct,) = held.values()
    struct["sinogram"] = struct["sinogram"][:, ::16]
    struct["parameters"] |= {"pixelSizePost": 3.2, "numDetectorsPost": 35}
    found = inspected(old_file(tmp_path / "htc.mat", held))
    assert (found.format, found.holds, found.kind) == ("matlab", "measurement", "ct-fan")
    assert {"source_origin_mm", "origin_detector_mm", "detector_mm"} <= found.geometry.keys()
    assert [d.name for d in found.datasets] and not found.missing
    assert completed(found, tmp_path, "fbp").acquisition["kind"] == "ct-fan"


def test_kspace(tmp_path: Path) -> None:
    found = inspected(SAMPLES / "mri_brain_8coil.npy")
    assert (found.format, found.holds, found.kind) == ("numpy", "array", None)
    assert found.shape == [8, 230, 180] and found.axes == ["coils", "rows", "cols"]
    assert missing(found) == ["acquisition.kind"] and found.missing[0].suggestion == "mri-cartesian"
    assert found.missing[0].remedy == "give mri-cartesian or mri-noncartesian"
    assert completed(found, tmp_path, "zero-filled").shape == (1, 230, 180)


def test_an_array_of_which_nothing_is_known(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.random.default_rng(0).random((3, 6, 20), dtype=np.float32))
    found = inspected(tmp_path / "s.npy")
    assert missing(found) == ["acquisition.kind", "acquisition.detector_mm", "acquisition.angles_rad"]
    assert "ct-fan" in str(found.missing[0].remedy) and "count: 6}" in str(found.missing[2].remedy)
    filled = {"acquisition.detector_mm": 1.0, "acquisition.angles_rad": {"count": 6}}
    assert completed(found, tmp_path, "fbp", **filled).shape == (3, 20, 20)
    np.save(tmp_path / "counts.npy", np.full((3, 6, 20), 4000, np.uint16))
    counts = inspected(tmp_path / "counts.npy")
    assert counts.missing[0].suggestion == "mri-superresolution" and "look like counts" in counts.missing[0].why
    np.save(tmp_path / "no.npy", np.zeros(20))
    assert missing(inspected(tmp_path / "no.npy")) == ["acquisition.kind"]


def test_kspace_of_three_axes_is_a_question(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["scan/kspace"] = np.random.default_rng(0).standard_normal((5, 16, 16)) + 0j
        file["scan/te"] = 12.0
    found = inspected(tmp_path / "k.h5")
    assert found.format == "hdf5" and found.specification["input"]["dataset"] == "scan/kspace"
    assert missing(found) == ["acquisition.kind", "acquisition.first_axis"]
    assert "5 slices of one coil" in found.missing[1].why
    report = completed(found, tmp_path, "zero-filled", **{"acquisition.first_axis": "slices"})
    assert report.shape == (5, 16, 16)


def test_samples_without_their_trajectory(tmp_path: Path) -> None:
    np.save(tmp_path / "radial.npy", np.ones((4, 3000), np.complex64))
    found = inspected(tmp_path / "radial.npy")
    assert found.missing[0].suggestion == "mri-noncartesian" and found.axes == ["coils", "samples"]
    assert missing(found)[1:] == ["acquisition.rows", "acquisition.trajectory_cycles_per_fov"]


def test_a_tilted_axis_is_asked_for(tmp_path: Path) -> None:
    known = {"kind": "ct-laminography", "detector_mm": 0.1, "angles_rad": {"stop_rad": 6.28, "count": 12}}
    for name, tilt in (("asked", {}), ("known", {"axis_tilt_rad": 0.5})):
        acquisition = CTLaminography.model_validate(known | tilt)
        hdf5.write_measurement(tmp_path / f"{name}.h5", Measurement(np.ones((20, 12, 40), np.float32), acquisition))
    found = inspected(tmp_path / "asked.h5")
    assert found.kind == "ct-laminography" and found.axes == ["detector_rows", "views", "detectors"]
    assert missing(found) == ["acquisition.axis_tilt_rad"] and "radians" in str(found.missing[0].remedy)
    assert not inspected(tmp_path / "known.h5").missing


def test_questions_are_asked_with_their_choices(tmp_path: Path) -> None:
    scans = inspected(SAMPLES / "ct_htc2022.npz")
    assert missing(scans) == ["input.scan"] and "ta_subsample73" in str(scans.missing[0].remedy)
    assert scans.holds is None and "ta_subsample73__sino" in [d.name for d in scans.datasets]
    chosen = inspected(SAMPLES / "ct_htc2022.npz", scan="ta_subsample73")
    assert chosen.kind == "ct-fan" and not chosen.missing
    assert JobSpec.parse(chosen.specification).input.scan == "ta_subsample73"
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = np.zeros((2, 6, 20)), np.zeros((2, 6, 20))
    two = inspected(tmp_path / "two.h5")
    assert missing(two) == ["input.dataset"] and two.missing[0].remedy == "choose one of: a, b"
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.npy", "b.npy"):
        np.save(folder / name, np.zeros((6, 20), np.float32))
    files = inspected(folder)
    assert missing(files) == ["input.file"] and files.files == 2 and files.format is None
    assert inspected(folder, file="b.npy").file == "b.npy"
    nikon_scan(tmp_path / "folder", projections())
    cone = inspected(folder)
    assert cone.kind == "ct-cone" and not cone.missing and cone.shape == [4, 10, 24]
    assert inspected(folder, slices=(2, 3)).kind == "ct-fan"


def test_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nxtomo_file(tmp_path / "a.nxs")
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", "1000")  # of one slice
    found = inspected(path)
    assert found.shape == [4, 4, 20] and found.values is not None and found.values.slices == (2, 3)
    assert found.geometry["detector_mm"] == pytest.approx(0.0065)
    assert any("left out" in note for note in found.notes)
    assert {"entry/data/data": "link to /entry/instrument/detector/data"}.items() <= {
        d.name: d.note for d in found.datasets
    }.items()


def test_long_listings_keep_the_large_arrays(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "ct_tooth.h5", tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "a") as file:
        for i in range(210):
            file[f"aaa/{i}"] = 0.0
        file["aaa/self"] = file["aaa"]  # groups can hold each other
    found = inspected(tmp_path / "t.h5")
    assert len(found.datasets) == 200 and found.datasets_left_out > 15
    assert "exchange/data" in [d.name for d in found.datasets]


def test_a_text_that_lies_in_another_file_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["note"] = np.zeros((2, 3, 4)), np.bytes_("here")
        file.create_dataset("other", (1,), "S6", external=[(str(tmp_path / "secret"), 0, 6)])
    found = inspected(tmp_path / "a.h5", format="hdf5")
    assert {d.name: d.note for d in found.datasets} == {"data": None, "note": "= here", "other": None}


def test_a_data_set_with_a_filter_of_its_own_does_not_hide_the_others(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((2, 3, 4))
        file.create_dataset("odd", (1,), "f4", chunks=(1,), scaleoffset=3)
    found = inspected(tmp_path / "a.h5", format="hdf5")
    assert {d.name: d.note for d in found.datasets} == {"data": None, "odd": "cannot be read"}


@pytest.mark.parametrize("known", [True, False])
def test_a_stack_of_a_fractional_factor(tmp_path: Path, asymmetric: np.ndarray, known: bool) -> None:
    acquisition = MRISuperResolution.model_validate({"factor": 2.5, "direction": "slices"})
    volume = np.abs(np.resize(asymmetric, (10, *asymmetric.shape[1:]))).astype(np.float32)
    measured = simulate(volume, np.eye(4), acquisition, Simulation())
    hdf5.write_measurement(tmp_path / "a.h5", measured if known else replace(measured, truth=None))
    found = inspected(tmp_path / "a.h5")
    assert not found.missing
    spec = JobSpec.parse({"input": {"path": str(tmp_path / "a.h5"), "slices": [1, 3]}, "method": "tv"})
    if known:
        with pytest.raises(InputError, match=r"begins at 2\.5 thin slices"):
            reader.read(spec, local_files(spec))
    else:
        part = reader.read(spec, local_files(spec))
        assert part.affine is not None
        np.testing.assert_allclose(part.affine[:3, 3], [0, 0, 2.5])


def test_an_error_that_says_what_a_file_states_can_be_passed_on() -> None:
    error = Incomplete(InputError("no reference", field="input"), CTParallel(detector_mm=0.5), (3, 4, 5), ["a note"])
    found = error.among("slices 3 to 5").at("input.path")
    assert (found.message, found.field) == ("slices 3 to 5: no reference", "input.path")
    assert (found.stated, found.shape, found.notes) == (error.stated, error.shape, error.notes)


def test_an_analyze_volume_is_listed(tmp_path: Path) -> None:
    import nibabel as nib

    nib.save(nib.AnalyzeImage(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "a.img")
    found = inspected(tmp_path / "a.hdr")
    assert found.datasets[0].shape == [4, 5, 6] and found.datasets[0].unit is None and found.shape == [6, 5, 4]


def damaged(path: Path, kind: str) -> Path:
    """A file that begins well and is bad."""
    match kind:
        case "truncated npy":
            np.save(path, np.zeros((30, 30)))
            path.write_bytes(path.read_bytes()[:2000])
        case "truncated nifti":
            path = path.with_suffix(".nii.gz")
            whole = gzip.decompress((SAMPLES / "ct_body.nii.gz").read_bytes())
            path.write_bytes(gzip.compress(whole[:100_000]))
        case "truncated hdf5":
            path.write_bytes((SAMPLES / "ct_tooth.h5").read_bytes()[:100_000])
        case "truncated mat":
            old_file(path, challenge())
            path.write_bytes(path.read_bytes()[:600])
        case "no npz":
            path.write_bytes(b"PK\x03\x04" + bytes(100))
        case "text":
            path = path.with_suffix(".npy")
            path.write_text("hello")
        case "pickle":
            np.save(path, np.array([object()]), allow_pickle=True)
        case "huge":
            path.write_bytes(b"\x93NUMPY\x01\0" + (118).to_bytes(2, "little"))
            header = "{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000, 10), }"
            path.write_bytes(path.read_bytes() + header.ljust(117).encode() + b"\n" + bytes(64))
    return path


@pytest.mark.parametrize(
    "kind", ["truncated npy", "truncated nifti", "truncated hdf5", "truncated mat", "no npz", "text", "pickle", "huge"]
)
def test_a_damaged_file_is_one_error(tmp_path: Path, kind: str) -> None:
    ending = {"truncated mat": ".mat", "no npz": ".npz", "truncated hdf5": ".h5"}.get(kind, ".npy")
    path = damaged(tmp_path / f"bad{ending}", kind)
    with pytest.raises(ReconError) as caught:
        inspected(path)
    assert isinstance(caught.value, InputError | ResourceLimit) and "\n" not in str(caught.value)
    assert caught.value.field is not None
    with pytest.raises(ReconError) as elsewhere:  # and the API says the same
        sandbox.shared.inspect(path, Input(path=str(path)))
    assert str(elsewhere.value) == str(caught.value)


def test_a_file_that_is_not_there_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"there is no file nope\.h5 in {tmp_path}"):
        inspected(tmp_path / "nope.h5")


def test_the_sandbox_answers_alike_and_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    path = SAMPLES / "ct_tooth.h5"
    box = sandbox.Sandbox()
    try:
        given = Input(path=str(path))
        assert box.inspect(path, given) == inspected(path)
        monkeypatch.setattr(box, "_ask", None)
        assert box.inspect(path, given) == inspected(path)
    finally:
        box.close()


def test_the_text_is_yaml_with_one_comment_a_gap(tmp_path: Path) -> None:
    text = specification_text(inspected(SAMPLES / "ct_tooth.h5"))
    assert text.count("# FILL IN") == 1 and text.count("#") == 1
    value = yaml.safe_load(text)
    assert value["acquisition"] == {"kind": "ct-parallel", "detector_mm": None}
    JobSpec.parse(value)
