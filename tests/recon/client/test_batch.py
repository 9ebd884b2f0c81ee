"""Batches: manifests, many processes, a server; what failed, what was done before, and the summary."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from operators.errors import InputError
from recon.cli.batch import batch as batch_command
from recon.client import batch
from recon.client.client import Client
from recon.pipeline import reconstruct
from recon.spec.job import JobSpec
from tests.recon.cli.test_cli import recon, spec_file
from tests.service.serving import Server, serving
from workers import keys, retention
from workers.execute import execute
from workers.index import JobIndex

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


@contextmanager
def computing(server: Server) -> Iterator[None]:
    """Jobs are computed, in this process, as soon as they are submitted."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            for record in JobIndex(server.store).records():
                if record.state == "queued":
                    execute(server.store, record.id)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


def test_a_batch_on_a_server_with_keys(tmp_path: Path, ct_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, key = keys.make("anna")
    (tmp_path / "keys.yaml").write_text(f"- {keys.entry(key)}\n")
    job = spec_file(tmp_path, "job", input=ct_file.name)
    with serving(tmp_path / "store", keys=tmp_path / "keys.yaml") as server, computing(server):
        command = ["batch", job, "--out", "out", "--server", server.url]
        refused = recon(*command, cwd=tmp_path)
        assert refused.returncode == 2 and "Authorization" in refused.stderr and "Traceback" not in refused.stderr
        monkeypatch.setenv("RECON_API_KEY", secret)
        done = recon(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "out" / "job" / "volume.nii.gz").is_file()
        assert [r.owner for r in JobIndex(server.store).records()] == ["anna"]


def test_a_batch_whose_server_is_not_there_says_so_once(tmp_path: Path, ct_file: Path) -> None:
    jobs = [spec_file(tmp_path, f"job{i}", input=ct_file.name) for i in range(3)]
    done = recon("batch", *jobs, "--out", "out", "--server", "http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 3 and done.stderr.count("recon serve") == 1


def run_on(server: Server, entry: batch.Entry, out: Path) -> batch.Row:
    rows: list[batch.Row] = []
    with Client(server.url) as client:
        batch.on_server([entry], out, client, rows.append)
    return rows[0]


def test_a_batch_that_stopped_goes_on_with_its_jobs_where_there_are_any(
    tmp_path: Path, ct_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = JobSpec.read(spec_file(tmp_path, "job", input=ct_file.name, output={"montage": False}))
    entry, out = batch.Entry("job", spec), tmp_path / "out"
    out.mkdir()
    note, whole = out / ".job.submitted.json", Client.submit

    def died_afterwards(client: Client, spec: JobSpec, once: str | None = None) -> dict[str, Any]:
        whole(client, spec, once)
        raise KeyboardInterrupt

    with serving(tmp_path / "store") as server:
        # It dies after the server has the job, before it knows its id: the next one finds the same job.
        monkeypatch.setattr(Client, "submit", died_afterwards)
        with pytest.raises(KeyboardInterrupt):
            run_on(server, entry, out)
        monkeypatch.setattr(Client, "submit", whole)
        assert "id" not in json.loads(note.read_text())
        with computing(server):
            assert run_on(server, entry, out).state == "succeeded"
        (job,) = JobIndex(server.store).records()
        assert json.loads((out / "job" / "batch.json").read_text())["id"] == job.id and not note.exists()
        # What is noted has been deleted, or never was: it is submitted again.
        retention.purge_job(server.store, job, "for a test")
        for gone in (job.id, "a" * 26):
            again = tmp_path / gone
            again.mkdir()
            (again / note.name).write_text(json.dumps({"spec_sha256": spec.sha256(), "id": gone}))
            with computing(server):
                assert run_on(server, entry, again).state == "succeeded"
        assert len(JobIndex(server.store).records()) == 2
        # A note that says nothing is this entry's failure only.
        damaged = tmp_path / "damaged"
        damaged.mkdir()
        (damaged / note.name).write_text("{")
        row = run_on(server, entry, damaged)
        assert row.state == "failed" and "remove it" in (row.error or "")


def test_what_nobody_expected_is_one_jobs_failure(
    tmp_path: Path, ct_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [spec_file(tmp_path, name, input=ct_file.name, output={"montage": False}) for name in ("bad", "good")]
    whole, out = reconstruct.run, tmp_path / "out"
    error: BaseException = MemoryError("no room for the volume")

    def runs(spec: JobSpec, files: Any, target: Path, *more: Any) -> Any:
        if target.name == "bad":
            raise error
        return whole(spec, files, target, *more)

    monkeypatch.setattr(reconstruct, "run", runs)
    with pytest.raises(typer.Exit):
        batch_command(out, jobs)
    bad, good = json.loads((out / "summary.json").read_text())["jobs"]
    assert (bad["state"], good["state"]) == ("failed", "succeeded")
    assert "MemoryError: no room" in bad["error"] and "bad.log" in bad["error"]
    log = (out / "bad.log").read_text()
    assert log.startswith("Traceback") and "in runs" in log
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        batch_command(out, jobs, resume=True)
