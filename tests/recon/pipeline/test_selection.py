"""`method: auto`: judged by withheld samples, never worse than the classical method, resumed and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recon
from operators.errors import InputError
from operators.fourier import CartesianMRI
from recon.formats import nifti, reader
from recon.pipeline.prepare import prepare
from recon.pipeline.reconstruct import run
from recon.pipeline.selection import Judging, _familiar, _unjudged, select, weights_along
from recon.planning import plan
from recon.problem import inverse_problem
from recon.problem.ct import CTProblem
from recon.problem.problem import Problem, Progress, Solver
from recon.problem.problem import run as drive
from recon.solvers.mixture import Part, mixture
from recon.spec.acquisitions import methods_of
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import DDS, TV, Auto, Boundary, Diffusion, REDDiff
from recon.spec.registry import ACQUISITIONS
from recon.spec.report import Report, Selection
from tests.conftest import disc, voxels

SIDE = 64
METHOD = {"name": "auto", "candidates": ["tv", "dds"]}


def plate(folder: Path, slices: int = 3) -> Path:
    """An acrylic plate with holes, in HU: nothing that a prior of patients has seen."""
    holes = disc(SIDE, 2.0, 9.0, x_mm=20.0) + disc(SIDE, 2.0, 6.0, x_mm=-15.0, y_mm=22.0)
    volume = (-1000 + 1120 * (disc(SIDE, 2.0, 50.0) - holes)).expand(slices, SIDE, SIDE).numpy().copy()
    nifti.write(folder / "plate.nii.gz", volume, np.diag([2.0, 2.0, 3.0, 1.0]), "test")
    return folder / "plate.nii.gz"


def job(path: Path, method: Any = METHOD, **simulated: Any) -> JobSpec:
    return JobSpec.parse(
        {
            "input": {"path": str(path), "simulate": {"views": 12, "photons_per_ray": 1e5, **simulated}},
            "acquisition": "ct-parallel",
            "method": method,
            "output": {"baselines": ["tv"], "montage": False},
        }
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("auto")
    spec = job(plate(folder))
    report = run(spec, local_files(spec), folder / "out", work=folder / "work")
    return folder, report


def test_the_result_is_as_good_as_the_better_candidate(done: tuple[Path, Report]) -> None:
    """What withheld views say of both is what the truth says."""
    folder, report = done
    assert report.against_truth is not None and report.selection is not None
    scores = {name: found.psnr for name, found in report.against_truth.items()}
    assert scores["auto"] is not None and scores["tv"] is not None
    assert scores["auto"] > scores["tv"] - 0.1
    told = {c.method["name"]: c for c in report.selection.candidates}
    alone = run(job(folder / "plate.nii.gz", "dds"), {"input": folder / "plate.nii.gz"}, folder / "dds")
    assert alone.scores is not None and alone.scores.psnr is not None
    gain = alone.scores.psnr - scores["tv"]
    assert told["tv"].gain_db == 0 and told["dds"].gain_db == pytest.approx(gain, abs=4)
    assert scores["auto"] > max(alone.scores.psnr, scores["tv"]) - 0.3
    assert report.selection.text in report.notes
    assert Report.read(folder / "out" / "report.json") == report


def test_weights_sum_to_one_in_every_slice(done: tuple[Path, Report]) -> None:
    selection = done[1].selection
    assert selection is not None
    assert np.allclose(np.sum(selection.weights, axis=2), 1, atol=1e-3)
    along = weights_along(selection, 3)
    assert along.shape == (2, 2, 3) and torch.allclose(along.sum(0), torch.ones(2, 3, dtype=along.dtype), atol=1e-3)


def test_a_resumed_job_does_not_choose_again(done: tuple[Path, Report], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, report = done
    spec = job(folder / "plate.nii.gz")
    kept = list((folder / "work").glob("selection-*.json"))
    assert len(kept) == 1

    def refused(*_: Any) -> None:
        raise AssertionError("judged again")

    monkeypatch.setattr("recon.pipeline.selection._solved", refused)
    again = run(spec, local_files(spec), folder / "again", work=folder / "work")
    assert again.selection == report.selection
    assert np.array_equal(voxels(folder / "again" / "volume.nii.gz"), voxels(folder / "out" / "volume.nii.gz"))


def test_judging_ends_in_time_and_says_how_far_it_came(tmp_path: Path) -> None:
    spec = job(plate(tmp_path), {**METHOD, "seconds": 1e-9})
    steps = prepare(spec, local_files(spec))
    found = drive(steps).selection
    assert found is not None and found.folds == 1
    assert len(found.judged_slices) == 2


def test_a_reserve_is_judged_only_where_the_prior_does_not_know_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = job(plate(tmp_path))
    measurement = reader.read(spec, local_files(spec))
    inverse = inverse_problem.build(measurement)
    candidates, reserve = [TV(), DDS(steps=3)], [DDS(steps=4)]
    for known in (True, False):
        monkeypatch.setattr("recon.pipeline.selection._familiar", lambda *_, known=known: known)
        seen: list[Judging] = []
        steps = select(inverse, candidates, np.arange(3), 3, reserve=reserve)
        found = drive(steps, seen.append)
        assert len(found.candidates) == len(candidates) + (not known)
        assert np.shape(found.weights) == (2, 2, len(found.candidates))
        assert [at.done for at in seen] == list(range(len(seen)))
        assert seen[-1].done + 1 == seen[-1].steps


def test_slices_of_one_piece_are_not_judged_by_themselves(tmp_path: Path) -> None:
    spec = job(plate(tmp_path))
    inverse = inverse_problem.build(reader.read(spec, local_files(spec)))
    whole = replace(inverse, problem=replace(inverse.problem, prior_axes=(1, 0, 2)))
    found = drive(select(whole, [TV(), DDS()], np.arange(3), 3))
    assert found.folds == 0 and [c.weight for c in found.candidates] == [0, 1] and "one piece" in found.text


def test_judged_slices_keep_their_own_phase() -> None:
    operator = CartesianMRI(torch.rand(16, 16) > 0.5, torch.ones(1, 16, 16, dtype=torch.complex64))
    phase = torch.polar(torch.ones(3, 16, 16), torch.randn(3, 16, 16))
    (part,) = Problem(operator, torch.zeros(3, 1, 16, 16, dtype=torch.complex64), phase=phase).apart([0, 2])
    assert part.phase is not None and torch.equal(part.phase, phase[[0, 2]])


def test_the_prior_says_what_it_does_not_know(tmp_path: Path) -> None:
    """A plate of acrylic is nothing that a prior of patients has seen."""
    spec = job(plate(tmp_path))
    inverse = inverse_problem.build(reader.read(spec, local_files(spec)))
    assert isinstance(inverse, CTProblem) and inverse.mu_water is not None
    volume = torch.from_numpy(voxels(tmp_path / "plate.nii.gz").transpose(2, 1, 0).copy())
    attenuation = (volume / 1000 + 1) * inverse.mu_water
    assert not _familiar(inverse, inverse.problem, [TV(), DDS()], [attenuation, attenuation])
    assert _familiar(inverse, inverse.problem, [TV()], [attenuation])


def test_weights_between_judged_slices_are_interpolated() -> None:
    selection = Selection(
        candidates=[], judged_slices=[2, 6], folds=2, gain_db=1.0, confidence=3.0, seconds=1.0, text="",
        weights=[[[1.0, 0.0], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]]],
    )  # fmt: skip
    along = weights_along(selection, 9)[1]
    assert along[0].tolist() == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert along[1].tolist() == pytest.approx([0.5] * 9)


def test_a_mixture_runs_only_what_has_weight() -> None:
    from operators.geometry import ParallelBeam
    from operators.tomography import Tomography

    operator = Tomography(ParallelBeam(8, 8, 1.0, (0.0, 1.0), 12, 1.0))
    problem = Problem(operator, torch.zeros(2, 2, 12), first=4)
    ran: list[str] = []

    def constant(name: str, value: float) -> Any:
        def start(problem: Problem) -> Solver:
            ran.append(name)
            yield Progress(1, 1, problem.zeros(), problem)
            return problem.zeros() + value

        return start

    weights = torch.zeros(3, 2, 6)
    weights[0, :, 4:], weights[1, :, 4:] = torch.tensor([0.25, 1.0]), torch.tensor([0.75, 0.0])
    weights[2, :, :4] = 1.0
    parts = [
        Part(n, constant(n, v), w) for (n, v), w in zip((("a", 4.0), ("b", 8.0), ("c", 1.0)), weights, strict=True)
    ]
    found = drive(mixture(problem, parts))
    assert ran == ["a", "b"]
    assert found[:, 0, 0].tolist() == pytest.approx([7.0, 4.0])


def test_the_plan_knows_all_candidates(tmp_path: Path) -> None:
    path = plate(tmp_path)
    header = reader.check(job(path), local_files(job(path)))
    plans = {name: plan.make(job(path, name), header) for name in ("tv", "dds")}
    both = plan.make(job(path), header)
    assert both.seconds > max(one.seconds for one in plans.values())
    assert both.network_evaluations > plans["dds"].network_evaluations
    assert both.memory_bytes >= max(one.memory_bytes for one in plans.values())


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ({"name": "auto", "candidates": ["red-diff", "dds"]}, "none is a classical method"),
        ({"name": "auto", "candidates": ["tv", "magic"]}, "'magic' is not one of"),
        ({"name": "auto", "candidates": ["tv", "auto"]}, "'auto' is not one of"),
        ({"name": "auto", "candidates": ["tv", "tv"]}, "twice"),
        ({"name": "auto", "candidates": ["tv", {"name": "red-diff", "step": 7}]}, "step"),
        ({"name": "auto", "candidates": [{"steps": 7}]}, "'None' is not one of"),
        ({"name": "auto", "candidates": ["tv", {"name": "dds", "prior": "/x/card.yaml"}]}, "no file of your own"),
        ({"name": "auto", "candidates": ["tv", {"name": "boundary", "frozen_noise": "x.yaml"}]}, "no file of your own"),
        ({"name": "auto", "candidates": ["tv", "cg-sense"]}, "does not fit ct-parallel"),
        ({"name": "auto", "candidates": []}, "candidates"),
    ],
)
def test_wishes_that_contradict_are_refused(tmp_path: Path, method: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        job(tmp_path / "plate.nii.gz", method)


def test_three_views_leave_nothing_to_judge_by(tmp_path: Path) -> None:
    """The candidate with a prior is run, as if it had been named, and the report says that nobody judged it."""
    spec = job(plate(tmp_path), views=3)
    report = run(spec, local_files(spec), tmp_path / "out")
    assert report.selection is not None and report.selection.folds == 0
    assert [c.weight for c in report.selection.candidates] == [0, 1]
    assert any("dds, unjudged" in note for note in report.notes)
    named = job(tmp_path / "plate.nii.gz", "dds", views=3)
    run(named, local_files(named), tmp_path / "dds")
    assert np.array_equal(voxels(tmp_path / "out" / "volume.nii.gz"), voxels(tmp_path / "dds" / "volume.nii.gz"))


def test_unjudged_methods_with_priors_of_one_kind_are_not_averaged() -> None:
    found = _unjudged([TV(), REDDiff(), REDDiff(prior="objects"), Boundary()], "nothing can be withheld")
    assert [one.weight for one in found.candidates] == [0, 0.5, 0, 0.5]
    assert found.text.startswith("the mean of red-diff and boundary, unjudged: nothing can be withheld")


BOTH, ALONE = ["red-diff", "boundary"], ["red-diff"]


@pytest.mark.parametrize(
    ("factor", "direction", "chosen"), [(2.0, "plane", BOTH), (7.0, "plane", ALONE), (2.0, "slices", ALONE)]
)
def test_a_stack_of_low_resolution_in_plane_gets_the_mean_of_what_its_priors_say(
    factor: float, direction: str, chosen: list[str]
) -> None:
    """Nothing can be withheld of it; seven is more than any prior for super-resolution has learnt."""
    head = (disc(28, 1.0, 11.0) + disc(28, 1.0, 4.0)).expand(4, 28, 28).numpy().copy()
    acquisition = {"kind": "mri-superresolution", "direction": direction, "factor": factor}
    stack = recon.simulate(head, acquisition, noise_std=0.01)
    result = recon.reconstruct(stack, method={"name": "auto"}, progress=False, baselines=[])
    selection = result.report.selection
    assert selection is not None and selection.folds == 0
    weights = {one.method["name"]: one.weight for one in selection.candidates}
    assert weights == {"tv": 0, **dict.fromkeys(chosen, 1 / len(chosen))}
    priors = {one.method["name"]: one.method.get("prior") for one in selection.candidates}
    assert priors == {
        "tv": None,
        **{name: {"red-diff": "brain-mri", "boundary": "brain-mri-sr"}[name] for name in chosen},
    }
    each = [recon.reconstruct(stack, method=name, progress=False, baselines=[]).volume for name in chosen]
    assert np.abs(result.volume - np.mean(each, axis=0)).max() < 1e-4 * np.abs(each[0]).max()


def test_it_is_what_a_job_gets_that_names_no_method() -> None:
    for kind, acquisition in ACQUISITIONS.items():
        spec = JobSpec.parse({"input": "x.nii", "acquisition": kind})
        assert isinstance(spec.method, Auto)
        parts = spec.method.parts(acquisition())
        assert {isinstance(part, Diffusion) for part in parts} == {False, True}
        assert all(part.name in methods_of(acquisition()) for part in (*parts, *spec.method.reserve(acquisition())))


def test_an_auto_job_is_the_same_in_json() -> None:
    spec = JobSpec.parse({"input": "x.nii", "acquisition": "ct-parallel", "method": "auto"})
    assert JobSpec.parse(json.loads(spec.model_dump_json())) == spec
    own = {"name": "auto", "candidates": ["tv", {"name": "red-diff", "steps": 7}]}
    spec = JobSpec.parse({"input": "x.nii", "acquisition": "ct-parallel", "method": own})
    assert JobSpec.parse(json.loads(spec.model_dump_json())) == spec
    assert spec.method.parts(CTParallel()) == [TV(), REDDiff(steps=7)]
