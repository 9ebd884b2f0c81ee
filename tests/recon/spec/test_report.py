"""Reports: what is written is read, also what was written before reports had a version, and nothing newer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from operators.errors import InputError
from recon.spec.report import SCHEMA_VERSION, Report

UNVERSIONED = Path(__file__).parent / "report_without_version.json"
"""Written by the program as it was before reports had a version."""


def test_a_report_without_a_version_is_read_by_its_new_names() -> None:
    stored: dict[str, Any] = json.loads(UNVERSIONED.read_text())
    assert "schema_version" not in stored
    found = Report.read(UNVERSIONED)
    assert found.schema_version == SCHEMA_VERSION
    assert found.intensity_map is not None and found.intensity_map.model_dump() == stored["prior_axis"]
    assert found.frozen_noise is not None and found.uncertainty is not None and found.scores is not None
    assert found.frozen_noise.model_dump() == {"seed": 7, "amplitude": 1.0, "source": "random"}
    assert (found.uncertainty.replicates, found.uncertainty.rms) == (1, stored["uncertainty"]["rms"])
    assert (found.chunks_resumed, found.chunks_by_other_workers) == (0, 0)
    assert found.misfit == stored["data_misfit"]["dds"] and found.scores.psnr == stored["against_truth"]["dds"]["psnr"]
    # The rest is as it was.
    renamed = {"prior_axis", "starting_noise", "uncertainty", "slabs_resumed", "slabs_by_other_workers"}
    again = found.model_dump(mode="json")
    assert {name: again[name] for name in stored if name not in renamed} == {
        name: value for name, value in stored.items() if name not in renamed
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    report = Report.read(UNVERSIONED)
    (tmp_path / "report.json").write_text(report.json_text())
    assert json.loads(report.json_text())["schema_version"] == SCHEMA_VERSION
    assert Report.read(tmp_path / "report.json") == report


def test_a_report_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    newer = Report.read(UNVERSIONED).model_dump(mode="json") | {"schema_version": SCHEMA_VERSION + 1, "more": 1}
    (tmp_path / "report.json").write_text(json.dumps(newer))
    with pytest.raises(InputError, match=r"has schema version 2, this program knows up to 1") as caught:
        Report.read(tmp_path / "report.json")
    assert caught.value.field == "schema_version" and "update" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not a report"),
        ("[]", "is not a report"),
        ('{"schema_version": 1, "name": "a"}', "spec_sha256: Field required"),
        ('{"schema_version": "one"}', "schema_version: "),
        ('{"schema_version": 0}', "schema_version: "),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        Report.read(tmp_path / "report.json")
    assert caught.value.field == "report" and caught.value.remedy
    with pytest.raises(InputError, match="is not a report"):
        Report.read(tmp_path / "none.json")
