"""Jobs over HTTP, without a worker: submitted once, listed in pages, looked at without transfer, waited for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from api.models import Job
from operators.errors import Conflict
from recon.client.client import Client
from recon.spec.job import JobSpec
from recon.spec.methods import FBP
from recon.spec.old_names import Renamed
from recon.storage.atomic import write_json
from tests.service.serving import Server, job_body, refused, send, serving, until
from workers import idempotency, retention
from workers.store import JobStore, Record, new_id


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("jobs") / "store") as found:
        yield found


@pytest.fixture(scope="module")
def upload(server: Server) -> str:
    return send(server.http)


def test_an_old_name_in_a_submission_is_in_the_log(
    server: Server, upload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    major, minor, _ = version("diffusion-recon").split(".", 2)
    monkeypatch.setattr(FBP, "RENAMED", {"apodization": Renamed("window", since=f"{major}.{minor}")})
    job = submit(server, upload, method={"name": "fbp", "apodization": "hann"})
    said = server.http.get(f"/v1/jobs/{job['id']}/logs").text.splitlines()
    assert len(said) == 1 and "apodization is now called window" in said[0] and "warning" in said[0]
    assert server.http.get(f"/v1/jobs/{job['id']}/spec").json()["method"] == {"name": "fbp", "window": "hann"}


def finish(store: JobStore, job_id: str, **more: Any) -> Record:
    store.transition(job_id, "running")
    store.output(job_id).mkdir()
    (store.output(job_id) / "volume.npy").write_bytes(b"x" * 1000)
    return store.transition(job_id, "succeeded", progress=1.0, **more)


def submit(server: Server, upload: str, **more: Any) -> dict[str, Any]:
    answer = server.http.post("/v1/jobs", json=job_body(upload, **more))
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_same_submission_twice_is_one_job(server: Server, upload: str) -> None:
    def post(body: dict[str, Any], key: str = "one") -> Any:
        return server.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})

    first, second = post(job_body(upload)), post(job_body(upload))
    assert first.status_code == second.status_code == 202 and first.json()["id"] == second.json()["id"]
    assert second.headers["Location"] == first.headers["Location"]
    refused(post(job_body(upload, seed=1)), 422, "Idempotency-Key")
    assert post(job_body(upload), "two").json()["id"] != first.json()["id"]
    # What was refused was not accepted: mended, it may be sent under its key.
    refused(post(job_body("a" * 26), "three"), 404, "input.upload")
    assert post(job_body(upload), "three").status_code == 202
    refused(post(job_body(upload), "with space"), 422, "Idempotency-Key")


def test_many_at_once_with_one_key_make_one_job(server: Server, upload: str) -> None:
    before = server.http.get("/v1/jobs").json()["total"]

    def post(_: int) -> Any:
        return server.http.post("/v1/jobs", json=job_body(upload), headers={"Idempotency-Key": "all"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(24)))
    assert {a.status_code for a in answers} <= {202, 409}
    assert all(a.headers["Retry-After"] for a in answers)
    assert len({a.json()["id"] for a in answers if a.status_code == 202}) == 1
    assert server.http.get("/v1/jobs").json()["total"] == before + 1


def test_a_crash_between_key_and_job_is_mended_by_the_same_request(server: Server, upload: str) -> None:
    folder = server.store.root / "idempotency"
    with idempotency.claim(folder, None, "crash", b"body") as promised:
        assert not (server.store.jobs / promised).exists()  # here the process dies
    with idempotency.claim(folder, None, "crash", b"body") as again:
        assert again == promised
    path = next(p for p in folder.iterdir() if promised in p.read_text())
    path.write_text(path.read_text()[:20])  # cut short before anything was made
    with idempotency.claim(folder, None, "crash", b"other") as fresh:
        assert fresh != promised


def test_the_client_sends_a_key(server: Server, upload: str) -> None:
    with Client(server.url) as client:
        ids = {client.submit(JobSpec.parse(job_body(upload)), once="mine")["id"] for _ in range(3)}
        assert len(ids) == 1
        assert client.submit(JobSpec.parse(job_body(upload)))["id"] not in ids


def test_pages_are_stable_while_jobs_come(server: Server, upload: str) -> None:
    made = [submit(server, upload, name=f"Page {i}", tags=["pages", f"n{i}"])["id"] for i in range(7)]
    seen, url = [], "/v1/jobs?tag=pages&limit=3"
    while url:
        page = server.http.get(url).json()
        assert len(page["jobs"]) <= 3
        seen += [j["id"] for j in page["jobs"]]
        if len(seen) == 3:
            submit(server, upload, tags=["pages"])  # newer than the page: not in the following ones
        url = page["next"]
    assert seen == made[::-1]
    assert [j["id"] for j in server.http.get("/v1/jobs?tag=n2").json()["jobs"]] == [made[2]]
    assert [j["id"] for j in server.http.get("/v1/jobs", params={"name": "page 4"}).json()["jobs"]] == [made[4]]
    server.http.delete(f"/v1/jobs/{made[0]}")
    found = server.http.get("/v1/jobs", params={"state": "cancelled", "tag": "pages"}).json()
    assert [j["id"] for j in found["jobs"]] == [made[0]] and found["total"] == 1 and found["next"] is None
    refused(server.http.get("/v1/jobs?cursor=nonsense"), 422, "cursor")
    refused(server.http.get("/v1/jobs?state=lost"), 422, "state")
    with Client(server.url) as client:
        assert len(client.jobs(tag="pages", limit=5)) == 5


def test_thousands_of_jobs_are_listed_without_reading_them_again(
    server: Server, upload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = server.store.record(submit(server, upload)["id"])
    for i in range(2000):
        made = replace(template, id=new_id(), state="succeeded", created=f"2020-01-01T00:00:00.{i:06d}+00:00")
        (server.store.jobs / made.id).mkdir()
        files_state = server.store.jobs / made.id / "state.json"
        files_state.write_text(json.dumps(asdict(made)))
    server.http.get("/v1/jobs?limit=1")
    reads: list[str] = []
    record = JobStore.record

    def counted(store: JobStore, job_id: str) -> Record:
        reads.append(job_id)
        return record(store, job_id)

    monkeypatch.setattr(JobStore, "record", counted)
    for _ in range(5):
        assert server.http.get("/v1/jobs?limit=10").json()["total"] > 2000
    assert len(reads) < 100  # some, by what else looks at jobs that change


def test_what_the_client_has_is_not_sent_again(server: Server, upload: str) -> None:
    job = f"/v1/jobs/{submit(server, upload)['id']}"
    until = time.monotonic() + 30
    # Its place in the queue is a part of it, and is looked up beside the answers.
    while (first := server.http.get(job)).json()["queue_position"] is None and time.monotonic() < until:
        time.sleep(0.05)
    same = server.http.get(job, headers={"If-None-Match": f'"other", {first.headers["ETag"]}'})
    assert same.status_code == 304 and same.content == b"" and same.headers["ETag"] == first.headers["ETag"]
    server.http.delete(job)
    after = server.http.get(job, headers={"If-None-Match": first.headers["ETag"]})
    assert after.status_code == 200 and after.json()["state"] == "cancelled"


def test_waiting_ends_with_the_job_or_the_time(server: Server, upload: str) -> None:
    job = submit(server, upload)
    begun = time.monotonic()
    answer = server.http.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "respond-async, wait=1"})
    assert answer.json()["state"] == "queued" and time.monotonic() - begun >= 0.9
    assert answer.headers["Preference-Applied"] == "wait=1"
    timer = threading.Timer(0.5, finish, (server.store, job["id"]))
    timer.start()
    answer = server.http.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=25"})
    assert answer.json()["state"] == "succeeded" and "Retry-After" not in answer.headers
    timer.join()
    posted = server.http.post("/v1/jobs", json=job_body(upload), headers={"Prefer": "wait=1"})
    assert posted.status_code == 202 and posted.json()["state"] == "queued"


def test_queue_position_and_estimate(tmp_path: Any) -> None:
    with serving(tmp_path / "store") as server:
        upload = send(server.http)
        first = submit(server, upload)
        unknown = {"duration_s": None, "duration_range_s": None}
        assert first["estimate"] == {"start_s": 0.0, **unknown} and first["queue_position"] == 0
        record = finish(server.store, first["id"])
        long_ago = datetime.fromisoformat(str(record.finished)) - timedelta(seconds=40)
        state_file = server.store.folder(record.id) / "state.json"
        write_json(state_file, {**asdict(record), "started": long_ago.isoformat()})
        server.service.index._seen.clear()  # finished jobs do not change elsewhere
        jobs = [submit(server, upload)["id"] for _ in range(3)]
        path = f"/v1/jobs/{jobs[2]}"
        # The queue is looked at once a second. The finished one's message is still there, no worker took it.
        until(lambda: server.http.get(path).json()["queue_position"] == 2, 5)
        last = server.http.get(path).json()
        assert last["estimate"] == {"start_s": 80.0, "duration_s": 40.0, "duration_range_s": [26.7, 60.0]}
        server.http.delete(f"/v1/jobs/{jobs[0]}")  # its message stays too
        until(lambda: server.http.get(path).json()["queue_position"] == 1, 5)
        assert server.http.get(path).json()["estimate"]["start_s"] == 40.0
        done = server.http.get(f"/v1/jobs/{first['id']}").json()
        assert done["queue_position"] is None and done["estimate"] is None and done["expires"]


def test_a_device_without_workers_is_refused(server: Server, upload: str, tmp_path: Any) -> None:
    body = {**job_body(upload), "device": "gpu"}
    refused(server.http.post("/v1/jobs", json=body), 422, "device")
    with serving(tmp_path / "store", devices=("cpu", "gpu")) as both:
        body = {**job_body(send(both.http)), "device": "gpu"}
        job = both.http.post("/v1/jobs", json=body).json()
        assert job["device"] == "gpu" and job["queue_position"] == 0


def test_estimates_follow_the_size_of_a_job(tmp_path: Any) -> None:
    with serving(tmp_path / "store") as server:
        upload = send(server.http)
        job = submit(server, upload)
        record = finish(server.store, job["id"])
        assert record.planned_s
        long_ago = datetime.fromisoformat(str(record.finished)) - timedelta(seconds=10)
        path = server.store.folder(record.id) / "state.json"
        write_json(path, {**asdict(record), "started": long_ago.isoformat(), "planned_s": record.planned_s / 4})
        server.service.index._seen.clear()
        other = submit(server, upload)["id"]
        until(lambda: (server.http.get(f"/v1/jobs/{other}").json()["estimate"] or {}).get("duration_s") == 40.0, 8)


def test_a_purged_job_is_gone_and_others_stay(server: Server, upload: str) -> None:
    job, other = submit(server, upload), submit(server, upload)
    refused(server.http.delete(f"/v1/jobs/{job['id']}?purge=1"), 409, "state")
    finish(server.store, job["id"])
    assert server.http.delete(f"/v1/jobs/{job['id']}?purge=1").json() == {"id": job["id"], "purged": True}
    assert not (server.store.jobs / job["id"]).exists()
    for path in ("", "/spec", "/events", "/logs", "/results", "/results/volume.npy"):
        problem = refused(server.http.get(f"/v1/jobs/{job['id']}{path}"), 410, "id")
        assert "purged" in problem["detail"]
    assert job["id"] not in [j["id"] for j in server.http.get("/v1/jobs").json()["jobs"]]
    assert server.http.get(f"/v1/jobs/{other['id']}").status_code == 200


def test_finished_jobs_expire_and_unfinished_ones_never(tmp_path: Any) -> None:
    with serving(tmp_path / "store", retention_days=30) as server:
        upload, unused = send(server.http), send(server.http)
        done, waiting = submit(server, upload), submit(server, upload)
        finish(server.store, done["id"])
        settings, index = server.service.settings, server.service.index
        retention.sweep(index, settings, datetime.now(UTC) + timedelta(days=6))
        assert server.http.get(f"/v1/jobs/{done['id']}").status_code == 200
        assert server.http.get(f"/v1/uploads/{unused}").status_code == 200
        forever = settings.model_copy(update={"retention_days": 0})
        retention.sweep(index, forever, datetime.now(UTC) + timedelta(days=999))
        assert server.http.get(f"/v1/jobs/{done['id']}").status_code == 200
        refused(server.http.get(f"/v1/uploads/{unused}"), 410, "id")
        retention.sweep(index, settings, datetime.now(UTC) + timedelta(days=31))
        assert "expired" in refused(server.http.get(f"/v1/jobs/{done['id']}"), 410, "id")["detail"]
        assert server.http.get(f"/v1/jobs/{waiting['id']}").json()["state"] == "queued"
        assert server.http.get(f"/v1/uploads/{upload}").status_code == 200  # an unfinished job uses it
        refused(server.http.delete(f"/v1/uploads/{upload}"), 409, "id")
        refused(server.http.post("/v1/jobs", json=job_body(unused)), 410, "input.upload")


def test_every_request_has_an_id_and_is_counted(server: Server) -> None:
    assert server.http.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    made = server.http.get("/healthz", headers={"X-Request-ID": "two words"}).headers["X-Request-ID"]
    assert made != "two words" and len(made) >= 8
    problem = refused(server.http.get("/v1/jobs/nope"), 404)
    assert problem["request_id"]
    text = server.http.get("/metrics").text
    assert 'recon_http_requests_total{status="404"}' in text


def test_head_is_answered_wherever_get_is(server: Server, upload: str) -> None:
    job_id = submit(server, upload)["id"]
    finish(server.store, job_id)
    job = f"/v1/jobs/{job_id}"
    uploads = f"/v1/uploads/{upload}"
    for path in ("/v1/jobs", job, f"{job}/spec", f"{job}/results", f"{job}/results/volume.npy", f"{job}/logs", uploads):
        head = server.http.head(path)
        assert head.status_code == 200 and not head.content, path
    assert server.http.head("/v1/jobs/" + "a" * 26).status_code == 404
    for path in ("/healthz", "/readyz"):
        assert server.http.head(path).status_code == 200


def test_a_job_is_described_by_the_fields_of_its_record() -> None:
    """With their types, but for the token, which is the workers' own."""
    known, described = get_type_hints(Record), get_type_hints(Job)
    assert {name: kind for name, kind in known.items() if name != "token"}.items() <= described.items()
    assert described.keys() - known.keys() == {"queue_position", "estimate", "expires", "seen", "links"}


def test_results_overwrite_no_other_files(server: Server, upload: str, tmp_path: Path) -> None:
    job_id = submit(server, upload)["id"]
    finish(server.store, job_id)
    with Client(server.url) as client:
        assert client.fetch(job_id, tmp_path) == client.fetch(job_id, tmp_path) == [tmp_path / "volume.npy"]
        (tmp_path / "volume.npy").write_bytes(b"another")
        with pytest.raises(Conflict, match=r"volume\.npy exists already"):
            client.fetch(job_id, tmp_path)
        assert (tmp_path / "volume.npy").read_bytes() == b"another"
        client.fetch(job_id, tmp_path, replace=True)
        assert (tmp_path / "volume.npy").stat().st_size == 1000


def test_a_specification_may_begin_with_a_byte_order_mark(server: Server, upload: str) -> None:
    """As the command line takes it, too."""
    body = json.dumps(job_body(upload)).encode("utf-8-sig")
    assert server.http.post("/v1/jobs", content=body).status_code == 202
