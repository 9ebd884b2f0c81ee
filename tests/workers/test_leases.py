"""Never lost, never twice: leases, fencing, publication, the reconciler, events."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from operators.errors import Conflict
from recon.pipeline.prepare import JobProgress
from recon.spec.job import JobSpec
from recon.spec.job_states import Priority
from tests.service.serving import celery_on
from tests.service.stored import damaged, events
from workers import execute as executing
from workers import lease, tasks
from workers.app import app
from workers.embedded import private_redis, worker_command
from workers.execute import execute
from workers.index import JobIndex
from workers.lease import Lease
from workers.lost_jobs import MAX_ATTEMPTS
from workers.queues import queues
from workers.reconcile import GRACE_S, PATIENCE_S, Reconciler
from workers.results import manifest
from workers.settings import Settings
from workers.store import JobStore, Record


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis of our own, which Celery talks to as well."""
    with private_redis(tmp_path_factory.mktemp("redis") / "data") as found, celery_on(found):
        yield found
        app.pool.force_close_all()


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with lease.connect(url) as found:
        found.flushall()
        yield found


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "store")


def job(store: JobStore, **more: Any) -> str:
    value = {"input": {"path": "nothing.npy", "format": "numpy"}, "acquisition": "ct-parallel", "method": "fbp", **more}
    return store.create(JobSpec.parse(value)).id


def reconciler(store: JobStore, url: str) -> Reconciler:
    return Reconciler(Settings(store=store.root, redis_url=url), JobIndex(store))


def computing(monkeypatch: pytest.MonkeyPatch, does: Callable[[Path], None]) -> None:
    """Replace the reconstruction by `does`, which gets the folder to fill."""

    def run(_s: JobSpec, _f: Any, out: Path, report: Callable[[JobProgress], None], work: Path, _i: Any) -> None:
        report(JobProgress(0.5, "half"))
        work.mkdir(exist_ok=True)
        out.mkdir()
        (out / "volume").write_bytes(b"result")
        does(out)

    monkeypatch.setattr(executing, "run", run)


def names(store: JobStore, job_id: str) -> set[str]:
    return {p.name for p in store.folder(job_id).iterdir()}


def test_a_lease_is_held_by_one_renewed_and_made_again(url: str, client: redis.Redis) -> None:
    mine = Lease(url, "job", "a")
    assert mine.acquire() and lease.holder(client, "job") == lease.HERE
    client.pexpire(mine.key, 50)
    mine.renew()
    assert client.pttl(mine.key) > 5000
    client.flushall()  # Redis forgets everything
    mine.renew()
    assert lease.holder(client, "job") == lease.HERE
    client.set(mine.key, "b@elsewhere")  # and somebody else was faster
    mine.renew()
    mine.release()
    assert lease.holder(client, "job") == "elsewhere"
    assert not Lease(url, "job", "c").acquire()  # alive on another host
    client.set(mine.key, f"d@{lease.HERE}")  # left by a process of this host that died
    assert mine.acquire()
    mine.release()
    assert lease.holder(client, "job") is None


def test_without_redis_a_computation_goes_on(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = job(store)
    computing(monkeypatch, lambda _: None)
    execute(store, job_id, "redis://127.0.0.1:1/0")
    assert store.record(job_id).state == "succeeded"


def test_the_heartbeat_keeps_the_lease_of_a_running_job(
    store: JobStore, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    job_id = job(store)

    def wiped(_: Path) -> None:
        assert lease.holder(client, job_id) == lease.HERE
        client.flushall()
        deadline = time.monotonic() + 20
        while lease.holder(client, job_id) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    computing(monkeypatch, wiped)
    execute(store, job_id, url)
    assert store.record(job_id).state == "succeeded" and lease.holder(client, job_id) is None


def test_results_are_published_once_with_their_manifest(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = job(store)
    computing(monkeypatch, lambda _: None)
    execute(store, job_id)
    execute(store, job_id)  # delivered again
    record = store.record(job_id)
    assert record.state == "succeeded" and record.attempt == 1
    assert [e["name"] for e in manifest(store.output(job_id))] == ["volume"] and not damaged(store.output(job_id))
    assert names(store, job_id) == {
        "job.json", "state.json", "state.lock", "run.lock", "events.jsonl", "manifest.json", "output"
    }  # fmt: skip
    (store.output(job_id) / "volume").write_bytes(b"rotten")
    assert damaged(store.output(job_id)) == ["volume"]


def test_a_zombie_overwrites_nothing(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was taken for dead, and goes on after another has begun."""
    job_id = job(store)
    old = store.transition(job_id, "running")
    new = store.transition(job_id, "running")
    assert old.token != new.token and new.attempt == 2
    for write in (
        lambda: store.report_progress(job_id, token=old.token, progress=0.9),
        lambda: store.transition(job_id, "failed", token=old.token),
        lambda: store.transition(job_id, "cancelled", token=old.token),
    ):
        with pytest.raises(Conflict, match="another attempt"):
            write()
    for record in (old, new):
        store.attempt(record).mkdir()
        (store.attempt(record) / "volume").write_text(str(record.attempt))
    with pytest.raises(Conflict, match="another attempt"):
        store.publish(job_id, str(old.token), store.attempt(old))
    store.log(job_id, str(old.token), {"message": "from the grave"})
    assert store.record(job_id) == new and not store.output(job_id).exists()
    store.publish(job_id, str(new.token), store.attempt(new))
    assert (store.output(job_id) / "volume").read_text() == "2"
    assert "from the grave" not in str(events(store, job_id))

    def overtaken(_: Path) -> None:
        store.transition(job_id, "running")  # as if on another host

    job_id = job(store)
    computing(monkeypatch, overtaken)
    execute(store, job_id)
    record = store.record(job_id)
    assert (record.state, record.attempt, record.progress) == ("running", 2, 0.5)
    assert "work" in names(store, job_id)  # what the newer attempt may be using stays


def test_who_dies_between_publishing_and_saying_so_has_succeeded(
    store: JobStore, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    computing(monkeypatch, lambda _: pytest.fail("computed again"))
    ids = [job(store) for _ in range(3)]
    for job_id in ids:
        store.transition(job_id, "running")
        store.output(job_id).mkdir()
    execute(store, ids[0])
    assert store.request_cancel(ids[1]).state == "succeeded"
    client.set(lease.PREFIX + ids[2], f"token@{lease.HERE}")
    assert reconciler(store, url).reconcile() == []
    assert [store.record(job_id).state for job_id in ids] == ["succeeded"] * 3


def test_a_duplicate_delivery_is_dropped(
    store: JobStore, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, runs = job(store), []

    def deliver_again(_: Path) -> None:
        runs.append(1)
        execute(store, job_id, url)

    computing(monkeypatch, deliver_again)
    execute(store, job_id, url)
    assert store.record(job_id).attempt == 1 and runs == [1]
    elsewhere = job(store)  # computed by a host that the file lock does not reach
    client.set(lease.PREFIX + elsewhere, "token@elsewhere")
    execute(store, elsewhere, url)
    assert store.record(elsewhere).state == "queued" and runs == [1]


def died(store: JobStore, job_id: str) -> Record:
    """A worker began the job and is gone: state running, lock free."""
    return store.transition(job_id, "running")


def test_jobs_of_dead_workers_are_queued_once_and_given_up_after_three(
    store: JobStore, url: str, client: redis.Redis
) -> None:
    job_id, judge = job(store, priority="high"), reconciler(store, url)
    for _ in range(MAX_ATTEMPTS):
        died(store, job_id)
        client.set(lease.PREFIX + job_id, f"token@{lease.HERE}")
        client.delete(*[f"recon:{q}" for q in queues("cpu")])
        assert judge.reconcile() == ([job_id] if store.record(job_id).attempt < MAX_ATTEMPTS else [])
        assert judge.reconcile() == []  # it waits already
    record = store.record(job_id)
    assert record.state == "failed" and record.error is not None and record.error["code"] == "worker_lost"


@pytest.mark.parametrize("content", ["{", '{"schema_version": 99}', "[]", "{}"])
def test_a_job_that_nobody_can_read_stops_no_other(
    store: JobStore, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """Read once, then damaged, or replaced by a newer version, in a round that finds an older job lost."""
    lost, damaged_id = job(store), job(store)
    judge = reconciler(store, url)
    known = judge.index.records()
    (store.folder(damaged_id) / "state.json").write_text(content)
    monkeypatch.setattr(judge.index, "records", lambda: known)
    assert known[0].id == damaged_id and judge.reconcile(starting=True) == [lost]
    monkeypatch.undo()
    assert [record.id for record in judge.index.records()] == [lost]


def test_a_worker_elsewhere_is_given_time(
    store: JobStore, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, judge = job(store), reconciler(store, url)
    died(store, job_id)
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("workers.reconcile.time", clock)
    client.set(lease.PREFIX + job_id, "token@elsewhere")
    assert judge.reconcile() == []
    client.flushall()  # its next heartbeat makes the lease again
    assert judge.reconcile() == []
    client.set(lease.PREFIX + job_id, "token@elsewhere")
    assert judge.reconcile() == []
    client.delete(lease.PREFIX + job_id)  # now it is dead
    assert judge.reconcile() == []
    clock.monotonic = lambda: GRACE_S / 2
    assert judge.reconcile() == []
    clock.monotonic = lambda: GRACE_S
    assert judge.reconcile() == [job_id]
    with store.running_lock(job_id):  # and one whose lock is held lives, whatever Redis says
        client.flushall()
        assert [judge.reconcile() for _ in range(5)] == [[]] * 5


def test_a_wiped_redis_loses_no_queued_job(
    store: JobStore, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [job(store) for _ in range(5)]
    for job_id in ids:
        tasks.enqueue(job_id)
    judges = [reconciler(store, url), reconciler(store, url)]
    assert judges[0].reconcile() == []
    client.flushall()
    assert judges[0].reconcile() == [] == judges[1].reconcile()  # a worker may just have taken them
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + PATIENCE_S)
    monkeypatch.setattr("workers.reconcile.time", later)
    together = [threading.Thread(target=judge.reconcile) for judge in judges]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    for judge in judges:  # one of them may have found the other at it
        judge.reconcile()
    assert sorted(tasks.waiting(url)) == sorted(ids)
    assert client.llen("recon:cpu") == len(ids)
    client.flushall()
    assert sorted(reconciler(store, url).reconcile(starting=True)) == sorted(ids)


def test_a_lost_job_goes_back_to_the_queue_of_its_device(store: JobStore, url: str, client: redis.Redis) -> None:
    job_id = job(store, device="gpu", priority="high")
    assert reconciler(store, url).reconcile(starting=True) == [job_id]
    assert tasks.waiting(url, "gpu") == [job_id] and client.llen("recon:gpu.high") == 1


def test_a_job_that_had_begun_goes_on_before_others(store: JobStore, url: str, client: redis.Redis) -> None:
    """A worker that is stopped, or dies, must not send a night's work to the end of a long queue."""
    begun, fresh = job(store), [job(store) for _ in range(3)]
    for job_id in fresh:
        tasks.enqueue(job_id)
    died(store, begun)
    tasks.enqueue_again(store.record(begun))
    assert tasks.waiting(url) == [begun, *fresh]


def test_priorities_are_queues_served_in_order(url: str, client: redis.Redis) -> None:
    jobs: list[tuple[str, Priority]]
    jobs = [("n1", "normal"), ("l1", "low"), ("h1", "high"), ("n2", "normal"), ("h2", "high")]
    for job_id, priority in jobs:
        tasks.enqueue(job_id, priority)
    tasks.enqueue("g1", "normal", "gpu")
    assert tasks.waiting(url, "cpu") == ["h1", "h2", "n1", "n2", "l1"]
    assert tasks.waiting(url, "gpu") == ["g1"]
    assert "cpu.high,cpu,cpu.low" in worker_command() and "gpu.high,gpu,gpu.low" in worker_command(1, "gpu")
    with app.connection_for_read() as connection:  # as a worker's consumer asks
        channel = connection.default_channel
        for name in queues("cpu"):
            channel.basic_consume(name, no_ack=True, callback=lambda _: None, consumer_tag=name)
        assert channel._queue_cycle.consume(3) == queues("cpu")
        channel._queue_cycle.rotate("cpu.high")
        assert channel._queue_cycle.consume(3) == queues("cpu")


def test_events_tell_everything_once_and_in_order(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = job(store)

    def says(_: Path) -> None:
        logging.getLogger("recon.anything").info("said %d", 1)
        logging.getLogger("elsewhere").warning("not ours")

    computing(monkeypatch, says)
    execute(store, job_id)
    logging.getLogger("recon.anything").warning("after the end")
    found = events(store, job_id)
    assert [e["id"] for e in found] == list(range(1, len(found) + 1))
    assert [e["event"] for e in found] == ["state", "state", "progress", "log", "state"]
    assert [e["data"].get("state") for e in found] == ["queued", "running", None, None, "succeeded"]
    assert found[2]["data"]["stage"] == "half" and found[3]["data"]["message"] == "said 1"
    assert events(store, job_id, after=3) == found[3:] and events(store, job_id, after=99) == []


def test_events_survive_a_process_that_died_while_telling(store: JobStore) -> None:
    job_id = job(store)
    path = store.folder(job_id) / "events.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": 2, "eve')
    assert [e["id"] for e in events(store, job_id)] == [1]
    store.transition(job_id, "running")
    store.transition(job_id, "failed", error={"code": "internal", "message": "m"})
    told = path.read_bytes()
    path.write_bytes(told[: told[:-1].rfind(b"\n") + 1])  # it died after the state, before the event
    for _ in range(2):
        found = events(store, job_id)
        assert [e["data"]["state"] for e in found] == ["queued", "running", "failed"] and found[-1]["id"] == 3
    assert found[-1]["data"]["error"]["code"] == "internal"


def test_the_token_is_not_shown(store: JobStore, url: str) -> None:
    from api.representation import represent
    from api.service import Service

    job_id = job(store)
    service = Service.of(Settings(store=store.root, redis_url=url))
    assert "token" not in represent(service, store.transition(job_id, "running")).model_dump()
    assert json.loads((store.folder(job_id) / "state.json").read_text())["token"]
