"""ISMRMRD raw data: what the scanner measured becomes k-space in the patient's frame, or a sentence says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pydicom import Dataset, dcmread

import recon
from operators.errors import ReconError, ResourceLimit
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.kspace import across_readout
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.mrd_files import (
    CALIBRATION,
    COLS,
    NOISE,
    PHASE_CORRECTION,
    REVERSE,
    ROWS,
    Scan,
    fourier,
    header,
    phantom,
    picture,
)


def job(path: Path, **more: Any) -> JobSpec:
    acquisition = more.pop("acquisition", None)
    value = {"input": {"path": str(path), "format": "ismrmrd", **more}, "method": "zero-filled"}
    return JobSpec.parse(value if acquisition is None else {**value, "acquisition": acquisition})


def read(path: Path, **more: Any) -> Measurement:
    spec = job(path, **more)
    return reader.read(spec, local_files(spec))


def refusal(path: Path, **more: Any) -> ReconError:
    spec = job(path, **more)
    with pytest.raises(ReconError) as error:
        reader.read(spec, local_files(spec))
    assert error.value.exit_code == 2 and error.value.field
    return error.value


def said(found: Measurement) -> str:
    return "; ".join(found.notes)


def test_a_whole_scan_lies_where_the_header_says(tmp_path: Path) -> None:
    image = phantom()[0]
    scan = Scan()
    scan.add_image(fourier(image), position=(10.0, -20.0, 30.0))
    found = read(scan.write(tmp_path / "a.mrd"))
    assert found.data.shape == (1, 2, ROWS, COLS) and found.data.dtype == np.complex64
    assert picture(found.data[0]) == pytest.approx(image, abs=1e-5)
    assert found.affine is not None and found.in_patient
    # The middle of the field of view, in RAS; columns go to the left, rows to the back.
    assert found.affine @ (COLS // 2, ROWS // 2, 0, 1) == pytest.approx((-10, 20, 30, 1))
    assert np.diag(found.affine) == pytest.approx((-2, -2, 5, 1))
    assert found.acquisition.pixel_mm == 2.0 and found.acquisition.slice_mm == 5.0


def test_oversampling_is_cropped_in_image_space_and_noise_readouts_give_the_noise(tmp_path: Path) -> None:
    image = np.zeros((2, ROWS, 2 * COLS), np.complex64)
    image[..., COLS // 2 : COLS // 2 + COLS] = phantom()[0]
    rng = np.random.default_rng(0)
    scan = Scan()
    for _ in range(4):
        noise = rng.standard_normal((2, 512)) + 1j * rng.standard_normal((2, 512))
        scan.add(100 * noise, flags=NOISE, sample_time_us=2.5)
    scan.add_image(fourier(image))
    xml = header((2 * COLS, ROWS, 1), fov=(128.0, 48.0, 5.0), recon_fov=(64.0, 48.0, 5.0))
    found = read(scan.write(tmp_path / "a.h5", xml))
    assert picture(found.data[0]) == pytest.approx(phantom()[0], abs=1e-5)
    assert found.noise_std == pytest.approx(50, rel=0.05)  # a fourth of the bandwidth has half of the noise
    assert found.acquisition.pixel_mm == 2.0 and "64 samples became 32" in said(found)


def test_partial_fourier_and_skipped_lines_stay_zero_about_the_centre_that_is_stated(tmp_path: Path) -> None:
    full = fourier(phantom()[0])
    scan = Scan()
    first = 8  # the line counted 0 is row 8: k = 0 is line 4
    for row in range(first, ROWS, 2):
        scan.add(full[:, row], kspace_encode_step_1=row - first)
    for row in (11, 13):
        scan.add(full[:, row], kspace_encode_step_1=row - first, flags=CALIBRATION)
    found = read(scan.write(tmp_path / "a.h5", header(centre=ROWS // 2 - first)))
    rows = [*range(first, ROWS, 2), 11, 13]
    assert found.data[0][:, rows] == pytest.approx(full[:, rows], abs=1e-5)
    assert not np.delete(found.data[0], rows, axis=1).any()
    assert f"{len(rows)} of {ROWS} lines" in said(found)
    separate = read(scan.write(tmp_path / "b.h5", header(centre=ROWS // 2 - first, calibration="separate")))
    assert not separate.data[0][:, [11, 13]].any() and "calibration lines of a separate scan" in said(separate)


def test_a_partial_echo_stays_zero_where_nothing_was_measured(tmp_path: Path) -> None:
    full = fourier(phantom()[0])
    scan = Scan()
    for row in range(ROWS):
        scan.add(full[:, row, 6:], kspace_encode_step_1=row, centre=COLS // 2 - 6)
    found = read(scan.write(tmp_path / "a.h5"))
    assert found.data[0][..., 6:] == pytest.approx(full[..., 6:], abs=1e-5) and not found.data[0][..., :6].any()


def test_averages_are_averaged_and_other_repetitions_named(tmp_path: Path) -> None:
    full = fourier(phantom()[0])
    scan = Scan()
    for repetition in (0, 3):
        for average in (0, 1):
            scan.add_image(full * (1 + average + 10 * repetition), average=average, repetition=repetition)
    path = scan.write(tmp_path / "a.h5")
    first = read(path)
    assert first.data[0] == pytest.approx(1.5 * full, abs=1e-4)
    assert "repetition 0, 3: 0 is read" in said(first) and "averaged" in said(first)
    assert read(path, scan="repetition=3").data[0] == pytest.approx(31.5 * full, abs=1e-3)
    error = refusal(path, scan="repetition=1")
    assert error.field == "input.scan" and "0, 3" in str(error.remedy)
    assert "contrast=NUMBER" in str(refusal(path, scan="echo=1").remedy)


def test_slices_are_ordered_and_spaced_by_position(tmp_path: Path) -> None:
    images = phantom(slices=4)
    scan = Scan()
    for number, place in enumerate((2, 0, 3, 1)):  # interleaved
        scan.add_image(fourier(images[place]), slice=number, position=(0.0, 0.0, 7.5 * place))
    path = scan.write(tmp_path / "a.h5")
    found = read(path)
    assert picture(found.data) == pytest.approx(images, abs=1e-5)
    assert found.acquisition.slice_mm == pytest.approx(7.5)  # slices of 5 mm with gaps
    assert found.affine is not None and found.affine[:3, 2] == pytest.approx((0, 0, 7.5))
    part = read(path, slices=[1, 3])
    assert picture(part.data) == pytest.approx(images[1:3], abs=1e-5)
    assert part.affine is not None and part.affine[2, 3] == pytest.approx(7.5)
    assert refusal(path, slices=[1, 5]).field == "input.slices"


def test_slices_that_are_not_parallel_are_no_volume(tmp_path: Path) -> None:
    images = phantom(slices=3)
    scan = Scan()
    ways = (((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1)))
    for number, (read_dir, phase_dir) in enumerate(ways):
        scan.add_image(fourier(images[number]), slice=number, read_dir=read_dir, phase_dir=phase_dir)
    path = scan.write(tmp_path / "a.h5")
    error = refusal(path)
    assert error.field == "input.slices" and "not parallel" in error.message
    assert picture(read(path, slices=[1, 2]).data) == pytest.approx(images[1:2], abs=1e-5)


def test_parallel_slices_of_a_mixed_stack_are_sorted_too(tmp_path: Path) -> None:
    images = phantom(slices=4)
    scan = Scan()
    scan.add_image(fourier(images[3]), slice=0, read_dir=(0, 1, 0), phase_dir=(0, 0, -1))
    for number, place in enumerate((2, 0, 1), start=1):  # interleaved
        scan.add_image(fourier(images[place]), slice=number, position=(0.0, 0.0, 7.5 * place))
    found = read(scan.write(tmp_path / "a.h5"), slices=[1, 4])
    assert picture(found.data) == pytest.approx(images[:3], abs=1e-5)
    assert found.affine is not None and found.affine[:3, 2] == pytest.approx((0, 0, 7.5))


@pytest.mark.parametrize("vendor", ["", "SIEMENS"])
def test_the_image_is_turned_as_radiology_shows_it(tmp_path: Path, vendor: str) -> None:
    """An axial head, measured with the readout from the back to the front and lines from left to right."""
    shown = phantom(rows=COLS, cols=COLS)[0]
    # Of an even number of pixels, the mirror image about the middle one has the first at the other end.
    kspace = fourier(np.roll(shown.transpose(0, 2, 1)[:, ::-1, ::-1], 1, (1, 2)))
    scan = Scan()
    # Siemens states its directions for the forward transform.
    scan.add_image(kspace.conj() if vendor else kspace, read_dir=(0, -1, 0), phase_dir=(-1, 0, 0))
    found = read(scan.write(tmp_path / "a.h5", header((COLS, COLS, 1), fov=(64.0, 64.0, 5.0), vendor=vendor)))
    assert picture(found.data[0]) == pytest.approx(shown, abs=1e-5)
    assert found.affine is not None
    assert found.affine[:3, :2] == pytest.approx(np.array([(-2, 0), (0, -2), (0, 0)]))
    assert found.affine @ (COLS // 2, COLS // 2, 0, 1) == pytest.approx((0, 0, 0, 1))
    assert "as radiology shows" in said(found)


def test_pixels_become_square_by_points_that_were_not_measured(tmp_path: Path) -> None:
    full = fourier(phantom()[0])
    scan = Scan()
    scan.add_image(full)
    found = read(scan.write(tmp_path / "a.h5", header(fov=(64.0, 72.0, 5.0))))
    assert found.data.shape == (1, 2, 36, COLS)
    assert found.data[0][:, 6:30] == pytest.approx(full, abs=1e-5) and not found.data[0][:, :6].any()
    assert found.affine is not None and np.diag(found.affine)[:2] == pytest.approx((-2, -2))


def test_reversed_lines_are_turned_and_their_phase_corrected(tmp_path: Path) -> None:
    image = phantom()[0]
    full = fourier(image)
    delay = np.exp(1j * (0.15 * (np.arange(COLS) - COLS // 2) + 0.4))  # of lines that ran backwards

    def backwards(line: np.ndarray) -> np.ndarray:
        profile = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(line, axes=-1)), axes=-1) * delay
        return np.fft.fftshift(np.fft.fft(np.fft.ifftshift(profile, axes=-1)), axes=-1)[:, ::-1]

    scan = Scan()
    centre = full[:, ROWS // 2]
    for flags, line in ((0, centre), (REVERSE, backwards(centre)), (0, centre)):
        scan.add(line, flags=flags | PHASE_CORRECTION)
    for row in range(ROWS):
        odd = row % 2
        scan.add(backwards(full[:, row]) if odd else full[:, row], flags=REVERSE * odd, kspace_encode_step_1=row)
    path = scan.write(tmp_path / "a.h5", header(trajectory="epi"))
    found = read(path)
    ghost = np.linalg.norm(picture(found.data[0]) - image) / np.linalg.norm(image)
    assert ghost < 1e-3 and "corrected by reference lines" in said(found)
    for head in scan.heads[:3]:
        head["idx"]["repetition"] = 1
    others = read(scan.write(tmp_path / "c.h5", header(trajectory="epi")))
    assert picture(others.data[0]) == pytest.approx(picture(found.data[0])) and "has no reference lines" in said(others)
    for head in scan.heads[:3]:
        head["idx"]["repetition"] = 0
    scan.add(centre, flags=PHASE_CORRECTION, repetition=1)  # of another repetition, whose phase has drifted
    scan.add(backwards(centre) * 1j, flags=REVERSE | PHASE_CORRECTION, repetition=1)
    drifted = read(scan.write(tmp_path / "d.h5", header(trajectory="epi")))
    assert picture(drifted.data[0]) == pytest.approx(picture(found.data[0]))
    scan.heads, scan.lines, scan.places = scan.heads[3:-2], scan.lines[3:-2], scan.places[3:-2]
    assert "expect ghosts" in said(read(scan.write(tmp_path / "b.h5", header(trajectory="epi"))))


def test_3d_scans_become_slices(tmp_path: Path) -> None:
    images = phantom(slices=6)
    volume = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(fourier(images), axes=0), axis=0, norm="ortho"), axes=0)
    scan = Scan()
    for partition in range(6):
        scan.add_image(volume[partition], kspace_encode_step_2=partition)
    xml = header((COLS, ROWS, 6), (COLS, ROWS, 6), (64.0, 48.0, 12.0))
    path = scan.write(tmp_path / "a.h5", xml)
    found = read(path)
    assert picture(across_readout(found.data.astype(np.complex64), "slices")) == pytest.approx(images, abs=1e-5)
    assert found.affine is not None and found.affine @ (COLS // 2, ROWS // 2, 3, 1) == pytest.approx((0, 0, 0, 1))
    assert found.acquisition.slice_mm == pytest.approx(2.0)
    assert picture(read(path, slices=[2, 3]).data) == pytest.approx(images[2:3], abs=1e-5)


@pytest.mark.parametrize("turned", [False, True], ids=["along its normal", "against it"])
def test_partitions_count_along_the_slice_direction_that_the_file_states(tmp_path: Path, turned: bool) -> None:
    images = phantom(slices=6)
    volume = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(fourier(images), axes=0), axis=0, norm="ortho"), axes=0)
    whole, some = Scan(), Scan()
    direction = (0, 0, -1 if turned else 1)
    for partition in range(6):
        where = {"kspace_encode_step_2": partition, "slice_dir": direction}
        whole.add_image(volume[partition], **where)
        some.add_image(volume[partition], range(partition % 2, ROWS, 2), **where)
    xml = header((COLS, ROWS, 6), (COLS, ROWS, 6), (64.0, 48.0, 12.0))
    found = read(whole.write(tmp_path / "a.h5", xml), slices=[0, 6])
    assert picture(found.data) == pytest.approx(images[::-1] if turned else images, abs=1e-5)
    # The brightest spot is in partition 5: two pixels of 2 mm from the middle, upwards or downwards.
    assert found.affine is not None
    image = abs(picture(found.data[:, 0]))
    slice_, row, col = np.argwhere(image > 0.99 * image.max())[0]
    assert (found.affine @ (col, row, slice_, 1))[2] == pytest.approx(-4 if turned else 4)
    assert "slice direction that the file states" in said(found)
    left_out = read(some.write(tmp_path / "b.h5", xml))
    assert left_out.affine == pytest.approx(found.affine) and left_out.data.shape == found.data.shape


def test_a_field_of_view_of_zero_is_no_pixel_size(tmp_path: Path) -> None:
    scan = Scan()
    scan.add_image(fourier(phantom()[0]))
    path = scan.write(tmp_path / "a.h5", header(fov=(0.0, 0.0, 0.0), position=""))
    found = read(path)
    assert found.acquisition.pixel_mm is None and found.affine is None and "acquisition.pixel_mm" in said(found)
    assert picture(found.data[0]) == pytest.approx(phantom()[0], abs=1e-5)
    given = read(path, acquisition={"kind": "mri-cartesian", "pixel_mm": 1.5})
    assert given.acquisition.pixel_mm == 1.5


PATIENT = (
    "<subjectInformation><patientName>Grün^Élodie</patientName><patientWeight_kg>61.5</patientWeight_kg>"
    "<patientID>42</patientID><patientBirthdate>1970-01-01</patientBirthdate><patientGender>F</patientGender>"
    "</subjectInformation><studyInformation><studyDate>2020-02-29</studyDate><studyTime>22:34:35.5</studyTime>"
    "<accessionNumber>17</accessionNumber><studyDescription>Head</studyDescription>{uid}</studyInformation>"
)


def test_patient_and_study_are_those_of_the_header(tmp_path: Path) -> None:
    def source(uid: str, patient: str = PATIENT) -> Dataset:
        xml = header().replace("<measurementInformation>", patient.format(uid=uid) + "<measurementInformation>")
        return Dataset.from_json(dict(read(whole().write(tmp_path / "a.h5", xml)).source))

    uid = "<studyInstanceUID>1.2.3.4</studyInstanceUID>"
    found = source(uid)
    assert found.PatientName == "Grün^Élodie" and found.PatientID == "42" and found.PatientSex == "F"
    assert found.PatientBirthDate == "19700101" and found.PatientWeight == 61.5 and found.PatientPosition == "HFS"
    assert found.StudyInstanceUID == "1.2.3.4" and found.StudyDate == "20200229" and found.StudyTime == "223435.5"
    assert found.AccessionNumber == "17" and found.StudyDescription == "Head"
    assert len(source("")) == 0 and len(source("<studyInstanceUID>none</studyInstanceUID>")) == 0
    damaged = source(uid, PATIENT.replace("1970-01-01", "long ago").replace("61.5", "heavy"))
    assert "PatientBirthDate" not in damaged and "PatientWeight" not in damaged and damaged.PatientID == "42"
    path = tmp_path / "a.h5"
    wanted: dict[str, Any] = {"format": "ismrmrd", "output": {"format": "dicom-enhanced"}, "progress": False}
    result = recon.reconstruct(path, method="zero-filled", **wanted)
    written = dcmread(next(result.save(tmp_path / "out").glob("*.dcm")))
    assert written.PatientID == "42" and written.StudyInstanceUID == "1.2.3.4" and written.PatientSex == "F"
    assert "Patient and study are those of the raw data." in written.DerivationDescription
    assert "Grün" not in repr(read(path)) and "Grün" not in result.report.model_dump_json()


def whole() -> Scan:
    scan = Scan()
    scan.add_image(fourier(phantom()[0]))
    return scan


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (header(trajectory="spiral"), "the readouts carry no trajectory"),
        (header(trajectory="radial"), "the readouts carry no trajectory"),
        (header((COLS, ROWS - 4, 1)), "4 readouts have a line outside of the 20"),
        (header((COLS - 8, ROWS, 1)), "32 samples"),
        ("<ismrmrdHeader/>", "no encoding"),
        ("<html>", "cannot be read"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><ismrmrdHeader>&a;</ismrmrdHeader>', "declares entities"),
        (header().replace("<x>32</x>", "<x>nan</x>"), "finite number"),
        (header().replace("<x>32</x>", "<x>many</x>"), "expected a number"),
        (header((-3, ROWS, 1)), "encodedSpace of"),
    ],
)
def test_headers_that_are_wrong_or_of_another_kind(tmp_path: Path, xml: str, says: str) -> None:
    assert says in refusal(whole().write(tmp_path / "a.h5", xml)).message


def test_a_header_that_promises_too_much_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    error = refusal(whole().write(tmp_path / "a.h5", header((COLS, 65536, 65536), fov=(64.0, 48.0, 5.0))))
    assert isinstance(error, ResourceLimit)


def test_files_that_are_damaged_or_hold_something_else(tmp_path: Path) -> None:
    path = whole().write(tmp_path / "a.h5")
    content = path.read_bytes()
    for length in (100, 3000, len(content) // 2, len(content) - 500):
        path.write_bytes(content[:length])
        assert refusal(path).field == "input"
    images = tmp_path / "images.h5"
    with h5py.File(images, "w") as file:
        file["2019/image_0/data"] = np.zeros((1, 1, 1, 8, 8), np.float32)
        file["2019/image_0/header"] = np.zeros(1, HEAD_OF_IMAGE)
    assert "images, not raw data" in refusal(images).message
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["dataset"] = h5py.ExternalLink("a.h5", "dataset")
    assert "0 groups" in refusal(tmp_path / "link.h5").message
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dataset/data"] = np.zeros((4, 4))
        file["dataset/xml"] = np.array([header()], dtype=object).astype(h5py.string_dtype())
    assert "no table" in refusal(tmp_path / "other.h5").message


HEAD_OF_IMAGE = np.dtype([("version", "<u2")])


def test_acquisitions_that_contradict_their_headers(tmp_path: Path) -> None:
    scan = whole()
    scan.heads[3]["number_of_samples"] = 16
    scan.heads[3]["center_sample"] = 8
    assert "acquisition 3 has 128 numbers, its header says 64" in refusal(scan.write(tmp_path / "a.h5")).message
    scan = whole()
    scan.lines[0][0, 0] = np.nan
    assert "not finite" in refusal(scan.write(tmp_path / "b.h5")).message
    scan = Scan()
    scan.add(np.ones((2, COLS)), flags=NOISE)
    assert "no acquisition of an image" in refusal(scan.write(tmp_path / "c.h5")).message
    scan = whole()
    scan.add(np.ones((3, COLS)))
    assert "2 to 3 coils" in refusal(scan.write(tmp_path / "d.h5")).message
    scan = whole()
    scan.heads[0]["encoding_space_ref"] = 4
    assert "encoding 4" in refusal(scan.write(tmp_path / "e.h5")).message
