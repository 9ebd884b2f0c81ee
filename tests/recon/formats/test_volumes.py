"""Image volumes of NIfTI, Analyze, MetaImage and NRRD: values, axes, place in the patient, and what is no volume."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from operators.errors import ReconError
from recon.formats import metaimage, nifti, nrrd, reader
from recon.formats.detect import locate
from recon.formats.format import Format, KnownVolume
from recon.pipeline.reconstruct import run
from recon.spec.job import Input, JobSpec, format_of, local_files
from recon.spec.registry import FORMATS
from tests.conftest import image

REAL = Path(__file__).parents[2] / "data" / "formats"
VOLUME = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)
"""``(slices, rows, cols)``"""


def read(path: Path, **more: Any) -> KnownVolume:
    chosen: Format = FORMATS[str(format_of(path.name) or "nifti")]
    assert chosen.read is not None
    found = chosen.read(path, Input(path=str(path), **more))
    assert isinstance(found, KnownVolume)
    return found


def refusal(path: Path, **more: Any) -> ReconError:
    with pytest.raises(ReconError) as error:
        read(path, **more)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    return error.value


# --- NIfTI ------------------------------------------------------------------------------------------------------------


def test_twins_of_either_byte_order_are_the_same() -> None:
    big, little = read(REAL / "nifti" / "big.nii.gz"), read(REAL / "nifti" / "little.nii.gz")
    assert big.data.shape == (21, 64, 64) and np.array_equal(big.data, little.data)
    assert np.array_equal(big.affine, little.affine) and big.codes == (0, 1)  # a qform alone
    assert big.affine == pytest.approx(image(REAL / "nifti" / "big.nii.gz").affine)


@pytest.mark.parametrize("name", ["air2.hdr.gz", "air2.img.gz"])
def test_pairs_of_header_and_numbers(name: str) -> None:
    found = read(REAL / "nifti" / name)
    expected = nib.Nifti2Pair.from_filename(REAL / "nifti" / "air2.hdr.gz")
    assert np.array_equal(found.data, np.asarray(expected.dataobj).T) and found.in_patient
    assert found.affine == pytest.approx(expected.affine)


def test_one_of_several_volumes_is_asked_for_and_scaled() -> None:
    path = REAL / "nifti" / "functional.nii"
    error = refusal(path)
    assert error.field == "input.scan" and "20 volumes" in error.message and "volume=19" in str(error.remedy)
    found = read(path, scan="volume=7")
    assert found.data == pytest.approx(image(path).get_fdata()[..., 7].T)
    assert refusal(path, scan="volume=20").field == "input.scan"
    assert "'time=1' does not say" in refusal(path, scan="time=1").message
    five = REAL / "nifti" / "5D_small.nii"
    assert read(five, scan="volume=2").data == pytest.approx(image(five).get_fdata()[..., 0, 2].T, rel=1e-6)
    second = REAL / "nifti" / "example_nifti2.nii.gz"
    assert np.array_equal(read(second, scan="volume=1").data, image(second).get_fdata()[..., 1].T)


def test_analyze_does_not_say_how_it_lies(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(VOLUME.T, np.diag([-2.0, 3.0, 4.0, 1.0])), tmp_path / "a.img")
    found = read(tmp_path / "a.hdr")
    assert np.array_equal(found.data, VOLUME) and not found.in_patient and "Analyze" in found.notes[0]
    assert np.linalg.norm(found.affine[:3, :3], axis=0) == pytest.approx((2, 3, 4))
    job = JobSpec.parse({"input": str(tmp_path), "acquisition": "mri-superresolution"})
    assert locate(tmp_path, job.input).path == tmp_path / "a.hdr"  # the folder has one header
    assert locate(tmp_path / "a.img", Input(path="a.img")).format.name == "nifti"
    (tmp_path / "a.img").unlink()
    assert "no file a.img or a.img.gz beside a.hdr" in refusal(tmp_path / "a.hdr").message


def test_only_slices_that_are_asked_for_are_checked(tmp_path: Path, asymmetric: np.ndarray) -> None:
    asymmetric[3] = np.nan
    nifti.write(tmp_path / "a.nii", asymmetric, np.diag([2.0, 2.0, 5.0, 1.0]), "")
    checked(tmp_path / "a.nii", slices=[0, 3])
    with pytest.raises(ReconError, match=r"not finite, the first at \(3, 0, 0\)"):
        checked(tmp_path / "a.nii")


def test_a_picture_of_two_axes_is_one_slice(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOLUME[0].T, np.eye(4)), tmp_path / "a.nii")
    assert np.array_equal(read(tmp_path / "a.nii").data, VOLUME[:1])


CODES = [(1, 1), (4, 0), (2, 1), (0, 1), (0, 0)]


@pytest.mark.parametrize("codes", CODES, ids=str)
def test_codes_of_the_input_are_those_of_the_result(
    tmp_path: Path, ct_file: Path, asymmetric: np.ndarray, codes: tuple[int, int]
) -> None:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    nifti.write(tmp_path / "in.nii.gz", asymmetric, affine, "", codes)
    job = {"input": {"path": str(tmp_path / "in.nii.gz"), "slices": [0, 2]}, "acquisition": "ct-parallel"}
    spec = JobSpec.parse({**job, "method": "fbp", "output": {"montage": False}})
    run(spec, local_files(spec), tmp_path / "out")
    written = image(tmp_path / "out" / "volume.nii.gz")
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == codes
    for code, found in zip(codes, (written.get_sform(), written.get_qform()), strict=True):
        assert not code or found == pytest.approx(affine, abs=1e-5)


def test_a_scanners_frame_is_not_taken_for_the_patients_when_it_is_read_back(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.zeros((2, 6, 20), np.float32))
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 6}, "detector_mm": 0.5, "mu_water_per_mm": 0.02}
    output = {"montage": False}
    spec = JobSpec.parse(
        {"input": str(tmp_path / "s.npy"), "acquisition": acquisition, "method": "fbp", "output": output}
    )
    run(spec, local_files(spec), tmp_path / "out")
    path = tmp_path / "out" / "volume.nii.gz"
    found = read(path)
    assert found.codes == (0, 0) and not found.in_patient and "does not say how it lies" in found.notes[0]
    assert found.affine == pytest.approx(image(path).get_sform())  # rows downwards, the origin on the axis
    again = JobSpec.parse({"input": {"path": str(path), "unit": "HU"}, "acquisition": "ct-parallel", "method": "fbp",
                           "output": output})  # fmt: skip
    run(again, local_files(again), tmp_path / "again")
    second = image(tmp_path / "again" / "volume.nii.gz")
    assert int(second.header["sform_code"]) == int(second.header["qform_code"]) == 0
    assert second.get_sform() == pytest.approx(found.affine)


def test_a_qform_that_leads_elsewhere_is_said(tmp_path: Path) -> None:
    made = nib.Nifti1Image(VOLUME.T, np.diag([2.0, 2.0, 3.0, 1.0]))
    made.set_qform(np.diag([-2.0, -2.0, 3.0, 1.0]), 1)
    nib.save(made, tmp_path / "a.nii")
    found = read(tmp_path / "a.nii")
    assert found.codes == (2, 0) and "leads elsewhere" in found.notes[0]


# --- what is in HU, and what is straight ------------------------------------------------------------------------------


def checked(path: Path, kind: str = "ct-parallel", **more: Any) -> None:
    job = JobSpec.parse({"input": {"path": str(path), **more}, "acquisition": kind, "method": "tv"})
    reader.check(job, local_files(job))


@pytest.mark.parametrize(
    "changed",
    [
        lambda hu: (hu + 1024).clip(0),  # as it is stored
        lambda hu: (hu / 1000).clip(-1, 1),
        lambda hu: 0.02 * (1 + hu / 1000),
        lambda hu: (hu + 1000) / 8,  # eight bits
        lambda hu: hu.clip(-160, 240),  # a window
    ],
)
def test_values_that_need_not_be_hu_are_asked_about(tmp_path: Path, asymmetric: np.ndarray, changed: Any) -> None:
    path = tmp_path / "a.nii.gz"
    nifti.write(path, changed(asymmetric).astype(np.float32), np.eye(4), "")
    with pytest.raises(ReconError, match="a CT volume in HU has air near -1000") as error:
        checked(path)
    assert error.value.field == "input" and "input.unit: HU" in str(error.value.remedy)
    checked(path, unit="HU")
    nifti.write(path, asymmetric, np.eye(4), "")
    checked(path)


@pytest.mark.parametrize("kind", ["ct-parallel", "mri-superresolution"])
def test_sheared_voxels_are_refused(tmp_path: Path, asymmetric: np.ndarray, kind: str) -> None:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[1, 2] = 5 * np.tan(np.deg2rad(15))
    volume = asymmetric if kind == "ct-parallel" else asymmetric + 1000
    nifti.write(tmp_path / "a.nii.gz", volume, affine, "", (1, 0))
    with pytest.raises(ReconError, match=r"sheared by 15\.0 degrees"):
        checked(tmp_path / "a.nii.gz", kind)


# --- MetaImage --------------------------------------------------------------------------------------------------------


def test_a_real_metaimage_is_read_whole() -> None:
    found = read(REAL / "metaimage" / "3DCT_lung_baseline_small.mha")
    assert found.data.shape == (64, 78, 57) and (found.data.min(), found.data.max()) == (-1130, 1379)
    assert found.affine == pytest.approx(
        np.array([[-2.732, 0, 0, 152.461], [0, -2.732, 0, 148.986], [0, 0, 5, -1432], [0, 0, 0, 1]])
    )
    assert found.in_patient
    flat = read(REAL / "metaimage" / "fixed.mhd")
    assert flat.data.shape == (1, 256, 256) and (flat.data.min(), flat.data.max()) == (-2, 217) and not flat.in_patient


def meta(path: Path, numbers: bytes, name: str = "LOCAL", **changed: Any) -> Path:
    tags: dict[str, Any] = {
        "ObjectType": "Image", "NDims": 3, "BinaryData": True, "BinaryDataByteOrderMSB": False, "CompressedData": False,
        "TransformMatrix": "0 1 0 1 0 0 0 0 1", "Offset": "10 20 30", "ElementSpacing": "2 3 4", "DimSize": "5 4 3",
        "ElementType": "MET_SHORT", **changed, "ElementDataFile": name,
    }  # fmt: skip
    header = "".join(f"{tag} = {value}\n" for tag, value in tags.items() if value is not None).encode()
    path.write_bytes(header + (numbers if name == "LOCAL" else b""))
    return path


def test_metaimages_local_compressed_and_of_either_byte_order(tmp_path: Path) -> None:
    big, little = VOLUME.astype(">i2").tobytes(), VOLUME.astype("<i2").tobytes()
    paths = [
        meta(tmp_path / "a.mha", little),
        meta(tmp_path / "b.mha", big, BinaryDataByteOrderMSB=True),
        meta(tmp_path / "c.mha", zlib.compress(little), CompressedData=True),
        meta(tmp_path / "d.mhd", b"", "raw/d.raw", HeaderSize=-1),
        meta(tmp_path / "e.mhd", b"", "raw/e.zraw", CompressedData=True),
    ]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "d.raw").write_bytes(bytes(100) + little)
    (tmp_path / "raw" / "e.zraw").write_bytes(zlib.compress(little))
    for path in paths:
        found = read(path)
        assert np.array_equal(found.data, VOLUME) and found.in_patient
        # The first axis of the image runs along the patient's second, in LPS.
        assert found.affine == pytest.approx(np.array([[0, -3, 0, -10], [-2, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]))
    several = meta(tmp_path / "f.mha", little * 2, NDims=4, DimSize="5 4 3 2", ElementSpacing="2 3 4 1",
                   Offset="10 20 30 0", TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")  # fmt: skip
    assert refusal(several).field == "input.scan"
    assert np.array_equal(read(several, scan="volume=1").data, VOLUME)
    assert not read(meta(tmp_path / "g.mha", little, TransformMatrix=None)).in_patient


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ElementType": "MET_STRING"}, "holds MET_STRING"),
        ({"ElementType": None}, "no ElementType"),
        ({"DimSize": "5 4"}, "DimSize is '5 4', expected 3 numbers"),
        ({"DimSize": "5 4 -3"}, "has sizes (5, 4, -3)"),
        ({"DimSize": "5 4 4"}, "promises 160 bytes, it holds 120"),
        ({"DimSize": "50000 50000 50000"}, "the limit is"),
        ({"ElementNumberOfChannels": 3}, "several values per voxel"),
        ({"BinaryData": False}, "as text"),
        ({"CompressedData": True}, "truncated or damaged"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "singular"),
        ({"ElementSpacing": "nan 1 1"}, "ElementSpacing is 'nan 1 1'"),
        ({"NDims": 1e9}, "expected 1000000000 numbers"),
        ({"name": "/etc/passwd"}, "outside of its folder"),
        ({"name": "../a.raw"}, "outside of its folder"),
        ({"name": "none.raw"}, "there is no such file"),
        ({"name": "LIST"}, "a file each"),
    ],
)
def test_metaimages_that_lie(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    assert says in refusal(meta(tmp_path / "a.mha", VOLUME.tobytes(), **changed)).message


# --- NRRD -------------------------------------------------------------------------------------------------------------


def test_a_real_nrrd_is_read_whole() -> None:
    found = read(REAL / "nrrd" / "breast1_image.nrrd")
    assert found.data.shape == (21, 120, 45) and (found.data.min(), found.data.max()) == (6, 248)
    assert found.affine == pytest.approx(
        np.array([[-0.664062, 0, 0, 116.54304], [0, -0.664062, 0, 48.144654], [0, 0, 2.1, 9.45], [0, 0, 0, 1]])
    )
    assert found.in_patient


def teem(path: Path, numbers: bytes, **changed: Any) -> Path:
    fields: dict[str, Any] = {
        "type": "short", "dimension": 3, "space": "left-posterior-superior", "sizes": "5 4 3",
        "space directions": "(2,0,0) (0,-3,0) (0,0,4)", "kinds": "domain domain domain", "endian": "little",
        "encoding": "raw", "space origin": "(10,20,30)", **{n.replace("_", " "): v for n, v in changed.items()},
    }  # fmt: skip
    header = "NRRD0004\n# comment\n" + "".join(f"{n}: {v}\n" for n, v in fields.items() if v is not None)
    detached = "data_file" in changed or "datafile" in changed
    path.write_bytes(header.encode() + (b"" if detached else b"\n" + numbers))
    return path


PLACE = np.array([[-2, 0, 0, -10], [0, 3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])


def test_nrrds_attached_detached_and_of_any_space(tmp_path: Path) -> None:
    little = VOLUME.astype("<i2").tobytes()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "d.raw").write_bytes(b"two\nlines\n" + little)
    (tmp_path / "e.gz").write_bytes(gzip.compress(bytes(7) + little))
    paths = [
        teem(tmp_path / "a.nrrd", little),
        teem(tmp_path / "b.nrrd", VOLUME.astype(">i2").tobytes(), endian="big"),
        teem(tmp_path / "c.nrrd", gzip.compress(little[:50]) + gzip.compress(little[50:]), encoding="gzip"),
        teem(tmp_path / "d.nhdr", b"", data_file="raw/d.raw", line_skip=2),
        teem(tmp_path / "e.nhdr", b"", datafile="e.gz", encoding="gz", byte_skip=7),
        teem(tmp_path / "f.nrrd", bytes(99) + little, byte_skip=-1),
        teem(tmp_path / "g.nrrd", little, space="RAS", **{"space directions": "(-2,0,0) (0,3,0) (0,0,4)",
                                                          "space origin": "(-10,-20,30)"}),
    ]  # fmt: skip
    for path in paths:
        found = read(path)
        assert np.array_equal(found.data, VOLUME) and found.affine == pytest.approx(PLACE) and found.in_patient
    sizes = read(teem(tmp_path / "h.nrrd", little, space=None, spacings="2 3 4", **{"space directions": None,
                                                                                   "space origin": None}))  # fmt: skip
    assert np.diag(sizes.affine)[:3] == pytest.approx((2, 3, 4)) and not sizes.in_patient
    assert not read(teem(tmp_path / "i.nrrd", little, space="scanner-xyz")).in_patient


def test_an_axis_of_several_volumes_is_found_wherever_it_is(tmp_path: Path) -> None:
    both = np.stack([VOLUME, VOLUME + 100])
    inner = both.transpose(1, 2, 3, 0).astype("<i2").tobytes()
    first = teem(tmp_path / "a.nrrd", inner, dimension=4, sizes="2 5 4 3",
                 kinds="vector domain domain domain", space_directions="none (2,0,0) (0,-3,0) (0,0,4)")  # fmt: skip
    last = teem(tmp_path / "b.nrrd", both.astype("<i2").tobytes(), dimension=4, sizes="5 4 3 2",
                kinds="domain domain domain list", space_directions="(2,0,0) (0,-3,0) (0,0,4) none")  # fmt: skip
    for path in (first, last):
        assert "2 volumes" in refusal(path).message
        found = read(path, scan="volume=1")
        assert np.array_equal(found.data, VOLUME + 100) and found.affine == pytest.approx(PLACE)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"type": "block"}, "holds 'block'"),
        ({"type": None}, "lacks type"),
        ({"endian": None}, "lacks endian"),
        ({"encoding": "bzip2"}, "the encoding of a.nrrd is 'bzip2'"),
        ({"encoding": "gzip"}, "truncated or damaged"),
        ({"sizes": "5 4"}, "sizes is '5 4'"),
        ({"sizes": "5 4 4"}, "promises 160 bytes"),
        ({"sizes": "0 4 3"}, "has sizes (0, 4, 3)"),
        ({"sizes": "99999 99999 99999"}, "the limit is"),
        ({"byte_skip": 10**12}, "begin at byte"),
        ({"byte_skip": -5}, "begin at byte"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, "singular"),
        ({"space_directions": "(1,0,0) (0,nan,0) (0,0,1)"}, "singular or not finite"),
        ({"space_directions": "(1,0,0) what"}, "space directions are"),
        ({"data_file": "/etc/passwd"}, "outside of its folder"),
        ({"data_file": "LIST"}, "a file each"),
    ],
)
def test_nrrds_that_lie(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    assert says in refusal(teem(tmp_path / "a.nrrd", VOLUME.tobytes(), **changed)).message


def test_numbers_elsewhere_are_not_read_for_an_upload_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_bytes(VOLUME.tobytes())
    header = meta(tmp_path / "a.mhd", b"", "meta.json")
    with pytest.raises(ReconError, match="this upload is one file"):
        metaimage.FORMAT.read(header, Input(upload="a" * 26))  # type: ignore[misc]
    detached = teem(tmp_path / "a.nhdr", b"", data_file="meta.json")
    with pytest.raises(ReconError, match="this upload is one file"):
        nrrd.FORMAT.read(detached, Input(upload="a" * 26))  # type: ignore[misc]
    (tmp_path / "a.nhdr").unlink()
    (tmp_path / "meta.json").rename(tmp_path / "a.raw")
    meta(tmp_path / "a.mhd", b"", "a.raw")
    found = locate(tmp_path, Input(upload="a" * 26))  # of a folder that was uploaded
    whole = found.format.read(found.path, found.given)  # type: ignore[misc]
    assert isinstance(whole, KnownVolume) and np.array_equal(whole.data, VOLUME)


def test_a_bomb_is_inflated_no_further_than_its_header_promises(tmp_path: Path) -> None:
    """What the header promises is there, 268 MB of zeros follow: nothing is read of them."""
    bomb = zlib.compress(VOLUME.tobytes() + bytes(2**28), 1)
    assert np.array_equal(read(meta(tmp_path / "a.mha", bomb, CompressedData=True)).data, VOLUME)
    cut = meta(tmp_path / "b.mha", zlib.compress(VOLUME.tobytes())[:-6], CompressedData=True)
    assert "truncated or damaged" in refusal(cut).message
