"""Batches: manifests, many processes, a server; what failed, what was done before, and the summary."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.errors import InputError
from recon import batch
from tests.test_cli import recon

TEMPLATE = {"acquisition": "ct-parallel", "method": "fbp", "output": {"montage": False}}


def template(folder: Path, **more: Any) -> Path:
    path = folder / "template.yaml"
    path.write_text(yaml.safe_dump({"input": "nothing.nii.gz", **TEMPLATE, **more}))
    return path


def manifest(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "jobs.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(k for row in rows for k in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_manifest_sets_fields_of_its_template(tmp_path: Path) -> None:
    rows = [
        {"name": "a", "input.path": "x.nii.gz", "method.name": "tv", "method.iterations": "7", "input.slices": "[0, 2]"},  # noqa: E501
        {"input.path": "sub/scan.nii.gz", "seed": "3"},
        {"name": "bad", "input.path": "x.nii.gz", "method.name": "magic"},
    ]  # fmt: skip
    found = batch.of_manifest(manifest(tmp_path, *rows), template(tmp_path))
    first, second, bad = found
    assert first.spec is not None and second.spec is not None
    assert first.name == "a" and second.name == "scan" and bad.spec is None
    assert first.spec.input.path == str(tmp_path / "x.nii.gz") and first.spec.input.slices == (0, 2)
    assert first.spec.method.model_dump()["iterations"] == 7 and second.spec.seed == 3
    assert second.spec.method.name == "fbp" and "magic" in (bad.error or "")
    with pytest.raises(InputError, match="two jobs"):
        batch.of_manifest(manifest(tmp_path, {"name": "a"}, {"name": "a"}), template(tmp_path))
    with pytest.raises(InputError, match="no file matches"):
        batch.of_glob(str(tmp_path / "*.nothing"), template(tmp_path))


def test_names_stay_in_the_folder(tmp_path: Path) -> None:
    for name in ("../up", "/etc/x", ".hidden"):
        (entry,) = batch.of_manifest(manifest(tmp_path, {"name": name}), template(tmp_path))
        assert entry.spec is None and "no name of a folder" in (entry.error or "")


def test_workers_go_on_after_a_failure_and_resume(tmp_path: Path, ct_file: Path) -> None:
    template(tmp_path)
    rows = [
        {"name": "good", "input.path": ct_file.name, "seed": "1"},
        {"name": "missing", "input.path": "missing.nii.gz", "seed": ""},
        {"name": "other", "input.path": ct_file.name, "seed": "2"},
    ]
    manifest(tmp_path, *rows)
    command = ["batch", "--manifest", "jobs.csv", "--template", "template.yaml", "--out", "out", "--workers", 2]
    done = recon(*command, cwd=tmp_path)
    assert done.returncode == 1 and "2 of 3 jobs done" in done.stdout, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [r["state"] for r in summary["jobs"]] == ["succeeded", "failed", "succeeded"]
    assert "missing.nii.gz" in summary["jobs"][1]["error"]
    good = summary["jobs"][0]
    assert good["seconds"] > 0 and 0 < good["misfit"] < 1 and good["psnr"] > 10
    with (tmp_path / "out" / "summary.csv").open() as stream:
        assert [r["name"] for r in csv.DictReader(stream)] == ["good", "missing", "other"]
    # What was missing arrives: only that is computed.
    (tmp_path / "missing.nii.gz").write_bytes(ct_file.read_bytes())
    before = (tmp_path / "out" / "good" / "volume.nii.gz").stat().st_mtime_ns
    again = recon(*command, "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [r["state"] for r in summary["jobs"]] == ["skipped", "succeeded", "skipped"]
    assert (tmp_path / "out" / "good" / "volume.nii.gz").stat().st_mtime_ns == before


def test_a_glob_on_a_server_resumes_too(tmp_path: Path, ct_file: Path, service: tuple[str, Path]) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a", "b"):
        (tmp_path / "scans" / f"{name}.nii.gz").write_bytes(ct_file.read_bytes())
    (tmp_path / "scans" / "c.nii.gz").write_bytes(b"no volume")
    template(tmp_path)
    command = ["batch", "--glob", "scans/*.nii.gz", "--template", "template.yaml", "--out", "out", "--server"]
    done = recon(*command, service[0], cwd=tmp_path)
    assert done.returncode == 1 and "2 of 3 jobs done" in done.stdout, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [r["state"] for r in summary["jobs"]] == ["succeeded", "succeeded", "failed"]
    assert (tmp_path / "out" / "a" / "volume.nii.gz").is_file()
    (tmp_path / "scans" / "c.nii.gz").unlink()
    again = recon(*command, service[0], "--resume", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.count("done before") == 2
