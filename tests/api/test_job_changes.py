"""One stream of all jobs: nothing is missed over broken connections, and nobody sees another's jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from api import events, job_changes
from recon.client.event_stream import Event, parse
from tests.service.serving import Server, job_body, refused, send, serving, until
from workers import keys


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "store") as found:
        yield found


def submit(http: httpx.Client) -> str:
    return str(http.post("/v1/jobs", json=job_body(send(http))).json()["id"])


def finish(server: Server, job: str) -> None:
    server.store.transition(job, "running")
    server.store.transition(job, "succeeded")


@contextmanager
def stream(http: httpx.Client, after: int | None = None) -> Iterator[Iterator[Event]]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with http.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield parse(answer)


def upto(seen: Iterator[Event], job: str, state: str) -> list[Event]:
    """Events up to the one that says a job's state."""
    found = []
    for event in seen:
        found.append(event)
        if event.data["id"] == job and event.data.get("state", "gone") == state:
            return found
    raise AssertionError(f"the stream ended before {state}")


def test_all_jobs_come_in_one_stream(server: Server) -> None:
    first = submit(server.http)
    with stream(server.http) as seen:
        upto(seen, first, "queued")
        second = submit(server.http)
        upto(seen, second, "queued")
        record = server.store.transition(first, "running")
        server.store.report_progress(first, token=record.token, progress=0.25, stage="solve", step=1, steps=4)
        while (event := next(seen)).data["progress"] != 0.25:
            assert event.kind == "job" and event.data["id"] in (first, second)
        assert event.data["stage"] == "solve" and event.data == event.data | server.http.get(f"/v1/jobs/{first}").json()
        server.http.delete(f"/v1/jobs/{second}")
        assert upto(seen, second, "cancelled")[-1].data["links"]["self"] == f"/v1/jobs/{second}"
        server.http.delete(f"/v1/jobs/{second}?purge=1")
        gone = upto(seen, second, "gone")[-1]
        assert gone.kind == "gone" and gone.data == {"id": second}


def test_places_in_the_queue_are_told(server: Server) -> None:
    first, second = submit(server.http), submit(server.http)
    with stream(server.http) as seen:
        while (event := next(seen)).data["id"] != second or event.data["queue_position"] != 1:
            pass
        server.http.delete(f"/v1/jobs/{first}")
        while (event := next(seen)).data["id"] != second or event.data["queue_position"] != 0:
            pass


def test_what_happened_in_between_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_changes, "OVERLAP_S", 0.0)
    finished, waiting, purged, idle = (submit(server.http) for _ in range(4))
    with stream(server.http) as seen:
        last = upto(seen, idle, "queued")[-1].id
    until(lambda: events._open == 0)
    finish(server, finished)
    server.http.delete(f"/v1/jobs/{purged}")
    server.http.delete(f"/v1/jobs/{purged}?purge=1")
    server.store.transition(waiting, "running")
    with stream(server.http, last) as seen:
        missed = upto(seen, purged, "gone")
    states = {e.data["id"]: e.data.get("state", "gone") for e in missed if e.id > last}
    assert states == {finished: "succeeded", waiting: "running", purged: "gone"}
    assert [e.id for e in missed] == sorted(e.id for e in missed)


def test_clocks_of_workers_may_be_behind(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one says it changed before the last event is told all the same."""
    job, other = submit(server.http), submit(server.http)
    with stream(server.http) as seen:
        last = upto(seen, other, "queued")[-1].id
    late = (datetime.now(UTC) - timedelta(seconds=10)).isoformat()
    monkeypatch.setattr("workers.store.timestamp", lambda: late)
    finish(server, job)
    with stream(server.http, last) as seen:
        upto(seen, job, "succeeded")


def test_a_new_client_is_told_of_the_unfinished_and_the_latest(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    old, waiting = submit(server.http), submit(server.http)
    finish(server, old)
    with stream(server.http) as seen:  # it may have ended since the client asked for the list
        assert {e.data["id"] for e in upto(seen, old, "succeeded")} <= {old, waiting}
    monkeypatch.setattr(job_changes, "OVERLAP_S", -1.0)
    later = submit(server.http)
    with stream(server.http) as seen:
        assert old not in {e.data["id"] for e in upto(seen, later, "queued")}


@pytest.mark.parametrize("sent", ["nonsense", "-1", "9" * 20, "1.5"])
def test_an_id_that_is_none_of_ours_is_as_good_as_none(server: Server, sent: str) -> None:
    job = submit(server.http)
    with server.http.stream("GET", "/v1/events", headers={"Last-Event-ID": sent}) as answer:
        assert answer.status_code == 200
        upto(parse(answer), job, "queued")


def test_keys_see_their_own_and_streams_end_with_them(tmp_path: Path) -> None:
    secrets, entries = {}, {}
    for name in ("anna", "ben"):
        secrets[name], key = keys.make(name)
        entries[name] = f"- {keys.entry(key)}\n"
    ring = tmp_path / "keys.yaml"
    ring.write_text("".join(entries.values()))
    with serving(tmp_path / "store", keys=ring) as server:
        refused(server.http.get("/v1/events"), 401)
        with httpx.Client(base_url=server.url, timeout=30) as anna, httpx.Client(base_url=server.url) as ben:
            anna.headers["Authorization"] = f"Bearer {secrets['anna']}"
            assert ben.post("/v1/session", json={"key": secrets["ben"]}).status_code == 201  # as EventSource has it
            theirs, mine = submit(anna), submit(ben)
            with stream(ben) as seen:
                assert {e.data["id"] for e in upto(seen, mine, "queued")} == {mine}
                anna.delete(f"/v1/jobs/{theirs}")
                anna.delete(f"/v1/jobs/{theirs}?purge=1")
                ben.delete(f"/v1/jobs/{mine}")
                assert {e.data["id"] for e in upto(seen, mine, "cancelled")} == {mine}
                ring.write_text(entries["anna"])
                os.utime(ring, ns=(1, 1))
                assert {e.data["id"] for e in seen} <= {mine}  # to its end


def test_streams_are_limited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS", 0)
    refused(server.http.get("/v1/events"), 503, "events")


def test_two_looks_at_one_sign_of_life_are_nothing_new() -> None:
    first, same, next_one = (f"2026-01-01T00:00:{second}+00:00" for second in ("00.999", "01.001", "03.998"))
    assert not job_changes._differ(("u", 0, first), ("u", 0, same))
    assert not job_changes._differ(("u", 0, None), ("u", 0, None))
    assert job_changes._differ(("u", 0, next_one), ("u", 0, first))
    assert job_changes._differ(("u", 0, None), ("u", 0, first))
    assert job_changes._differ(("u", 0, first), ("u", 1, first)) and job_changes._differ(("u", 0, None), None)
