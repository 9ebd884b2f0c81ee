"""Jobs in one piece that are killed go on where they were, with the result that they would have had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recon.formats import hdf5
from recon.pipeline.chunk_cache import ChunkCache
from recon.pipeline.reconstruct import solve
from recon.problem import resume
from recon.problem.problem import IntensityMap, Problem, Solver
from recon.solvers import registry as solvers
from recon.solvers.mixture import Part, mixture
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import method_of
from tests.recon.problem.test_ct_volume import Slices, problem, scan

METHODS: list[dict[str, Any]] = [
    {"name": "tv", "iterations": 12},
    {"name": "sirt", "iterations": 6},
    {"name": "cgls", "iterations": 6},
    {"name": "red-diff", "steps": 6, "skip_threshold": 0.2, "tv_z_weight": 0.01},
    {"name": "red-diff", "steps": 6, "update": "adam"},
    {"name": "diffpir", "steps": 6, "zeta": 0.5, "skip_threshold": 0.2},
    {"name": "dds", "steps": 6, "tv_z_weight": 0.01},
    {"name": "dds", "steps": 6, "preset": "paper-3d"},
    {"name": "diffusion-mbir", "steps": 6, "preset": "paper"},
]


@pytest.fixture(autouse=True)
def every_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "LEAST_S", 0.0)
    monkeypatch.setattr(resume, "SHARE", float("inf"))


def ended(solver: Solver, file: resume.StateFile | None, stop_at: int | None = None) -> tuple[Tensor | None, list[int]]:
    """Result of a solver, None if it is closed after so many of its own steps, and the steps that it reported."""
    steps: list[int] = []
    with resume.kept_in(file):
        try:
            while True:
                at = next(solver)
                if at.stage != "start":
                    steps.append(at.step)
                if len(steps) == stop_at:
                    solver.close()
                    return None, steps
        except StopIteration as end:
            found: Tensor = end.value
            return found, steps


@pytest.mark.parametrize("settings", METHODS, ids=lambda s: "-".join(map(str, s.values())))
def test_a_solver_goes_on_where_it_was(settings: dict[str, Any], tmp_path: Path) -> None:
    whole, method = problem(12), method_of(settings)
    scale = float(whole.scales[0])

    def start() -> Solver:
        return solvers.start(whole, method, prior=Slices(), intensity=IntensityMap(scale, scale), seed=5)

    undisturbed, every = ended(start(), None)
    stop_at = 1 if settings["name"] == "tv" else 3
    _, before = ended(start(), resume.StateFile(tmp_path / "state"), stop_at)
    found, after = ended(start(), resume.StateFile(tmp_path / "state"))
    assert after == every[len(before) :]
    assert found is not None and undisturbed is not None and torch.equal(found, undisturbed)


def test_a_state_of_other_settings_or_a_damaged_one_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = resume.StateFile(tmp_path / "state")
    with resume.kept_in(file):
        resume.keep(method_of({"name": "tv", "iterations": 12}), 3, {"x": torch.zeros(2)})
        assert resume.recalled(method_of({"name": "tv", "iterations": 13})) is None
        found = resume.recalled(method_of({"name": "tv", "iterations": 12}))
        assert found is not None and found.step == 3
        file.path.write_bytes(b"nothing of the kind")
        assert resume.recalled(method_of({"name": "tv", "iterations": 12})) is None
    assert "cannot be read" in caplog.text


def test_states_are_not_written_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "LEAST_S", 60.0)
    with resume.kept_in(resume.StateFile(tmp_path / "state")):
        resume.keep(method_of("tv"), 1, {"x": torch.zeros(2)})
    assert not (tmp_path / "state").exists()


def test_a_mixture_keeps_the_volumes_of_methods_that_have_ended(tmp_path: Path) -> None:
    whole = problem(12)
    weights = torch.full((2, 1), 0.5)
    ran: list[str] = []

    def part(name: str, settings: dict[str, Any]) -> Part:
        def start(problem: Problem) -> Solver:
            ran.append(name)
            return solvers.start(problem, method_of(settings))

        return Part(name, start, weights)

    parts = [part("first", {"name": "sirt", "iterations": 3}), part("second", {"name": "tv", "iterations": 8})]
    undisturbed, _ = ended(mixture(whole, parts), None)
    ended(mixture(whole, parts), resume.StateFile(tmp_path / "state"), 4)
    assert ran == ["first", "second"] * 2 and len(list(tmp_path.iterdir())) == 2
    file = resume.StateFile(tmp_path / "state")
    found, _ = ended(mixture(whole, parts), file)
    assert ran == ["first", "second"] * 2 + ["second"]
    assert found is not None and undisturbed is not None and torch.equal(found, undisturbed)
    file.remove()
    assert not list(tmp_path.iterdir())


def test_a_killed_job_goes_on_and_leaves_no_state(tmp_path: Path) -> None:
    hdf5.write_measurement(tmp_path / "scan.h5", scan(12, views=16))
    method = {"name": "tv", "iterations": 30}
    spec = JobSpec.parse({"input": str(tmp_path / "scan.h5"), "method": method, "output": {"baselines": []}})

    def job(folder: str) -> Any:
        return solve(spec, local_files(spec), ChunkCache(tmp_path / folder))

    def result(running: Any) -> tuple[np.ndarray, list[int]]:
        steps = []
        try:
            while True:
                at = next(running)
                if at.stage == "tv":
                    steps.append(at.step)
        except StopIteration as end:
            return end.value.held().solved.volume.values.numpy(), steps

    undisturbed, every = result(job("undisturbed"))
    running = job("killed")
    while next(running).step < 15:
        pass
    running.close()
    assert list((tmp_path / "killed").glob("*.state"))
    found, after = result(job("killed"))
    assert after == [step for step in every if step > 15] and np.array_equal(found, undisturbed)
    assert not list((tmp_path / "killed").glob("*.state"))
