"""The client beside a server that is restarted, full, or not there."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import waiting
from operators.errors import BackendUnavailable, Cancelled
from recon.client import connection
from recon.client.client import Client, ServerError
from tests.service.serving import job_body, send, serving, until
from workers.embedded import private_redis


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_who_waits_for_a_job_outlives_a_restart_of_the_api(tmp_path: Path) -> None:
    store, port = tmp_path / "store", free_port()
    ended: list[dict[str, Any]] = []
    with private_redis(tmp_path / "redis") as redis, Client(f"http://127.0.0.1:{port}") as client:
        with serving(store, redis, port=port) as server:
            job = str(server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"])
            asking = threading.Thread(target=lambda: ended.append(client.wait(job)), daemon=True)
            telling = threading.Thread(target=lambda: ended.append(list(client.progress(job))[-1].data), daemon=True)
            client.job(job)  # the server has answered
            asking.start()
            telling.start()
            time.sleep(0.5)
        time.sleep(0.5)  # nobody listens
        assert not ended and asking.is_alive() and telling.is_alive()
        with serving(store, redis, port=port) as server:
            server.store.transition(job, "running")
            server.store.transition(job, "succeeded")
            asking.join(20)
            telling.join(20)
    assert [e["state"] for e in ended] == ["succeeded", "succeeded"]


def test_a_server_that_was_never_there_is_given_up_soon() -> None:
    began = time.monotonic()
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(BackendUnavailable, match="recon serve"):
        client.job("a" * 26)
    assert time.monotonic() - began < connection.FIRST_PATIENCE_S + 1


def answering(client: Client, answer: Any) -> None:
    """Let a function answer in place of the network."""
    inner = client._connection
    inner.http = httpx.Client(base_url=inner.http.base_url, transport=httpx.MockTransport(answer))


def test_refusals_that_pass_are_waited_for_as_long_as_the_server_says() -> None:
    seen: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(time.monotonic())
        busy = {1: 429, 2: 503}.get(len(seen))
        return httpx.Response(busy, headers={"Retry-After": "1"}) if busy else httpx.Response(200, json={"id": "x"})

    with Client("http://nowhere.invalid") as client:
        answering(client, answer)
        assert client.job("x") == {"id": "x"}
    assert len(seen) == 3 and seen[1] - seen[0] >= 1 and seen[2] - seen[1] >= 1


@pytest.mark.parametrize(("status", "patience_s", "asked"), [(503, 0.5, range(3, 5)), (404, 9.0, range(1, 2))])
def test_patience_ends_and_is_for_what_passes(status: int, patience_s: float, asked: range) -> None:
    asked_for = Counter[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked_for[request.method] += 1
        return httpx.Response(status)

    with Client("http://nowhere.invalid", patience_s=patience_s) as client:
        answering(client, answer)
        with pytest.raises(ServerError) as caught:
            client.job("x")
        with pytest.raises(ServerError):
            client.purge("x")  # not the same when it is sent twice
    assert caught.value.status == status and asked_for["GET"] in asked and asked_for["DELETE"] == 1


def test_waiters_are_limited_and_those_without_a_place_ask_again_politely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITERS", 1)
    with serving(tmp_path / "store") as server, Client(server.url) as client:
        path = "/v1/jobs/" + str(server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"])
        prefer = {"Prefer": "wait=20"}
        got: list[httpx.Response] = []
        first = threading.Thread(target=lambda: got.append(httpx.get(server.url + path, headers=prefer, timeout=30)))
        first.start()
        until(lambda: waiting._waiting == 1)
        second = server.http.get(path, headers=prefer)
        assert first.is_alive() and second.json()["state"] == "queued"  # the first still waits
        assert "Preference-Applied" not in second.headers and second.headers["Retry-After"]
        before = server.service.answers[200]
        timer = threading.Timer(2.5, server.store.request_cancel, (path.rpartition("/")[2],))
        timer.start()
        with pytest.raises(Cancelled):
            client.wait(path.rpartition("/")[2])
        first.join(10)
        assert server.service.answers[200] - before <= 6
        assert got[0].json()["state"] == "cancelled" and got[0].headers["Preference-Applied"] == "wait=20"
        assert waiting._waiting == 0


def test_a_download_that_breaks_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "store") as server, Client(server.url) as client:
        job = str(server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"])
        record = server.store.transition(job, "running")
        attempt = server.store.attempt(record)
        attempt.mkdir()
        (attempt / "volume.npy").write_bytes(b"x" * 5_000_000)
        server.store.publish(job, str(record.token), attempt)
        whole = client._connection.http.stream
        broken: list[str] = []

        def breaks_once(method: str, url: str, **options: Any) -> Any:
            if url.endswith("volume.npy") and not broken:
                broken.append(url)
                raise httpx.ReadError("the line broke")
            return whole(method, url, **options)

        monkeypatch.setattr(client._connection.http, "stream", breaks_once)
        (fetched,) = client.fetch(job, tmp_path / "got")
        assert broken and fetched.stat().st_size == 5_000_000
        until(lambda: not list((tmp_path / "got").glob(".*")))
