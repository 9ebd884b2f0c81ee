"""Siemens twix files of both generations, written as the scanner does."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import ReconError
from recon.formats import reader
from recon.formats.readouts import on_ramps
from recon.formats.twix import NEW, OLD
from recon.measurement.measurement import Measurement
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.mrd_files import Scan, fourier, header, phantom, picture

ROWS, COLS = 24, 32
END, SYNC, PHASE_CORRECTION, REFERENCE, MIRRORED, NOISE = (1 << bit for bit in (0, 5, 21, 22, 24, 25))
AXIAL = (0.70710678, 0.0, 0.0, 0.70710678)
"""Quaternion of a slice whose lines count to the back and whose readout runs to the right."""


def protocol(**changed: Any) -> bytes:
    values = {
        "sKSpace.lBaseResolution": COLS, "sKSpace.lPhaseEncodingLines": ROWS, "sKSpace.ucDimension": 2,
        "sKSpace.ucTrajectory": 1, "sSliceArray.asSlice[0].dReadoutFOV": 64.0,
        "sSliceArray.asSlice[0].dPhaseFOV": 48.0, "sSliceArray.asSlice[0].dThickness": 5.0,
        **{name.replace("__", "."): value for name, value in changed.items()},
    }  # fmt: skip
    lines = "\n".join(f"{name}\t = \t{value}" for name, value in values.items() if not name.startswith("al"))
    text = '<ParamString."tPatientPosition">  { "HFS"  }\n'
    text += "".join(f'<ParamLong."{n}">  {{ {v} 0 }}\n' for n, v in values.items() if n[:2] == "al" or n[:3] == "afl")
    text += f"### ASCCONV BEGIN ###\n{lines}\n### ASCCONV END ###\n"
    body = b"MeasYaps\0" + struct.pack("<I", len(text)) + text.encode()
    return struct.pack("<II", len(body) + 8, 1) + body


class Twix:
    """Readouts to be written."""

    def __init__(self, *, new: bool = True) -> None:
        self.new, self.parts = new, b""

    def add(self, readout: np.ndarray, flags: int = 0, **fields: Any) -> None:
        head = np.zeros((), NEW if self.new else OLD)
        head["flags"], head["samples"], head["coils"] = flags, readout.shape[1], readout.shape[0]
        head["centre"], head["centre_line"], head["quaternion"] = readout.shape[1] // 2, ROWS // 2, AXIAL
        for name, value in fields.items():
            head[name] = value
        coils = [row.astype("<c8").tobytes() for row in readout]
        if self.new:
            self.parts += head.tobytes() + b"".join(bytes(32) + row for row in coils)
        else:
            self.parts += b"".join(head.tobytes() + row for row in coils)

    def sync(self) -> None:
        head = np.zeros((), NEW)
        head["flags"], head["length"] = SYNC, NEW.itemsize + 64
        self.parts += head.tobytes() + bytes(64)

    def write(self, path: Path, text: bytes | None = None, *, end: bool = True) -> Path:
        last = np.zeros((), NEW if self.new else OLD)
        last["flags"] = END
        text = text if text is not None else protocol()
        if not self.new:  # headers of this generation are longer than 10000 bytes, by which it is told
            text = struct.pack("<I", len(text) + 10_000) + text[4:] + bytes(10_000)
        measured = text + self.parts + (last.tobytes() if end else b"")
        front = b""
        if self.new:
            entry = struct.pack("<IIQQ", 1, 1, 10_240, len(measured)) + bytes(128)
            front = (struct.pack("<II", 0, 1) + entry).ljust(10_240, b"\0")
        path.write_bytes(front + measured)
        return path


def oversampled(image: np.ndarray) -> np.ndarray:
    """K-space as the scanner stores it: of twice the field of view, for the forward transform."""
    wide = np.zeros((*image.shape[:-1], 2 * COLS), np.complex64)
    wide[..., COLS // 2 : COLS // 2 + COLS] = image
    return fourier(wide).conj()


def whole(*, new: bool = True, coils: int = 2) -> Twix:
    scan = Twix(new=new)
    for row, line in enumerate(oversampled(phantom(1, coils)[0]).transpose(1, 0, 2)):
        scan.add(line, line=row, position=(5.0, -10.0, 20.0))
    return scan


def read(path: Path, **more: Any) -> Measurement:
    job = JobSpec.parse({"input": {"path": str(path), "format": "twix", **more}, "method": "zero-filled"})
    return reader.read(job, local_files(job))


def refusal(path: Path) -> ReconError:
    with pytest.raises(ReconError) as error:
        read(path)
    assert error.value.exit_code == 2
    return error.value


def shown(found: Measurement) -> np.ndarray:
    """The image in the order in which it was made: readouts run to the right, radiology shows the left there."""
    return np.roll(picture(found.data)[..., ::-1], 1, -1)


@pytest.mark.parametrize("new", [True, False], ids=["VD", "VB"])
def test_scans_lie_where_the_scanner_measured_them(tmp_path: Path, new: bool) -> None:
    scan = whole(new=new, coils=3)
    if new:
        scan.sync()
    scan.add(np.ones((3, 2 * COLS)) * 1e6, NOISE)
    found = read(scan.write(tmp_path / "meas.dat"))
    assert shown(found)[0] == pytest.approx(phantom(1, 3)[0], abs=1e-5)
    assert found.affine is not None and found.in_patient
    assert found.affine @ (COLS // 2, ROWS // 2, 0, 1) == pytest.approx((-5, 10, 20, 1))
    assert np.diag(found.affine)[:2] == pytest.approx((-2, -2))
    assert found.acquisition.pixel_mm == pytest.approx(2.0) and found.acquisition.slice_mm == pytest.approx(5.0)


def test_marks_of_the_echo_time_and_of_signs_leave_no_line_out(tmp_path: Path) -> None:
    scan = Twix()
    for row, line in enumerate(oversampled(phantom()[0]).transpose(1, 0, 2)):
        scan.add(line, {3: 1 << 31, 4: 1 << 30, 5: 1 << 17}.get(row, 0), line=row)
    found = read(scan.write(tmp_path / "meas.dat"))
    assert shown(found)[0] == pytest.approx(phantom()[0], abs=1e-5)


def test_3d_scans_lie_along_the_quaternions_third_column(tmp_path: Path) -> None:
    images = phantom(slices=6)
    volume = np.fft.fft(np.fft.ifftshift(oversampled(images).conj(), axes=0), axis=0, norm="ortho")
    scan = Twix()
    for partition, lines in enumerate(np.fft.fftshift(volume, axes=0).conj()):
        for row, line in enumerate(lines.transpose(1, 0, 2)):
            scan.add(line, line=row, partition=partition, centre_partition=3)
    text = protocol(sKSpace__ucDimension=4, sKSpace__lPartitions=6, **{"sSliceArray.asSlice[0].dThickness": 12.0})
    path = scan.write(tmp_path / "meas.dat", text)
    found = read(path, slices=[0, 6])
    # Readouts run to the right, radiology shows the left there; partitions count upwards.
    assert picture(found.data)[:, 0] == pytest.approx(images[:, 0, :, ::-1], abs=1e-5)
    assert found.affine is not None and found.affine @ (COLS // 2 - 1, ROWS // 2, 3, 1) == pytest.approx((0, 0, 0, 1))


def test_echoes_are_chosen_and_separate_calibration_lines_left_out(tmp_path: Path) -> None:
    kspace = oversampled(phantom()[0])
    scan = Twix()
    for echo in (0, 1):
        for row in range(0, ROWS, 2):
            scan.add(kspace[:, row] * (1 + echo), line=row, contrast=echo)
    scan.add(kspace[:, 1] * 100, REFERENCE, line=1)
    path = scan.write(tmp_path / "meas.dat", protocol(sPat__ucRefScanMode="0x4"))
    first, second = read(path), read(path, scan="contrast=1")
    assert second.data == pytest.approx(2 * first.data) and "contrast 0, 1" in " ".join(first.notes)
    assert not first.data[:, :, 1].any() and "separate scan" in " ".join(first.notes)
    embedded = read(scan.write(path, protocol(sPat__ucRefScanMode="0x2")))
    assert embedded.data[:, :, 1].any()


RAMPS = {"alRegridMode": 2, "alRegridRampupTime": 160, "alRegridFlattopTime": 240, "alRegridRampdownTime": 160,
         "alRegridDelaySamplesTime": 32, "aflRegridADCDuration": 496}  # fmt: skip


def train(image: np.ndarray, samples: int) -> list[tuple[np.ndarray, bool, bool, int]]:
    """Readouts of an EPI train with ramps: samples, whether backwards, whether a navigator, line."""
    positions = on_ramps(samples, 2 * COLS, 32, 496, (160, 240, 160))
    place = np.arange(COLS) - COLS // 2
    encoding = np.exp(-2j * np.pi * positions[:, None] * place / (2 * COLS)) / np.sqrt(2 * COLS)
    lines = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, axes=-2), axis=-2, norm="ortho"), axes=-2)
    late = np.exp(1j * (0.1 * place + 0.3))  # of lines that ran backwards
    found = []
    for number, (row, navigator) in enumerate([(12, True)] * 3 + [(row, False) for row in range(ROWS)]):
        back = number % 2 == 1
        line = (lines[:, row] * (late if back else 1)) @ encoding.T
        found.append((line[:, ::-1] if back else line, back, navigator, row))
    return found


def error_of(found: np.ndarray, image: np.ndarray) -> float:
    return float(np.linalg.norm(found - image) / np.linalg.norm(image))


def test_trains_with_samples_on_the_ramps(tmp_path: Path) -> None:
    image = phantom()[0]
    scan = Twix()
    for line, back, navigator, row in train(image, 2 * COLS):
        scan.add(line.conj(), MIRRORED * back | PHASE_CORRECTION * navigator, line=row)
    found = read(scan.write(tmp_path / "meas.dat", protocol(**RAMPS)))
    assert error_of(shown(found)[0], image) < 1e-3
    assert "regridded" in " ".join(found.notes) and "reference lines" in " ".join(found.notes)
    assert error_of(shown(read(scan.write(tmp_path / "even.dat")))[0], image) > 0.1


def test_ismrmrd_trains_have_ramps_too(tmp_path: Path) -> None:
    image = phantom()[0]
    scan = Scan()
    for line, back, navigator, row in train(image, 80):
        scan.add(line, flags=(1 << 21) * back | (1 << 23) * navigator, kspace_encode_step_1=row)
    times = {"rampUpTime": 160, "flatTopTime": 240, "rampDownTime": 160, "acqDelayTime": 32, "numSamples": 80}
    ramps = "".join(
        f"<userParameterLong><name>{n}</name><value>{v}</value></userParameterLong>" for n, v in times.items()
    )
    ramps += "<userParameterDouble><name>dwellTime</name><value>6.2</value></userParameterDouble>"
    xml = header((2 * COLS, ROWS, 1), fov=(128.0, 48.0, 5.0), recon_fov=(64.0, 48.0, 5.0), trajectory="epi")
    described = f"<trajectoryDescription><identifier>ConventionalEPI</identifier>{ramps}</trajectoryDescription>"
    path = scan.write(tmp_path / "a.h5", xml.replace("</trajectory>", f"</trajectory>{described}"))
    job = JobSpec.parse({"input": {"path": str(path), "format": "ismrmrd"}, "method": "zero-filled"})
    assert error_of(picture(reader.read(job, local_files(job)).data[0]), image) < 1e-3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (protocol(sKSpace__ucTrajectory="0x2"), "the trajectory is 'radial'"),
        (protocol(sKSpace__ucTrajectory="0x4"), "the trajectory is 'spiral'"),
        (protocol(sKSpace__lPhaseEncodingLines=8), "outside of the 8"),
        (protocol(sKSpace__lBaseResolution="many"), "expected a number"),
        (protocol(sKSpace__lBaseResolution=-1), "-1 x 24"),
        (struct.pack("<II", 40, 1) + bytes(32), "no protocol"),
    ],
)
def test_protocols_that_are_wrong_or_of_another_scan(tmp_path: Path, text: bytes, says: str) -> None:
    assert says in refusal(whole().write(tmp_path / "meas.dat", text)).message


@pytest.mark.parametrize("new", [True, False], ids=["VD", "VB"])
def test_files_that_end_early_or_are_something_else(tmp_path: Path, new: bool) -> None:
    path = whole(new=new).write(tmp_path / "meas.dat")
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) - 5000, len(content) // 2 + 5000):
        path.write_bytes(content[:length])
        assert "truncated" in refusal(path).message
    assert "none says that it is the last" in refusal(whole(new=new).write(path, end=False)).message
    path.write_bytes(b"hello" * 5000)
    assert "no Siemens raw data" in refusal(path).message
    path.write_bytes(bytes(20_000))
    assert refusal(path).field == "input"
    rng = np.random.default_rng(0)
    for _ in range(20):  # damage anywhere in the headers
        damaged = bytearray(content)
        for at in rng.integers(0, 12_000, 30):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read(path)
        except ReconError as error:
            assert error.exit_code == 2
