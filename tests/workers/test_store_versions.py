"""Stores that other versions wrote: older ones open, newer ones are refused with what to do, and lose nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.errors import InputError
from recon.formats import nifti
from recon.spec.job import JobSpec
from tests.service.serving import refused, send, serving, until
from tests.service.stored import events
from workers import retention
from workers.embedded import private_redis, running, worker_command
from workers.index import JobIndex
from workers.schema import SCHEMA_VERSION, NewerStore
from workers.settings import Settings
from workers.store import JobStore

OLD, UPLOAD, MASK, MAPS = "a" * 26, "b" * 26, "c" * 26, "d" * 26
HOOK = "https://example.org/hook"
SPEC = {
    "input": {"upload": UPLOAD, "format": "numpy"},
    "acquisition": {"kind": "mri-cartesian", "mask": {"upload": MASK}, "coil_maps": {"upload": MAPS}},
    "method": {"name": "zero-filled"},
    "webhook_url": HOOK,
}
STATE = {
    "id": OLD, "state": "running", "created": "2026-01-01T00:00:00+00:00", "updated": "2026-01-01T00:00:01+00:00",
    "name": "", "method": "zero-filled", "progress": 0.5, "stage": "solving", "step": 1, "steps": 2,
    "data_misfit": None, "attempt": 1, "started": "2026-01-01T00:00:01+00:00", "finished": None, "error": None,
    "tags": [], "priority": "normal", "device": "cpu", "planned_s": 3.0, "owner": None, "token": "e" * 26,
}  # fmt: skip
SIMULATED = {
    "input": {"upload": UPLOAD, "format": "nifti", "simulate": {"photons": 1e5, "views": 12, "pattern": "uniform"}},
    "acquisition": {"kind": "ct-parallel", "photons": 1e5},
    "method": {"name": "fbp"},
    "output": {"montage": False, "baselines": []},
    "notify": HOOK,
}
"""As the command line and the API took it before names changed."""
ACQUISITION_FIELDS = {"kind", "factor", "calibration_width", "acs_width", "photons", "photons_per_ray"}


def written(root: Path, spec: dict[str, Any] = SPEC, state: dict[str, Any] = STATE) -> JobStore:
    """A store as it lies on a disk: one running job with its uploads."""
    job = root / "jobs" / OLD
    job.mkdir(parents=True)
    (job / "job.json").write_text(json.dumps(spec))
    (job / "state.json").write_text(json.dumps(state))
    (job / "events.jsonl").write_text(
        '{"id": 1, "event": "state", "at": "2026-01-01T00:00:00+00:00", "data": {"state": "queued"}}\n'
    )
    for upload in (UPLOAD, MASK, MAPS):
        (root / "uploads" / upload).mkdir(parents=True)
        (root / "uploads" / upload / "data.npy").write_bytes(b"x")
        meta = {"id": upload, "bytes": 1, "sha256": "0" * 64, "created": "2026-01-01T00:00:00+00:00"}
        (root / "uploads" / upload / "meta.json").write_text(json.dumps(meta))
    return JobStore(root)


def swept(store: JobStore) -> set[str]:
    """What is left of the uploads years later."""
    settings = Settings(store=store.root, redis_url="", retention_days=0)
    retention.sweep(JobIndex(store), settings, datetime.now(UTC) + timedelta(days=999))
    return {path.name for path in store.uploads.iterdir()}


def test_a_store_from_before_there_were_versions_opens_and_goes_on(tmp_path: Path) -> None:
    store = written(tmp_path)
    record = store.record(OLD)
    assert record.state == "running" and record.token == "e" * 26 and record.planned_s == 3.0
    assert store.spec(OLD) == JobSpec.parse(SPEC) and store.webhook_url(OLD) == HOOK
    assert [r.id for r in JobIndex(store).records()] == [OLD]
    assert store.transition(OLD, "failed", token=record.token).attempt == 1
    assert json.loads((store.folder(OLD) / "state.json").read_text())["schema_version"] == SCHEMA_VERSION
    assert [e["data"]["state"] for e in events(store, OLD)] == ["queued", "failed"]


def test_a_job_in_old_names_is_listed_keeps_its_upload_and_is_computed(tmp_path: Path) -> None:
    queued = {**STATE, "state": "queued", "attempt": 0, "started": None, "token": None, "method": "fbp"}
    store = written(tmp_path / "store", SIMULATED, queued)
    (store.uploads / UPLOAD / "data.npy").unlink()
    volume = np.full((2, 32, 32), -1000.0, np.float32)
    volume[:, 8:24, 10:20] = 0.0
    nifti.write(store.uploads / UPLOAD / "data.nii.gz", volume, np.diag([1.0, 1.0, 1.0, 1.0]), "test")
    with private_redis(tmp_path / "redis") as url, serving(store.root, url) as server:
        assert [job["id"] for job in server.http.get("/v1/jobs").json()["jobs"]] == [OLD]
        refused(server.http.delete(f"/v1/uploads/{UPLOAD}"), 409, "id")
        env = {"REDIS_URL": url, "RECON_STORE": str(store.root), "OMP_NUM_THREADS": "1"}
        with running(worker_command(), env, tmp_path / "worker.log"):  # the reconciler has queued the job
            until(lambda: store.record(OLD).terminal, 300)
        assert server.http.get(f"/v1/jobs/{OLD}").json()["state"] == "succeeded", store.record(OLD).error
        assert server.http.get(f"/v1/jobs/{OLD}/spec").json()["acquisition"]["photons_per_ray"] == 1e5
        refusal = refused(server.http.post("/v1/jobs", json=SIMULATED), 422, "notify")
        assert "now called webhook_url" in refusal["detail"]
    assert nifti.read(store.output(OLD) / "volume.nii.gz")[0].shape == volume.shape
    assert store.webhook_url(OLD) == HOOK


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"kind": "mri-resolution", "factor": 2, "name": "annealed"}
            | {"data_sigma": 1e-3, "noise_share": 0.5, "z_weight": 0.1, "skip": 0.2},
            {"kind": "mri-superresolution", "factor": 2, "name": "diffpir"}
            | {"min_noise_std": 1e-3, "noise_fraction": 0.5, "tv_z_weight": 0.1, "skip_threshold": 0.2},
        ),
        (
            {"kind": "mri-cartesian", "calibration_width": 24, "name": "tv", "least_weight": 1e-4, "noise_share": 0.1},
            {"kind": "mri-cartesian", "acs_width": 24, "name": "tv", "min_weight": 1e-4, "weight_per_noise": 0.1},
        ),
        (
            {"kind": "ct-fan", "photons": 1e4, "name": "red-diff", "calibration": "random"}
            | {"turned": False, "polish": 2},
            {"kind": "ct-fan", "photons_per_ray": 1e4, "name": "red-diff", "frozen_noise": "random"}
            | {"equivariant": False, "pnp_steps": 2},
        ),
        (
            {"kind": "mri-resolution", "name": "boundary", "data_sigma": 1e-2, "calibration": "random"},
            {"kind": "mri-superresolution", "name": "boundary", "min_noise_std": 1e-2, "frozen_noise": "random"},
        ),
    ],
    ids=lambda fields: fields["name"],
)
def test_every_old_name_of_a_stored_job_is_known(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    def specification(fields: dict[str, Any]) -> dict[str, Any]:
        scan = {key: fields[key] for key in fields if key in ACQUISITION_FIELDS}
        method = {key: fields[key] for key in fields if key not in ACQUISITION_FIELDS}
        return {"input": {"upload": UPLOAD}, "acquisition": scan, "method": method}

    store = written(tmp_path, specification(old), {**STATE, "method": old["name"]})
    assert store.spec(OLD) == JobSpec.parse(specification(new)) and store.record(OLD).method == new["name"]
    with pytest.raises(InputError, match="is now called"):
        JobSpec.parse(specification(old))


def test_what_is_written_says_its_version(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job_id = store.create(JobSpec.parse(SPEC)).id
    for name in ("job.json", "state.json"):
        assert json.loads((store.folder(job_id) / name).read_text())["schema_version"] == 1
    assert store.spec(job_id) == JobSpec.parse(SPEC) and store.record(job_id).state == "queued"


@pytest.mark.parametrize("name", ["job.json", "state.json"])
def test_a_file_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    newer = {"schema_version": SCHEMA_VERSION + 1}
    store = written(tmp_path, **{"spec" if name == "job.json" else "state": {**newer, "layout": "of tomorrow"}})
    with pytest.raises(NewerStore) as caught:
        store.spec(OLD) if name == "job.json" else store.record(OLD)
    said = caught.value
    assert f"{OLD}/{name} has version 2" in said.message and "reads up to 1" in said.message
    assert said.field == "schema_version" and "upgrade" in str(said.remedy)
    # Nobody here knows which uploads it needs.
    assert swept(store) == {UPLOAD, MASK, MAPS}
    with pytest.raises(NewerStore):
        retention.delete_upload(JobIndex(store), UPLOAD, None, "it was deleted on request")
    assert (store.folder(OLD) / name).exists()


def test_a_job_of_a_newer_version_hides_no_other(tmp_path: Path) -> None:
    store = written(tmp_path / "store", state={**STATE, "schema_version": 2})
    with serving(store.root) as server:
        other = store.create(JobSpec.parse({"input": "a.npy", "acquisition": "ct-parallel", "method": "fbp"})).id
        assert [job["id"] for job in server.http.get("/v1/jobs").json()["jobs"]] == [other]
        assert "upgrade" in refused(server.http.get(f"/v1/jobs/{OLD}"), 500, "schema_version")["remedy"]
        unused = send(server.http)
        refused(server.http.delete(f"/v1/uploads/{unused}"), 500, "schema_version")
        (store.jobs / OLD / "state.json").write_text(json.dumps(STATE))  # by the version that could read it
        assert server.http.delete(f"/v1/uploads/{unused}").status_code == 204


@pytest.mark.parametrize("version", [0, "2", None])
def test_a_version_that_is_none_is_damage(tmp_path: Path, version: object) -> None:
    store = written(tmp_path, state={**STATE, "schema_version": version})
    with pytest.raises(ValueError, match="schema_version"):
        store.record(OLD)


def test_no_upload_that_a_job_names_is_deleted(tmp_path: Path) -> None:
    store = written(tmp_path)
    assert JobIndex(store).uploads(OLD) == {UPLOAD, MASK, MAPS} == swept(store)


def test_files_of_a_kind_that_is_not_here_are_kept_as_well(tmp_path: Path) -> None:
    """The package that added the kind may be gone; its jobs need their uploads when it comes back."""
    acquisition = {"kind": "another-packages", "dose": {"upload": MASK}, "parts": [{"deep": {"upload": MAPS}}]}
    store = written(tmp_path, {**SPEC, "acquisition": acquisition})
    with pytest.raises(InputError, match="another-packages"):
        store.spec(OLD)
    assert swept(store) == {UPLOAD, MASK, MAPS}
