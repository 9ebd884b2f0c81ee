"""Readers: what is right comes in unchanged, what is wrong is refused with field, value, reason and remedy."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from operators.errors import GeometryError, InputError, ReconError, ResourceLimit
from recon.formats import hdf5, htc, nifti, numpy_files, reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.job import JobSpec, local_files
from tests.conftest import SAMPLES, image


def spec(path: Path, **more: Any) -> JobSpec:
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 1.0}
    value = {"input": {"path": str(path)}, "acquisition": acquisition, "method": "fbp", **more}
    return JobSpec.parse(value)


def refusal(job: JobSpec) -> ReconError:
    """The error of a job; reading and checking (the API's way) must agree."""
    with pytest.raises(ReconError) as by_check:
        reader.check(job, local_files(job))
    with pytest.raises(ReconError) as by_read:
        reader.read(job, local_files(job))
    assert str(by_check.value) == str(by_read.value)
    return by_read.value


def sinogram_file(tmp_path: Path, data: np.ndarray) -> Path:
    path = tmp_path / "sinogram.npy"
    np.save(path, data)
    return path


def test_nifti_round_trip_keeps_values_axes_and_affine(tmp_path: Path, ct_file: Path, asymmetric: np.ndarray) -> None:
    volume, affine = nifti.read(ct_file)
    assert np.array_equal(volume, asymmetric)
    stored = image(ct_file)
    assert stored.shape == (40, 48, 4)  # (col, row, slice)
    assert np.allclose(stored.affine, affine)
    assert stored.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("limit", ["8G", "-1"])
def test_a_limit_that_is_no_number_is_named(limit: str, ct_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_MAX_INPUT_BYTES", limit)
    with pytest.raises(InputError, match=rf"^RECON_MAX_INPUT_BYTES: '{limit}' is not a number of bytes"):
        nifti.read(ct_file)


def test_truncated_nifti(tmp_path: Path, ct_file: Path) -> None:
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(ct_file.read_bytes()[:-200])
    error = refusal(spec(cut, acquisition="ct-parallel"))
    assert isinstance(error, InputError) and error.field == "input" and "truncated" in error.message
    plain = tmp_path / "cut.nii"
    plain.write_bytes(gzip.decompress(ct_file.read_bytes())[:-1])
    error = refusal(spec(plain, acquisition="ct-parallel"))
    assert "truncated" in error.message and "promises" in error.message


def test_nifti_that_is_none_and_nifti_with_a_bad_header(tmp_path: Path, ct_file: Path) -> None:
    fake = tmp_path / "fake.nii"
    fake.write_bytes(b"hello" * 1000)
    assert "not a" in refusal(spec(fake, acquisition="ct-parallel")).message
    content = bytearray(gzip.decompress(ct_file.read_bytes()))
    content[280:284] = np.float32(np.nan).tobytes()  # first number of the affine
    bad = tmp_path / "bad.nii"
    bad.write_bytes(content)
    assert "affine" in refusal(spec(bad, acquisition="ct-parallel")).message
    four = tmp_path / "four.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2, 3), np.float32), np.eye(4)), four)
    error = refusal(spec(four, acquisition="ct-parallel"))
    assert error.field == "input.scan" and "3 volumes" in error.message and "volume=2" in str(error.remedy)


def test_nifti_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    image.header.set_data_shape((30000, 30000, 30000))
    path = tmp_path / "bomb.nii"
    with path.open("wb") as stream:
        image.header.write_to(stream)
        stream.write(b"\0" * 36)
    error = refusal(spec(path, acquisition="ct-parallel"))
    assert isinstance(error, ResourceLimit) and error.status == 413


def test_npy_header_that_promises_40_gb(tmp_path: Path) -> None:
    path = tmp_path / "liar.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**10,)})
        stream.write(b"\0" * 16)
    error = refusal(spec(path))
    assert isinstance(error, ResourceLimit) and "40.0 GB" in error.message and error.remedy


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x01\x00\x04\x00((((", b"P" * 99]
)
def test_npy_with_a_damaged_header(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    assert "not a readable .npy" in refusal(spec(path)).message


def test_npy_pickles_and_truncation(tmp_path: Path) -> None:
    path = tmp_path / "pickle.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "object" in refusal(spec(path)).message
    path = sinogram_file(tmp_path, np.zeros((6, 20), np.float32))
    path.write_bytes(path.read_bytes()[:-4])
    error = refusal(spec(path))
    assert "promises 480 bytes" in error.message and "holds 476" in error.message


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        (np.zeros((2, 3, 4, 5), np.float32), "input", "expected (slices, views, detectors)"),
        (np.zeros((2, 7, 20), np.float32), "acquisition.angles_rad", "6 angles for a sinogram"),
        (np.zeros((6, 20), np.complex64), "input", "expected real numbers"),
        (np.full((6, 20), np.nan, np.float32), "input", "120 of 120 values are not finite, the first at (0, 0, 0)"),
        (np.full((6, 20), 4000.0, np.float32), "input", "look like counts or HU"),
        (np.full((6, 20), -1000.0, np.float32), "input", "more photons behind the object"),
        (np.zeros((6, 0), np.float32), "input", "an empty array"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_implausible_sinograms(tmp_path: Path, data: np.ndarray, field: str, says: str) -> None:
    error = refusal(spec(sinogram_file(tmp_path, data)))
    assert error.field == field and says in error.message


def test_k_space_taken_for_a_sinogram_is_recognised(tmp_path: Path) -> None:
    error = refusal(spec(sinogram_file(tmp_path, np.zeros((6, 20), np.complex64))))
    assert error.remedy is not None and "k-space" in error.remedy and "mri-cartesian" in error.remedy


def test_an_axis_beside_the_detector_is_refused_before_the_job_runs(tmp_path: Path) -> None:
    path = sinogram_file(tmp_path, np.zeros((6, 20), np.float32))
    for place in ({"detector_shift_mm": 15.0}, {"rotation_center_column": -5.5}):
        acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 1.0, **place}
        with pytest.raises(GeometryError, match=r"acquisition\.detector_shift_mm: no ray passes near the"):
            job = spec(path, acquisition=acquisition)
            reader.check(job, local_files(job))


def test_missing_sizes_are_named(tmp_path: Path) -> None:
    path = sinogram_file(tmp_path, np.zeros((6, 20), np.float32))
    job = spec(path, acquisition={"kind": "ct-parallel", "angles_rad": {"count": 6}})
    with pytest.raises(InputError, match=r"acquisition\.detector_mm: needed"):
        reader.check(job, local_files(job))
    assert "needed" in refusal(JobSpec.parse({"input": str(path)})).message
    odd = path.rename(tmp_path / "data.bin")
    assert reader.check(spec(odd), local_files(spec(odd))).shape == (1, 6, 20)  # its first bytes leave no doubt
    with h5py.File(odd, "w") as file:  # those of HDF5 do
        file["data"] = np.zeros((6, 20), np.float32)
    assert refusal(spec(odd)).field == "input.format"
    odd.write_bytes(b"whatever")
    assert refusal(spec(odd)).field == "input.format"


def test_nifti_units_and_unknown_orientation(tmp_path: Path, ct_file: Path) -> None:
    found = image(ct_file)
    found.header.set_xyzt_units("micron")
    nib.save(found, tmp_path / "micron.nii.gz")
    assert np.allclose(nifti.read(tmp_path / "micron.nii.gz")[1][:3], found.affine[:3] * 1e-3, atol=1e-6)
    found.header["sform_code"] = found.header["qform_code"] = 0
    found.set_sform(None, 0)
    found.set_qform(None, 0)
    nib.save(found, tmp_path / "lost.nii.gz")
    job = spec(tmp_path / "lost.nii.gz", acquisition="ct-parallel")
    lost = reader.read(job, local_files(job))
    assert not lost.in_patient and "does not say how it lies" in " ".join(lost.notes)
    job = spec(ct_file, acquisition="ct-parallel")
    assert reader.read(job, local_files(job)).in_patient


def test_a_users_rotation_centre_replaces_the_files(tmp_path: Path) -> None:
    acquisition = CTParallel(angles_rad=[0.0, 1.0], detector_mm=0.5, rotation_center_column=9.0)
    path = tmp_path / "m.h5"
    hdf5.write_measurement(path, Measurement(np.zeros((1, 2, 20), np.float32), acquisition))
    job = JobSpec.parse({"input": {"path": str(path), "format": "hdf5"}, "method": "fbp",
                         "acquisition": {"kind": "ct-parallel", "detector_shift_mm": 1.5}})  # fmt: skip
    found = reader.read(job, local_files(job)).acquisition
    assert isinstance(found, CTParallel)
    assert found.detector_shift_mm == 1.5 and found.rotation_center_column is None


def test_damaged_measurement_files(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    acquisition = CTParallel(angles_rad=[0.0, 1.0], detector_mm=0.5)
    hdf5.write_measurement(path, Measurement(np.zeros((2, 20), np.float32), acquisition))
    job = JobSpec.parse({"input": {"path": str(path), "format": "hdf5"}, "method": "fbp"})
    assert "expected (slices, views, detectors)" in refusal(job).message
    for text, says in (("{oops", "attributes"), ('{"kind": "ct-parallel", "pixel_mm": -1}', "-1 is not more than 0")):
        with h5py.File(path, "a") as file:
            file.attrs["acquisition"] = text
        assert says in refusal(job).message


def test_volumes_of_the_wrong_modality(tmp_path: Path, ct_file: Path) -> None:
    assert "is this a CT volume" in str(refusal(spec(ct_file, acquisition="mri-cartesian", method="cg-sense")))
    path = tmp_path / "mri.nii.gz"
    nifti.write(path, np.ones((2, 8, 8), np.float32), np.eye(4), "")
    assert "CT volume in HU has air" in refusal(spec(path, acquisition="ct-parallel")).message
    nifti.write(path, np.full((2, 8, 8), -1000.0, np.float32), np.diag([1.0, 1.5, 1.0, 1.0]), "")
    assert "square" in refusal(spec(path, acquisition="ct-parallel")).message


def test_a_file_of_the_acquisition_has_no_effect_on_a_simulation_and_is_refused(tmp_path: Path, ct_file: Path) -> None:
    np.save(tmp_path / "mask.npy", np.ones((48, 40), bool))
    acquisition = {"kind": "mri-cartesian", "mask": {"path": str(tmp_path / "mask.npy")}}
    value = {"input": {"path": str(ct_file), "simulate": {}}, "acquisition": acquisition, "method": "zero-filled"}
    assert "acquisition.mask: has no effect on a measurement that is simulated" in str(refusal(JobSpec.parse(value)))


@pytest.mark.parametrize(("field", "size_mm"), [("pixel_mm", 1.0), ("slice_mm", 3.0)])
def test_a_size_that_the_stacks_header_contradicts_is_refused(tmp_path: Path, field: str, size_mm: float) -> None:
    path = tmp_path / "stack.nii.gz"
    nifti.write(path, np.ones((4, 8, 8), np.float32), np.diag([0.5, 0.5, 4.0, 1.0]), "stack")

    def job(**sizes: float) -> JobSpec:
        acquisition = {"kind": "mri-superresolution", "factor": 2, **sizes}
        value = {"input": {"path": str(path)}, "acquisition": acquisition, "method": "interpolation"}
        return JobSpec.parse(value)

    error = str(refusal(job(**{field: size_mm})))
    assert f"acquisition.{field}: {size_mm:g} mm, but the file's header says" in error
    right = job(pixel_mm=0.5, slice_mm=4.0)
    assert reader.read(right, local_files(right)).data.shape == (4, 8, 8)


def test_hdf5_follows_no_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["secret"] = np.zeros((6, 20), np.float32)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink("outside.h5", "secret")
        file["soft"] = h5py.SoftLink("/other")
        file["other"] = np.zeros((6, 20), np.float32)
        layout = h5py.VirtualLayout(shape=(6, 20), dtype="f4")
        layout[:] = h5py.VirtualSource(outside, "secret", shape=(6, 20))
        file.create_virtual_dataset("virtual", layout)
    for name in ("data", "soft", "virtual"):
        assert refusal(spec(path, input={"path": str(path), "format": "hdf5", "dataset": name})).field == "input"
    good = spec(path, input={"path": str(path), "format": "hdf5", "dataset": "other"})
    assert reader.read(good, local_files(good)).data.shape == (1, 6, 20)
    error = refusal(spec(path, input={"path": str(path), "format": "hdf5", "dataset": "none"}))
    assert "input.dataset" in str(error.remedy)
    path.write_bytes(path.read_bytes()[:500])
    assert "not a readable HDF5" in refusal(spec(path, input={"path": str(path), "format": "hdf5"})).message


def test_htc_scans(tmp_path: Path) -> None:
    path = SAMPLES / "ct_htc2022.npz"
    data, acquisition = htc.read(path, "ta_subsample73")
    assert data.shape == (1, 61, 560)
    assert acquisition.source_origin_mm == pytest.approx(410.66)
    assert acquisition.origin_detector_mm == pytest.approx(143.08)
    assert np.rad2deg(acquisition.angles() or ()) == pytest.approx(np.arange(299, 329.1, 0.5))
    with pytest.raises(InputError, match=r"input.scan.*holds 4 scans.*ta_subsample73"):
        htc.read(path, None)
    with pytest.raises(InputError, match="'zz' is not in"):
        htc.read(path, "zz")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        htc.read(bad, None)


def test_own_measurement_files_carry_everything(tmp_path: Path) -> None:
    acquisition = CTFan(
        angles_rad=[0.0, 1.0], detector_mm=0.5, source_origin_mm=100.0, origin_detector_mm=50.0, mu_water_per_mm=0.02
    )
    written = Measurement(
        data=np.random.default_rng(0).random((3, 2, 30), dtype=np.float32), acquisition=acquisition,
        affine=np.diag([1.0, 2.0, 3.0, 1.0]), truth=np.ones((3, 8, 8), np.float32), noise_std=0.1,
    )  # fmt: skip
    path = tmp_path / "m.h5"
    hdf5.write_measurement(path, written)
    job = JobSpec.parse({"input": {"path": str(path), "format": "hdf5", "slices": [1, 3]}, "method": "fbp"})
    found = reader.read(job, local_files(job))
    assert np.array_equal(found.data, written.data[1:]) and found.acquisition == acquisition
    assert found.truth is not None and found.truth.shape == (2, 8, 8) and found.noise_std == 0.1
    assert found.affine is not None and found.affine[2, 3] == 3.0  # one slice of 3 mm further
    changed = JobSpec.parse({"input": {"path": str(path), "format": "hdf5"}, "method": "fbp",
                             "acquisition": {"kind": "ct-fan", "pixel_mm": 0.3}})  # fmt: skip
    merged = reader.read(changed, local_files(changed)).acquisition
    assert isinstance(merged, CTFan) and merged.pixel_mm == 0.3 and merged.detector_mm == 0.5
    regridded = reader.read(changed, local_files(changed))
    assert regridded.affine is None and regridded.truth is None and "grid" in regridded.notes[0]
    wrong = JobSpec.parse({"input": {"path": str(path), "format": "hdf5"}, "acquisition": "ct-parallel"})
    assert refusal(wrong).field == "acquisition.kind"
    mri_method = JobSpec.parse({"input": {"path": str(path), "format": "hdf5"}, "method": "cg-sense"})
    assert "does not fit ct-fan" in refusal(mri_method).message
    beyond = JobSpec.parse({"input": {"path": str(path), "format": "hdf5", "slices": [1, 9]}, "method": "fbp"})
    assert refusal(beyond).field == "input.slices"


def test_mri_files_that_do_not_fit(tmp_path: Path) -> None:
    kspace = np.ones((2, 3, 16, 12), np.complex64)
    np.save(tmp_path / "k.npy", kspace)
    np.save(tmp_path / "mask.npy", np.ones((16, 11), bool))
    np.save(tmp_path / "grey.npy", np.full((16, 12), 0.5))
    np.save(tmp_path / "maps.npy", np.ones((4, 16, 12), np.complex64))
    np.save(tmp_path / "real.npy", np.ones((2, 3, 16, 12), np.float32))
    np.save(tmp_path / "zero.npy", np.zeros_like(kspace))

    def says(field: str, **acquisition: str) -> str:
        value = {"kind": "mri-cartesian", **{k: str(tmp_path / v) for k, v in acquisition.items()}}
        error = refusal(spec(tmp_path / "k.npy", acquisition=value, method="cg-sense"))
        assert error.field == field
        return error.message

    assert "k-space is (16, 12)" in says("acquisition.mask", mask="mask.npy")
    assert "only 0 and 1" in says("acquisition.mask", mask="grey.npy")
    assert "k-space is (2, 3, 16, 12)" in says("acquisition.coil_maps", coil_maps="maps.npy")
    real = spec(tmp_path / "real.npy", acquisition="mri-cartesian", method="cg-sense")
    assert "must be complex" in refusal(real).message
    zero = spec(tmp_path / "zero.npy", acquisition="mri-cartesian", method="cg-sense")
    assert "every sample" in refusal(zero).message


def test_missing_file_is_named(tmp_path: Path) -> None:
    error = refusal(spec(tmp_path / "nowhere.npy"))
    assert "nowhere.npy" in error.message
    with pytest.raises(InputError, match="no file"):
        numpy_files.read(tmp_path / "x.npy")


def test_a_measurement_written_before_names_changed_is_read(tmp_path: Path) -> None:
    acquisition = CTParallel(angles_rad=[0.0, 1.0], detector_mm=1.0, photons_per_ray=1e4)
    hdf5.write_measurement(tmp_path / "m.h5", Measurement(np.ones((1, 2, 9), np.float32), acquisition))
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file.attrs["acquisition"] = str(file.attrs["acquisition"]).replace("photons_per_ray", "photons")
    assert hdf5.read_measurement(tmp_path / "m.h5").acquisition == acquisition


def test_only_slices_that_are_asked_for_are_checked(tmp_path: Path) -> None:
    data = np.zeros((4, 6, 20), np.float32)
    data[3] = np.nan
    path = sinogram_file(tmp_path, data)
    found = reader.read(job := spec(path, input={"path": str(path), "slices": [0, 3]}), local_files(job))
    assert found.data.shape == (3, 6, 20)
    assert "not finite" in refusal(spec(path)).message
