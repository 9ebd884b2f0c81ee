"""ISMRMRD files of a phantom whose place in the patient is known, written with h5py as scanners' converters do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

IDX = [
    *[(n, "<u2") for n in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase",
                           "repetition", "set", "segment")],
    ("user", "<u2", (8,)),
]  # fmt: skip
HEAD = np.dtype([
    ("version", "<u2"), ("flags", "<u8"), ("number_of_samples", "<u2"), ("active_channels", "<u2"),
    ("discard_pre", "<u2"), ("discard_post", "<u2"), ("center_sample", "<u2"), ("encoding_space_ref", "<u2"),
    ("trajectory_dimensions", "<u2"), ("sample_time_us", "<f4"), ("position", "<f4", (3,)), ("read_dir", "<f4", (3,)),
    ("phase_dir", "<f4", (3,)), ("slice_dir", "<f4", (3,)), ("idx", IDX),
])  # fmt: skip
COUNTERS = [name[0] for name in IDX]
ROWS, COLS = 24, 32
NOISE, CALIBRATION, REVERSE, PHASE_CORRECTION = (1 << (n - 1) for n in (19, 20, 22, 24))


def fourier(image: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes)


def picture(kspace: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)


def phantom(slices: int = 1, coils: int = 2, rows: int = ROWS, cols: int = COLS) -> np.ndarray:
    """Complex images ``(slices, coils, rows, cols)`` that no mirror image or turn leaves alone."""
    y, x = np.mgrid[:rows, :cols]
    found = np.zeros((slices, coils, rows, cols), np.complex64)
    for s in range(slices):
        body = ((y - rows / 2) / (0.4 * rows)) ** 2 + ((x - cols / 2) / (0.35 * cols)) ** 2 < 1
        spot = (abs(y - 0.3 * rows) < 2) & (abs(x - 0.6 * cols) < 4)
        for c in range(coils):
            found[s, c] = (body + (2.0 + s) * spot) * np.exp(1j * (0.5 * c + 0.05 * x)) * (1 + c * y / rows)
    return found


class Scan:
    """Acquisitions and the header of a file, as lists to add to."""

    def __init__(self) -> None:
        self.heads: list[np.ndarray] = []
        self.lines: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        """Trajectory of each acquisition, ``(samples, dimensions)``, or empty."""

    def add(
        self,
        line: np.ndarray,
        *,
        flags: int = 0,
        centre: int | None = None,
        places: np.ndarray | None = None,
        **more: Any,
    ) -> None:
        """One acquisition ``(coils, samples)``; counters and header fields by name."""
        head = np.zeros((), HEAD)
        head["number_of_samples"], head["active_channels"] = line.shape[1], line.shape[0]
        head["center_sample"] = line.shape[1] // 2 if centre is None else centre
        head["flags"], head["sample_time_us"] = flags, 10.0
        head["read_dir"], head["phase_dir"], head["slice_dir"] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
        for name, value in more.items():
            (head["idx"] if name in COUNTERS else head)[name] = value
        self.places.append(np.zeros((0, 0)) if places is None else places)
        head["trajectory_dimensions"] = self.places[-1].shape[1]
        self.heads.append(head)
        self.lines.append(line.astype(np.complex64))

    def add_image(self, kspace: np.ndarray, lines: Any = None, **more: Any) -> None:
        """Every line of ``(coils, rows, cols)``, or those that are given."""
        for row in range(kspace.shape[1]) if lines is None else lines:
            self.add(kspace[:, row], kspace_encode_step_1=row, **more)

    def write(self, path: Path, xml: str | bytes | None = None, group: str = "dataset") -> Path:
        text = xml if xml is not None else header()
        row = np.dtype([
            ("head", HEAD), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32)),
        ])  # fmt: skip
        table = np.empty(len(self.heads), row)
        for index, (head, line, places) in enumerate(zip(self.heads, self.lines, self.places, strict=True)):
            table[index] = (
                head,
                places.astype(np.float32).reshape(-1),
                np.ascontiguousarray(line).view(np.float32).reshape(-1),
            )
        with h5py.File(path, "w") as file:
            file[f"{group}/data"] = table
            file[f"{group}/xml"] = np.array([text], dtype=object).astype(h5py.string_dtype())
        return path


def header(
    encoded: tuple[int, int, int] = (COLS, ROWS, 1),
    recon: tuple[int, int, int] = (COLS, ROWS, 1),
    fov: tuple[float, float, float] = (64.0, 48.0, 5.0),
    recon_fov: tuple[float, float, float] | None = None,
    *,
    trajectory: str = "cartesian",
    centre: int | None = None,
    vendor: str = "",
    position: str = "HFS",
    calibration: str = "embedded",
) -> str:
    """The XML header."""

    def space(name: str, matrix: tuple[int, ...], size: tuple[float, ...]) -> str:
        points = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", matrix, strict=True))
        sizes = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", size, strict=True))
        return f"<{name}><matrixSize>{points}</matrixSize><fieldOfView_mm>{sizes}</fieldOfView_mm></{name}>"

    limits = ""
    if centre is not None:
        limits = (
            "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>9</maximum>"
            f"<center>{centre}</center></kspace_encoding_step_1></encodingLimits>"
        )
    patient = f"<measurementInformation><patientPosition>{position}</patientPosition></measurementInformation>"
    return (
        '<?xml version="1.0"?>\n<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        f"{patient if position else ''}"
        f"<acquisitionSystemInformation><systemVendor>{vendor}</systemVendor></acquisitionSystemInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>1</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding>{space('encodedSpace', encoded, fov)}{space('reconSpace', recon, recon_fov or fov)}{limits}"
        f"<trajectory>{trajectory}</trajectory><parallelImaging><accelerationFactor><kspace_encoding_step_1>1"
        "</kspace_encoding_step_1><kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>"
        f"<calibrationMode>{calibration}</calibrationMode></parallelImaging></encoding></ismrmrdHeader>"
    )
