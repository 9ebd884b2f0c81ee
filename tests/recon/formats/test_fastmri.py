"""fastMRI files, and plain HDF5 k-space whose first axis is ambiguous."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from operators.errors import ReconError
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.spec.job import JobSpec, local_files
from tests.recon.formats.mrd_files import fourier, header, phantom, picture

ROWS, COLS, SLICES = 24, 20, 3


def images(coils: int = 2) -> np.ndarray:
    """Readouts are rows, half of them oversampling."""
    found = np.zeros((SLICES, coils, 2 * ROWS, COLS), np.complex64)
    found[:, :, ROWS // 2 : ROWS // 2 + ROWS] = phantom(SLICES, coils, ROWS, COLS)
    return found


def written(path: Path, kspace: np.ndarray, *, truth: np.ndarray | None = None, mask: Any = None) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = header(
            (2 * ROWS, COLS, 1), (ROWS, COLS, 1), (96.0, 40.0, 5.0), (48.0, 40.0, 5.0), position=""
        )
        if truth is not None:
            file["reconstruction_rss"] = truth
        if mask is not None:
            file["mask"] = mask
    return path


def spec(path: Path, kind: str = "fastmri", acquisition: Any = None, **more: Any) -> JobSpec:
    value = {"input": {"path": str(path), "format": kind, **more}, "method": "zero-filled"}
    return JobSpec.parse({**value, "acquisition": acquisition} if acquisition else value)


def read(*args: Any, **more: Any) -> Measurement:
    job = spec(*args, **more)
    return reader.read(job, local_files(job))


def refusal(*args: Any, **more: Any) -> ReconError:
    with pytest.raises(ReconError) as error:
        read(*args, **more)
    return error.value


def test_multicoil_files_without_their_oversampling_and_with_their_truth(tmp_path: Path) -> None:
    truth = np.sqrt((abs(phantom(SLICES, 2, ROWS, COLS)) ** 2).sum(1))
    path = written(tmp_path / "a.h5", fourier(images()), truth=truth)
    found = read(path)
    assert picture(found.data) == pytest.approx(phantom(SLICES, 2, ROWS, COLS), abs=1e-5)
    assert found.truth is not None
    assert found.truth == pytest.approx(np.sqrt((abs(picture(found.data)) ** 2).sum(1)), abs=1e-5)
    assert found.acquisition.pixel_mm == pytest.approx(2.0) and found.acquisition.slice_mm == 5.0
    assert found.affine is None and not found.in_patient
    part = read(path, slices=[1, 3])
    assert part.truth is not None
    assert np.array_equal(part.data, found.data[1:]) and np.array_equal(part.truth, found.truth[1:])
    assert refusal(path, slices=[1, 9]).field == "input.slices"


def test_single_coil_stacks_are_slices(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.h5", fourier(images(1))[:, 0]))
    assert found.data.shape == (SLICES, 1, ROWS, COLS)
    assert "3 slices of a single coil" in " ".join(found.notes)


def test_the_files_mask_says_which_lines_count(tmp_path: Path) -> None:
    mask = np.arange(COLS) % 2 == 0
    kspace = fourier(images())
    found = read(written(tmp_path / "a.h5", kspace, mask=mask.astype(np.float32)))
    assert found.mask is not None and np.array_equal(found.mask, np.broadcast_to(mask, (ROWS, COLS)))
    assert "the others were measured, too" in " ".join(found.notes)
    kspace[..., -4:] = 0  # what fastMRI pads
    found = read(written(tmp_path / "b.h5", kspace, mask=mask))
    assert found.mask is not None and not found.mask[:, -4:].any()
    assert "zero in every coil" in " ".join(found.notes)
    assert "each of the 20 lines" in refusal(written(tmp_path / "c.h5", kspace, mask=np.ones(2 * ROWS))).message


def test_a_truth_of_another_size_is_not_compared(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.h5", fourier(images()), truth=np.ones((SLICES, ROWS, ROWS), np.float32)))
    assert found.truth is None and "not compared" in " ".join(found.notes)


def test_files_that_are_not_fastmri(tmp_path: Path) -> None:
    assert "complex" in refusal(written(tmp_path / "a.h5", np.ones((3, 2, 48, 20)))).message
    assert "expected (slices, coils" in refusal(written(tmp_path / "b.h5", np.ones((48, 20), np.complex64))).message
    turned = fourier(images()).swapaxes(-1, -2)
    assert "along the readout" in refusal(written(tmp_path / "c.h5", turned)).message
    path = written(tmp_path / "d.h5", fourier(images()))
    path.write_bytes(path.read_bytes()[:-3000])
    assert refusal(path).field == "input"
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("d.h5", "kspace")
    assert "no dataset 'kspace'" in refusal(tmp_path / "e.h5").message


def test_a_first_axis_of_slices_or_of_coils_is_asked_for(tmp_path: Path) -> None:
    kspace = fourier(phantom(5, 1)[:, 0])
    path = tmp_path / "k.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
    error = refusal(path, "hdf5", "mri-cartesian")
    assert error.field == "acquisition.first_axis" and "5 slices of one coil, or 5 coils" in error.message
    slices = read(path, "hdf5", {"kind": "mri-cartesian", "first_axis": "slices"})
    assert slices.data.shape == (5, 1, 24, 32) and np.array_equal(slices.data[:, 0], kspace)
    assert read(path, "hdf5", {"kind": "mri-cartesian", "first_axis": "coils"}).data.shape == (1, 5, 24, 32)
    np.save(tmp_path / "k.npy", kspace)  # whose order of axes is documented
    assert read(tmp_path / "k.npy", "numpy", "mri-cartesian").data.shape == (1, 5, 24, 32)
    assert read(tmp_path / "k.npy", "numpy", {"kind": "mri-cartesian", "first_axis": "slices"}).data.shape[0] == 5
