"""What a job publishes: volumes in their format, parts of complex ones, and the patient whom they are of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from operators.errors import InputError
from recon.formats import dicom, dicom_results
from recon.formats.format import KnownVolume
from recon.pipeline.reconstruct import reconstruct, run
from recon.spec.job import Input, JobSpec, local_files
from tests.conftest import SAMPLES, image, voxels
from tests.recon.formats import dicom_files


def job(**value: Any) -> JobSpec:
    return JobSpec.parse(value)


@pytest.mark.parametrize(
    ("output", "written"),
    [
        ({"format": "nii"}, {"volume.nii", "volume-phase.nii", "baseline-zero-filled.nii"}),
        ({"format": "nii", "parts": ["phase"]}, {"volume-phase.nii", "baseline-zero-filled-phase.nii"}),
        (
            {"format": "nii", "parts": ["complex", "magnitude"], "baselines": []},
            {"volume.nii", "volume-complex.nii"},
        ),
        ({"format": "numpy", "parts": ["magnitude"], "baselines": []}, {"volume.npy"}),
        ({"format": "ismrmrd"}, {"volume.h5", "baseline-zero-filled.h5"}),
        ({"format": "ismrmrd", "parts": ["magnitude", "phase"], "baselines": []}, {"volume.h5", "volume-phase.h5"}),
        ({"format": "dicom"}, {"volume.zip", "volume-phase.zip", "baseline-zero-filled.zip"}),
        ({"format": "dicom-enhanced", "baselines": []}, {"volume.dcm", "volume-phase.dcm"}),
    ],
)
def test_parts_of_a_complex_volume(tmp_path: Path, output: dict[str, Any], written: set[str]) -> None:
    spec = job(
        input=str(SAMPLES / "mri_brain_8coil.npy"), acquisition="mri-cartesian",
        method={"name": "cg-sense", "iterations": 1}, output={"montage": False, **output},
    )  # fmt: skip
    run(spec, local_files(spec), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*written, "report.json", "job.json"}


def test_parts_agree_with_each_other(tmp_path: Path) -> None:
    spec = job(
        input=str(SAMPLES / "mri_brain_8coil.npy"), acquisition="mri-cartesian", method="zero-filled",
        output={"format": "nii", "parts": ["magnitude", "phase", "complex"], "montage": False},
    )  # fmt: skip
    run(spec, local_files(spec), tmp_path / "out")
    magnitude, phase, whole = (voxels(tmp_path / "out" / f"volume{n}.nii") for n in ("", "-phase", "-complex"))
    assert whole.dtype == np.complex64 and magnitude.dtype == phase.dtype == np.float32
    assert np.allclose(magnitude * np.exp(1j * phase), whole, atol=1e-6 * magnitude.max())


@pytest.mark.parametrize("form", ["dicom", "dicom-enhanced"])
def test_dicom_goes_back_to_its_patient(tmp_path: Path, form: str) -> None:
    """From a series to results in DICOM: patient, study, place and values; each volume is a series of its own."""
    y, x = np.mgrid[:20, :24]
    body = np.where((y - 10) ** 2 + (x - 12) ** 2 < 60, 40, -1000).astype(np.int16)
    place = {"PatientName": "Test^Case", "PatientID": "7", "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    dicom_files.series(tmp_path / "ct", np.stack([body] * 3), **place)
    spec = job(
        input={"path": str(tmp_path / "ct"), "simulate": {"views": 60, "model": "ideal"}},
        acquisition="ct-parallel", method={"name": "cgls", "iterations": 5}, output={"format": form, "uncertainty": 1},
    )  # fmt: skip
    run(spec, local_files(spec), tmp_path / "out")
    with_numbers = spec.model_copy(update={"output": spec.output.model_copy(update={"format": "nii"})})
    run(with_numbers, local_files(spec), tmp_path / "plain")
    found = {}
    for name in ("volume", "baseline-fbp", "uncertainty"):
        path = tmp_path / "out" / f"{name}.dcm"
        if form == "dicom":
            shutil.unpack_archive(tmp_path / "out" / f"{name}.zip", tmp_path)
            path = tmp_path / name
        again = dicom.FORMAT.read(path, Input(path=str(path)))  # type: ignore[misc]
        plain = image(tmp_path / "plain" / f"{name}.nii")
        assert isinstance(again, KnownVolume) and again.affine == pytest.approx(plain.affine, abs=1e-4)
        assert np.abs(again.data - voxels(tmp_path / "plain" / f"{name}.nii")).max() <= 0.501
        found[name] = dcmread(path if path.is_file() else min(path.iterdir()))
    for data in found.values():
        assert data.PatientName == "Test^Case" and data.PatientID == "7"
        assert data.StudyInstanceUID == "1.2.3" and data.FrameOfReferenceUID == "1.2.4"
        assert "simulated from a known volume" in data.DerivationDescription
    assert "by cgls." in found["volume"].DerivationDescription
    assert "by fbp." in found["baseline-fbp"].DerivationDescription
    assert "Expected errors" in found["uncertainty"].DerivationDescription
    assert len({data.SeriesInstanceUID for data in found.values()}) == 3
    for name in ("report.json", "job.json"):  # no patient where nobody looks for one
        assert "Test^Case" not in (tmp_path / "out" / name).read_text()


def test_what_the_format_cannot_hold_is_refused_before_it_is_computed(
    tmp_path: Path, ct_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_results, "_MOST_PIXEL_BYTES", 1000)
    spec = job(input=str(ct_file), acquisition="ct-parallel", method="fbp", output={"format": "dicom-enhanced"})
    running = reconstruct(spec, local_files(spec), tmp_path / "out")
    with pytest.raises(InputError, match=r"^output\.format: the pixels of a DICOM file have at most 4 GiB"):
        stages = [next(running).stage for _ in range(3)]
        raise AssertionError(stages)
