"""Server-sent events: replayed, followed while they are written, and survived by the server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import events as api_events
from operators.errors import BackendUnavailable
from recon.client import event_stream
from recon.client.client import Client
from tests.service.serving import Server, job_body, refused, send, serving, until
from workers.events import Event, Tail, append


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("events") / "store") as found:
        yield found


class Writer:
    """A job's worker, as far as events go."""

    def __init__(self, server: Server) -> None:
        body = job_body(send(server.http))
        self.server, self.id = server, str(server.http.post("/v1/jobs", json=body).json()["id"])
        self.path = server.store.folder(self.id) / "events.jsonl"

    def write(self, event: Event, **data: Any) -> None:
        append(self.path, event, data)

    def finish(self) -> None:
        self.server.store.transition(self.id, "running")
        self.server.store.transition(self.id, "succeeded")


def test_events_are_replayed_and_followed_to_the_end(server: Server) -> None:
    job = Writer(server)
    job.write("log", level="INFO", message="slice 1 of 2")

    def work() -> None:
        for i in range(3):
            time.sleep(0.2)
            job.write("progress", progress=i / 3, step=i)
        job.finish()

    thread = threading.Thread(target=work)
    with Client(server.url) as client:
        stream = client.progress(job.id)
        first = next(stream)
        assert (first.id, first.kind, first.data["state"]) == (1, "state", "queued")
        thread.start()
        rest = list(stream)
        assert [e.id for e in rest] == [2, 3, 4, 5, 6, 7] and rest[-1].data["state"] == "succeeded"
        assert [e.id for e in client.progress(job.id, after=4)] == [5, 6, 7]
        assert list(client.progress(job.id, after=7)) == []
    thread.join()
    raw = server.http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "6"})
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert "id: 7\nevent: state\ndata: {" in raw.text and "id: 6\n" not in raw.text
    assert server.http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "7"}).status_code == 204
    assert server.http.get(f"/v1/jobs/{job.id}/logs").text.endswith(" info slice 1 of 2\n")
    refused(server.http.get(f"/v1/jobs/{'a' * 26}/events"), 404, "id")


def test_a_broken_connection_misses_no_event(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Writer(server)
    for i in range(20):
        job.write("progress", step=i)
    job.finish()
    whole, calls = event_stream.parse, []

    def breaks(answer: httpx.Response) -> Iterator[event_stream.Event]:
        calls.append(1)
        for i, event in enumerate(whole(answer)):
            if i == 6 and len(calls) < 3:
                raise httpx.ReadError("the line broke")
            yield event

    monkeypatch.setattr(event_stream, "parse", breaks)
    with Client(server.url) as client:
        seen = [e.id for e in client.progress(job.id)]
    assert seen == list(range(1, 24)) and len(calls) == 3


def test_an_answer_that_is_no_stream_is_told(server: Server) -> None:
    """As the login page of a proxy, which would otherwise look like a job of which nothing is heard."""
    page = httpx.Response(200, text="<html>please log in</html>", headers={"content-type": "text/html"})
    with Client(server.url) as client:
        inner = client._connection
        inner.http = httpx.Client(base_url=server.url, transport=httpx.MockTransport(lambda _: page))
        with pytest.raises(BackendUnavailable, match=r"text/event-stream.*text/html"):
            list(client.progress("a" * 26))


def test_silence_is_filled_with_heartbeats(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_events, "HEARTBEAT_S", 0.4)
    job = Writer(server)
    with server.http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith(":"))
        job.write("state", state="cancelled")
        assert [line for line in lines if line.startswith("data")]


def test_an_end_that_nobody_lived_to_tell_is_told(server: Server) -> None:
    job = Writer(server)
    job.write("progress", step=1)
    server.store.request_cancel(job.id)
    job.path.write_text("".join(line + "\n" for line in job.path.read_text().splitlines()[:1]))
    with Client(server.url) as client:
        assert [(e.id, e.data["state"]) for e in client.progress(job.id)] == [(1, "queued"), (2, "cancelled")]


def test_the_stream_of_a_job_that_is_deleted_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_events, "LAST_WORD_S", 0.5)
    job = Writer(server)
    job.write("progress", step=1)
    with server.http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if "step" in line)
        server.store.discard(job.id)
        assert [line for line in lines if line.startswith("data")] == []


def test_a_client_that_never_reads_hurts_nobody(server: Server) -> None:
    job = Writer(server)
    big = json.dumps({"id": 1, "event": "log", "at": "now", "data": {"message": "x" * 1000}})
    with job.path.open("a") as stream:
        for i in range(30_000):  # 30 MB, far more than any socket's buffer
            stream.write(big.replace('"id": 1', f'"id": {i + 1}', 1) + "\n")
    address = httpx.URL(server.url)
    lines = []
    try:
        for _ in range(5):
            line = socket.create_connection((address.host, int(address.port or 80)))
            line.sendall(f"GET /v1/jobs/{job.id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            lines.append(line)
        until(lambda: api_events._open >= 5)
        time.sleep(1.0)
        before = _rss()
        for _ in range(20):
            assert server.http.get("/healthz", timeout=5).status_code == 200
        time.sleep(1.0)
        assert _rss() - before < 30e6
    finally:
        for line in lines:
            line.close()
    until(lambda: api_events._open == 0)  # their streams end with them


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_streams_are_limited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_events, "MAX_STREAMS", 0)
    answer = server.http.get(f"/v1/jobs/{Writer(server).id}/events")
    refused(answer, 503, "events")
    assert answer.headers["Retry-After"]


def test_many_idle_streams_cost_what_few_do(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_events, "LOOKS_PER_S", 15)
    looks, read = [], Tail.read

    def counted(tail: Tail) -> list[dict[str, Any]]:
        looks.append(tail)
        return read(tail)

    job, streams = Writer(server), 30
    with ExitStack() as stack:
        for _ in range(streams):
            stack.enter_context(server.http.stream("GET", f"/v1/jobs/{job.id}/events"))
        until(lambda: api_events._open == streams)
        time.sleep(1.0)  # until the pauses that began before the last one came are over
        monkeypatch.setattr(Tail, "read", counted)
        time.sleep(2.0)
        assert 20 <= len(looks) <= 45  # each every two seconds; they would be 200 otherwise
    until(lambda: api_events._open == 0)


def test_a_log_cut_short_is_read_to_its_last_whole_line(tmp_path: Path) -> None:
    lines = [json.dumps({"id": i, "event": "log", "at": "", "data": {}}) for i in (1, 2, 3)]
    path = tmp_path / "events.jsonl"
    path.write_text(f"{lines[0]}\n{lines[1][:10]}\n{lines[1]}\n{lines[2][:5]}")
    tail = Tail(path)
    assert [e["id"] for e in tail.read()] == [1, 2] and tail.read() == []
    with path.open("a") as stream:
        stream.write(lines[2][5:] + "\n")
    assert [e["id"] for e in tail.read()] == [3]
    assert [e["id"] for e in Tail(path, after=2).read()] == [3] and Tail(tmp_path / "none").read() == []
