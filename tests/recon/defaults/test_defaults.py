"""Settings nobody has to know: found by a search that improves, used where they fit, and never over the user's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from operators.fourier import CartesianMRI
from operators.geometry import ParallelBeam, SamplingPattern, angular_cover
from operators.resolution import Truncation
from operators.tomography import Tomography
from recon.defaults import table as shipped
from recon.defaults.lookup import resolved, tuned
from recon.defaults.table import Table, Tuned
from recon.priors import registry
from recon.problem.problem import Problem
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.methods import FBP, TV, DiffPIR, LowRank, REDDiff, method_of
from recon.spec.registry import METHODS
from recon.spec.report import Report
from recon.spec.simulation import Simulation
from recon.tuning import search_settings
from tests.conftest import disc
from tests.recon.pipeline.test_reconstruct import job, reconstructed


def problem(views: int, span: float = math.pi) -> Problem:
    angles = tuple(span * k / views for k in range(views))
    operator = Tomography(ParallelBeam(32, 32, 1.0, angles, 46, 1.0))
    return Problem(operator, torch.zeros(1, views, 46))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(undersampling: float, pattern: SamplingPattern = "full", **settings: Any) -> Tuned:
        return Tuned(
            kind="ct",
            task="-",
            pattern=pattern,
            noisy=False,
            undersampling=undersampling,
            method="red-diff",
            settings=settings,
            psnr=1,
            psnr_before=0,
        )

    limited = entry(1.0, "limited", sigma_last=0.05)
    found = Table(
        command="-", tuned=[limited, entry(1.0, sigma_last=0.003), entry(8.0, sigma_last=0.02, tv_z_weight=1.0)]
    )
    monkeypatch.setattr(shipped, "installed", lambda: found)


def test_undersampling_counts_what_a_slice_lacks() -> None:
    assert problem(8).operator.undersampling == pytest.approx(32 * 32 / (8 * 46))
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[::4] = True
    operator = CartesianMRI(mask, torch.ones(5, 16, 16, dtype=torch.complex64))
    assert Problem(operator, operator(torch.zeros(1, 16, 16, dtype=torch.complex64))).operator.undersampling == 4.0
    low = Truncation(16, 16, 2)
    assert Problem(low, torch.zeros(1, 8, 8, dtype=torch.complex64)).operator.undersampling == 4.0


def test_how_samples_are_spread() -> None:
    assert problem(8).operator.sampling_pattern == problem(60).operator.sampling_pattern == "full"
    assert (
        problem(45, math.pi / 2).operator.sampling_pattern
        == problem(60, 2 * math.pi / 3).operator.sampling_pattern
        == "limited"
    )
    assert problem(60, 2 * math.pi).operator.sampling_pattern == problem(59, 4.0).operator.sampling_pattern == "full"
    assert angular_cover([0.1 + math.pi * k / 180 for k in range(90)]) == pytest.approx(0.5, abs=0.01)
    lines, points = torch.zeros(16, 16, dtype=torch.bool), torch.eye(16, dtype=torch.bool)
    lines[::3] = True
    maps = torch.ones(2, 16, 16, dtype=torch.complex64)
    for mask, expected in ((lines, "lines"), (lines.T, "lines"), (points, "points")):
        operator = CartesianMRI(mask, maps)
        assert operator.sampling_pattern == expected


def test_a_prior_with_a_scale_of_its_own_has_its_own_settings_for_any_pattern() -> None:
    scans: list[tuple[str, SamplingPattern]] = [("ct-parallel", "full"), ("ct-parallel", "limited"), ("ct-fan", "full")]
    for kind, pattern in scans:
        found = shipped.nearest(REDDiff(prior="objects"), kind, pattern, 3.0, noisy=True)
        assert found is not None and found.settings["prior"] == "objects"
        usual = shipped.nearest(REDDiff(), kind, pattern, 3.0, noisy=True)
        assert usual is not None and "prior" not in usual.settings


@pytest.mark.usefixtures("table")
def test_the_nearest_task_decides_and_the_user_wins() -> None:
    few, many = problem(3), problem(30)
    assert resolved(REDDiff(), "ct-fan", few).model_dump()["sigma_last"] == 0.02
    assert resolved(REDDiff(), "ct-parallel", many).model_dump()["sigma_last"] == 0.003
    assert resolved(REDDiff(), "ct-parallel", problem(30, 1.5)).model_dump()["sigma_last"] == 0.05
    mine = resolved(REDDiff(steps=7), "ct-parallel", few)
    assert isinstance(mine, REDDiff) and (mine.steps, mine.sigma_last, mine.tv_z_weight) == (7, 0.02, 1.0)
    # Tuned values belong together.
    assert resolved(REDDiff(sigma_last=0.1), "ct-parallel", few) == REDDiff(sigma_last=0.1)
    # Published constants, other methods and other kinds of scan stay as they are.
    for method, kind in (
        (REDDiff(preset="paper"), "ct-parallel"),
        (REDDiff(update="adam"), "ct-parallel"),
        (REDDiff(schedule="ddpm"), "ct-parallel"),
        (DiffPIR(), "ct-parallel"),
        (FBP(), "ct-fan"),
        (REDDiff(), "mri-cartesian"),
    ):
        assert resolved(method, kind, few) == method


def test_the_usual_prior_is_taken_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(psnr: float, **settings: Any) -> Tuned:
        return Tuned(
            kind="ct", task="-", pattern="full", noisy=False, undersampling=8.0, method="red-diff",
            settings=settings, psnr=psnr, psnr_before=0,
        )  # fmt: skip

    usual, other = entry(30.0, sigma_last=0.01), entry(31.0, prior="ct-sparse", sigma_last=0.02)
    for entries in ([usual, other], [other, usual]):
        monkeypatch.setattr(shipped, "installed", lambda entries=entries: Table(command="-", tuned=entries))

        def settings(**given: Any) -> tuple[str | None, float]:
            found = resolved(REDDiff(**given), "ct-parallel", problem(3))
            assert isinstance(found, REDDiff)
            return found.prior, found.sigma_last

        assert settings() == (None, 0.01)
        assert settings(prior="ct-sparse") == ("ct-sparse", 0.02)
        assert settings(prior="ct") == ("ct", 0.01) and settings(prior="mine.yaml") == ("mine.yaml", 0.01)
        assert settings(sigma_last=0.05) == (None, 0.05)
    # What was found for one kind of beam is for that kind.
    monkeypatch.setattr(
        shipped,
        "installed",
        lambda: Table(command="-", tuned=[usual, other.model_copy(update={"kind": "ct-parallel"})]),
    )
    assert settings(prior="ct-sparse") == ("ct-sparse", 0.02)
    fan = resolved(REDDiff(prior="ct-sparse"), "ct-fan", problem(3))
    assert isinstance(fan, REDDiff) and fan.sigma_last == 0.01


def test_the_search_climbs_from_the_default() -> None:
    tried: list[dict[str, Any]] = []

    def judged(settings: Mapping[str, Any]) -> float:
        tried.append(dict(settings))
        values = {"a": 1.0, "b": 3.0, **settings}
        return -abs(float(values["a"]) - 4.0) - abs(float(values["b"]) - 2.0)

    grid = {"a": [0.0, 1.0, 3.0, 4.0, 5.0, 9.0], "b": [1.0, 2.0, 3.0, 4.0]}
    chosen, best, before = search_settings.climb(judged, grid, {"a": 1.0, "b": 3.0})
    assert chosen == {"a": 4.0, "b": 2.0} and best == 0.0 and before == -4.0
    assert {"a": 9.0} not in tried  # past the best it gets worse: the search does not go on


def test_a_setting_without_default_and_one_between_the_values_are_searched() -> None:
    def judged(settings: Mapping[str, Any]) -> float:
        return -abs(float(settings.get("weight", 2.1)) - 2.0)

    chosen, _, before = search_settings.climb(judged, {"weight": [1.0, 2.0, 3.0]}, {"weight": None})
    assert chosen == {"weight": 2.0} and before == pytest.approx(-0.1)
    chosen, _, _ = search_settings.climb(judged, {"weight": [1.0, 2.0, 3.0]}, {"weight": 2.1})
    assert chosen == {"weight": 2.0}


def test_the_shipped_table_fits_the_methods() -> None:
    table = Table.read(shipped.TABLE)
    for entry in table.tuned:
        assert entry.method in METHODS and entry.psnr >= entry.psnr_before
        assert set(entry.settings) - {"prior"} <= set(search_settings.GRIDS[entry.method])
        assert entry.settings.get("prior") in (None, *registry.names())
        method_of({"name": entry.method, **entry.settings})


def test_a_method_is_tuned_on_the_sample_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part of a shipped tuning slice in place of the whole set; TV only, whose weight it finds."""
    from recon.samples import SAMPLES

    (tmp_path / "tune").mkdir()
    images = np.load(SAMPLES / "tune" / "ct_hu.npz")["images"][7:8, 96:160, 96:160]
    np.savez(tmp_path / "tune" / "ct_hu.npz", images=images, subject=np.array(["one"]))
    task = search_settings.Task("6 views", CTParallel(), Simulation(views=6, model="ideal"), (0, 1), 1e6)
    monkeypatch.setitem(search_settings.GRIDS, "tv", {"min_weight": [1e-4, 1e-2]})
    (found,) = search_settings.tune(task, ["tv"], tmp_path)
    assert found.kind == "ct" and found.undersampling > 5
    assert found.psnr >= found.psnr_before > 20
    assert TV.model_validate({"name": "tv", **found.settings})
    known = found.model_copy(update={"settings": {"iterations": 20, "min_weight": 1e-2}})
    monkeypatch.setattr("recon.defaults.lookup.tuned", lambda *_: known)
    (again,) = search_settings.tune(task, ["tv"], tmp_path, refine=["min_weight"])
    assert again.settings["iterations"] == 20 and again.psnr_before == found.psnr_before


def test_a_method_is_tuned_on_the_tasks_that_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recon.samples import SAMPLES

    tasks = search_settings.tasks().values()
    fits = [task.name for task in tasks if search_settings.fitting(task, ["l1-wavelet", "low-rank"])]
    assert fits == ["equispaced x4", "equispaced x8", "poisson x8"]
    assert all(search_settings.fitting(task, ["tv", "low-rank"])[0] == "tv" for task in tasks)
    (tmp_path / "tune").mkdir()
    shipped = np.load(SAMPLES / "tune" / "mri_256_ms.npz")
    images = shipped["images"][:1].reshape(1, 64, 4, 64, 4).mean((2, 4)).astype(shipped["images"].dtype)
    np.savez(tmp_path / "tune" / "mri_256_ms.npz", images=images, subject=shipped["subject"][:1])
    settings = Simulation(pattern="poisson", acceleration=4, noise_std=0.01)
    task = search_settings.Task("poisson x4", MRICartesian(), settings, (0, 1), None)
    monkeypatch.setitem(search_settings.GRIDS, "low-rank", {"weight_per_noise": [0.1, 0.2], "block_width": [4, 8]})
    (found,) = search_settings.tune(task, ["low-rank"], tmp_path)
    assert found.kind == "mri-cartesian" and found.pattern == "points" and found.noisy
    assert found.psnr >= found.psnr_before > 20
    assert LowRank.model_validate({"name": "low-rank", **found.settings})


@pytest.mark.parametrize(("noise_std", "noisy"), [(0.0, False), (5e-4, False), (5e-3, True)])
def test_next_to_no_noise_counts_as_none(noise_std: float, noisy: bool) -> None:
    """A thousandth of the data's root mean square is where the settings change."""
    few = problem(23)
    scan = Problem(few.operator, torch.ones_like(few.data), noise_std=noise_std)
    found = tuned(REDDiff(), "ct-parallel", scan)
    assert found is not None and found.noisy == noisy


def test_a_sinogram_without_noise_gets_settings_for_one(tmp_path: Path) -> None:
    """Nobody has to say that there is none: rays through air show it."""
    operator = problem(23).operator
    for name, noise in (("none", 0.0), ("some", 0.02)):
        generator = torch.Generator().manual_seed(0)
        sinogram = operator(0.02 * disc(32, 1.0, 10.0))
        np.save(tmp_path / f"{name}.npy", (sinogram + noise * torch.randn(sinogram.shape, generator=generator)).numpy())
    angles = {"start_rad": 0.0, "stop_rad": math.pi, "count": 23}
    acquisition = {"kind": "ct-parallel", "angles_rad": angles, "detector_mm": 1.0, "rows": 32, "cols": 32}

    def report(name: str) -> Report:
        known = {"path": str(tmp_path / f"{name}.npy")}
        return reconstructed(job(input=known, acquisition=acquisition, method="tv"), tmp_path / f"out-{name}")[2]

    none, some = report("none"), report("some")
    assert none.noise_std == 0.0 and some.noise_std == pytest.approx(0.02, rel=0.2)
    assert some.method["weight_per_noise"] == 0.01 != none.method["weight_per_noise"]
