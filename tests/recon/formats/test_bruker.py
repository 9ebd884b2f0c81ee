"""Bruker ParaVision scans: a real one against the scanner's own images, and others made like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import ReconError, ResourceLimit
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.mrd_files import fourier, phantom, picture

REAL = Path(__file__).parents[2] / "data" / "formats" / "bruker"


def read(path: Path, **more: Any) -> Measurement:
    job = JobSpec.parse({"input": {"path": str(path), "format": "bruker", **more}, "method": "zero-filled"})
    return reader.read(job, local_files(job))


def refusal(path: Path, **more: Any) -> ReconError:
    with pytest.raises(ReconError) as error:
        read(path, **more)
    assert error.value.exit_code == 2
    return error.value


@pytest.mark.parametrize(
    ("number", "first_voxel", "directions"),
    [  # VisuCorePosition and VisuCoreOrientation of the scan, in RAS
        (0, (12.5, 12.5, 0), ((-1, 0, 0), (0, -1, 0))),
        (1, (0, 12.5, 12.5), ((0, -1, 0), (0, 0, -1))),
        (2, (12.5, 0, 12.5), ((-1, 0, 0), (0, 0, -1))),
    ],
)
def test_slices_are_those_that_the_scanner_shows(
    number: int, first_voxel: tuple[float, ...], directions: tuple[tuple[int, ...], ...]
) -> None:
    shown = np.fromfile(REAL / "pdata" / "1" / "2dseq", "<i2").reshape(3, 128, 128)[number]
    found = read(REAL, slices=[number, number + 1])
    image = abs(picture(found.data[0, 0]))
    assert np.corrcoef(image.ravel(), shown.ravel())[0, 1] > 0.99999
    assert found.affine is not None and found.in_patient
    assert found.affine[:3, 3] == pytest.approx(first_voxel)
    directions_mm = found.affine[:3, :2].T
    assert directions_mm == pytest.approx(25 / 128 * np.array(directions))
    assert found.acquisition.pixel_mm == pytest.approx(25 / 128) and found.acquisition.slice_mm == 1.0


def test_slices_that_are_not_parallel_are_no_volume() -> None:
    error = refusal(REAL)
    assert error.field == "input.slices" and "3 slices are not parallel" in error.message
    assert read(REAL / "fid", slices=[0, 1]).data.shape == (1, 1, 128, 128)
    job = JobSpec.parse({"input": {"path": str(REAL), "slices": [0, 1]}, "method": "zero-filled"})
    assert reader.read(job, local_files(job)).data.shape == (1, 1, 128, 128)  # a folder needs no format


ROWS, COLS, SLICES, COILS, TRAIN = 24, 32, 3, 2, 4
STEPS = np.arange(ROWS).reshape(TRAIN, ROWS // TRAIN).T.ravel() - ROWS // 2


def scan(folder: Path, **changed: Any) -> Path:
    """Echo trains, interlaced slices and two receivers, shifted by 3 mm along the phase encoding."""
    kspace = fourier(phantom(SLICES, COILS, ROWS, COLS)) * 1e6
    order = [0, 2, 1]
    blocks = []
    for shot in range(ROWS // TRAIN):
        for number in order:
            for step in STEPS[shot * TRAIN : (shot + 1) * TRAIN]:
                # The object lies 3 mm off along the rows, of 2 mm each.
                line = kspace[number, :, step + ROWS // 2] * np.exp(-2j * np.pi * step * 3 / 48)
                block = np.zeros(256, "<i4")
                block[: 2 * COLS * COILS] = np.rint(np.stack([line.real, line.imag], -1)).ravel()
                blocks.append(block)
    np.concatenate(blocks).tofile(folder / "fid")
    values: dict[str, Any] = {
        "ACQ_size": [2 * COLS, ROWS], "NI": SLICES, "NR": 1, "NSLICES": SLICES, "ACQ_obj_order": order,
        "ACQ_rare_factor": TRAIN, "BYTORDA": "little", "GO_raw_data_format": "GO_32BIT_SGN_INT",
        "GO_block_size": "Standard_KBlock_Format", "ACQ_patient_pos": "Head_Supine", "Method": "RARE",
        "PVM_EncNReceivers": COILS, "PVM_EncSteps1": STEPS.tolist(), "PVM_Matrix": [COLS, ROWS],
        "PVM_Fov": [64, 48], "PVM_SliceThick": 1.5, "PVM_NSPacks": 1, "PVM_SPackArrNSlices": [SLICES],
        "PVM_SPackArrGradOrient": [1, 0, 0, 0, 1, 0, 0, 0, 1], "PVM_SPackArrPhase1Offset": [3],
        "PVM_SPackArrSliceDistance": [2], "PVM_SPackArrSliceOffset": [10], **changed,
    }  # fmt: skip
    text = "##TITLE=Parameter List\n"
    for name, value in values.items():
        if isinstance(value, list):
            text += f"##${name}=( {len(value)} )\n{' '.join(map(str, value))}\n"
        elif value is not None:
            text += f"##${name}={value}\n"
    (folder / "acqp").write_text(text + "$$ @vis= a b\n##END=\n")
    (folder / "method").write_text("##TITLE=Parameter List\n##$PVM_EchoTime=5\n##END=\n")
    return folder


def test_trains_interlaced_slices_receivers_and_shifts(tmp_path: Path) -> None:
    found = read(scan(tmp_path))
    # The patient's axis runs against the gradients': slices are sorted from the feet to the head.
    assert picture(found.data) == pytest.approx(1e6 * phantom(SLICES, COILS, ROWS, COLS)[::-1], abs=20)
    assert found.affine is not None and found.acquisition.slice_mm == pytest.approx(2.0)
    # The object's middle is 3 mm to the back; the stack's is 10 mm towards the feet.
    assert found.affine @ (COLS // 2, ROWS // 2, 1, 1) == pytest.approx((0, -3, -10, 1))
    elsewhere = read(scan(tmp_path, ACQ_patient_pos="Foot_Prone"))
    assert not elsewhere.in_patient and "Foot_Prone" in " ".join(elsewhere.notes)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"NR": 2}, "the parameters promise a fid of"),
        ({"Method": "EPI"}, "the method is 'epi'"),
        ({"PVM_EncSteps1": None}, "PVM_EncSteps1 is missing"),
        ({"PVM_EncSteps1": [1, 2]}, "PVM_EncSteps1 has 2 numbers"),
        ({"PVM_Matrix": ["many", 3]}, "expected numbers"),
        ({"PVM_Matrix": [64, ROWS]}, "partial echoes"),
        ({"ACQ_obj_order": [0, 0, 1]}, "no order of 3 images"),
        ({"GO_raw_data_format": "GO_64BIT"}, "GO_64BIT"),
        ({"NI": -1}, "NI is -1"),
        ({"ACQ_rare_factor": 7}, "no multiple"),
    ],
)
def test_parameters_that_are_wrong_or_of_another_scan(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    assert says in refusal(scan(tmp_path, **changed)).message


def test_folders_that_lack_something(tmp_path: Path) -> None:
    assert isinstance(refusal(scan(tmp_path, NI=3, NR=999_999, ACQ_size=[999_999, ROWS])), ResourceLimit)
    scan(tmp_path)
    (tmp_path / "fid").write_bytes((tmp_path / "fid").read_bytes()[:-4])
    assert "truncated" in str(refusal(tmp_path).remedy)
    (tmp_path / "acqp").write_bytes(bytes(1000))
    assert "no JCAMP-DX" in refusal(tmp_path).message
    (tmp_path / "acqp").unlink()
    assert "acqp" in refusal(tmp_path).message
    (tmp_path / "fid").rename(tmp_path / "rawdata.job0")
    assert "ParaVision 360" in refusal(tmp_path).message
