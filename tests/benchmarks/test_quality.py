"""The quality benchmark: planes judged with one range, and a run that goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operators.errors import InputError
from recon.defaults import lookup
from recon.measurement.simulate import simulate
from recon.priors import registry
from recon.problem import inverse_problem
from recon.problem.problem import run
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.methods import DDS, DiffPIR, REDDiff
from recon.spec.simulation import Simulation
from recon.training.recipe import Recipe
from recon.training.slices import tuning_images
from tests.benchmarks import quality
from tests.benchmarks.discrepancy import discrepancy
from tests.benchmarks.quality_report import Report


def test_planes_are_judged_with_the_volumes_range() -> None:
    truth = np.zeros((3, 4, 5), np.float32)
    truth[:, 1:3, 1:4] = 2.0
    volume = truth.copy()
    volume[1] += 0.2  # one axial plane is off, and a third of every other plane
    axial, coronal, sagittal = quality.by_plane(volume, truth)
    assert axial > 100  # two planes without error
    for found in (coronal, sagittal):
        assert found == pytest.approx(10 * np.log10(4.0 / (0.04 / 3)), abs=1e-4)


def test_a_benchmark_is_written_drawn_and_taken_up_again(tmp_path: Path, ct_file: Path) -> None:
    task = quality.Task(
        "CT, 20 views",
        {"input": {"path": str(ct_file), "simulate": {"views": 20, "model": "ideal"}}, "acquisition": "ct-parallel"},
        [{"name": "fbp"}, {"name": "tv", "iterations": 20}],
    )
    report = Report(tmp_path, "a machine", 4)
    assert report.missing(task) == task
    for found in quality.compare(task):
        report.add(*found)
    report.finish(task)
    fbp, tv = json.loads((tmp_path / "quality.json").read_text())["rows"]
    assert fbp["method"] == "fbp" and tv["method"] == "tv iterations=20"
    assert 15 < fbp["psnr"] < tv["psnr"] and tv["nfe"] == 0 and 0 < tv["data_misfit"] < fbp["data_misfit"]
    again = Report(tmp_path, "a machine", 4)
    assert not again.missing(task).methods and again.missing(replace(task, name="another")).methods == task.methods
    more = replace(task, methods=[*task.methods, {"name": "sirt"}])
    assert again.missing(more).methods == [{"name": "sirt"}]
    elsewhere = Report(tmp_path, "another machine", 4)
    for found in quality.compare(elsewhere.missing(more)):
        elsewhere.add(*found)
    elsewhere.finish(more)
    assert [row.machine for row in elsewhere.rows] == ["a machine", "a machine", "another machine"]
    table = (tmp_path / "quality.md").read_text()
    assert "; a machine." in table and "`*` in the last column: another machine." in table
    marked = {line.split(" | ")[0][2:]: line.endswith("* |") for line in table.splitlines() if line.startswith("| ")}
    assert (marked["fbp"], marked["tv iterations=20"], marked["sirt"]) == (False, False, True)
    with pytest.raises(InputError, match="made with 4 slices"):
        Report(tmp_path, "a machine", 8)
    assert (tmp_path / "ct-20-views.png").stat().st_size > 5000
    assert "| tv iterations=20 |" in (tmp_path / "quality.md").read_text()


def test_stopping_at_the_noise_returns_the_first_iterate_that_meets_it() -> None:
    from recon.solvers import registry
    from recon.spec.methods import CGLS
    from tests.benchmarks.evaluations import driven, meets_noise
    from tests.recon.pipeline.test_chunks import ct

    problem, method = ct(), CGLS(iterations=40)
    assert not meets_noise(problem, problem.zeros())
    stopped = driven(registry.start(problem, method), problem, stop=True)
    whole = driven(registry.start(problem, method), problem, stop=False)
    assert meets_noise(problem, stopped) and problem.misfit(stopped) > problem.misfit(whole)


def row(task: str, method: str, psnr: float | None, unseen: float | None = None) -> quality.Row:
    inside = None if psnr is None else psnr + 1
    return quality.Row(task, method, psnr, inside, None, None, None, None, None, 0.0, unseen, 0.0, 0.0, 0.0)


def test_ours_is_compared_with_the_best_rival(tmp_path: Path) -> None:
    """Our methods with published constants do not count; on measured data a smaller unseen misfit is better."""
    report = Report(tmp_path, "a machine", 4)
    report.rows = [
        row("CT, 60 views", "fbp", 30.0), row("CT, 60 views", "tv", 35.0), row("CT, 60 views", "red-diff", 39.0),
        row("CT, 60 views", "diffpir", 39.5), row("CT, 60 views", "dds paper", 50.0),
        row("A tooth", "tv", None, 0.02), row("A tooth", "red-diff", None, 0.04),
        row("A tooth", "fbp", None, 0.5), row("Rivals only", "tv", 30.0),
    ]  # fmt: skip
    lines = report._summary()
    assert "| CT, 60 views | tv | +4.00 | diffpir | +4.50 | +5 |" in lines
    assert "| A tooth | tv | -6.02 | red-diff | -6.02 |  |" in lines
    assert not any("Rivals only" in line for line in lines)


def test_ideal_and_realistic_simulation_stand_beside_each_other(tmp_path: Path) -> None:
    report = Report(tmp_path, "a machine", 4)
    report.rows = [
        row("CT, 60 views, ideal", "tv", 35.0), row("CT, 60 views, ideal", "red-diff", 40.0),
        row("CT, 60 views", "tv", 33.0), row("CT, 60 views", "red-diff", 36.5),
        replace(row("CT, 8 views", "tv", 33.0), psnr_inside=None), row("A tooth", "tv", None, 0.02),
    ]  # fmt: skip
    lines = report._side_by_side()
    assert "| CT, 60 views | red-diff | 40.00 | 41.00 | 36.50 | 37.50 |" in lines
    assert "| | **lead** | +5.00 | +5.00 | +3.50 | +3.50 |" in lines
    assert not any("tooth" in line or "8 views" in line for line in lines)
    task = quality.Task("CT, 8 views", {}, [{"name": "tv"}])
    assert report.missing(task).methods == task.methods  # its row does not say how the inside is
    assert report.missing(replace(task, name="CT, 60 views")).methods == []


def test_tasks_and_methods_are_chosen_by_name() -> None:
    every = quality.tasks(Path("data"), 4)
    some = quality.chosen(every, "CT, 60 views", "tv,dds tv_z_weight=0")
    assert [t.name for t in some] == [
        f"CT, 60 views{noise}{model}" for noise in ("", ", 1e5 photons") for model in ("", ", ideal")
    ]
    assert [len(t.methods) for t in some] == [2, 2, 1, 1]
    models = [t.job["input"]["simulate"]["model"] for t in some]
    assert models == ["realistic", "ideal"] * 2


CHEST = tuning_images(SAMPLES, Recipe.named("ct"))[4:5, 64:192, 64:192]
"""Part of a shipped slice on the scale of the CT priors."""


def chest(photons: float) -> inverse_problem.InverseProblem:
    """Measure it, 30 views."""
    image = CHEST.numpy() * 1250 + 250
    settings = Simulation(views=30, photons_per_ray=photons, model="ideal")
    return inverse_problem.build(
        simulate(image.astype(np.float32), np.diag([1.4, 1.4, 3.0, 1.0]), CTParallel(), settings)
    )


def test_the_truth_misses_the_data_by_their_noise_and_so_do_the_defaults() -> None:
    """Residuals about as large as the noise: less, where the image takes some of it up, but never fitted away."""
    model = chest(1e5)
    prior = registry.load("ct")
    intensity = model.intensity_map(prior.card)
    truth = intensity.to_physical(CHEST)
    assert discrepancy(model.problem, truth) == pytest.approx(1.0, abs=0.1)
    assert discrepancy(model.problem, 1.02 * truth) > 2
    for method in (REDDiff(), DiffPIR(), DDS()):
        settings = lookup.resolved(method, "ct-parallel", model.problem)
        found = run(solvers.start(model.problem, settings, prior=prior, intensity=intensity))
        assert 0.3 < discrepancy(model.problem, found) < 1.5
