"""Volumes that are read, solved and written slab by slab: the same result as in memory, resumed, shared, cancelled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from operators.errors import InputError
from operators.geometry import ParallelBeam
from operators.tomography import Tomography
from recon.formats import dicom, hdf5, reader
from recon.formats.format import KnownVolume
from recon.measurement.measurement import Measurement
from recon.pipeline import prepare
from recon.pipeline.chunk_cache import ChunkCache
from recon.pipeline.prepare import JobProgress
from recon.pipeline.reconstruct import reconstruct, run
from recon.planning import plan
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import Input, JobSpec, local_files
from recon.spec.report import Report

SLICES, SIDE, VIEWS = 70, 24, 20
ANGLES = np.linspace(0, np.pi, VIEWS, endpoint=False).tolist()


@pytest.fixture(scope="module")
def sinogram() -> np.ndarray:
    """A rod that leans, in a body that grows, with noise."""
    z, y, x = torch.meshgrid(
        torch.linspace(-1, 1, SLICES), torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij"
    )
    volume = (x**2 + y**2 < 0.5 + 0.2 * z).float() * 0.02 + ((x - 0.5 * z) ** 2 + y**2 < 0.06).float() * 0.03
    clean = Tomography(ParallelBeam(SIDE, SIDE, 1.0, tuple(ANGLES), 40, 1.0))(volume)
    return (clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).numpy()


@pytest.fixture
def scan(tmp_path: Path, sinogram: np.ndarray) -> Path:
    np.save(tmp_path / "scan.npy", sinogram)
    return tmp_path / "scan.npy"


def job(path: Path, **more: Any) -> JobSpec:
    acquisition = {
        "kind": "ct-parallel",
        "angles_rad": ANGLES,
        "detector_mm": 1.0,
        "pixel_mm": 1.0,
        "rows": SIDE,
        **more.pop("geometry", {}),
    }
    output = {"format": "numpy", **more.pop("output", {})}
    return JobSpec.parse({"input": str(path), "acquisition": acquisition, "method": "fbp", "output": output, **more})


def results(spec: JobSpec, out: Path, each: Callable[[JobProgress], None] | None = None) -> tuple[np.ndarray, Report]:
    report = run(spec, local_files(spec), out, each)
    return np.load(out / "volume.npy"), report


def in_memory(spec: JobSpec, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, Report]:
    with monkeypatch.context() as patch:
        patch.setattr(reader, "apart", lambda *_: None)
        return results(spec, out)


@pytest.mark.parametrize(
    "method",
    [
        "fbp",
        {"name": "cgls", "iterations": 5},
        {"name": "sirt", "iterations": 5},
        {"name": "tv", "dimensions": 2, "iterations": 10},
        {"name": "tv", "dimensions": 3, "iterations": 10},
        {"name": "auto", "candidates": ["fbp", "cgls"]},
    ],
)
def test_slab_by_slab_is_the_same_as_in_memory(
    tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    spec = job(scan, method=method)
    whole, one = in_memory(spec, tmp_path / "whole", monkeypatch)
    read: list[tuple[int, int]] = []
    read_part = reader.read_part

    def noted(spec: JobSpec, files: Any, first: int, last: int, *more: Any) -> Measurement:
        read.append((first, last))
        return read_part(spec, files, first, last, *more)

    monkeypatch.setattr(reader, "read_part", noted)
    found, two = results(spec, tmp_path / "slabs")
    assert max(last - first for first, last in read) <= (72 if spec.method.couples_slices() else 24)
    assert found.shape == (SLICES, SIDE, SIDE)
    bound = 1e-3 if spec.method.couples_slices() else 1e-6
    assert np.abs(found - whole).max() <= bound * np.ptp(whole)
    assert two.shape == one.shape and two.unit == one.unit and two.chunks_resumed == 0
    assert two.data_misfit == pytest.approx(one.data_misfit, rel=1e-4)
    assert two.expected_misfit == pytest.approx(one.expected_misfit, rel=1e-4)
    assert (tmp_path / "slabs/montage.png").stat().st_size > 10_000
    baseline = [tmp_path / name / "baseline-fbp.npy" for name in ("whole", "slabs")]
    if method != "fbp":
        assert np.array_equal(*(np.load(path) for path in baseline))


@pytest.mark.parametrize("form", ["nifti", "nii"])
def test_nifti_written_in_slabs(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    whole, _ = in_memory(job(scan), tmp_path / "whole", monkeypatch)
    spec = job(scan, output={"format": form})
    run(spec, local_files(spec), tmp_path / "out")
    path = tmp_path / "out" / ("volume.nii.gz" if form == "nifti" else "volume.nii")
    found = nib.Nifti1Image.from_filename(path)
    assert np.array_equal(np.asarray(found.dataobj).transpose(2, 1, 0), whole)
    plain = nib.Nifti1Image(np.ascontiguousarray(whole.transpose(2, 1, 0)), None, found.header)
    same = tmp_path / path.name
    nib.save(plain, same)
    assert path.read_bytes() == same.read_bytes()  # bit by bit what nibabel writes of the whole


@pytest.mark.parametrize("form", ["dicom", "dicom-enhanced"])
def test_dicom_written_in_slabs(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    geometry = {"mu_water_per_mm": 0.02}
    whole, _ = in_memory(job(scan, geometry=geometry), tmp_path / "whole", monkeypatch)
    spec = job(scan, output={"format": form}, geometry=geometry)
    run(spec, local_files(spec), tmp_path / "out")
    path = tmp_path / "out" / "volume.dcm"
    if form == "dicom":
        shutil.unpack_archive(tmp_path / "out" / "volume.zip", tmp_path)
        path = tmp_path / "volume"
    found = dicom.FORMAT.read(path, Input(path=str(path)))  # type: ignore[misc]
    assert isinstance(found, KnownVolume) and found.unit == "HU" and not found.in_patient
    # The scanner's frame has row 0 on top: seen so, slices count against their normal, along which a reader sorts them.
    assert np.abs(found.data[::-1] - whole).max() <= 0.501


def test_a_prior_sees_slabs(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In HU, where the prior's scale is fixed; every slice has the noise that belongs to its number."""
    method = {"name": "red-diff", "steps": 2, "start": "classical"}
    spec = job(scan, method=method, output={"baselines": []}, seed=3, geometry={"mu_water_per_mm": 0.02})
    whole, one = in_memory(spec, tmp_path / "whole", monkeypatch)
    found, two = results(spec, tmp_path / "slabs")
    assert np.abs(found - whole).max() <= 1e-6 * np.ptp(whole)
    assert two.network_evaluations == one.network_evaluations and two.unit == "HU"
    assert one.familiarity is not None and two.familiarity == one.familiarity
    assert two.intensity_map == one.intensity_map


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, VIEWS, 40), "compression": "gzip"}])
def test_slices_of_an_hdf5_file(
    tmp_path: Path, sinogram: np.ndarray, monkeypatch: pytest.MonkeyPatch, storage: dict[str, Any]
) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=sinogram, **storage)
    given = {"path": str(tmp_path / "scan.h5"), "format": "hdf5", "slices": [5, 60]}
    spec = job(tmp_path, input=given)
    whole, _ = in_memory(spec, tmp_path / "whole", monkeypatch)
    found, report = results(spec, tmp_path / "slabs")
    assert np.array_equal(found, whole) and report.shape == (55, SIDE, SIDE)


def test_a_measurement_of_ours_keeps_its_place(tmp_path: Path, sinogram: np.ndarray) -> None:
    acquisition = CTParallel(angles_rad=ANGLES, detector_mm=1.0, pixel_mm=1.0, slice_mm=2.0, rows=SIDE)
    path, affine = tmp_path / "scan.h5", np.diag([1.0, -1.0, 2.0, 1.0])
    hdf5.write_measurement(path, Measurement(sinogram, acquisition, affine=affine, noise_std=0.01))
    value = {"input": {"path": str(path), "format": "hdf5", "slices": [3, 60]}, "method": "fbp"}
    spec = JobSpec.parse({**value, "output": {"format": "nii"}})
    run(spec, local_files(spec), tmp_path / "out")
    found = nib.Nifti1Image.from_filename(tmp_path / "out/volume.nii").affine
    assert np.allclose(found[:3, 3], [0, 0, 6])


def test_what_is_wrong_is_named_by_its_slice_when_it_is_reached(tmp_path: Path, sinogram: np.ndarray) -> None:
    wrong = sinogram.copy()
    wrong[61, 2, 3] = np.nan
    np.save(tmp_path / "scan.npy", wrong)
    spec = job(tmp_path / "scan.npy")
    with pytest.raises(InputError, match=r"slices 44 to 67: 1 of \d+ values are not finite, the first at \(61, 2, 3\)"):
        run(spec, local_files(spec), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.chunks").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, scan: Path, sinogram: np.ndarray) -> None:
    """Half of one scan and half of another would look right."""
    spec = job(scan)

    def change(progress: JobProgress) -> None:
        if "slices 32:48" in progress.stage:
            np.save(scan, 2 * sinogram)

    with pytest.raises(InputError, match="has changed while its slices were read"):
        results(spec, tmp_path / "out", change)


def test_a_stopped_job_goes_on_and_another_file_starts_anew(tmp_path: Path, scan: Path, sinogram: np.ndarray) -> None:
    spec = job(scan, method={"name": "tv", "dimensions": 2, "iterations": 10})
    straight, _ = results(spec, tmp_path / "straight")

    def stop_after_two(progress: JobProgress) -> None:
        if progress.stage.startswith("tv, slices 32:48"):
            raise KeyboardInterrupt

    for change in (False, True):
        with pytest.raises(KeyboardInterrupt):
            results(spec, tmp_path / "out", stop_after_two)
        if change:
            np.save(scan, 2 * sinogram)  # as large as before
        found, report = results(spec, tmp_path / "out")
        assert report.chunks_resumed == (0 if change else 7)  # of the baseline and of the method
        assert np.array_equal(found, straight) is not change
        shutil.rmtree(tmp_path / "out")


def test_others_help_with_slabs(tmp_path: Path, scan: Path) -> None:
    """A helper reads what it computes, and what it has computed is not computed again."""
    spec = job(scan, method={"name": "tv", "dimensions": 2, "iterations": 4}, output={"baselines": []})
    work = tmp_path / "work"
    running = reconstruct(spec, local_files(spec), tmp_path / "out", work, invite=lambda _: None)
    while "slices 0:16" not in next(running).stage:
        pass
    for _ in prepare.assist(spec, local_files(spec), work):
        pass
    assert len(list(work.glob("*.npy"))) == 4  # all but the one in progress
    report: Report | None = None
    try:
        while True:
            next(running)
    except StopIteration as end:
        report = end.value
    assert report is not None and report.chunks_by_other_workers == 4
    alone, _ = results(spec, tmp_path / "alone")
    assert np.array_equal(np.load(tmp_path / "out/volume.npy"), alone)


def test_the_plan_of_slabs_does_not_grow_with_slices(tmp_path: Path, scan: Path, sinogram: np.ndarray) -> None:
    np.save(tmp_path / "more.npy", np.concatenate([sinogram] * 10))
    found = []
    for path in (scan, tmp_path / "more.npy"):
        spec = job(path, method="sirt", geometry={"object_mm": SIDE})
        found.append(plan.make(spec, reader.check(spec, local_files(spec))))
    assert all(one.streamed for one in found) and found[0].memory_bytes == found[1].memory_bytes
    assert found[1].seconds > found[0].seconds
    for kept in ({"output": {"uncertainty": 1}}, {"input": {"path": str(scan), "slices": [0, 32]}}):
        spec = job(scan, **kept)
        assert not plan.make(spec, reader.check(spec, local_files(spec))).streamed


def test_nothing_is_left_in_the_work_folder(tmp_path: Path, scan: Path) -> None:
    spec = job(scan)
    results(spec, tmp_path / "out")
    assert not (tmp_path / ".out.chunks").exists()
    assert json.loads((tmp_path / "out/report.json").read_text())["shape"] == [SLICES, SIDE, SIDE]
    assert not ChunkCache(tmp_path / ".out.chunks").wanted()
