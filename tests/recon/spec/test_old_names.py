"""Deprecation: a renamed field is accepted with a warning within the minor release that renamed it, then refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.errors import InputError
from recon.cli import main
from recon.spec import job, old_names, simulation
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.base import Strict
from recon.spec.job import JobSpec
from recon.spec.methods import DDS, TV, Auto
from recon.spec.methods import auto as auto_settings
from recon.spec.old_names import OldName, Renamed
from recon.spec.upgrade import upgraded

SINCE = "0.3"
FIELDS: list[tuple[type[Strict], str, str]] = [
    (CTParallel, "element_mm", "detector_mm"),
    (TV, "sweeps", "iterations"),
    (DDS, "jitter", "eta"),
]
"""Imagined old names of fields, by the class that has the new one."""
OLD: list[tuple[dict[str, Any], str, str]] = [
    ({"acquisition": {"kind": "ct-parallel", "element_mm": 0.5}}, "element_mm", "acquisition.element_mm"),
    ({"method": {"name": "tv", "sweeps": 7}}, "sweeps", "method.sweeps"),
    ({"method": {"name": "dds", "preset": "paper", "jitter": 0.5}}, "jitter", "method.jitter"),
    ({"method": {"name": "auto", "candidates": [{"name": "tv", "sweeps": 7}]}}, "sweeps", "method.candidates.sweeps"),
    ({"acquisition": {"kind": "ct-strip"}}, "ct-strip", "acquisition.kind"),
    ({"method": "total-variation"}, "total-variation", "method.name"),
    ({"input": {"path": "a.nii", "simulate": {"pattern": "even"}}}, "even", "input.simulate.pattern"),
]


@pytest.fixture(autouse=True)
def renamed_in_0_3(monkeypatch: pytest.MonkeyPatch) -> None:
    for model, old, new in FIELDS:
        monkeypatch.setattr(model, "RENAMED", {old: Renamed(new, since=SINCE)})
    methods = {"total-variation": Renamed("tv", since=SINCE)}
    for module in (job, auto_settings):
        monkeypatch.setattr(module, "RENAMED_METHODS", methods)
    monkeypatch.setattr(job, "RENAMED_KINDS", {"ct-strip": Renamed("ct-parallel", since=SINCE)})
    monkeypatch.setattr(simulation, "RENAMED_PATTERNS", {"even": Renamed("equispaced", since=SINCE)})


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    monkeypatch.setattr(old_names, "release", lambda: request.param)
    return str(request.param)


def given(change: dict[str, Any]) -> dict[str, Any]:
    return {"input": "a.npy", "acquisition": "ct-parallel", "method": "tv", **change}


def in_new_names(change: dict[str, Any]) -> dict[str, Any]:
    text = yaml.safe_dump(given(change))
    for _, old, new in FIELDS:
        text = text.replace(f"{old}:", f"{new}:")
    for old, new in (("ct-strip", "ct-parallel"), ("total-variation", "tv"), ("even", "equispaced")):
        text = text.replace(old, new)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


# While 0.3 is being made, its names are in a package that still calls itself 0.2.
@pytest.mark.parametrize("release", ["0.2.1", "0.3.0", "0.3.7"], indirect=True)
@pytest.mark.parametrize(("change", "old", "field"), OLD)
def test_the_release_that_renames_accepts_the_old_name_and_warns(
    change: dict[str, Any], old: str, field: str, release: str
) -> None:
    with pytest.warns(OldName, match=f"^{old} is now called .* the next minor release refuses the old one$"):
        found = JobSpec.parse(given(change))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = JobSpec.parse(found.model_dump(mode="json", exclude_unset=True))
        assert again == found == JobSpec.parse(in_new_names(change))
        assert found.sha256() == JobSpec.parse(in_new_names(change)).sha256()
        notes: list[str] = []
        assert JobSpec.parse(given(change), notes=notes) == found
    assert len(notes) == 1 and notes[0].startswith(f"{old} is now called ")


@pytest.mark.parametrize("release", ["0.4.0", "0.10.2", "1.0.0"], indirect=True)
@pytest.mark.parametrize(("change", "old", "field"), OLD)
def test_the_next_one_refuses_it_with_the_new_name(change: dict[str, Any], old: str, field: str, release: str) -> None:
    with pytest.raises(InputError, match="is now called") as caught:
        JobSpec.parse(given(change), notes=[])
    assert caught.value.field == field and old in caught.value.message and caught.value.remedy


@pytest.mark.parametrize("release", ["0.3.0"], indirect=True)
def test_both_names_at_once_are_refused(release: str) -> None:
    with pytest.raises(InputError, match="sweeps is now called iterations"):
        JobSpec.parse(given({"method": {"name": "tv", "sweeps": 7, "iterations": 8}}))


@pytest.mark.parametrize("release", ["0.3.0"], indirect=True)
def test_an_old_name_wins_over_a_preset(release: str) -> None:
    """`preset: paper` sets eta too; what the user wrote under the old name counts."""
    found = JobSpec.parse(given({"method": {"name": "dds", "preset": "paper", "jitter": 0.5}}), notes=[]).method
    assert isinstance(found, DDS) and found.eta == 0.5 and "eta" in DDS.PRESETS["paper"]


@pytest.mark.parametrize("release", ["0.4.0"], indirect=True)
def test_stored_jobs_are_read_under_old_names_for_ever(release: str) -> None:
    stored = given({"method": {"name": "auto", "candidates": ["dds", {"name": "tv", "sweeps": 7}]}})
    method = JobSpec.parse(upgraded(stored)).method
    assert isinstance(method, Auto) and method.candidates == ["dds", {"name": "tv", "iterations": 7}]


@pytest.mark.parametrize("release", ["0.3.0"], indirect=True)
def test_the_command_line_says_it_in_one_line(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(given({"method": {"name": "tv", "sweeps": 7}})))
    monkeypatch.setattr("sys.argv", ["recon", "plan", str(tmp_path / "job.yaml")])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        warnings.simplefilter("always")
        main.main()
    assert ended.value.code == 2  # a.npy is not there
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: sweeps is now called iterations; write the new name, the next minor release ")
    assert second.startswith("error: ") and not rest
