"""EDF images as the ESRF writes them: scans with flats, darks, angles and pixel size; and what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import ReconError, ResourceLimit
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.job import JobSpec, local_files

VIEWS, ROWS, COLUMNS = 8, 3, 20
INTEGRALS = np.random.default_rng(0).uniform(0, 2, (VIEWS, ROWS, COLUMNS))
COUNTS = np.rint(100 + 50_000 * np.exp(-INTEGRALS)).astype("<u2")
FLAT, DARK = np.full((ROWS, COLUMNS), 50_100, "<u2"), np.full((ROWS, COLUMNS), 100, "<u2")
TYPES = {"u2": "UnsignedShort", "f4": "FloatValue", "i4": "SignedInteger", "f8": "DoubleValue"}


def image(array: np.ndarray, **changed: Any) -> bytes:
    """One image with its header of 1024 bytes."""
    entries = {
        "HeaderID": "EH:000001:000000:000000", "DataType": TYPES[array.dtype.str[1:]], "Dim_1": array.shape[1],
        "ByteOrder": "HighByteFirst" if array.dtype.byteorder == ">" else "LowByteFirst", "Dim_2": array.shape[0],
        "Size": array.nbytes, **changed,
    }  # fmt: skip
    text = "{\n" + "".join(f"{name} = {value} ;\n" for name, value in entries.items() if value is not None)
    return text.ljust(1022).encode() + b"}\n" + array.tobytes()


def scan(folder: Path, motors: bool = False, info: str | None = None, extra: int = 0, **more: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for view in range(VIEWS + extra):
        header = {"motor_mne": "srot sz", "motor_pos": f"{view * 22.5} 7.5"} if motors else {}
        (folder / f"chip{view:04d}.edf").write_bytes(image(COUNTS[view % VIEWS], **header))
    for name, array in ({"refHST0000": FLAT, "dark": DARK} | more).items():
        (folder / f"{name}.edf").write_bytes(image(array))
    if info is not None:
        (folder / "chip.info").write_text(info)
    return folder


INFO = f"Prefix=chip\nTOMO_N={VIEWS}\nScanRange=180\nPixelSize=1.4\nDARK_N=20\n"


def read(path: Path, acquisition: dict[str, Any] | None = None, **more: Any) -> Measurement:
    given = {"kind": "ct-parallel", **(acquisition or {})}
    job = JobSpec.parse({"input": {"path": str(path), **more}, "acquisition": given, "method": "fbp"})
    return reader.read(job, local_files(job))


def refusal(path: Path, **more: Any) -> ReconError:
    given = {"kind": "ct-parallel", "detector_mm": 1.0}
    job = JobSpec.parse({"input": {"path": str(path), **more}, "acquisition": given, "method": "fbp"})
    with pytest.raises(ReconError) as error:
        reader.check(job, local_files(job))
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    return error.value


def said(found: Measurement) -> str:
    return "; ".join(found.notes)


@pytest.mark.parametrize("way", [{"motors": True}, {"info": INFO}], ids=["motor", "info"])
def test_a_scan_with_its_fields_and_geometry(tmp_path: Path, way: dict[str, Any]) -> None:
    found = read(scan(tmp_path, **way), None if "info" in way else {"detector_mm": 0.0014})
    assert found.data == pytest.approx(INTEGRALS.transpose(1, 0, 2), abs=1e-3)
    assert np.rad2deg(found.acquisition.angles()) == pytest.approx(np.arange(VIEWS) * 22.5)  # type: ignore[attr-defined]
    assert found.acquisition.detector_mm == pytest.approx(0.0014)  # type: ignore[attr-defined]
    part = read(tmp_path, {"detector_mm": 1.0}, slices=[1, 2])
    assert part.data == pytest.approx(found.data[1:2])


def test_images_after_half_a_turn_are_left_out(tmp_path: Path) -> None:
    found = read(scan(tmp_path, info=INFO, extra=2))
    assert found.data.shape == (ROWS, VIEWS, COLUMNS) and "2 images after the 8" in said(found)


def test_sums_of_darks_are_divided(tmp_path: Path) -> None:
    folder = scan(tmp_path, info=INFO)
    (folder / "dark.edf").unlink()
    (folder / "darkend0000.edf").write_bytes(image(20 * DARK.astype("<i4")))
    (folder / "ref0000_0000.edf").write_bytes(image(FLAT // 2))  # one of those of which refHST is the median
    found = read(folder)
    assert found.data == pytest.approx(INTEGRALS.transpose(1, 0, 2), abs=1e-3)
    assert "divided by the 20 dark frames" in said(found) and "1 flats from refHST0000.edf" in said(found)


def test_several_images_in_a_file_and_angles_beside_it(tmp_path: Path) -> None:
    (tmp_path / "scan.edf").write_bytes(b"".join(image(view.astype(">f4")) for view in INTEGRALS))
    (tmp_path / "angles.txt").write_text("\n".join(str(22.5 * i) for i in range(VIEWS)))
    found = read(tmp_path / "scan.edf", {"detector_mm": 1.0})
    assert found.data == pytest.approx(INTEGRALS.transpose(1, 0, 2), abs=1e-6) and "line integrals" in said(found)


def test_images_that_are_called_so_are_sinograms(tmp_path: Path) -> None:
    for row in range(ROWS):
        (tmp_path / f"sino_{row}.edf").write_bytes(image(INTEGRALS[:, row].astype("<f8")))
    found = read(tmp_path, {"detector_mm": 1.0, "angles_rad": {"count": VIEWS}}, slices=[1, 3])
    assert found.data == pytest.approx(INTEGRALS.transpose(1, 0, 2)[1:], abs=1e-6)


def test_scans_that_lack_something(tmp_path: Path) -> None:
    assert refusal(scan(tmp_path / "no angles")).field == "acquisition.angles_rad"
    assert "8 images of the scan, 7 are there" in _without(scan(tmp_path / "a", info=INFO), "chip0003.edf")
    assert "are counts, and there are no flat fields" in _without(scan(tmp_path / "b", info=INFO), "refHST0000.edf")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "dark.edf").write_bytes(image(DARK))
    assert "no projections" in refusal(tmp_path / "c").message
    folder = scan(tmp_path / "d", info=INFO)
    (folder / "dark.edf").write_bytes(image(DARK[:2]))
    assert "dark.edf holds images of (2, 20), chip0000.edf of (3, 20)" in refusal(folder).message


def _without(folder: Path, name: str) -> str:
    (folder / name).unlink()
    return refusal(folder).message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (image(FLAT)[:-1], "truncated: image 0 ends at byte 1144"),
        (image(FLAT) + image(FLAT)[:600], "no EDF header at byte 1144"),
        (b"hello" * 500, "no EDF header at byte 0"),
        (b"", "is empty"),
        (b"{ Dim_1 = 5 ;" * 500, "no EDF header"),
        (image(FLAT, DataType="Text"), "holds text"),
        (image(FLAT, DataType=None), "no DataType"),
        (image(FLAT, Dim_1=-3), "dim_1 = '-3'"),
        (image(FLAT, Dim_1=None), "dim_1 = ''"),
        (image(FLAT, Dim_3=4), "of three axes"),
        (image(FLAT, Compression="GzipCompression"), "compressed"),
        (image(FLAT, Dim_1=10**6, Dim_2=10**6), "the limit is"),
        (image(np.full((ROWS, COLUMNS), np.nan, "<f4")) * 2, "not finite"),
    ],
)
def test_files_that_are_damaged_or_something_else(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.edf").write_bytes(content)
    error = refusal(tmp_path / "a.edf")
    assert says in error.message and isinstance(error, ResourceLimit) == (says == "the limit is")
