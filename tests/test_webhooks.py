"""Webhooks: signed, in order, retried, kept over a restart, and never sent where they must not go."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from operators.errors import InputError
from recon import signature
from tests.serving import Server, job_body, refused, send, serving, until
from workers import webhooks
from workers.addresses import allowed_networks, resolve

SECRET = "a secret of the lab"


class Receiver(ThreadingHTTPServer):
    """Keeps what arrives; answers 500 while `broken`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.tries, self.broken = 0, False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?lab=1"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tries += 1
        if not self.server.broken:
            self.server.got.append(({**dict(self.headers), "path": self.path}, body))
        self.send_response(500 if self.server.broken else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def submit(server: Server, url: str) -> str:
    answer = server.http.post("/v1/jobs", json=job_body(send(server.http), notify=url))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def tell(server: Server, job_id: str, *states: str) -> None:
    """What the store writes when a job goes through its states."""
    path = server.store.folder(job_id) / "events.jsonl"
    lines = [json.dumps({"id": 1, "event": "log", "at": "now", "data": {"message": "hello"}})]
    for i, state in enumerate(states):
        lines.append(json.dumps({"id": i + 2, "event": "state", "at": "now", "data": {"state": state}}))
    path.write_text("".join(line + "\n" for line in lines))


def test_every_change_of_state_is_told_signed_and_in_order(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "store", webhook_secret=SECRET, webhook_allow="127.0.0.0/8") as server:
        job = submit(server, receiver.url)
        tell(server, job, "queued", "running", "succeeded")
        until(lambda: len(receiver.got) >= 3)
        assert [json.loads(body)["state"] for _, body in receiver.got] == ["queued", "running", "succeeded"]
        headers, body = receiver.got[0]
        assert json.loads(body)["id"] == job and headers["path"] == "/hook?lab=1" and headers["X-Recon-Event"] == "2"
        signature.verify(SECRET, body, headers["X-Recon-Signature"])
        for secret, text in ((SECRET, body + b" "), ("another", body)):
            with pytest.raises(InputError):
                signature.verify(secret, text, headers["X-Recon-Signature"])
        with pytest.raises(InputError, match="long ago"):
            signature.verify(SECRET, body, signature.sign(SECRET, body, 1))


def test_deliveries_are_retried_and_survive_a_restart(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_DELAY_S", 0.1)
    receiver.broken = True
    settings = {"webhook_secret": SECRET, "webhook_allow": "127.0.0.0/8"}
    with serving(tmp_path / "store", **settings) as server:
        job = submit(server, receiver.url)
        tell(server, job, "queued")
        until(lambda: receiver.tries >= 2)
    receiver.broken = False
    with serving(tmp_path / "store", **settings) as server:
        tell(server, job, "queued", "cancelled")
        until(lambda: len(receiver.got) >= 2)
        assert [json.loads(body)["state"] for _, body in receiver.got] == ["queued", "cancelled"]
        state = server.store.folder(job) / "webhook.json"
        until(lambda: json.loads(state.read_text())["done"])


def test_a_receiver_that_stays_away_is_given_up(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(webhooks, "ATTEMPTS", 3)
    receiver.broken = True
    with serving(tmp_path / "store", webhook_secret=SECRET, webhook_allow="127.0.0.0/8") as server:
        job = submit(server, receiver.url)
        tell(server, job, "failed")
        state = server.store.folder(job) / "webhook.json"
        until(lambda: state.exists() and json.loads(state.read_text())["done"])
        assert json.loads(state.read_text())["given_up"] == [2] and receiver.tries == 3


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8000/v1/jobs",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[fe80::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://224.0.0.1/",
        "http://user@127.0.0.1/",
        "http://:80/",
        "http://x:99999/",
        "ftp://127.0.0.1/",
    ],
)
def test_no_private_address_is_called(url: str) -> None:
    with pytest.raises(InputError, match="notify"):
        resolve(url, [])


def test_networks_can_be_allowed() -> None:
    target = resolve("https://127.0.0.1:8443/hook?x=1", allowed_networks("10.0.0.0/8, 127.0.0.1/32"))
    assert target.url == "https://127.0.0.1:8443/hook?x=1" and target.host_header == "127.0.0.1:8443"
    assert resolve("http://[::1]/", allowed_networks("::1/128")).url == "http://[::1]:80/"
    with pytest.raises(InputError, match="RECON_WEBHOOK_ALLOW"):
        allowed_networks("everything")


def test_what_cannot_be_told_is_refused(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "silent") as server:
        body = job_body(send(server.http), notify="https://example.org/hook")
        assert "RECON_WEBHOOK_SECRET" in refused(server.http.post("/v1/jobs", json=body), 422, "notify")["remedy"]
    with serving(tmp_path / "store", webhook_secret=SECRET) as server:
        for url in (receiver.url, "http://no-such-name.invalid/"):
            body = job_body(send(server.http), notify=url)
            refused(server.http.post("/v1/jobs", json=body), 422, "notify")
