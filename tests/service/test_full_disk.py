"""A full disk: everybody is told so, what was promised is kept, and deleting makes room."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from operators.errors import StorageFull
from recon.cli import main
from recon.spec.job import JobSpec
from recon.storage import atomic
from tests.service.serving import job_body, refused, send, serving
from tests.service.stored import damaged, events
from workers import execute as executing
from workers import retention, schema
from workers import store as storing
from workers.execute import execute
from workers.store import JobStore, Record


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "store")


@pytest.fixture
def computed(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job whose computation is replaced by writing one file, with a folder of chunks."""

    def run(_s: Any, _f: Any, out: Path, _r: Any, work: Path, *_: Any) -> None:
        work.mkdir()
        out.mkdir()
        (out / "volume").write_bytes(b"result")

    monkeypatch.setattr(executing, "run", run)
    value = {"input": {"path": "nothing.npy", "format": "numpy"}, "acquisition": "ct-parallel", "method": "fbp"}
    return store.create(JobSpec.parse(value)).id


def writing(monkeypatch: pytest.MonkeyPatch, name: str, store: JobStore, job_id: str, times: int) -> list[int]:
    """Let so many writes of a file fail, once there are results; returns what is left of them."""
    write, left = atomic.write_json, [times]

    def fails(path: Path, value: Any, *, durable: bool = True) -> None:
        if path.name == name and left[0] and (name != "state.json" or store.output(job_id).exists()):
            left[0] -= 1
            full()
        write(path, value, durable=durable)

    for module in (storing, schema):
        monkeypatch.setattr(module, "write_json", fails)
    return left


def test_the_api_says_that_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "store") as server:
        upload = send(server.http)
        where = server.http.post("/v1/uploads", headers={"Upload-Length": "4"}).headers["Location"]
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            answers = [
                server.http.post("/v1/uploads", content=b"x" * 1000),
                server.http.post("/v1/uploads", headers={"Upload-Length": "4"}),
                server.http.patch(where, content=b"data", headers={"Upload-Offset": "0"}),
                server.http.post("/v1/jobs", json=job_body(upload), headers={"Idempotency-Key": "k"}),
            ]
            for answer in answers:
                problem = refused(answer, 507, "disk")
                assert problem["code"] == "storage_full" and problem["remedy"]
        assert server.http.get("/v1/jobs").json()["total"] == 0
        assert not [p for folder in (server.store.jobs, server.store.uploads) for p in folder.glob(".*")]
        # With room again, all of it goes on.
        assert server.http.patch(where, headers={"Upload-Offset": "4"}).status_code == 200
        again = server.http.post("/v1/jobs", json=job_body(upload), headers={"Idempotency-Key": "k"})
        assert again.status_code == 202


def test_a_job_that_meets_a_full_disk_says_so(store: JobStore, computed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "run", full)
    execute(store, computed)
    record = store.record(computed)
    assert record.state == "failed" and record.error is not None
    assert record.error["code"] == "storage_full" and record.error["remedy"]


def test_the_results_of_a_job_make_room_for_saying_that_there_is_none(
    store: JobStore, computed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(monkeypatch, "manifest.json", store, computed, 1)
    transition, seen = store.transition, []

    def looked(job_id: str, state: Any, **more: Any) -> Record:
        seen.append((state, [path.name for path in store.left(job_id)]))
        return transition(job_id, state, **more)

    monkeypatch.setattr(store, "transition", looked)
    execute(store, computed)
    assert store.record(computed).state == "failed" and seen[-1] == ("failed", ["work"])
    assert not store.output(computed).exists()


@pytest.mark.parametrize("times", [1, 2])
def test_published_results_are_a_success_whatever_could_not_be_written(
    store: JobStore, computed: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    left = writing(monkeypatch, "state.json", store, computed, times)
    if times == 1:  # there is room again when the worker wants to record the failure
        execute(store, computed)
    else:
        with pytest.raises(OSError, match="No space"):
            execute(store, computed)
        assert store.record(computed).state == "running"
        assert store.request_cancel(computed).state == "succeeded"
    assert store.record(computed).state == "succeeded" and left == [0]
    assert not damaged(store.output(computed)) and store.left(computed) == []
    told = [e["data"]["state"] for e in events(store, computed) if e["event"] == "state"]
    assert told == ["queued", "running", "succeeded"]


def test_deleting_makes_room_on_a_full_disk(store: JobStore, computed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = store.transition(computed, "cancelled")
    write = atomic.write_json

    def write_if_deleted(path: Path, value: Any, *, durable: bool = True) -> None:
        if any(store.jobs.iterdir()):
            full()
        write(path, value, durable=durable)

    monkeypatch.setattr(retention, "write_json", write_if_deleted)
    retention.purge_job(store, record, "it was purged")
    left = retention.note(store, "jobs", computed)
    assert left is not None and left.reason == "it was purged" and not any(store.jobs.iterdir())


def test_what_the_operating_system_means() -> None:
    with pytest.raises(OSError, match="No space") as caught:
        Path("/dev/full").write_bytes(b"x")
    assert isinstance(StorageFull.of(caught.value), StorageFull)
    assert StorageFull.of(OSError(errno.EDQUOT, "quota")) and StorageFull.of(OSError("9 requested and 4 written"))
    assert StorageFull.of(OSError(errno.EACCES, "denied")) is None and StorageFull.of(ValueError("full")) is None


def test_the_command_line_says_that_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "app", full)
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 3 and "the disk is full" in capsys.readouterr().err
