"""Efforts: fewer evaluations for a draft, what they cost said beforehand, and refused where nobody measured them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import InputError
from recon.defaults import effort
from recon.formats import reader
from recon.planning import plan
from recon.spec.job import JobSpec
from recon.spec.methods import Auto, method_of
from tests.conftest import SAMPLES

MEASURED = ("red-diff", "diffpir", "dds")


def planned(method: Any) -> plan.Plan:
    body = SAMPLES / "ct_body.nii.gz"
    simulate = {"views": 60, "photons_per_ray": 1e5}
    given = {"input": {"path": str(body), "slices": [40, 42], "simulate": simulate}, "acquisition": "ct-parallel"}
    spec = JobSpec.parse(given | {"method": method, "output": {"baselines": []}})
    return plan.make(spec, reader.check(spec, {"input": Path(str(body))}))


@pytest.mark.parametrize("name", MEASURED)
def test_a_draft_is_a_few_evaluations_and_says_what_it_loses(name: str) -> None:
    draft, standard = planned({"name": name, "effort": "draft"}), planned(name)
    assert draft.network_evaluations <= 8 * draft.slices < standard.network_evaluations
    assert draft.seconds < standard.seconds
    assert standard.effort_gain_db is None
    assert draft.effort_gain_db is not None and -3 < draft.effort_gain_db < 0
    best = planned({"name": name, "effort": "best"})
    assert best.effort_gain_db is not None and best.effort_gain_db >= 0


def test_a_draft_is_above_tv_by_the_table() -> None:
    drafts = [row for row in effort.installed().efforts if row.effort == "draft" and row.method == "diffpir"]
    assert {row.kind for row in drafts} == {"ct", "mri-cartesian"}
    for row in drafts:
        assert sum(row.over_tv_db.values()) > 0, row


def test_what_is_given_wins() -> None:
    assert planned({"name": "diffpir", "effort": "draft", "steps": 3}).network_evaluations == 2 * 3


def test_candidates_take_the_effort_of_the_choice() -> None:
    acquisition = JobSpec.parse({"input": {"path": "scan.npy"}, "acquisition": "ct-parallel"}).acquisition
    assert acquisition is not None

    def efforts(**settings: Any) -> dict[str, str]:
        parts = Auto(**settings).parts(acquisition)
        return {part.name: getattr(part, "effort", "") for part in parts}

    assert efforts() == {"tv": "", "red-diff": "standard"}
    assert efforts(effort="draft") == {"tv": "", "diffpir": "draft"}
    assert efforts(effort="best") == {"tv": "", "red-diff": "best", "diffpir": "best", "dds": "best"}
    own = ["tv", "dds", {"name": "red-diff", "effort": "standard"}]
    assert efforts(effort="draft", candidates=own) == {"tv": "", "dds": "draft", "red-diff": "standard"}


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "dds", "preset": "paper"},
        {"name": "red-diff", "update": "adam"},
        {"name": "diffpir", "schedule": "ddpm"},
    ],
)
def test_published_constants_have_no_effort(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="effort: draft has no effect with published constants"):
        method_of({**settings, "effort": "draft"})


def test_an_effort_that_nobody_measured_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.ones((4, 24, 20), np.float32))
    stack = {"kind": "mri-superresolution", "factor": 2, "pixel_mm": 1, "slice_mm": 4, "direction": "slices"}
    method = {"name": "red-diff", "effort": "draft"}
    spec = JobSpec.parse({"input": {"path": str(tmp_path / "stack.npy")}, "acquisition": stack, "method": method})
    header = reader.check(spec, {"input": tmp_path / "stack.npy"})
    with pytest.raises(InputError, match="'draft' has not been measured for red-diff on mri-superresolution") as found:
        plan.make(spec, header)
    assert found.value.field == "method.effort"
