"""Results in DICOM: read back to the values and the place that were written, and complete as the standard asks."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage, MRImageStorage

from operators.errors import Diverged, InputError
from recon.formats import dicom, dicom_results, dicom_source
from recon.formats.format import Format, KnownVolume, Written
from recon.spec.job import Input
from tests.recon.formats.dicom_files import series
from tests.recon.formats.written import METHOD, SHAPE, oblique, values, written

Modality = Literal["ct", "mri"]
FORMATS = [dicom_results.SLICES, dicom_results.ENHANCED]
KINDS = [(row, modality) for row in FORMATS for modality in ("ct", "mri")]
CLASSES = {
    ("dicom", "ct"): CTImageStorage,
    ("dicom", "mri"): MRImageStorage,
    ("dicom-enhanced", "ct"): EnhancedCTImageStorage,
    ("dicom-enhanced", "mri"): EnhancedMRImageStorage,
}
each_kind = pytest.mark.parametrize(("row", "modality"), KINDS, ids=[f"{r.name}-{m}" for r, m in KINDS])

# Elements of type 1, which have a value, and of type 2, which may be empty: PS3.3, modules of A.3, A.4, A.36 and A.38.
ALL_1 = """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality FrameOfReferenceUID ImageType
    SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
    PixelData"""
ALL_2 = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID
    AccessionNumber SeriesNumber PatientPosition PositionReferenceIndicator Manufacturer InstanceNumber"""
PLANE_1, PLANE_2 = "PixelSpacing ImageOrientationPatient ImagePositionPatient", "SliceThickness"
FRAMES_1 = """InstanceNumber ContentDate ContentTime NumberOfFrames SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence DimensionOrganizationSequence DimensionIndexSequence Manufacturer
    ManufacturerModelName DeviceSerialNumber SoftwareVersions PixelPresentation VolumetricProperties
    VolumeBasedCalculationTechnique ContentQualification BurnedInAnnotation LossyImageCompression
    PresentationLUTShape"""
FRAMES_2 = "AcquisitionContextSequence"
MANDATORY = {
    ("dicom", "ct"): (f"{PLANE_1} RescaleIntercept RescaleSlope RescaleType", f"{PLANE_2} KVP AcquisitionNumber"),
    ("dicom", "mri"): (
        f"{PLANE_1} ScanningSequence SequenceVariant",
        f"{PLANE_2} ScanOptions MRAcquisitionType RepetitionTime EchoTime EchoTrainLength",
    ),
    ("dicom-enhanced", "ct"): (FRAMES_1, FRAMES_2),
    ("dicom-enhanced", "mri"): (f"{FRAMES_1} ComplexImageComponent AcquisitionContrast", FRAMES_2),
}
FRAME_TYPE = "FrameType PixelPresentation VolumetricProperties VolumeBasedCalculationTechnique"
SHARED = {
    "PixelMeasuresSequence": "PixelSpacing SliceThickness",
    "PlaneOrientationSequence": "ImageOrientationPatient",
    "FrameAnatomySequence": "FrameLaterality AnatomicRegionSequence",
    "PixelValueTransformationSequence": "RescaleIntercept RescaleSlope RescaleType",
    "FrameVOILUTSequence": "WindowCenter WindowWidth",
}
SHARED_BY = {
    "ct": {"CTImageFrameTypeSequence": FRAME_TYPE, "IrradiationEventIdentificationSequence": "IrradiationEventUID"},
    "mri": {"MRImageFrameTypeSequence": f"{FRAME_TYPE} ComplexImageComponent AcquisitionContrast"},
}
PER_FRAME = {
    "FrameContentSequence": "StackID InStackPositionNumber DimensionIndexValues",
    "PlanePositionSequence": "ImagePositionPatient",
}


def files(row: Format, volume: Written, folder: Path) -> list[Path]:
    """Write a volume; its files, unpacked."""
    assert row.write is not None
    path = folder / f"volume{row.endings[0]}"
    row.write(path, volume)
    if path.suffix != ".zip":
        return [path]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return sorted((folder / "volume").iterdir())


def read(found: list[Path]) -> KnownVolume:
    """The same as our reader has it."""
    path = found[0] if len(found) == 1 else found[0].parent
    return dicom.FORMAT.read(path, Input(path=str(path)))  # type: ignore[misc, return-value]


def frames(found: list[Path]) -> Iterator[np.ndarray]:
    """Values as pydicom has them."""
    for path in found:
        data = dcmread(path)
        shared = data.get("SharedFunctionalGroupsSequence")
        scaling = data if shared is None else shared[0].PixelValueTransformationSequence[0]
        stored = data.pixel_array.reshape(-1, data.Rows, data.Columns)
        yield from stored * float(scaling.RescaleSlope) + float(scaling.RescaleIntercept)


@each_kind
def test_values_and_place_come_back(tmp_path: Path, row: Format, modality: Modality) -> None:
    volume = written(modality)
    found = files(row, volume, tmp_path)
    again = read(found)
    bound = 0.5 if modality == "ct" else float(values("mri").max()) / 32767 / 2
    assert again.affine == pytest.approx(volume.affine, abs=1e-6)
    assert np.abs(again.data - values(modality)).max() <= bound * 1.001
    assert np.abs(np.stack([*frames(found)]) - values(modality)).max() <= bound * 1.001
    assert again.in_patient and again.unit == ("HU" if modality == "ct" else "MR signal")
    assert len(found) == (SHAPE[0] if row.name == "dicom" else 1)
    stored = dcmread(found[0])
    assert stored.BitsAllocated == 16 and stored.PixelRepresentation == 1  # int16


@each_kind
def test_directions_are_unit_vectors_at_right_angles(tmp_path: Path, row: Format, modality: Modality) -> None:
    data = dcmread(files(row, written(modality), tmp_path)[0])
    shared = data.get("SharedFunctionalGroupsSequence")
    plane = data if shared is None else shared[0].PlaneOrientationSequence[0]
    measures = data if shared is None else shared[0].PixelMeasuresSequence[0]
    along = np.array(plane.ImageOrientationPatient, float).reshape(2, 3)
    assert along @ along.T == pytest.approx(np.eye(2), abs=1e-9)
    # LPS: columns count along the affine's first axis with two signs turned.
    assert along[0] == pytest.approx(oblique()[:3, 0] / 0.8 * [-1, -1, 1], abs=1e-9)
    assert [float(n) for n in measures.PixelSpacing] == pytest.approx([1.1, 0.8])  # rows' distance first
    assert float(measures.SliceThickness) == pytest.approx(3.3)


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_slices_that_count_against_their_normal_are_the_same_volume(tmp_path: Path, row: Format) -> None:
    affine = oblique()
    affine[:3, 2] *= -1  # a left-handed grid, whose slices a reader turns round
    again = read(files(row, written(affine=affine), tmp_path))
    assert np.abs(again.data[::-1] - values()).max() <= 0.5
    turned = affine.copy()
    turned[:3, 3], turned[:3, 2] = affine[:3, 3] + (SHAPE[0] - 1) * affine[:3, 2], -affine[:3, 2]
    assert again.affine == pytest.approx(turned, abs=1e-6)


@each_kind
def test_nothing_mandatory_is_missing(tmp_path: Path, row: Format, modality: Modality) -> None:
    identifiers = set()
    found = files(row, written(modality), tmp_path)
    for path in found:
        data = dcmread(path)
        first, second = MANDATORY[row.name, modality]
        stated(data, f"{ALL_1} {first}")
        present(data, f"{ALL_2} {second}")
        assert data.SOPClassUID == CLASSES[row.name, modality] == data.file_meta.MediaStorageSOPClassUID
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
        assert data.Modality == ("CT" if modality == "ct" else "MR") and data.ImageType[0] == "DERIVED"
        assert data.BurnedInAnnotation == "NO" and data.LossyImageCompression == "00"
        identifiers.add(data.SOPInstanceUID)
    assert len(identifiers) == len(found)
    if row.name == "dicom":
        return
    assert data.NumberOfFrames == len(data.PerFrameFunctionalGroupsSequence) == SHAPE[0]
    for name, inner in {**SHARED, **SHARED_BY[modality]}.items():
        stated(data.SharedFunctionalGroupsSequence[0][name][0], inner)
    for frame in data.PerFrameFunctionalGroupsSequence:
        for name, inner in PER_FRAME.items():
            stated(frame[name][0], inner)
    pointers = [item.DimensionIndexPointer for item in data.DimensionIndexSequence]
    assert pointers == [0x00209056, 0x00209057]


def stated(data: Dataset, names: str) -> None:
    for name in names.split():
        assert name in data and data[name].value not in (None, "", []), name


def present(data: Dataset, names: str) -> None:
    for name in names.split():
        assert name in data, name


@each_kind
@pytest.mark.parametrize("quantity", ["values", "phase", "error"])
def test_the_standards_validator_finds_no_error(tmp_path: Path, row: Format, modality: Modality, quantity: Any) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy of dicom3tools is not installed")
    if (modality, quantity) == ("ct", "phase"):
        pytest.skip("CT has no phase")
    for kept in (False, True):
        folder = tmp_path / str(kept)
        folder.mkdir()
        source = kept_of(folder) if kept else {}
        volume = written(modality, quantity=quantity, source=source, in_patient=kept)
        for path in files(row, volume, folder):
            done = subprocess.run([validator, "-new", str(path)], capture_output=True, text=True)
            assert "Error" not in done.stdout + done.stderr, done.stdout + done.stderr


@each_kind
def test_what_it_is_and_what_it_is_not_for_is_said(tmp_path: Path, row: Format, modality: Modality) -> None:
    data = dcmread(files(row, written(modality), tmp_path)[0])
    said = data.DerivationDescription
    assert said.startswith("Not for clinical use.") and METHOD in said and "diffusion-recon 1.2" in said
    assert f"{modality} data" in said and "Patient and study are made up" in said
    assert data.SeriesDescription.startswith("Not for clinical use: red-diff") and len(data.SeriesDescription) <= 64
    assert data.PatientName == "MADE UP^NO PATIENT" and data.PatientID.startswith("MADE-UP-")
    assert "Made up" in data.StudyDescription and data.PatientBirthDate == ""
    if row.name == "dicom-enhanced":
        assert data.ContentQualification == "RESEARCH"


def test_volumes_of_a_job_are_series_of_one_study_and_jobs_are_not(tmp_path: Path) -> None:
    first, later = written(number=1), written(number=2)
    later = Written(**{**vars(later), "origin": first.origin})
    found = []
    for name, volume in {"a": first, "b": later, "c": written()}.items():
        (tmp_path / name).mkdir()
        found.append(dcmread(files(dicom_results.ENHANCED, volume, tmp_path / name)[0]))
    a, b, c = found
    assert a.StudyInstanceUID == b.StudyInstanceUID and a.FrameOfReferenceUID == b.FrameOfReferenceUID
    assert a.PatientID == b.PatientID and a.PatientID != c.PatientID
    assert len({one.SeriesInstanceUID for one in found}) == len({one.SOPInstanceUID for one in found}) == 3
    assert a.StudyInstanceUID != c.StudyInstanceUID and a.FrameOfReferenceUID != c.FrameOfReferenceUID
    assert a.SeriesNumber != b.SeriesNumber


def kept_of(folder: Path) -> dict[str, Any]:
    """Patient and study of a DICOM series, as a reader has them."""
    path = series(
        folder / "ct", PatientName="Grün^Élodie", PatientID="42", SpecificCharacterSet="ISO_IR 100",
        PatientBirthDate="19700101", StudyInstanceUID="1.2.3.4", StudyDate="20200229", AccessionNumber="A1",
        FrameOfReferenceUID="1.2.3.5", PatientPosition="HFS", StudyDescription="Thorax",
    )  # fmt: skip
    found = dict(dicom.FORMAT.read(path, Input(path=str(path))).source)  # type: ignore[misc, union-attr]
    assert found
    return found


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_patient_and_study_of_the_input_are_kept(tmp_path: Path, row: Format) -> None:
    source = kept_of(tmp_path)
    read_series = dcmread(next((tmp_path / "ct").iterdir())).SeriesInstanceUID
    data = dcmread(files(row, written(source=source), tmp_path)[0])
    assert data.PatientName == "Grün^Élodie" and data.PatientID == "42" and data.PatientBirthDate == "19700101"
    assert data.StudyInstanceUID == "1.2.3.4" and data.StudyDate == "20200229" and data.AccessionNumber == "A1"
    assert data.FrameOfReferenceUID == "1.2.3.5" and data.PatientPosition == "HFS"
    assert data.SeriesInstanceUID != read_series and f"series {read_series}" in data.DerivationDescription
    assert "made up" not in data.DerivationDescription and data.StudyDescription == "Thorax"


@pytest.mark.parametrize("uid", [None, ""])
def test_a_patient_without_a_study_is_not_kept(tmp_path: Path, uid: str | None) -> None:
    given: dict[str, Any] = {} if uid is None else {"StudyInstanceUID": uid}
    path = series(tmp_path / "ct", PatientName="A^B", PatientID="42", **given)
    assert dicom_source.kept(next(path.iterdir())) == {}


def test_a_damaged_value_of_the_input_is_not_kept(tmp_path: Path) -> None:
    path = series(tmp_path / "ct", PatientName="A^B", PatientID="42", PatientWeight="7", StudyInstanceUID="1.2.3")
    for file in path.iterdir():
        stored = file.read_bytes()
        assert stored.count(b"DS\x02\x007 ") == 1
        file.write_bytes(stored.replace(b"DS\x02\x007 ", b"DS\x02\x00x "))
    kept = dicom_source.kept(next(path.iterdir()))
    found = Dataset.from_json(kept)
    assert found.PatientID == "42" and "PatientWeight" not in found


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_a_scanners_frame_is_not_taken_for_the_patients(tmp_path: Path, row: Format) -> None:
    found = files(row, written(in_patient=False, source=kept_of(tmp_path)), tmp_path)
    data, again = dcmread(found[0]), read(found)
    assert not again.in_patient and "does not say how it lies in the patient" in "; ".join(again.notes)
    assert data.FrameOfReferenceUID != "1.2.3.5" and "scanner's frame" in data.DerivationDescription


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_phases_and_expected_errors_are_not_read_as_images(tmp_path: Path, row: Format, modality: Modality) -> None:
    errors = read(files(row, written(modality, quantity="error"), tmp_path))
    assert modality == "mri" or errors.unit == "a map (STD_DEVIATION)"
    (tmp_path / "phase").mkdir()
    found = files(row, written("mri", quantity="phase", unit="phase, rad"), tmp_path / "phase")
    with pytest.raises(InputError, match="not magnitudes"):
        read(found)


def test_other_units_have_the_slope_of_the_largest_value(tmp_path: Path) -> None:
    attenuation = (values() + 1024) * 1e-6
    found = files(dicom_results.SLICES, written(data=attenuation, unit="1/mm"), tmp_path)
    assert np.abs(np.stack([*frames(found)]) - attenuation).max() <= attenuation.max() / 32767 / 2 * 1.001
    data = dcmread(found[0])
    assert data.RescaleType == "US" and "in 1/mm" in data.DerivationDescription


@pytest.mark.parametrize("level", [0.0, 1e-30, 3.0])
def test_constant_volumes(tmp_path: Path, level: float) -> None:
    data = np.full(SHAPE, level, np.float32)
    again = read(files(dicom_results.ENHANCED, written("mri", data), tmp_path))
    assert again.data == pytest.approx(data, rel=1e-4)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    data = values()
    data[4, 3, 2] = np.nan
    with pytest.raises(Diverged, match="no numbers"):
        files(dicom_results.SLICES, written(data=data), tmp_path)


def test_what_dicom_cannot_hold_is_refused_beforehand() -> None:
    slices, enhanced = dicom_results.SLICES.check, dicom_results.ENHANCED.check
    assert slices is not None and enhanced is not None
    large = (3000, 1024, 1024)
    slices(large, oblique())
    with pytest.raises(InputError, match=r"at most 4 GiB, those of 3000 x 1024 x 1024 have 5\.9 .*use dicom"):
        enhanced(large, oblique())
    with pytest.raises(InputError, match="at most 65535 rows and columns"):
        slices((1, 70000, 10), oblique())
    sheared = oblique()
    sheared[:3, 1] += 0.1 * sheared[:3, 0]
    with pytest.raises(InputError, match="not at right angles"):
        slices(SHAPE, sheared)
