"""DICOM: slices become the volume that they were measured as, or a sentence says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, RTStructureSetStorage, generate_uid

from operators.errors import ReconError, ResourceLimit
from recon.formats import dicom, reader
from recon.formats.format import KnownVolume
from recon.spec.job import Input, JobSpec, local_files
from tests.recon.formats.dicom_files import APART_MM, body, series, slice_file

REAL = Path(__file__).parents[2] / "data" / "formats" / "dicom"


def read(path: Path, **more: Any) -> KnownVolume:
    return dicom.FORMAT.read(path, Input(path=str(path), **more))  # type: ignore[misc, return-value]


def refusal(path: Path, **more: Any) -> ReconError:
    with pytest.raises(ReconError) as error:
        read(path, **more)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    return error.value


def said(found: KnownVolume) -> str:
    return "; ".join(found.notes)


def test_slices_of_a_folder_lie_by_their_positions(tmp_path: Path) -> None:
    found = read(series(tmp_path / "ct"))
    assert np.array_equal(found.data, body()) and found.unit == "HU" and found.in_patient
    # LPS to RAS; slices are 5 mm apart though they are 6 mm thick.
    assert found.affine == pytest.approx(
        np.array([[-2, 0, 0, 10], [0, -2, 0, 20], [0, 0, APART_MM, 100], [0, 0, 0, 1]])
    )
    job = JobSpec.parse({"input": str(tmp_path / "ct"), "acquisition": "ct-parallel", "method": "fbp"})
    assert reader.check(job, local_files(job)).known  # a folder needs no format
    bare = tmp_path / "bare"
    bare.mkdir()
    for number, file in enumerate((tmp_path / "ct").iterdir()):
        file.rename(bare / f"IM{number}")  # nor endings
    job = JobSpec.parse({"input": str(bare), "acquisition": "ct-parallel", "method": "fbp"})
    assert reader.check(job, local_files(job)).known


def test_a_coronal_stack_is_sorted_along_its_normal(tmp_path: Path) -> None:
    for number, hu in enumerate(body()):
        place = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [0, 5.0 * number, 0]}
        slice_file(tmp_path / f"{number}.dcm", hu, number, **place)
    found = read(tmp_path)
    assert np.array_equal(found.data, body())
    assert found.affine[:3, :3] == pytest.approx(np.array([[-2, 0, 0], [0, 0, -5], [0, -2, 0]]))


def test_values_are_rescaled_slice_by_slice_and_padding_is_air(tmp_path: Path) -> None:
    hu = body()
    hu[:, 0] = -3024
    for number, slope in enumerate((1, 2, 1, 0.5)):
        slice_file(
            tmp_path / f"{number}.dcm", hu[number], number, RescaleSlope=slope, PixelPaddingValue=int(-2000 / slope)
        )
    found = read(tmp_path)
    assert found.data[:, 1:] == pytest.approx(body()[:, 1:], abs=1.01) and (found.data[:, 0] == -1000).all()
    assert "96 pixels of padding" in said(found)


def test_what_is_not_hu_is_not_taken_for_hu(tmp_path: Path) -> None:
    assert read(series(tmp_path / "unspecified", RescaleType="US")).unit is None
    assert read(series(tmp_path / "plain", RescaleType=None, RescaleIntercept=0)).unit is None
    assert read(series(tmp_path / "by intercept", RescaleType=None)).unit == "HU"
    perfusion = series(tmp_path / "map", ImageType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"])
    job = JobSpec.parse({"input": str(perfusion), "acquisition": "ct-parallel", "method": "fbp"})
    with pytest.raises(ReconError, match="a map \\(PERFUSION/RCBF\\), not HU"):
        reader.check(job, local_files(job))
    sure = JobSpec.parse({"input": {"path": str(perfusion), "unit": "HU"}, "acquisition": "ct-parallel"})
    assert reader.check(sure, local_files(sure)).known


def test_a_real_slice_with_padding() -> None:
    found = read(REAL / "ct_slice.dcm")
    assert found.data.shape == (1, 512, 512) and found.unit == "HU"
    assert found.data.min() == -1024 and (found.data[0, 0, 0], "one slice" in said(found)) == (-1000, True)
    assert np.linalg.norm(found.affine[:3, :3], axis=0) == pytest.approx((0.810547, 0.810547, 1.25))


def test_frames_of_enhanced_files_are_volumes_of_several_times(tmp_path: Path) -> None:
    one = read(REAL / "6_1.dcm")
    assert one.data.shape == (6, 64, 64) and one.unit == "MR signal" and one.data.max() == 1199
    assert np.linalg.norm(one.affine[:3, :3], axis=0) == pytest.approx((3.375, 3.375, 2.4))
    assert one.affine[:3, 3] == pytest.approx((109.79, 58.4773, -5.40356))
    for name in ("6_2.dcm", "6_1.dcm"):
        (tmp_path / name).write_bytes((REAL / name).read_bytes())
    error = refusal(tmp_path)
    assert error.field == "input.scan" and "2 volumes" in error.message and "volume=1" in str(error.remedy)
    assert np.array_equal(read(tmp_path, scan="volume=0").data, one.data)
    assert np.array_equal(read(tmp_path, scan="volume=1").data, read(REAL / "6_2.dcm").data)
    assert refusal(tmp_path, scan="volume=2").field == refusal(tmp_path, scan="echo=1").field == "input.scan"
    spec = {"input": {"path": str(tmp_path), "scan": "volume=1"}, "acquisition": "mri-cartesian", "method": "cg-sense"}
    job = JobSpec.parse(spec)
    assert reader.check(job, local_files(job)).shape == (6, 8, 64, 64)


def test_of_several_series_one_is_chosen(tmp_path: Path) -> None:
    series(tmp_path / "a", SeriesDescription="thin")
    series(tmp_path / "b", SeriesInstanceUID=generate_uid(), SeriesNumber=4, RescaleIntercept=-1000)
    error = refusal(tmp_path)
    assert error.field == "input.scan" and "series=3 (4 images of 20 x 24, CT thin)" in str(error.remedy)
    assert np.array_equal(read(tmp_path, scan="series=4").data, body())
    assert refusal(tmp_path, scan="series=9").message == "there are 2 series"


def test_other_objects_in_the_folder_are_left_out_by_name(tmp_path: Path) -> None:
    series(tmp_path)
    slice_file(tmp_path / "rs.dcm", body()[0], 9, Modality="RTSTRUCT", SOPClassUID=RTStructureSetStorage)
    slice_file(tmp_path / "scout.dcm", body()[0], 9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    slice_file(tmp_path / "dose.dcm", body()[0], 9, ImagePositionPatient=None, ImageType="DERIVED")
    (tmp_path / "readme.txt").write_text("hello")
    found = read(tmp_path)
    assert np.array_equal(found.data, body())
    assert "1 file left out: RT Structure Set Storage" in said(found) and "1 localizer images" in said(found)
    assert "1 file left out: images without a place in the patient" in said(found)
    assert "no CT or MR image" in refusal(tmp_path / "rs.dcm").message


def test_slices_that_are_missing_uneven_or_twice_are_refused(tmp_path: Path) -> None:
    whole = series(tmp_path / "missing", body(6))
    (whole / "42.dcm").unlink()
    assert "10 mm between 71.dcm and 13.dcm: are some missing?" in refusal(whole).message
    uneven = tmp_path / "uneven"
    uneven.mkdir()
    for number, place in enumerate((0.0, 5.0, 10.0, 17.0)):
        slice_file(uneven / f"{number}.dcm", body()[number], number, ImagePositionPatient=[0, 0, place])
    assert "unevenly spaced" in refusal(uneven).message
    twice = series(tmp_path / "twice")
    slice_file(twice / "x.dcm", body()[2], 2)
    assert "1 to 2 images" in refusal(twice).message
    rounded = tmp_path / "rounded"
    rounded.mkdir()
    for number, place in enumerate((0.0, 0.6, 1.3, 1.9)):
        slice_file(rounded / f"{number}.dcm", body()[number], number, ImagePositionPatient=[0, 0, place])
    found = read(rounded)
    assert found.affine[2, 2] == pytest.approx(1.9 / 3) and "their mean distance is taken" in said(found)


def test_a_tilted_gantry_is_said(tmp_path: Path) -> None:
    tilt = np.deg2rad(20)
    cosines = [1, 0, 0, 0, float(np.cos(tilt)), float(np.sin(tilt))]
    series(tmp_path, ImageOrientationPatient=cosines)
    job = JobSpec.parse({"input": str(tmp_path), "acquisition": "ct-parallel", "method": "fbp"})
    with pytest.raises(ReconError, match=r"sheared by 20\.0 degrees"):
        reader.check(job, local_files(job))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], "Modality": "MR"}, "a Siemens mosaic"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P"], "Modality": "MR"}, "of type P, not magnitudes"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient: it is no slice of a volume"),
        ({"PixelSpacing": [0, 0]}, "no positive PixelSpacing"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "ImageOrientationPatient is"),
        ({"SamplesPerPixel": 3}, "has colours"),
        ({"NumberOfFrames": 2}, "2 frames, and says of 0 where they lie"),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 9}, "the limit is"),
        ({"Rows": 100}, "cannot be read"),
    ],
)
def test_files_that_are_no_slices(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    slice_file(tmp_path / "a.dcm", body()[0], 0)
    data = dcmread(tmp_path / "a.dcm")
    for name, value in changed.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(tmp_path / "a.dcm")
    error = refusal(tmp_path / "a.dcm")
    assert says in error.message
    assert isinstance(error, ResourceLimit) == (says == "the limit is")


def test_compressed_pixels_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    slice_file(tmp_path / "a.dcm", body()[0], 0)
    data = dcmread(tmp_path / "a.dcm")
    from pydicom.encaps import encapsulate

    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.PixelData = encapsulate([b"\xff\xd8 no picture \xff\xd9"])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a.dcm")
    error = refusal(tmp_path / "a.dcm")
    assert "compressed (JPEG Lossless" in error.message and "gdcmconv --raw" in str(error.remedy)


def test_run_length_coding_is_read(tmp_path: Path) -> None:
    from pydicom.uid import RLELossless

    data = dcmread(slice_file(tmp_path / "a.dcm", body()[0], 0))
    data.compress(RLELossless)
    data.save_as(tmp_path / "a.dcm")
    assert np.array_equal(read(tmp_path / "a.dcm").data[0], body()[0])


def test_damage_and_links_are_refused(tmp_path: Path) -> None:
    path = slice_file(tmp_path / "a.dcm", body()[0], 0)
    content = path.read_bytes()
    for length in (140, 400, len(content) - 1):
        path.write_bytes(content[:length])
        assert refusal(path).field.startswith("input")  # type: ignore[union-attr]
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.77"))
    assert "stored as 1.2.840.10008.1.2.77, which is not read" in refusal(path).message
    data = dcmread(slice_file(tmp_path / "b.dcm", body()[0], 0))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "b.dcm")
    assert "Deflated" in refusal(tmp_path / "b.dcm").message  # inflating has no limit there
    path.write_bytes(b"hello" * 100)
    assert "not a DICOM file" in refusal(path).message
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for at in rng.integers(132, 900, 20):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read(path)
        except ReconError as error:
            assert error.exit_code == 2
    inside = tmp_path / "inside"
    inside.mkdir()
    path.write_bytes(content)
    (inside / "link.dcm").symlink_to(path)
    assert "link to outside" in refusal(inside).message
