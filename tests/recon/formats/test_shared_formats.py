"""Every real file of CT or of a volume in the shared collection: read to what its README says, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import recon
from operators.errors import InputError
from recon.formats import nxtomo, reader
from recon.formats.format import Format, KnownVolume, RawCounts
from recon.formats.inspect import inspect
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.affine import shear_rad, voxel_size
from recon.spec.contents import Contents
from recon.spec.job import Input, JobSpec, format_of, local_files
from recon.spec.registry import FORMATS

Places = NDArray[np.float64]
SHARED = Path(__file__).parents[4] / "shared/data/formats"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="needs shared/data")
KSPACE = {
    "bart-smallfov", "bruker-raw", "ge-pfile", "mrd-brainsim", "mrd-grappa3-pf", "mrd-image", "mrd-spiral-jemris",
    "twix-epi", "twix-gre",
}  # fmt: skip
"""Folders that have tests elsewhere."""
READ = {
    "nxtomo-k11", "tiff-tomopyui", "dxchange-meta", "nikon-axitom", "zeiss-txrm", "dicom-ct-3slice", "dicom-ct-series",
    "dicom-enhanced-ct", "dicom-enhanced-mr", "metaimage", "nrrd", "nifti-odd", "nifti-nibabel", "nifti-niivue",
    "raw-ctsimu",
}  # fmt: skip
REFUSED = {"nxtomo-24737-processed", "zeiss-xrm", "em-tilt", "dicom-mr-mosaic"}


def inspected(name: str, **given: Any) -> Contents:
    return inspect(SHARED / name, Input.model_validate({"path": str(SHARED / name), **given}))


def refusal(name: str, **given: Any) -> InputError:
    with pytest.raises(InputError) as error:
        inspected(name, **given)
    assert "\n" not in str(error.value)
    return error.value


def measured(name: str, acquisition: Any, **given: Any) -> Measurement:
    value = {"input": {"path": str(SHARED / name), **given}, "acquisition": acquisition, "method": "fbp"}
    job = JobSpec.parse(value)
    return reader.read(job, local_files(job))


def volume(name: str, **given: Any) -> KnownVolume:
    chosen: Format = FORMATS[str(format_of(name) or "nifti")]
    assert chosen.read is not None
    found = chosen.read(SHARED / name, Input(path=str(SHARED / name), **given))
    assert isinstance(found, KnownVolume)
    return found


def missing(found: Contents) -> list[str]:
    return [item.field for item in found.missing]


def test_every_folder_is_looked_at() -> None:
    assert {p.name for p in SHARED.iterdir() if p.is_dir()} == KSPACE | READ | REFUSED


# --- measurements -----------------------------------------------------------------------------------------------------


def test_diamond_k11() -> None:
    found = inspected("nxtomo-k11")
    assert (found.format, found.file, found.kind) == ("nxtomo", "k11-18014.nxs", "ct-parallel")
    assert found.shape == [22, 3001, 26] and found.axes == ["slices", "views", "detectors"]
    assert found.angles is not None and found.angles.count == 3001 and found.angles.equispaced
    assert (found.angles.first_deg, found.angles.last_deg) == pytest.approx((89.995, 269.995), abs=1e-3)
    assert "gts_theta_value" in found.angles.source and missing(found) == ["acquisition.detector_mm"]
    assert any("100 flat and 100 dark frames" in note for note in found.notes)
    assert nxtomo.FORMAT.read is not None
    path = SHARED / "nxtomo-k11" / "k11-18014.nxs"
    held = nxtomo.FORMAT.read(path, Input(path=str(path)))
    assert isinstance(held, RawCounts) and held.counts.darks is not None
    assert (held.counts.flats.mean(), held.counts.darks.mean()) == pytest.approx((45317, 99), abs=1)
    assert measured("nxtomo-k11", {"kind": "ct-parallel", "detector_mm": 1e-3}, slices=[3, 5]).data.shape == (
        2,
        3001,
        26,
    )


def test_a_scan_whose_frames_are_not_there() -> None:
    said = refusal("nxtomo-24737-processed").message
    assert "'tomo_p1_dark_flat_field_correction.h5', and there is no such file" in said
    assert "24737.nxs', outside of the folder" in said


def test_line_integrals_in_tiff() -> None:
    found = inspected("tiff-tomopyui")
    assert (found.format, found.shape) == ("tiff", [79, 451, 83])
    assert missing(found) == ["acquisition.kind", "acquisition.detector_mm", "acquisition.angles_rad"]
    assert found.missing[0].suggestion == "ct-parallel" and "count: 451}" in str(found.missing[2].remedy)
    half = {"start_rad": 0.0, "stop_rad": np.pi, "count": 451}
    data = measured("tiff-tomopyui", {"kind": "ct-parallel", "detector_mm": 1.0, "angles_rad": half}).data
    assert data.shape == (79, 451, 83)
    assert (data.min(), data.max()) == pytest.approx((-0.12, 0.62), abs=5e-3)
    assert any("taken as line integrals" in note for note in found.notes)


def test_a_beamlines_records_in_dxchange() -> None:
    found = inspected("dxchange-meta")
    assert (found.format, found.kind, found.shape) == ("dxchange", "ct-parallel", [50, 11, 50]) and not found.missing
    assert found.angles is not None and found.angles.first_deg == 0
    assert found.angles.step_deg == pytest.approx(0.05625)
    assert found.geometry["detector_mm"] == pytest.approx(1.18064e-3, rel=1e-5)
    assert "rotation_center_column" not in found.geometry
    assert any("column 1553 of 50: not used" in note for note in found.notes)
    assert any("to take 6401 views; the file has 11" in note for note in found.notes)


@pytest.mark.parametrize("slices", [None, (1000, 1001)])
def test_the_geometry_of_a_nikon_scan_without_its_projections(slices: tuple[int, int] | None) -> None:
    found = inspected("nikon-axitom", file="radiogram.xtekct", slices=slices)
    kind = "ct-cone" if slices is None else "ct-fan"
    assert (found.format, found.kind, found.shape) == ("nikon", kind, [2000, 3142, 1500])
    fan = found.geometry
    assert fan["source_origin_mm"] == pytest.approx(76.75, abs=5e-3) and fan["detector_mm"] == 0.2
    assert float(fan["source_origin_mm"]) + float(fan["origin_detector_mm"]) == pytest.approx(1127.46, abs=5e-3)
    assert found.angles is not None and found.angles.first_deg == pytest.approx(3.365 - 180)
    assert found.angles.step_deg == pytest.approx(0.1146, abs=5e-5)
    assert missing(found) == ["input"]


def test_the_geometry_of_a_zeiss_scan_without_its_reference() -> None:
    found = inspected("zeiss-txrm")
    assert (found.format, found.kind, found.shape) == ("zeiss", "ct-parallel", [256, 7, 256])
    assert found.angles is not None and found.angles.count == 7
    assert (found.angles.first_deg, found.angles.last_deg) == pytest.approx((-45.018, 44.99), abs=6e-3)
    assert found.geometry["detector_mm"] == pytest.approx(0.1558e-3, rel=1e-3)
    assert missing(found) == ["input"] and "no reference image" in found.missing[0].why
    with pytest.raises(InputError, match="no reference image"):
        measured("zeiss-txrm", None)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("zeiss-xrm", {"file": "test_chip00.xrm"}, "holds one projection, no tomography"),
        ("zeiss-xrm", {"file": "test_chip01.xrm"}, "holds one projection, no tomography"),
        ("raw-ctsimu", {"file": "tetrahedron/projections/tetra_projections.raw"}, "without a header"),
        ("em-tilt", {}, "HAADF.dm3 is a file of an electron microscope"),
        *[(f"dicom-mr-mosaic/axmb/{name}", {}, "is a Siemens mosaic")
          for name in ("AxAsc36mb2a/jpg1.dcm", "AxAsc36mb2a/jpg2.dcm", "AxInt36mb/jp2k1.dcm", "AxInt36mb/jp2k2.dcm")],
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_name(name: str, given: dict[str, Any], says: str) -> None:
    assert says in str(refusal(name, **given))


def test_a_cone_beam_of_ctsimu() -> None:
    asked = inspected("raw-ctsimu")
    assert missing(asked) == ["input.file"] and "tetra_metadata.json" in (asked.missing[0].remedy or "")
    metadata = {"file": "tetrahedron/projections/tetra_metadata.json"}
    found = inspected("raw-ctsimu", **metadata)
    assert (found.format, found.kind, found.shape) == ("ctsimu", "ct-cone", [150, 21, 150])
    acquisition = measured("raw-ctsimu", None, **metadata).acquisition
    assert isinstance(acquisition, CTCone) and acquisition.vectors is not None
    vectors = np.asarray(acquisition.vectors)
    source, detector, u, v = vectors[:, :3], vectors[:, 3:6], vectors[:, 6:9], vectors[:, 9:]
    assert np.linalg.norm(source, axis=1) == pytest.approx(300) and np.linalg.norm(detector, axis=1) == pytest.approx(
        100
    )
    assert np.linalg.norm(u, axis=1) == pytest.approx(1.3) and np.linalg.norm(v, axis=1) == pytest.approx(1.3)
    # The final angle is included: the last view is the first one again.
    assert vectors[-1] == pytest.approx(vectors[0], abs=1e-6)


def inside(triangles: NDArray[np.float64], x: Places, y: Places, z: Places) -> NDArray[np.bool_]:
    """Whether points ``(z, y, x)`` lie inside a closed surface: an odd number of its triangles is above them."""
    found = np.zeros((len(z), len(y), len(x)), np.bool_)
    for a, *others in triangles:
        (bx, by, bz), (cx, cy, cz) = (other - a for other in others)
        area = bx * cy - by * cx
        if abs(area) < 1e-9:  # upright: no ray along z meets it
            continue
        px, py = (x - a[0])[None, :], (y - a[1])[:, None]
        s, t = (px * cy - py * cx) / area, (bx * py - by * px) / area
        height = a[2] + s * bz + t * cz
        found ^= (s >= 0) & (t >= 0) & (s + t < 1) & (height > z[:, None, None])
    return found


def test_the_tetrahedron_of_ctsimu_is_that_of_its_surface() -> None:
    """A frame of iron rods, one tip on the axis: FDK of 21 views in place, and neither upside down nor mirrored."""
    slices, size, pixel_mm, fine = 48, 64, 1.3, 2
    grid = {"kind": "ct-cone", "slices": slices, "rows": size, "cols": size, "pixel_mm": pixel_mm}
    scan = measured("raw-ctsimu", grid, file="tetrahedron/projections/tetra_metadata.json")
    found = recon.reconstruct(scan, method="fbp", progress=False).volume
    facet = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    stl = (SHARED / "raw-ctsimu/tetrahedron/tetra.stl").read_bytes()
    corners = np.frombuffer(stl[84:], facet)["corners"].astype(np.float64)
    box = corners.reshape(-1, 3)
    # The scenario places the middle of the box around the surface, in the stage's frame.
    triangles = corners - (box.min(0) + box.max(0)) / 2 + (9.428083, 0.0, 8.888888)
    x, z = (((np.arange(n * fine) + 0.5) / fine - n / 2) * pixel_mm for n in (size, slices))
    truth = inside(triangles, x, -x, z).reshape(slices, fine, size, fine, size, fine).mean((1, 3, 5))

    def alike(other: NDArray[np.float64]) -> float:
        return float(np.corrcoef(found.ravel(), other.ravel())[0, 1])

    assert alike(truth) > 0.7
    assert max(alike(np.flip(truth, axis)) for axis in (0, 2)) < 0.15  # along y it is symmetric
    assert max(alike(np.roll(truth, by, axis)) for axis in range(3) for by in (-1, 1)) < alike(truth) - 0.05


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_dicom_slices_that_overlap() -> None:
    found = inspected("dicom-ct-3slice")
    assert found.shape == [3, 512, 512]
    assert (found.geometry["pixel_mm"], found.geometry["slice_mm"]) == pytest.approx((0.8105, 1.0), abs=1e-4)
    assert any("padding outside of the scan count as air" in note for note in found.notes)
    assert found.values is not None and found.values.lowest >= -1024


def test_a_dicom_series_with_contours_beside_it() -> None:
    found = inspected("dicom-ct-series")
    assert found.shape == [41, 138, 141]
    assert (found.geometry["pixel_mm"], found.geometry["slice_mm"]) == pytest.approx((0.977, 3.0), abs=1e-3)
    assert found.values is not None and found.values.lowest == -1000
    assert "1 file left out: RT Structure Set Storage" in found.notes


def test_enhanced_ct_of_perfusion_is_no_ct_in_hu() -> None:
    found = inspected("dicom-enhanced-ct")
    assert found.shape == [2, 512, 512]
    assert (found.geometry["pixel_mm"], found.geometry["slice_mm"]) == pytest.approx((0.3887, 10.0), abs=1e-4)
    with pytest.raises(InputError, match=r"values are a map .*PERFUSION.*not HU"):
        measured("dicom-enhanced-ct", "ct-parallel")


def test_enhanced_mr_of_four_times() -> None:
    assert missing(inspected("dicom-enhanced-mr")) == ["input.scan"]
    found = inspected("dicom-enhanced-mr", scan="volume=3")
    assert found.shape == [6, 64, 64]
    assert (found.geometry["pixel_mm"], found.geometry["slice_mm"]) == pytest.approx((3.375, 2.4))


@pytest.mark.parametrize(
    ("name", "shape", "sizes_mm", "orientation", "range_"),
    [
        ("metaimage/3DCT_lung_baseline_small.mha", [64, 78, 57], (2.732, 5.0), "LPS", (-1130, 1379)),
        ("metaimage/3DCT_lung.mha", [129, 157, 115], (1.366, 2.5), "LPS", (-1255, 1474)),
        ("metaimage/2DMRI-T1_brain.mha", [1, 256, 256], (1.0, 1.0), None, (-2, 217)),
        ("metaimage/fixed.mhd", [1, 256, 256], (1.0, 1.0), None, (-2, 217)),
        ("nrrd/brain1_image.nrrd", [25, 256, 256], (0.78125, 6.5), "LAS", (0, 3057)),
        ("nrrd/breast1_image.nrrd", [21, 120, 45], (0.664062, 2.1), "LPS", (6, 248)),
    ],
)
def test_metaimage_and_nrrd(
    name: str, shape: list[int], sizes_mm: tuple[float, float], orientation: str | None, range_: tuple[float, float]
) -> None:
    found = inspected(name)
    assert (found.shape, found.orientation) == (shape, orientation) and found.values is not None
    assert (found.geometry["pixel_mm"], found.geometry["slice_mm"]) == pytest.approx(sizes_mm, abs=1e-3)
    assert (found.values.lowest, found.values.highest) == range_


NIFTI = sorted(p.relative_to(SHARED).as_posix() for p in SHARED.glob("nifti-*/**/*") if p.is_file())


@pytest.mark.parametrize("name", [n for n in NIFTI if not n.endswith(".json") and "not-nifti" not in n])
def test_nifti_is_what_nibabel_reads(name: str) -> None:
    import nibabel as nib

    image: Any = nib.load(SHARED / name)
    several = image.shape[3:] != () and int(np.prod(image.shape[3:])) > 1
    if several:
        assert missing(inspected(name)) == ["input.scan"]
    found = volume(name, **({"scan": "volume=1"} if several else {}))
    whole = np.asarray(image.dataobj).reshape(*image.shape[:3], -1, order="F")
    assert np.allclose(found.data, whole[..., int(several)].T, rtol=1e-6)
    assert np.allclose(found.affine, image.affine, atol=1e-5)


def test_twins_and_what_is_no_nifti() -> None:
    odd = "nifti-odd/data"
    assert np.array_equal(volume(f"{odd}/big.nii.gz").data, volume(f"{odd}/little.nii.gz").data)
    first, second = volume(f"{odd}/avg152T1_LR_nifti.nii"), volume(f"{odd}/avg152T1_LR_nifti2.nii.gz")
    assert np.array_equal(first.data, second.data) and np.allclose(first.affine, second.affine)
    assert "not-nifti.nii is not a NIfTI file" in str(refusal(f"{odd}/not-nifti.nii"))


@pytest.mark.parametrize("name", ["CT_AVM.nii.gz", "CT_pitch.nii.gz"])
def test_ct_that_is_not_in_hu_is_asked_for_it(name: str) -> None:
    with pytest.raises(InputError, match=r"HU has air near -1000.*input\.unit: HU"):
        measured(f"nifti-niivue/{name}", "ct-parallel", slices=[20, 22])


def test_a_tilted_gantry_that_is_a_rotation() -> None:
    """The collection calls CT_pitch sheared, but its affine has orthogonal columns: it is turned, and read as that."""
    path = "nifti-niivue/CT_pitch.nii.gz"
    affine = volume(path).affine
    assert np.degrees(shear_rad(affine)) < 1e-4
    tilt = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    assert np.degrees(np.arccos(abs(tilt[2]))) > 1
    found = measured(path, "ct-parallel", slices=[20, 22], unit="HU")
    assert found.truth is not None and found.truth.shape == (2, 248, 175)
    assert voxel_size(affine) == pytest.approx((0.8125, 0.8125, 2.397), abs=1e-3)
