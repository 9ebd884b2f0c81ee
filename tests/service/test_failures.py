"""Services that are stopped, damaged, without Redis, or have a worker that dies again and again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from operators.errors import ReconError
from recon.cli.demo_server import server
from recon.client.client import Client
from recon.spec.job_states import TERMINAL
from tests.service.serving import refused
from tests.service.whole_service import api_alone, processes, quick, slow, wait_for
from workers.index import JobIndex
from workers.store import JobStore


def test_accepted_jobs_survive_a_restart_and_a_lost_queue(tmp_path: Path, ct_file: Path) -> None:
    store = tmp_path / "store"
    with server(store) as url, Client(url) as client:
        running, queued = client.submit(slow(ct_file)), client.submit(quick(ct_file))
        wait_for(client, running["id"], "running")
        client.cancel(running["id"])
        waiting = client.submit(quick(ct_file, name="waiting"))
    assert not processes(store)
    for path in (store / "redis").glob("appendonly*"):  # Redis forgets everything
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with server(store) as url, Client(url) as client:
        assert processes(store)
        for job in (queued, waiting):
            assert wait_for(client, job["id"], *TERMINAL)["state"] == "succeeded"
        assert wait_for(client, running["id"], *TERMINAL)["state"] == "cancelled"
        second = subprocess.run(
            [sys.executable, "-m", "recon.cli.main", "serve", "--embedded", "--port", "0", "--store", str(store)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert second.returncode == 2 and "another service uses" in second.stderr
    assert not processes(store)


def test_uploads_are_limited(tmp_path: Path) -> None:
    with api_alone(tmp_path / "store", RECON_MAX_UPLOAD_BYTES="1000", RECON_MIN_FREE_BYTES="0") as http:
        refused(http.post("/v1/uploads", content=b"x" * 1001), 413, "body")
        refused(http.post("/v1/uploads", content=iter([b"x" * 600, b"x" * 600])), 413, "body")
        assert list((tmp_path / "store" / "uploads").iterdir()) == []  # nothing half-received stays
        assert http.post("/v1/uploads", content=b"x" * 1000).status_code == 201
    with api_alone(tmp_path / "store", RECON_MIN_FREE_BYTES=str(10**18)) as http:
        refused(http.post("/v1/uploads", content=b"x"), 507, "body")


def test_without_redis_nothing_is_accepted(tmp_path: Path, ct_file: Path) -> None:
    with api_alone(tmp_path / "store") as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 503
        upload = http.post("/v1/uploads", content=ct_file.read_bytes()).json()["id"]
        body = {"input": {"upload": upload}, "acquisition": "ct-parallel", "method": "fbp"}
        answer = http.post("/v1/jobs", json=body)
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        assert answer.json()["code"] == "backend_unavailable"
        assert http.get("/v1/jobs").json()["total"] == 0


def test_a_job_that_kills_its_worker_is_given_up(tmp_path: Path, ct_file: Path) -> None:
    from workers.execute import execute
    from workers.lost_jobs import MAX_ATTEMPTS

    store = JobStore(tmp_path / "store")
    job = store.create(quick(ct_file))
    for _ in range(MAX_ATTEMPTS):
        store.transition(job.id, "running")  # and then the process died
    execute(store, job.id)
    record = store.record(job.id)
    assert record.state == "failed" and record.error is not None and record.error["code"] == "worker_lost"


def test_a_damaged_job_folder_does_not_hide_the_others(tmp_path: Path, ct_file: Path) -> None:
    store = JobStore(tmp_path / "store")
    job, broken = store.create(quick(ct_file)), store.create(quick(ct_file))
    (store.folder(broken.id) / "state.json").write_text("")
    (store.jobs / "stray").write_text("")
    assert [r.id for r in JobIndex(store).records()] == [job.id]


def test_states_only_move_forward(tmp_path: Path, ct_file: Path) -> None:
    store = JobStore(tmp_path / "store")
    job = store.create(quick(ct_file))
    store.transition(job.id, "running")
    store.report_progress(job.id, progress=0.5)
    store.transition(job.id, "succeeded", progress=1.0)
    with pytest.raises(ReconError, match="cannot become"):
        store.transition(job.id, "running")
    store.report_progress(job.id, progress=0.1)
    assert store.record(job.id).progress == 1.0
