"""Plans: what they promise is what jobs take, and what cannot fit is refused with the numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from operators.errors import ResourceLimit
from recon.formats import reader
from recon.measurement.simulate import simulate
from recon.pipeline.reconstruct import run
from recon.planning import plan
from recon.problem import inverse_problem
from recon.spec.acquisitions.superresolution import MRISuperResolution
from recon.spec.job import JobSpec, local_files
from recon.spec.simulation import Simulation
from recon.tuning.stacks import Direction
from tests.conftest import SAMPLES
from tests.recon.cli.test_cli import recon
from tests.service.whole_service import api_alone

CT: dict[str, Any] = {
    "input": {"path": str(SAMPLES / "ct_body.nii.gz"), "slices": [40, 48], "simulate": {"views": 60}},
    "acquisition": "ct-parallel",
    "method": {"name": "red-diff", "steps": 2},
}
MRI: dict[str, Any] = {
    "input": {"path": str(SAMPLES / "mri_brain_8coil.npy"), "format": "numpy"},
    "acquisition": "mri-cartesian",
    "method": {"name": "red-diff", "steps": 2},
    "output": {"baselines": ["cg-sense"]},
}


def planned(value: dict[str, Any]) -> plan.Plan:
    spec = JobSpec.parse(value)
    return plan.make(spec, reader.check(spec, {"input": Path(str(spec.input.path))}))


FBP: dict[str, Any] = {
    "input": {"path": str(SAMPLES / "ct_tooth.h5"), "format": "dxchange"},
    "acquisition": {"kind": "ct-parallel", "detector_mm": 0.1},
    "method": "fbp",
}


@pytest.mark.parametrize("value", [CT, MRI, FBP], ids=["CT", "MRI", "CT by FBP, no truth"])
def test_the_plan_is_what_a_job_takes(tmp_path: Path, value: dict[str, Any]) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(value))
    done = recon("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results" / "job" / "report.json").read_text())
    found, memory = planned(value), report["memory"]
    assert found.memory_bytes == pytest.approx(memory["peak_bytes"], rel=0.25)
    assert memory["planned_bytes"] == pytest.approx(memory["peak_bytes"], rel=0.25)
    assert found.network_evaluations == report["network_evaluations"]
    assert list(found.shape) == report["shape"]


@pytest.mark.parametrize(("views", "steps"), [(30, 30), (9, 60)])
def test_the_plan_knows_the_settings_that_a_job_gets(views: int, steps: int) -> None:
    """Those tuned for the scan, where the job says nothing; with and without noise, the dearer ones."""
    source = {**CT["input"], "simulate": {"views": views}}
    left_open = planned({**CT, "input": source, "method": "red-diff"})
    assert left_open.network_evaluations == 8 * 2 * steps
    stated = planned({**CT, "input": source, "method": {"name": "red-diff", "steps": 4}})
    assert stated.network_evaluations == 8 * 2 * 4
    with_pnp = planned({**CT, "input": source, "method": {"name": "red-diff", "steps": 4, "pnp_steps": 3}})
    assert with_pnp.network_evaluations == 8 * (2 * 4 + 3)
    assert left_open.seconds > stated.seconds
    judged = planned({**CT, "input": source, "method": {"name": "red-diff", "steps": 4}, "output": {"uncertainty": 3}})
    assert judged.network_evaluations == 4 * stated.network_evaluations
    assert judged.seconds > 1.5 * stated.seconds and judged.memory_bytes > stated.memory_bytes


@pytest.mark.parametrize(("factor", "direction"), [(2.0, "plane"), (3.0, "slices"), (2.5, "plane"), (3.5, "slices")])
def test_the_plan_of_a_stack_looks_its_settings_up_as_the_job_does(factor: float, direction: Direction) -> None:
    """By what is refined, planes or slices, and by how much: also of sides that the factor does not divide."""
    acquisition = MRISuperResolution(factor=factor, direction=direction)
    measured = simulate(np.ones((22, 34, 26), np.float32), np.eye(4), acquisition, Simulation(noise_std=0.01))
    operator = inverse_problem.build(measured).problem.operator
    found = acquisition.sampling(measured.data.shape)
    assert found is not None and found[0] == operator.sampling_pattern == direction
    assert found[1] == pytest.approx(operator.undersampling, rel=0.15)


def test_a_setting_that_does_not_go_with_the_tuned_ones_is_the_jobs_own() -> None:
    """A first level below the last one that was tuned for eight views: the job's word counts."""
    source = {**CT["input"], "simulate": {"views": 4}}
    for acquisition in ("ct-parallel", "ct-fan"):
        value = {
            **CT,
            "input": source,
            "acquisition": acquisition,
            "method": {"name": "red-diff", "sigma_first": 0.015},
        }
        if acquisition == "ct-fan":
            value["acquisition"] = {"kind": "ct-fan", "source_origin_mm": 600, "origin_detector_mm": 400}
        assert planned(value).network_evaluations == 8 * 2 * 30


def test_more_of_anything_costs_more() -> None:
    small = planned({**CT, "input": {**CT["input"], "slices": [40, 44]}})
    many = planned({**CT, "input": {**CT["input"], "slices": [0, 112]}})
    views = planned({**CT, "input": {**CT["input"], "simulate": {"views": 720}}})
    plain = planned({**CT, "method": "fbp"})
    base = planned(CT)
    assert small.memory_bytes < base.memory_bytes < many.memory_bytes
    assert base.memory["operator"] * 10 < views.memory["operator"]
    assert small.seconds < base.seconds < many.seconds and base.seconds < views.seconds
    assert plain.network_evaluations == 0 and plain.memory_bytes < base.memory_bytes
    assert base.chunks == 1 and many.chunks == 4


def test_every_prior_of_a_choice_has_its_network(tmp_path: Path) -> None:
    """For a stack `auto` loads two networks, for a CT scan one; methods with the same prior share it."""
    np.save(tmp_path / "stack.npy", np.ones((4, 64, 64), np.float32))
    stack = {"input": str(tmp_path / "stack.npy"), "acquisition": {"kind": "mri-superresolution", "pixel_mm": 1.8}}
    one, both = (planned({**stack, "method": name}) for name in ("red-diff", "auto"))
    assert both.memory["network"] == 2 * one.memory["network"]
    shared = planned({**CT, "method": {"name": "auto", "candidates": ["tv", "red-diff", "dds"]}})
    assert shared.memory["network"] == planned({**CT, "method": "dds"}).memory["network"]


def test_where_memory_is_short_fewer_slices_are_solved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {
        "input": {"path": str(SAMPLES / "ct_body.nii.gz"), "slices": [30, 70], "simulate": {"views": 8}},
        "acquisition": "ct-parallel",
        "method": {"name": "sirt", "iterations": 2},
        "output": {"format": "numpy", "montage": False},
    }
    roomy = planned(value)
    assert (roomy.chunk, roomy.at_once, roomy.chunks) == (16, 16, 3)
    limit = roomy.memory_bytes - 1_000_000  # half of what eight slices less save
    monkeypatch.setenv("RECON_MAX_JOB_BYTES", str(limit))
    short = planned(value)
    assert short.chunk == 8 and short.chunks == 5 and short.memory_bytes <= limit
    monkeypatch.setenv("RECON_MAX_JOB_BYTES", "1")
    with pytest.raises(ResourceLimit, match="GB of memory"):
        plan.require_fit(planned(value))

    # The result does not depend on it.
    volumes = []
    for name, bytes_ in (("roomy", roomy.memory_bytes), ("short", limit)):
        monkeypatch.setenv("RECON_MAX_JOB_BYTES", str(bytes_))
        seen: set[str] = set()
        spec = JobSpec.parse(value)
        run(spec, local_files(spec), tmp_path / name, lambda p, seen=seen: seen.add(p.stage))  # type: ignore[misc]
        assert any("slices 0:16" in s for s in seen) == (name == "roomy"), seen
        assert any("slices 8:16" in s for s in seen) == (name == "short"), seen
        volumes.append(np.load(tmp_path / name / "volume.npy"))
    assert np.array_equal(*volumes)


def test_a_container_has_the_memory_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECON_MAX_JOB_BYTES", raising=False)
    monkeypatch.setattr(plan, "CONTAINER_LIMIT", tmp_path / "memory.max")
    whole = plan.memory_limit()
    (tmp_path / "memory.max").write_text("max\n")
    assert plan.memory_limit() == whole
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert plan.memory_limit() == 800_000_000


def test_an_estimate_does_not_import_torch() -> None:
    code = "import sys, recon.planning.plan; sys.exit(bool({'torch', 'astra'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_cannot_fit_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceLimit, match="GB of memory"):
        plan.require_fit(planned(CT), 10**8)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(CT))
    shown = recon("plan", "job.yaml", cwd=tmp_path)
    assert shown.returncode == 0 and "together" in shown.stdout and "network evaluations" in shown.stdout
    monkeypatch.setenv("RECON_MAX_JOB_BYTES", str(10**8))
    refused = recon("plan", "job.yaml", cwd=tmp_path)
    assert refused.returncode == 2 and "RECON_MAX_JOB_BYTES" in refused.stderr


def test_estimates_over_http(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 60, 100), np.float32))
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 60}, "detector_mm": 1.0}

    def body(http: httpx.Client) -> dict[str, Any]:
        upload = http.post("/v1/uploads", content=(tmp_path / "a.npy").read_bytes()).json()["id"]
        return {"input": {"upload": upload, "format": "numpy"}, "acquisition": acquisition, "method": "fbp"}

    with api_alone(tmp_path / "store", RECON_MAX_JOB_BYTES=str(10**8)) as http:
        job = body(http)
        found = http.post("/v1/estimates", json=job)
        assert found.status_code == 200
        estimate = found.json()
        assert estimate["shape"] == [4, 100, 100] and estimate["memory_bytes"] == sum(estimate["memory"].values())
        assert estimate["fits"] is False and estimate["limit_bytes"] == 10**8
        refused = http.post("/v1/jobs", json=job)
        assert refused.status_code == 413 and "GB" in refused.json()["detail"]
        wrong = http.post("/v1/estimates", json={**job, "method": "magic"})
        assert wrong.status_code == 422 and wrong.json()["field"] == "method"


def test_a_plan_counts_halos_and_small_chunks() -> None:
    """Coupled slices are computed more than once, and the more often the smaller the chunks are."""
    value = {**CT, "input": {**CT["input"], "slices": [0, 112]}}
    spec = JobSpec.parse(value)
    header = reader.check(spec, {"input": Path(str(spec.input.path))})
    roomy = plan.make(spec, header, 10**12)
    tight = plan.make(spec, header, 1)
    each = spec.method.cost(header.acquisition).evaluations
    # Four chunks of 32 slices, with 16 more on each side that there are.
    assert (roomy.chunk, roomy.chunks) == (16, 4) and roomy.network_evaluations == each * (48 + 64 + 64 + 32)
    assert (tight.chunk, tight.chunks, tight.at_once) == (1, 56, 34)
    assert tight.network_evaluations > 10 * each * 112 and tight.seconds > 5 * roomy.seconds
    alone = {**value, "method": {"name": "diffpir", "steps": 2}}
    spec = JobSpec.parse(alone)
    assert plan.make(spec, header, 10**12).network_evaluations == 2 * 112
    # Products with the matrix are of sixteen slices, however few there are.
    spec = JobSpec.parse({**value, "method": {"name": "sirt", "iterations": 20}})
    assert plan.make(spec, header, 1).seconds > 4 * plan.make(spec, header, 10**12).seconds
