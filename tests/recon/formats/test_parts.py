"""Only what is asked for is read: parts of arrays, and files far larger than memory, checked by header and sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from operators.errors import InputError, ResourceLimit
from recon.formats import hdf5, numpy_files, reader, sandbox
from recon.measurement.measurement import Measurement
from recon.planning import plan
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from tests.recon.cli.test_cli import recon
from tests.recon.formats.test_bart import written

VIEWS, DETECTORS = 32, 96
SLICES = 15_000_000_000 // (4 * VIEWS * DETECTORS)
"""Slices of a sinogram of 15 GB."""
ARRAY = np.random.default_rng(0).random((7, 5, 6)).astype(np.float32)


def job(path: Path, **given: Any) -> JobSpec:
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": VIEWS}, "detector_mm": 1.0}
    return JobSpec.parse({"input": {"path": str(path), **given}, "acquisition": acquisition, "method": "fbp"})


def sparse(path: Path, **first_value: float) -> Path:
    """A sinogram of 15 GB that takes next to no disk: zeros that were never written, but for slices 1000 to 1015."""
    shape = (SLICES, VIEWS, DETECTORS)
    part = np.zeros((16, VIEWS, DETECTORS), np.float32)
    part[:, :, 40:56] = 0.5
    part[3, 4, 5] = first_value.get("value", 0.0)
    if path.suffix == ".npy":
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)[1000:1016] = part
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("data", shape, "f4", chunks=(1, VIEWS, DETECTORS))[1000:1016] = part
    return path


@pytest.fixture
def box() -> Iterator[sandbox.Sandbox]:
    found = sandbox.Sandbox()
    yield found
    found.close()


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_of_npy_files(tmp_path: Path, order: str) -> None:
    for array in (ARRAY, ARRAY[0], ARRAY[0, 0], ARRAY.astype(">i2"), ARRAY.astype(np.complex128)):
        np.save(tmp_path / "a.npy", np.asarray(array, order="C" if order == "C" else "F"))
        assert np.array_equal(numpy_files.read(tmp_path / "a.npy"), array)
        found = numpy_files.stored(tmp_path / "a.npy")
        assert (found.shape, found.dtype, found.nbytes) == (array.shape, array.dtype, array.nbytes)
        assert np.array_equal(found.read(1, 4), array[1:4])


@pytest.mark.parametrize("storage", [{}, {"chunks": (3, 2, 6)}, {"chunks": (3, 2, 6), "compression": "gzip"}])
def test_parts_of_hdf5_datasets(tmp_path: Path, storage: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=ARRAY, **storage)
    found = hdf5.stored(tmp_path / "a.h5", None)
    assert found.least_bytes == (3 * 2 * 6 * 4 if "compression" in storage else 0)
    assert np.array_equal(found.read(2, 5), ARRAY[2:5])


def test_an_array_without_slices_is_one_slice(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((VIEWS, DETECTORS), np.float32))
    one = job(tmp_path / "a.npy", slices=[0, 1])
    assert reader.read(one, local_files(one)).data.shape == (1, VIEWS, DETECTORS)
    two = job(tmp_path / "a.npy", slices=[0, 2])
    with pytest.raises(InputError, match=r"input\.slices: slices \[0, 2\], the input has 1"):
        reader.read(two, local_files(two))


@pytest.mark.parametrize("name", ["scan.npy", "scan.h5"])
def test_sixteen_slices_of_15_gb(tmp_path: Path, box: sandbox.Sandbox, name: str) -> None:
    """The server checks them within its limits, the plan is that of the part, and they are reconstructed."""
    spec = job(sparse(tmp_path / name), format=None if name.endswith("npy") else "hdf5", slices=[1000, 1016])
    header = box.check(spec, local_files(spec))
    assert header.shape == (16, VIEWS, DETECTORS) and header.source_bytes == 4 * 16 * VIEWS * DETECTORS
    assert plan.make(spec, header).memory_bytes < 0.5e9
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)))
    done = recon("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results/job/report.json").read_text())
    assert report["shape"] == [16, DETECTORS, DETECTORS]
    assert report["memory"]["planned_bytes"] == pytest.approx(report["memory"]["peak_bytes"], rel=0.25)


def test_what_is_wrong_in_a_part_is_named_by_its_slice(tmp_path: Path, box: sandbox.Sandbox) -> None:
    path = sparse(tmp_path / "scan.npy", value=np.nan)
    spec = job(path, slices=[1000, 1016])
    with pytest.raises(InputError, match=r"1 of 49152 values are not finite, the first at \(1003, 4, 5\) is nan"):
        box.check(spec, local_files(spec))
    fine = job(path, slices=[1004, 1016])
    assert box.check(fine, local_files(fine)).shape[0] == 12
    beyond = job(path, slices=[SLICES - 1, SLICES + 1])
    with pytest.raises(InputError, match=rf"input\.slices: .*the input has {SLICES}"):
        box.check(beyond, local_files(beyond))


def test_of_a_large_measurement_some_slices_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SAMPLED_BYTES", 10_000)
    monkeypatch.setattr("recon.measurement.sampled.SLICES", 3)
    data = np.zeros((9, VIEWS, DETECTORS), np.float32)
    data[5] = np.nan
    path = tmp_path / "a.npy"
    np.save(path, data)
    spec = job(path)
    assert reader.check(spec, local_files(spec)).shape == data.shape
    with pytest.raises(InputError, match="not finite"):
        reader.read(spec, local_files(spec))
    for slices in ([1, 9], [5, 9], [1, 6]):  # in the middle, the first, the last
        spec = job(path, slices=slices)
        with pytest.raises(InputError, match=r"the first at \(5, 0, 0\)"):
            reader.check(spec, local_files(spec))


def test_more_than_the_limit_is_accepted_slice_by_slice_if_the_file_is_as_large(tmp_path: Path) -> None:
    """A small file that promises 15 GB would make others compute for hours; one of 15 GB was sent by somebody."""
    spec = job(sparse(tmp_path / "scan.npy"))
    assert reader.check(spec, local_files(spec)).shape[0] == SLICES
    with pytest.raises(ResourceLimit, match=r"15\.0 GB; the limit is 8\.6 GB"):
        reader.read(spec, local_files(spec))
    spec = job(sparse(tmp_path / "scan.h5"), format="hdf5")
    with pytest.raises(ResourceLimit, match=r"15\.0 GB; the limit is 8\.6 GB"):
        reader.check(spec, local_files(spec))


def test_own_measurements_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the truth and the affine of the part."""
    acquisition = CTParallel(angles_rad={"count": VIEWS}, detector_mm=1.0)
    data = np.arange(9, dtype=np.float32)[:, None, None] * np.ones((1, VIEWS, DETECTORS), np.float32)
    truth = np.arange(9, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    path = tmp_path / "m.h5"
    hdf5.write_measurement(path, Measurement(data, acquisition, affine=np.diag([1.0, 1, 2, 1]), truth=truth))
    found = hdf5.read_measurement(path, (3, 5))
    assert found.slices_in_file == 9 and found.data[:, 0, 0].tolist() == [3, 4]
    assert found.truth is not None and found.truth[:, 0, 0].tolist() == [3, 4]
    assert found.affine is not None and found.affine[2, 3] == 6
    monkeypatch.setattr(reader, "SAMPLED_BYTES", 1000)
    spec = JobSpec.parse({"input": {"path": str(path), "format": "hdf5", "slices": [1, 9]}, "method": "fbp"})
    header = reader.check(spec, local_files(spec))
    assert header.shape == (8, VIEWS, DETECTORS) and header.known


def test_a_compressed_chunk_counts_as_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (512, VIEWS, DETECTORS), "f4", chunks=(512, VIEWS, DETECTORS), compression="gzip")
    spec = job(tmp_path / "a.h5", format="hdf5", slices=[1, 2])
    assert reader.check(spec, local_files(spec)).source_bytes == 512 * VIEWS * DETECTORS * 4


def test_the_plan_knows_that_3d_raw_data_are_transformed_as_a_whole(tmp_path: Path) -> None:
    """Slices of 3D k-space cannot be read alone, though the file is asked for some only."""
    path = written(tmp_path / "k.cfl", np.random.default_rng(0).random((16, 12, 10, 2)))
    value = {"input": {"path": str(path), "slices": [0, 1]}, "acquisition": "mri-cartesian", "method": "zero-filled"}
    spec = JobSpec.parse(value)
    assert reader.check(spec, local_files(spec)).source_bytes >= 4 * 16 * 12 * 10 * 2 * 8
