"""Volumes in chunks: the same result as in one piece, nothing computed twice, nothing stale used."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam
from operators.resolution import Truncation
from operators.tomography import Tomography
from recon.pipeline import chunks
from recon.pipeline.chunk_cache import ChunkCache
from recon.pipeline.prepare import JobProgress
from recon.pipeline.reconstruct import reconstruct, run
from recon.planning.chunk_layout import HALO, layout
from recon.problem.mri_cartesian import birdcage_maps
from recon.problem.problem import IntensityMap, Problem, Solver
from recon.solvers import registry
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import CGLS, DDS, DPS, FBP, TV, CGSense, DiffPIR, DiffusionMBIR, Method, REDDiff, ZeroFilled
from tests.conftest import GaussianPrior

SLICES, SIDE = 64, 20
AXIS = IntensityMap(0.02, 0.02)


def phantom() -> Tensor:
    """A volume that changes along every axis, ``(SLICES, SIDE, SIDE)``, 0 to 0.05."""
    z, y, x = torch.meshgrid(
        torch.linspace(-1, 1, SLICES), torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij"
    )
    body = ((x / 0.8) ** 2 + (y / 0.7) ** 2 < 1).float() * 0.02
    rod = ((x - 0.5 * z) ** 2 + y**2 < 0.06).float() * 0.03
    return body + rod


def ct(photons: bool = False) -> Problem:
    angles = tuple(float(a) for a in np.linspace(0, np.pi, 20, endpoint=False))
    operator = Tomography(ParallelBeam(SIDE, SIDE, 1.0, angles, 36, 1.0))
    data = operator(phantom())
    generator = torch.Generator().manual_seed(0)
    inverse_std = torch.rand(data.shape, generator=generator) + 0.5 if photons else None
    return Problem(operator, data + 0.003 * torch.randn(data.shape, generator=generator), 0.003, 2.0, 1.0, inverse_std)


def mri(*, per_slice: bool) -> Problem:
    generator = torch.Generator().manual_seed(1)
    maps = birdcage_maps(3, SIDE, SIDE)
    mask = torch.rand(SLICES, SIDE, SIDE, generator=generator) < 0.5
    mask[:, 8:16, 8:16] = True
    operator = CartesianMRI(mask if per_slice else mask[0], maps[None].repeat(SLICES, 1, 1, 1) if per_slice else maps)
    full = operator(40 * phantom().to(torch.complex64))
    return Problem(operator, full, 0.01)


def prior_for(problem: Problem) -> tuple[GaussianPrior, IntensityMap]:
    if problem.operator.domain.complex:
        return GaussianPrior(0.0, 0.2, is_complex=True), IntensityMap(1.5, 0.0)
    return GaussianPrior(-0.3, 0.2), AXIS


def solved(problem: Problem, method: Method, folder: Path, size: int, key: str = "k") -> Tensor:
    prior, intensity = prior_for(problem)
    start = partial(registry.start, settings=method, prior=prior, intensity=intensity, seed=3)
    job = chunks.solve(problem, method, start, ChunkCache(folder), key, size)
    try:
        while True:
            next(job)
    except StopIteration as end:
        volume: Tensor = end.value
        return volume


def difference(problem: Problem, method: Method, folder: Path, size: int = 16) -> float:
    """Largest difference between chunks and one piece, a share of the result's range."""
    whole, cut = solved(problem, method, folder / "whole", SLICES), solved(problem, method, folder / "cut", size)
    span = (whole.abs().max() - whole.abs().min()).clamp(min=1e-9)
    return float((whole - cut).abs().max() / span)


def halo_of(method: Method) -> int | None:
    """Slices computed beside those of a chunk; None for a method that is not cut."""
    cut = layout(100, method)
    return None if len(cut) == 1 else cut[1].first - cut[1].begin


LEVELS: dict[str, Any] = {"steps": 4, "start": "tv"}


@pytest.mark.parametrize(
    ("problem", "method"),
    [
        (ct(), FBP()),
        (ct(), CGLS(iterations=4)),
        (ct(), TV(dimensions=2, iterations=6, cg_iterations=3)),
        (ct(photons=True), TV(dimensions=2, iterations=6, cg_iterations=3)),
        (ct(), DiffPIR(**LEVELS)),
        (ct(photons=True), REDDiff(**LEVELS)),
        (ct(), REDDiff(preset="paper", steps=4)),
        (ct(), DDS(**LEVELS)),
        (ct(), DPS(steps=3)),
        (mri(per_slice=False), ZeroFilled()),
        (mri(per_slice=True), CGSense(iterations=5)),
        (mri(per_slice=True), DDS(**LEVELS)),
        (mri(per_slice=True), DPS(steps=3)),
        (mri(per_slice=False), REDDiff(**LEVELS)),
    ],
    ids=lambda v: v.name if hasattr(v, "name") else type(v.operator).__name__,
)
def test_independent_slices_are_the_same_in_chunks(problem: Problem, method: Method, tmp_path: Path) -> None:
    assert halo_of(method) == 0
    assert difference(problem, method, tmp_path) <= 1e-6


@pytest.mark.parametrize(
    ("problem", "method"),
    [
        (ct(), TV(iterations=30)),
        (ct(photons=True), TV(iterations=30)),
        (mri(per_slice=True), TV(iterations=30)),
        (ct(), DiffusionMBIR(steps=8)),
        (ct(), REDDiff(steps=8, tv_z_weight=0.5)),
        (mri(per_slice=False), DiffusionMBIR(steps=8)),
    ],
    ids=lambda v: v.name if hasattr(v, "name") else type(v.operator).__name__,
)
def test_the_seams_of_coupled_slices_are_invisible(problem: Problem, method: Method, tmp_path: Path) -> None:
    assert halo_of(method)
    found = difference(problem, method, tmp_path, size=8)
    print(f"{method.name}: {found:.1e}")
    assert 0 < found < 1e-3


def spec_of(path: Path, **more: Any) -> JobSpec:
    acquisition = {
        "kind": "ct-parallel",
        "angles_rad": {"count": 20},
        "detector_mm": 1.0,
        "pixel_mm": 1.0,
        "rows": SIDE,
    }
    method = {"name": "tv", "dimensions": 2, "iterations": 10}
    return JobSpec.parse({"input": str(path), "acquisition": acquisition, "method": method, **more})


def test_a_stopped_job_goes_on_where_it_was(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", ct().data.numpy())
    spec = spec_of(tmp_path / "data.npy")
    report = run(spec, local_files(spec), tmp_path / "straight")
    assert report.chunks_resumed == 0

    def stop_after_two(progress: JobProgress) -> None:
        if progress.stage.startswith("tv, slices 32:48"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, local_files(spec), tmp_path / "out", stop_after_two)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".out.chunks").glob("*.npy")}
    assert sum("chunk-00016-" in name for name in kept) == 2  # of the baseline and of the method
    stages: list[str] = []

    def note(progress: JobProgress) -> None:
        stages.append(progress.stage)
        for path in (tmp_path / ".out.chunks").glob("chunk-*.npy"):  # gone at the end
            assert kept.setdefault(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns

    report = run(spec, local_files(spec), tmp_path / "out", note)
    assert report.chunks_resumed == 6 and not any("slices 0:16" in s or "baseline" in s for s in stages)
    assert not (tmp_path / ".out.chunks").exists()
    straight, resumed = ((tmp_path / name / "volume.nii.gz").read_bytes() for name in ("straight", "out"))
    assert straight == resumed


@pytest.mark.parametrize("change", [{"method": {"name": "tv", "dimensions": 2, "iterations": 11}}, {"seed": 1}, {}])
def test_stale_chunks_are_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    np.save(tmp_path / "data.npy", ct().data.numpy())
    spec = spec_of(tmp_path / "data.npy", output={"baselines": []})
    running = reconstruct(spec, local_files(spec), tmp_path / "out")
    while "slices 32:48" not in next(running).stage:
        pass
    running.close()
    if not change:  # the same specification of other data
        np.save(tmp_path / "data.npy", 2 * ct().data.numpy())
    other = spec_of(tmp_path / "data.npy", output={"baselines": []}, **change)
    assert run(other, local_files(other), tmp_path / "out").chunks_resumed == 0


def test_a_damaged_chunk_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problem, method = ct(), FBP()
    whole = solved(problem, method, tmp_path, 16)
    for path in tmp_path.glob("chunk-00016-*"):
        path.write_bytes(path.read_bytes()[:50])
    assert torch.equal(solved(problem, method, tmp_path, 16), whole)
    assert "cannot be read" in caplog.text


def test_progress_is_that_of_the_whole(tmp_path: Path) -> None:
    method = TV(dimensions=2, iterations=10)
    seen: list[chunks.State] = []
    job = chunks.solve(ct(), method, partial(registry.start, settings=method), ChunkCache(tmp_path), "k", 16)
    for label, progress in job:
        assert label.endswith("of 64")
        seen.append(progress)
    assert [p.step for p in seen] == sorted(p.step for p in seen)
    assert (seen[-1].step, seen[-1].steps) == (40, 40)


@pytest.mark.parametrize("method", [FBP(), REDDiff(steps=4)], ids=str)
def test_of_a_finished_slab_nothing_is_kept_in_memory(method: Method, tmp_path: Path) -> None:
    problem = ct(photons=True)
    slabs: list[ReferenceType[Problem]] = []

    class Slabs:
        slices = problem.slices

        def part(self, first: int, last: int) -> Problem:
            assert all(slab() is None for slab in slabs)
            found = problem.part(first, last)
            slabs.append(ref(found))
            return found

    prior, intensity = prior_for(problem)
    start = partial(registry.start, settings=method, prior=prior, intensity=intensity, seed=3)
    deque(chunks.solve(Slabs(), method, start, ChunkCache(tmp_path), "k", 16), maxlen=0)
    assert len(slabs) >= 4


def test_a_volume_is_cut_with_halos_only_where_slices_are_coupled() -> None:
    independent, coupled, whole = FBP(), TV(), DDS(preset="paper-3d")
    assert len(layout(32, coupled)) == len(layout(32, independent)) == len(layout(100, whole)) == 1
    apart, together = layout(100, independent), layout(100, coupled)
    assert [(s.begin, s.end) for s in apart] == [(s.first, s.last) for s in apart]
    for cut in (apart, together):
        assert [s.first for s in cut[1:]] == [s.last for s in cut[:-1]] and (cut[0].first, cut[-1].last) == (0, 100)
    assert (together[1].begin, together[1].end) == (32 - HALO, 64 + HALO)
    assert halo_of(TV()) == halo_of(DiffusionMBIR()) == HALO
    assert halo_of(DiffusionMBIR(tv_z_weight=0)) == 0 and halo_of(DiffusionMBIR(preset="paper")) is None
    assert halo_of(DDS(preset="paper-3d")) is None and halo_of(DDS(preset="paper")) == 0


@pytest.mark.parametrize("method", [FBP(), TV(iterations=2), DiffusionMBIR(preset="paper", steps=2)])
@pytest.mark.parametrize("size", [16, 8])
def test_what_is_solved_is_what_the_layout_says(method: Method, size: int, tmp_path: Path) -> None:
    """The plan counts by the same layout: it is right about what a job computes."""
    problem, started = ct(), []
    prior, intensity = prior_for(problem)

    def start(part: Problem) -> Solver:
        started.append((part.first, part.first + part.slices))
        return registry.start(part, method, prior=prior, intensity=intensity)

    for _ in chunks.solve(problem, method, start, ChunkCache(tmp_path), "k", size):
        pass
    assert started == [(chunk.begin, chunk.end) for chunk in layout(SLICES, method, size)]


def test_a_part_has_the_numbers_of_its_slices_in_the_whole_volume() -> None:
    for problem in (ct(photons=True), mri(per_slice=True)):
        part = problem.part(16, 32)
        chosen = slice(16, 32)
        assert part.first == 16 and part.slices == 16 and torch.equal(part.scales, problem.scales[chosen])
        assert torch.equal(part.noise, problem.noise[chosen])
        for one, whole in ((part.operator, problem.operator), (part.whitened.operator, problem.whitened.operator)):
            assert torch.equal(one.norms, whole.norms if whole.slices is None else whole.norms[chosen])
        x = problem.zeros() + 1.0
        assert torch.equal(part.operator(x[16:32]), problem.operator(x)[16:32])
        assert part.part(2, 4).first == 18
    low = Problem(Truncation(SIDE, SIDE, 2), torch.zeros(8, 12, 12, dtype=torch.complex64))
    assert low.part(2, 4).operator is low.operator  # all slices are alike
