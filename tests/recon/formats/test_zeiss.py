"""Zeiss projections: rows of parallel beams, cones and their middle row, and what is no scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import ReconError, ResourceLimit
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.ole_files import container

VIEWS, ROWS, COLUMNS = 6, 50, 64
DEGREES = np.linspace(-45, 45, VIEWS)


def integrals() -> np.ndarray:
    """A smooth object, ``(views, rows, columns)``, different in each row and view."""
    view, row, column = np.mgrid[:VIEWS, :ROWS, :COLUMNS]
    middle = COLUMNS / 2 + 4 * np.sin(view) + row / 10
    found: np.ndarray = 1.5 * np.exp(-(((column - middle) / 8) ** 2)) * (1 + 0.3 * np.cos(row / 8))
    return found


def streams(projections: np.ndarray | None = None, **changed: Any) -> dict[str, bytes]:
    """Streams of a scan, with counts of 40000 in air; None takes one out, names are as in `PARTS`."""
    counts = np.rint(40_000 * np.exp(-integrals())) if projections is None else projections
    values: dict[str, Any] = {
        "ImageInfo/ImageWidth": np.int32(counts.shape[2]), "ImageInfo/ImageHeight": np.int32(counts.shape[1]),
        "ImageInfo/NoOfImages": np.int32(len(counts)), "ImageInfo/ImagesTaken": np.int32(len(counts)),
        "ImageInfo/DataType": np.int32(5), "ImageInfo/Angles": DEGREES.astype("<f4"),
        "ImageInfo/PixelSize": np.float32(2.5), "ImageInfo/XrayGeometry": np.int32(2),
        "ImageInfo/StoRADistance": np.ones(VIEWS, "<f4"), "ImageInfo/DtoRADistance": np.ones(VIEWS, "<f4"),
        "ReferenceData/Image": np.full(counts.shape[1:], 40_000, "<u2"), "ReferenceData/DataType": np.int32(5),
        **{f"ImageData1/Image{i + 1}": image.astype("<u2") for i, image in enumerate(counts)}, **changed,
    }  # fmt: skip
    return {name: np.asarray(value).tobytes() for name, value in values.items() if value is not None}


def write(path: Path, **changed: Any) -> Path:
    path.write_bytes(
        container(streams(**{name.replace("__", "/").replace("_", "-"): v for name, v in changed.items()}))
    )
    return path


def read(path: Path, **more: Any) -> Measurement:
    job = JobSpec.parse({"input": {"path": str(path), **more}, "method": "fbp"})
    return reader.read(job, local_files(job))


def refusal(path: Path, **more: Any) -> ReconError:
    with pytest.raises(ReconError) as error:
        read(path, **more)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    return error.value


def test_rows_of_a_parallel_beam(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txrm")
    found = read(path)
    assert found.data == pytest.approx(integrals().transpose(1, 0, 2), abs=1e-3)
    assert isinstance(found.acquisition, CTParallel) and found.acquisition.detector_mm == pytest.approx(0.0025)
    assert found.acquisition.angles() == pytest.approx(np.deg2rad(DEGREES))
    assert "mirror image" in "; ".join(found.notes)
    part = read(path, slices=[10, 13])
    assert part.data == pytest.approx(found.data[10:13])
    assert read(path.rename(tmp_path / "upload")).data == pytest.approx(found.data)  # its first bytes leave no doubt


@pytest.mark.parametrize(("number", "kind"), [(5, "<u2"), (6, "<i4"), (10, "<f4"), (11, "<f8")])
def test_types_of_pixels(tmp_path: Path, number: int, kind: str) -> None:
    counts = np.rint(4000 * np.exp(-integrals())).astype(kind)
    images = {f"ImageData1__Image{i + 1}": image for i, image in enumerate(counts)}
    reference = {"ReferenceData__DataType": np.int32(5), "ReferenceData__Image": np.full((ROWS, COLUMNS), 4000, "<u2")}
    found = read(write(tmp_path / "a.txrm", ImageInfo__DataType=np.int32(number), **images, **reference))
    assert found.data == pytest.approx(integrals().transpose(1, 0, 2), abs=5e-3)


def test_frames_are_moved_by_the_alignment(tmp_path: Path) -> None:
    """A frame that the drift has moved up and to the left is moved back, rows from beside those asked for included."""
    shifts = np.array([[0.0, 1.0, -2.0, 3.0, 0.0, -1.0], [0.0, 2.0, 1.0, -3.0, -1.0, 0.0]])
    drifted = np.stack([np.roll(i, (-int(r), -int(c)), (0, 1)) for i, r, c in zip(integrals(), *shifts, strict=True)])
    path = tmp_path / "a.txrm"
    alignment = {"Alignment/Y-Shifts": shifts[0].astype("<f4"), "Alignment/X-Shifts": shifts[1].astype("<f4")}
    path.write_bytes(container(streams(np.rint(40_000 * np.exp(-drifted)), **alignment)))
    found = read(path, slices=[20, 23])
    assert found.data[..., 4:-4] == pytest.approx(integrals().transpose(1, 0, 2)[20:23, :, 4:-4], abs=2e-3)
    assert "up to 3 columns and 3 rows" in "; ".join(found.notes)
    half = {"Alignment/Y-Shifts": np.zeros(VIEWS, "<f4"), "Alignment/X-Shifts": np.full(VIEWS, 0.5, "<f4")}
    path.write_bytes(container(streams(**half)))
    between = (integrals()[..., 10:50] + integrals()[..., 9:49]) / 2
    assert read(path).data[..., 10:50] == pytest.approx(between.transpose(1, 0, 2), abs=1e-2)


def test_of_a_cone_beam_the_middle_row_is_read(tmp_path: Path) -> None:
    cone = {"ImageInfo__XrayGeometry": np.int32(1), "ImageInfo__StoRADistance": np.full(VIEWS, -20, "<f4"),
            "ImageInfo__DtoRADistance": np.full(VIEWS, 60, "<f4")}  # fmt: skip
    path = write(tmp_path / "a.txrm", **cone)
    for slices in ([24, 26], [10, 11]):
        error = refusal(path, slices=slices)
        assert error.field == "input.slices" and "[25, 26]" in str(error.remedy)
    found = read(path, slices=[25, 26])
    assert found.data[0] == pytest.approx(integrals()[:, 25], abs=1e-3)
    fan = found.acquisition
    assert isinstance(fan, CTFan) and (fan.source_origin_mm, fan.origin_detector_mm) == (20.0, 60.0)
    assert fan.detector_mm == pytest.approx(0.01) and fan.geometry(COLUMNS).pixel_mm == pytest.approx(0.0025)
    moving = write(tmp_path / "b.txrm", **{**cone, "ImageInfo__StoRADistance": np.linspace(20, 30, VIEWS, dtype="<f4")})
    assert "during the scan" in refusal(moving, slices=[25, 26]).message
    older = write(tmp_path / "c.txrm", **{**cone, "ImageInfo__XrayGeometry": None})
    assert refusal(older, slices=[10, 11]).field == "input.slices"


def test_all_rows_are_a_cone_beam_whose_middle_row_is_the_fan(tmp_path: Path) -> None:
    distances = {
        "ImageInfo__StoRADistance": np.full(VIEWS, -20, "<f4"),
        "ImageInfo__DtoRADistance": np.full(VIEWS, 60, "<f4"),
    }
    path = write(tmp_path / "a.txrm", ImageInfo__XrayGeometry=np.int32(1), **distances)
    found, row = read(path), read(path, slices=[25, 26])
    assert found.data == pytest.approx(integrals().transpose(1, 0, 2), abs=1e-3)
    cone, fan = found.acquisition, row.acquisition
    assert isinstance(cone, CTCone) and (cone.source_origin_mm, cone.origin_detector_mm) == (20.0, 60.0)
    assert cone.row_mm == cone.detector_mm == pytest.approx(0.01)
    assert "upside down" in "; ".join(found.notes) and "upside down" not in "; ".join(row.notes)
    assert isinstance(fan, CTFan)
    g, flat = cone.volume_geometry(found.data.shape), fan.geometry(COLUMNS)
    assert g.beam == "cone" and g.pixel_mm == pytest.approx(flat.pixel_mm)
    assert np.array_equal(found.data[25], row.data[0])


def test_references_in_the_file_beside_it_or_applied_already(tmp_path: Path) -> None:
    without = write(tmp_path / "a.txrm", ReferenceData__Image=None)
    assert "no reference image" in refusal(without).message
    (tmp_path / "chip_ref.xrm").write_bytes(container(streams(np.full((1, ROWS, COLUMNS), 40_000))))
    found = read(without)
    assert found.data == pytest.approx(integrals().transpose(1, 0, 2), abs=1e-3)
    assert "from chip_ref.xrm" in "; ".join(found.notes)
    done = {f"ImageData1__Image{i + 1}": image.astype("<f4") for i, image in enumerate(np.exp(-integrals()))}
    applied = write(tmp_path / "b.txrm", **done, ImageInfo__DataType=np.int32(10), ReferenceData__Image=None,
                    ImageInfo__OriginalDataRefCorrected=np.int32(1))  # fmt: skip
    assert read(applied).data == pytest.approx(integrals().transpose(1, 0, 2), abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ImageInfo__Angles": None}, "0 of 6 numbers in ImageInfo/Angles"),
        ({"ImageInfo__Angles": np.full(VIEWS, np.nan, "<f4")}, "not finite"),
        ({"ImageInfo__ImageWidth": None}, "no ImageInfo"),
        ({"ImageInfo__ImagesTaken": np.int32(1)}, "one projection"),
        ({"ImageData1__Image6": None}, "ImageData1/Image6 has 0 bytes"),
        ({"ImageInfo__ImagesTaken": np.int32(-5)}, "-5 images"),
        ({"ImageInfo__ImageHeight": np.int32(49)}, "6400 bytes"),
        ({"ImageInfo__DataType": np.int32(99)}, "DataType 99"),
        ({"ImageInfo__DataType": None}, "DataType None"),
        ({"ImageInfo__PixelSize": np.float32(0)}, "0.0 um in ImageInfo/PixelSize"),
        ({"ImageInfo__MosiacMode": np.int32(1)}, "a mosaic"),
        ({"ImageInfo__XrayGeometry": np.int32(1), "ImageInfo__StoRADistance": None}, "without distances"),
        ({"ReferenceData__Image": np.zeros((ROWS, COLUMNS), "<u2")}, "not above the dark field"),
        ({"ImageInfo__ImageHeight": np.int32(65536), "ImageInfo__ImageWidth": np.int32(65536)}, "the limit is"),
    ],
)
def test_scans_that_lack_something_or_contradict_themselves(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    error = refusal(write(tmp_path / "a.txrm", **changed))
    assert says in error.message and isinstance(error, ResourceLimit) == (says == "the limit is")


def test_damaged_containers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txrm")
    content = path.read_bytes()
    for length in (100, 600, len(content) // 2, len(content) - 600):
        path.write_bytes(content[:length])
        assert refusal(path).field == "input"
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(content)
        for at in (*rng.integers(0, 512, 5), *rng.integers(len(content) - 6000, len(content), 20)):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read(path)
        except ReconError as error:
            assert error.exit_code == 2
    path.write_bytes(b"hello" * 1000)
    assert "not a readable Zeiss file" in refusal(path).message
