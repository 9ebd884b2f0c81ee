"""What processes that died have left: found, finished or removed, and in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from recon.pipeline.reconstruct import beside, run
from recon.spec.job import JobSpec, local_files
from tests.service.serving import Server, celery_on, send, serving, sinogram
from workers import resumable_uploads, retention, tasks, uploads
from workers.embedded import private_redis
from workers.execute import execute
from workers.index import JobIndex
from workers.reconcile import Reconciler
from workers.settings import Settings
from workers.store import JobStore, new_id


class Killed(BaseException):
    """The process ends here."""


def spec(path: Path) -> JobSpec:
    geometry = {"kind": "ct-parallel", "angles_rad": {"count": 12}, "detector_mm": 1.0}
    output = {"baselines": [], "montage": False}
    return JobSpec.parse({"input": str(path), "acquisition": geometry, "method": "fbp", "output": output})


def job(store: JobStore) -> str:
    return store.create(spec(Path("nothing.npy"))).id


def swept(store: JobStore, hours: float) -> None:
    settings = Settings(store=store.root, redis_url="")
    retention.sweep(JobIndex(store), settings, datetime.now(UTC) + timedelta(hours=hours))


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "store")


def test_what_never_became_visible_is_removed_once_nobody_can_be_writing(store: JobStore) -> None:
    growing = store.uploads / f".{new_id()}"
    left = [store.uploads / f".{new_id()}", store.jobs / f".{new_id()}", store.root / "partial" / f".{new_id()}"]
    for folder in (*left, growing):
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x")
    (store.jobs / f".gone-{new_id()}").mkdir()
    swept(store, 23)
    assert all(folder.exists() for folder in (*left, growing)) and len(list(store.jobs.iterdir())) == 1
    later = (datetime.now(UTC) + timedelta(hours=24)).timestamp()
    os.utime(growing / "data", (later, later))  # the folder itself is as old as the others
    swept(store, 25)
    assert not any(folder.exists() for folder in left) and growing.exists()


def test_a_job_that_could_not_be_made_leaves_nothing(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr("workers.store.sync", fails)
    with pytest.raises(OSError, match="no"):
        job(store)
    assert list(store.jobs.iterdir()) == []


def test_chunks_of_a_job_that_has_ended_do_not_stay(store: JobStore) -> None:
    cancelled, ended = job(store), job(store)
    for job_id in (cancelled, ended):
        store.transition(job_id, "running")
        store.work(job_id).mkdir()
        (store.folder(job_id) / ".attempt-1.partial").mkdir()
    assert store.request_cancel(cancelled).state == "cancelled"  # its worker had died
    assert store.left(cancelled) == []
    store.transition(ended, "failed")  # and the worker died before it had removed them
    with store.running_lock(ended):
        swept(store, 0)
        assert len(store.left(ended)) == 2  # it may live after all
    swept(store, 0)
    assert store.left(ended) == []


def test_chunks_last_until_the_results_are_safe(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).random((80, 12, 24), dtype=np.float32))
    given = spec(tmp_path / "data.npy")
    assert run(given, local_files(given), tmp_path / "out").chunks_resumed == 0
    assert not beside(tmp_path / "out").exists()  # where no store publishes, nothing is left
    job_id = store.create(given).id

    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(JobStore, "publish", dies)
        execute(store, job_id)
    chunks = len(list(store.work(job_id).glob("*.npy")))
    execute(store, job_id)
    assert store.record(job_id).state == "succeeded" and store.left(job_id) == []
    report = json.loads((store.output(job_id) / "report.json").read_text())
    assert report["chunks_resumed"] == chunks > 0


def test_an_upload_whose_publisher_died_can_be_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = sinogram()

    def dies(*_: Any) -> None:
        raise Killed

    with serving(tmp_path / "store") as server:
        begun = resumable_uploads.create(server.store, len(content), None, None)
        with resumable_uploads.appending(server.store, begun, 0) as stream:
            stream.write(content)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(uploads, "write_json", dies)
            resumable_uploads.complete(server.store, begun)
        assert not (resumable_uploads.folder(server.store, begun.id) / "data").exists()
        swept(server.store, 0)
        where = f"/v1/uploads/{begun.id}"
        head = server.http.head(where)
        assert head.headers["Upload-Complete"] == "?0" and head.headers["Upload-Offset"] == str(len(content))
        done = server.http.patch(where, headers={"Upload-Offset": str(len(content))})
        assert done.status_code == 200 and done.json()["bytes"] == len(content)
        assert server.http.head(where).headers["Upload-Complete"] == "?1"


def test_an_upload_whose_description_is_damaged_is_begun_again(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as server:
        where = server.http.post("/v1/uploads", headers={"Upload-Length": "5"}).headers["Location"]
        (resumable_uploads.folder(server.store, Path(where).name) / "partial.json").write_text("{")
        answer = server.http.patch(where, headers={"Upload-Offset": "0"}, content=b"12345")
        assert answer.status_code == 404 and answer.json()["remedy"] == "upload the file first"


def test_one_damaged_folder_stops_no_sweep(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = [store.jobs / new_id(), store.uploads / new_id(), store.root / "partial" / new_id()]
    for folder in damaged:
        folder.mkdir(parents=True)
    for upload in damaged[1:]:
        (upload / "meta.json").write_text("{")
        (upload / "partial.json").write_text("{")
        (upload / "data").touch()
    begun, ended, refusing = resumable_uploads.create(store, 5, None, None), job(store), job(store)
    for job_id in (ended, refusing):
        store.transition(job_id, "failed")
    rename = Path.rename

    def refuses(path: Path, target: Path) -> Path:
        if path.name == refusing:
            raise PermissionError("it stays")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuses)
    swept(store, 31 * 24)
    assert not resumable_uploads.folder(store, begun.id).exists() and not damaged[2].exists()
    assert not (store.jobs / ended).exists() and (store.jobs / refusing).exists()


def test_purges_of_one_job_at_once_and_during_a_sweep(store: JobStore) -> None:
    for _ in range(10):
        record = store.transition(job(store), "cancelled")
        begin = Barrier(5)

        def purge(number: int, record: Any = record, begin: Barrier = begin) -> None:
            begin.wait()
            if number:
                retention.purge_job(store, record, "it was purged")
            else:
                swept(store, 31 * 24)

        with ThreadPoolExecutor(5) as pool:
            assert list(pool.map(purge, range(5))) == [None] * 5
        assert retention.note(store, "jobs", record.id) is not None
    assert list(store.jobs.iterdir()) == []


def test_purging_twice_at_once_over_http(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as server:
        upload = send(server.http)
        for _ in range(5):
            record = server.store.transition(job(server.store), "cancelled")

            def purge(_: int, server: Server = server, job_id: str = record.id) -> int:
                return server.http.delete(f"/v1/jobs/{job_id}?purge=1").status_code

            with ThreadPoolExecutor(4) as pool:
                found = set(pool.map(purge, range(4)))
            assert 200 in found and found <= {200, 404, 410}
        assert server.http.delete(f"/v1/uploads/{upload}").status_code == 204


def test_a_killed_reconciler_holds_up_nobody(store: JobStore) -> None:
    holding = "import sys, time; from recon.storage.locks import try_lock; from pathlib import Path\n"
    holding += "with try_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with private_redis(store.root / "redis") as url, celery_on(url):
        settings = Settings(store=store.root, redis_url=url)
        reconciler, job_id = Reconciler(settings, JobIndex(store)), job(store)
        command = [sys.executable, "-c", holding, str(store.root / "reconcile.lock")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None and other.stdout.readline() == b"held\n"
            reconciler.work()
            assert tasks.waiting(url) == []  # the other one is at it
            other.send_signal(signal.SIGKILL)
        reconciler.work()
        assert tasks.waiting(url) == [job_id]  # at once, as after a start
