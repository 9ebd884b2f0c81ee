"""The quality benchmark: planes judged with one range, and a run that goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operators.errors import InputError
from recon.bench import quality
from recon.bench.quality_report import Report


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
        {"input": {"path": str(ct_file), "simulate": {"views": 20}}, "acquisition": "ct-parallel"},
        [{"name": "fbp"}, {"name": "tv", "iterations": 20}],
    )
    report = Report(tmp_path, "a machine", 4)
    assert report.missing(task) == task
    for found in quality.compare(task):
        report.add(*found)
    report.finish(task)
    fbp, tv = json.loads((tmp_path / "quality.json").read_text())["rows"]
    assert fbp["method"] == "fbp" and tv["method"] == "tv 20"
    assert 15 < fbp["psnr"] < tv["psnr"] and tv["nfe"] == 0 and 0 < tv["data_misfit"] < fbp["data_misfit"]
    again = Report(tmp_path, "a machine", 4)
    assert not again.missing(task).methods and again.missing(replace(task, name="another")).methods == task.methods
    more = replace(task, methods=[*task.methods, {"name": "sirt"}])
    assert again.missing(more).methods == [{"name": "sirt"}]
    with pytest.raises(InputError, match="made with slices 4"):
        Report(tmp_path, "a machine", 8)
    assert (tmp_path / "ct-20-views.png").stat().st_size > 5000
    assert "| tv 20 |" in (tmp_path / "quality.md").read_text()


def test_stopping_at_the_noise_returns_the_first_iterate_that_meets_it() -> None:
    from recon.bench.evaluations import driven, meets_noise
    from recon.methods import CGLS
    from recon.solvers import registry
    from tests.test_slabs import ct

    problem, method = ct(), CGLS(iterations=40)
    assert not meets_noise(problem, problem.zeros())
    stopped = driven(registry.start(problem, method), problem, stop=True)
    whole = driven(registry.start(problem, method), problem, stop=False)
    assert meets_noise(problem, stopped) and problem.misfit(stopped) > problem.misfit(whole)
