"""Cone-beam quality: volumes measured by a realistic simulation, reconstructed by several methods, plane by plane.

Every job runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from recon.quality import metrics
from recon.spec.affine import voxel_size
from recon.spec.job import Input

PHOTONS = 1e5
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class ConeRow:
    """One job: what it took, and how near its result is to the truth.

    Parameters
    ----------
    psnr
        Of the volume, in dB; the other three are means over its axial, coronal and sagittal planes.
    projection_seconds
        Time in the projector and its adjoint, of `seconds` in all.
    """

    task: str
    method: str
    views: int
    psnr: float
    psnr_axial: float
    psnr_coronal: float
    psnr_sagittal: float
    seconds: float
    projection_seconds: float
    peak_bytes: int
    planned_bytes: int
    planned_seconds: float


def cube(path: Path, size: int) -> tuple[Volume, NDArray[np.float64]]:
    """Middle of a CT volume in HU, about `size` cubic voxels along each side, and its affine."""
    from recon.formats.format import KnownVolume
    from recon.formats.nifti import FORMAT

    assert FORMAT.read is not None
    found = FORMAT.read(path, Input(path=str(path)))
    assert isinstance(found, KnownVolume)
    col_mm, row_mm, slice_mm = voxel_size(found.affine)
    side_mm = max(found.data.shape[2] * col_mm, found.data.shape[1] * row_mm)
    voxel_mm = side_mm / size
    slices = min(len(found.data), max(1, round(side_mm / slice_mm)))
    first = (len(found.data) - slices) // 2
    steps = (slice_mm / voxel_mm, row_mm / voxel_mm, col_mm / voxel_mm)
    fine = ndimage.zoom(found.data[first : first + slices].astype(np.float32), steps, order=1, mode="nearest")
    return np.ascontiguousarray(fine), np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])


def compare(
    volumes: Sequence[Path], views: Sequence[int], methods: Sequence[str], size: int, acquisition: dict[str, Any]
) -> Iterator[ConeRow]:
    """Measure volumes and reconstruct them by every method."""
    import recon
    from recon.formats import hdf5

    for path in volumes:
        volume, affine = cube(path, size)
        for count in views:
            given = {"kind": "ct-cone", **acquisition}
            scan = recon.simulate(volume, given, affine=affine, views=count, photons_per_ray=PHOTONS)
            with TemporaryDirectory() as folder:
                file = Path(folder) / "scan.h5"
                hdf5.write_measurement(file, scan)
                for method in methods:
                    task = f"{path.name.split('.')[0]}, {'x'.join(map(str, volume.shape))}, {count} views"
                    yield _apart(_row, task, count, method, file)


def _apart(work: Callable[..., ConeRow], *arguments: Any) -> ConeRow:
    """Run in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _row(task: str, views: int, method: str, file: Path) -> ConeRow:
    import recon
    from operators import joseph
    from recon.formats import hdf5, reader
    from recon.planning import plan
    from recon.spec.job import JobSpec, local_files

    spent = [0.0]

    def timed(work: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            began = time.perf_counter()
            work(*arguments)
            spent[0] += time.perf_counter() - began

        return run

    joseph.forward, joseph.adjoint = timed(joseph.forward), timed(joseph.adjoint)
    spec = JobSpec.parse({"input": str(file), "method": method, "output": {"baselines": [], "montage": False}})
    planned = plan.make(spec, reader.check(spec, local_files(spec)))
    began = time.perf_counter()
    result = recon.reconstruct(file, method=method, baselines=[], progress=False)
    seconds = time.perf_counter() - began
    truth = hdf5.read_measurement(file).truth
    assert truth is not None
    volume = np.asarray(result.volume, dtype=np.float32)
    axial, coronal, sagittal = (_by_planes(volume, truth, axis) for axis in range(3))
    return ConeRow(
        task=task,
        method=method,
        views=views,
        psnr=round(metrics.psnr(volume, truth), 3),
        psnr_axial=axial,
        psnr_coronal=coronal,
        psnr_sagittal=sagittal,
        seconds=round(seconds, 1),
        projection_seconds=round(spent[0], 1),
        peak_bytes=result.report.peak_memory_bytes,
        planned_bytes=planned.memory_bytes,
        planned_seconds=planned.seconds,
    )


def _by_planes(volume: Volume, truth: Volume, axis: int) -> float:
    """Mean PSNR in dB of the planes across an axis; the peak is the range of the whole truth."""
    span = float(truth.max() - truth.min())
    squares = (volume.astype(np.float64) - truth) ** 2
    errors = squares.mean(axis=tuple(other for other in range(3) if other != axis))
    return round(float(np.mean(10 * np.log10(span**2 / np.maximum(errors, 1e-12)))), 3)
