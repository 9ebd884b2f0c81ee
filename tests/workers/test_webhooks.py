"""Webhooks: signed, in order, retried, kept over a restart, and never sent where they must not go."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from operators.errors import InputError
from recon.client import webhook_signature
from tests.service.serving import Server, job_body, refused, send, serving, until
from workers import webhooks
from workers.addresses import allowed_networks, resolve
from workers.events import append

SECRET = "a secret of the lab"


class Receiver(ThreadingHTTPServer):
    """Keeps what arrives; answers 500 while `broken`, and with a redirection where there is one."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.tries, self.broken, self.elsewhere = 0, False, ""

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
        self.send_response(500 if self.server.broken else 307 if self.server.elsewhere else 204)
        if self.server.elsewhere:
            self.send_header("Location", self.server.elsewhere)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def receiving(host: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
    with Receiver(host, port) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@contextmanager
def dripping() -> Iterator[str]:
    """The URL of a receiver that sends a byte of its answer now and then, and never ends."""
    over = threading.Event()

    def drip(line: socket.socket) -> None:
        with line:
            while not over.wait(0.1):
                try:
                    line.sendall(b"H")
                except OSError:
                    return

    def accept(listening: socket.socket) -> None:
        while not over.is_set():
            try:
                line, _ = listening.accept()
            except TimeoutError:
                continue
            threading.Thread(target=drip, args=(line,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        thread = threading.Thread(target=accept, args=(listening,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        over.set()
        thread.join()


def submit(server: Server, url: str) -> str:
    answer = server.http.post("/v1/jobs", json=job_body(send(server.http), webhook_url=url))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def tell(server: Server, job_id: str, *states: str) -> None:
    """What the store writes when a queued job goes through further states."""
    path = server.store.folder(job_id) / "events.jsonl"
    append(path, "log", {"message": "hello"})
    for state in states:
        append(path, "state", {"state": state})


def test_every_change_of_state_is_told_signed_and_in_order(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "store", webhook_secret=SECRET, webhook_allow="127.0.0.0/8") as server:
        job = submit(server, receiver.url)
        tell(server, job, "running", "succeeded")
        until(lambda: len(receiver.got) >= 3)
        assert [json.loads(body)["state"] for _, body in receiver.got] == ["queued", "running", "succeeded"]
        headers, body = receiver.got[0]
        assert json.loads(body)["id"] == job and headers["path"] == "/hook?lab=1" and headers["X-Recon-Event"] == "1"
        assert receiver.got[1][0]["X-Recon-Event"] == "3"  # the second is a line of the log
        webhook_signature.verify(SECRET, body, headers["X-Recon-Signature"])
        for secret, text in ((SECRET, body + b" "), ("another", body)):
            with pytest.raises(InputError):
                webhook_signature.verify(secret, text, headers["X-Recon-Signature"])
        with pytest.raises(InputError, match="long ago"):
            webhook_signature.verify(SECRET, body, webhook_signature.sign(SECRET, body, 1))


def test_deliveries_are_retried_and_survive_a_restart(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_DELAY_S", 0.1)
    receiver.broken = True
    settings: dict[str, Any] = {"webhook_secret": SECRET, "webhook_allow": "127.0.0.0/8"}
    with serving(tmp_path / "store", **settings) as server:
        job = submit(server, receiver.url)
        until(lambda: receiver.tries >= 2)
    receiver.broken = False
    with serving(tmp_path / "store", **settings) as server:
        tell(server, job, "cancelled")
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
        assert json.loads(state.read_text())["given_up"] == [1, 3] and receiver.tries == 6


def test_a_receiver_that_drips_holds_up_nobody_and_is_cut_off(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 3.0)
    monkeypatch.setattr(webhooks, "RECEIVERS", 2)
    with dripping() as url, serving(tmp_path / "store", webhook_secret=SECRET, webhook_allow="127.0.0.0/8") as server:
        slow = [submit(server, url) for _ in range(4)]  # more than there are threads
        time.sleep(1.2)  # a round: the slow ones have their turn
        good = submit(server, receiver.url)
        tell(server, good, "running", "succeeded")
        until(lambda: len(receiver.got) >= 3, 2.5)
        states = [server.store.folder(job) / "webhook.json" for job in slow]
        until(lambda: any(path.exists() for path in states), 5)
        tried = [json.loads(path.read_text()) for path in states if path.exists()]
        assert tried[0]["attempts"] == 1 and tried[0]["last"] == 0


def test_redirections_are_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    with receiving() as other, serving(tmp_path / "s", webhook_secret=SECRET, webhook_allow="127.0.0.0/8") as server:
        receiver.elsewhere = other.url
        job = submit(server, receiver.url)
        state = server.store.folder(job) / "webhook.json"
        until(state.exists)
        assert json.loads(state.read_text())["attempts"] == 1 and receiver.tries == 1
        assert other.tries == 0


def test_a_name_that_changes_its_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what is checked is what is connected to, for every delivery anew.

    127.0.0.1 stands for a public address, being allowed; 127.0.0.2 is the private one.
    """
    real, asked = socket.getaddrinfo, []

    def rebinding(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "rebinding.test":
            return real(host, port, *args, **options)
        asked.append(host)
        # For the submission and the first delivery the one, from then on the other.
        return real("127.0.0.1" if len(asked) <= 2 else "127.0.0.2", port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(webhooks, "FIRST_DELAY_S", 0.1)
    settings: dict[str, Any] = {"webhook_secret": SECRET, "webhook_allow": "127.0.0.1/32"}
    with receiving() as public, receiving("127.0.0.2", public.server_port) as private:
        with serving(tmp_path / "store", **settings) as server:
            job = submit(server, f"http://rebinding.test:{public.server_port}/hook")
            until(lambda: public.got)
            tell(server, job, "running")
            state = server.store.folder(job) / "webhook.json"
            until(lambda: len(asked) >= 4)  # two attempts at the second event
            until(lambda: json.loads(state.read_text())["attempts"] >= 1)
        assert [h["Host"] for h, _ in public.got] == [f"rebinding.test:{public.server_port}"]
        assert private.tries == 0 and json.loads(state.read_text())["last"] == 1


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
        "http://[::ffff:10.0.0.1]/",
        "http://[::ffff:0:127.0.0.1]/",
        "http://[::127.0.0.1]/",
        "http://[::]/",
        "http://[64:ff9b::10.1.2.3]/",
        "http://[64:ff9b::169.254.169.254]/",
        "http://[64:ff9b:1::8.8.8.8]/",
        "http://[64:ff9b:1:a00:1::]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:808:808::1]/",
        "http://[2001:0:4136:e378:8000:63bf:f5ff:fffe]/",
        "http://[2001:db8::1]/",
        "http://[3fff::1]/",
        "http://[5f00::1]/",
        "http://[100::1]/",
        "http://[fc00::1]/",
        "http://[fec0::1]/",
        "http://[feff::1]/",
        "http://[ff02::1]/",
        "http://[4000::1]/",
        "http://100.64.0.1/",
        "http://192.0.0.8/",
        "http://192.88.99.1/",
        "http://198.18.0.1/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
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
    with pytest.raises(InputError, match="webhook_url"):
        resolve(url, [])


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "192.0.1.1", "[2606:4700::1111]", "[2001:4860:4860::8888]", "[64:ff9b::8.8.8.8]"]
)
def test_public_addresses_are_called(host: str) -> None:
    assert resolve(f"http://{host}/", []).address in host or "64:ff9b" in host


def test_networks_can_be_allowed() -> None:
    target = resolve("https://127.0.0.1:8443/hook?x=1", allowed_networks("10.0.0.0/8, 127.0.0.1/32"))
    assert target.url == "https://127.0.0.1:8443/hook?x=1" and target.host_header == "127.0.0.1:8443"
    assert resolve("http://[::1]/", allowed_networks("::1/128")).url == "http://[::1]:80/"
    with pytest.raises(InputError, match="RECON_WEBHOOK_ALLOW"):
        allowed_networks("everything")


def test_what_cannot_be_told_is_refused(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "silent") as server:
        body = job_body(send(server.http), webhook_url="https://example.org/hook")
        assert "RECON_WEBHOOK_SECRET" in refused(server.http.post("/v1/jobs", json=body), 422, "webhook_url")["remedy"]
    with serving(tmp_path / "store", webhook_secret=SECRET) as server:
        for url in (receiver.url, "http://no-such-name.invalid/"):
            body = job_body(send(server.http), webhook_url=url)
            refused(server.http.post("/v1/jobs", json=body), 422, "webhook_url")
