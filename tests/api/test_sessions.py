"""Sessions of browsers: the key is shown once, the cookie is out of reach of scripts, and it ends when it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.cookies import Morsel, SimpleCookie
from pathlib import Path

import httpx
import pytest

from api.sessions import COOKIE
from tests.service.serving import Server, job_body, refused, send, serving
from workers import keys, retention


class Ring:
    """A file of keys that a test can change."""

    def __init__(self, path: Path, *names: str) -> None:
        self.path, self.secrets, self.entries = path, {}, {}
        for name in names:
            self.secrets[name], key = keys.make(name)
            self.entries[name] = keys.entry(key)
        self.write(*names)

    def write(self, *names: str) -> None:
        self.path.write_text("".join(f"- {self.entries[name]}\n" for name in names))


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path / "keys.yaml", "anna", "ben")


@pytest.fixture
def server(tmp_path: Path, ring: Ring) -> Iterator[Server]:
    with serving(tmp_path / "store", keys=ring.path) as found:
        yield found


@contextmanager
def browser(server: Server, secret: str) -> Iterator[httpx.Client]:
    """A client that has begun a session and knows nothing but its cookie."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        answer = client.post("/v1/session", json={"key": secret})
        assert answer.status_code == 201, answer.text
        yield client


def cookie(answer: httpx.Response) -> Morsel[str]:
    found: SimpleCookie = SimpleCookie()
    found.load(answer.headers["Set-Cookie"])
    return found[COOKIE]


def test_a_cookie_stands_for_its_key(server: Server, ring: Ring) -> None:
    with browser(server, ring.secrets["anna"]) as anna, browser(server, ring.secrets["ben"]) as ben:
        assert anna.get("/v1/session").json()["owner"] == "anna"
        upload = send(anna)
        job = anna.post("/v1/jobs", json=job_body(upload)).json()
        assert job["owner"] == "anna"
        assert anna.get(f"/v1/jobs/{job['id']}").status_code == 200
        refused(ben.get(f"/v1/jobs/{job['id']}"), 404, "id")
        # The header goes before the cookie, also where it is wrong.
        other = {"Authorization": f"Bearer {ring.secrets['ben']}"}
        shown = anna.get("/v1/session", headers=other).json()
        assert shown == {"owner": "ben", "expires": None}
        refused(anna.get("/v1/jobs", headers={"Authorization": "Bearer rk_no"}), 401, "Authorization")
        # A password for the proxy in front is none of ours.
        assert anna.get("/v1/session", headers={"Authorization": "Basic YTpi"}).json()["owner"] == "anna"


def test_the_cookie_is_out_of_reach(server: Server, ring: Ring) -> None:
    answer = server.http.post("/v1/session", json={"key": ring.secrets["anna"]})
    found = cookie(answer)
    assert found["httponly"] and found["samesite"] == "strict" and found["path"] == "/" and not found["secure"]
    assert int(found["max-age"]) > 3600 and answer.headers["Cache-Control"] == "no-store"
    assert ring.secrets["anna"] not in answer.text + answer.headers["Set-Cookie"]
    stored = [p.read_text() for p in (server.store.root / "sessions").iterdir()]
    assert len(stored) == 1 and found.value not in stored[0] and ring.secrets["anna"] not in stored[0]
    by_https = {"X-Forwarded-Proto": "https"}
    assert cookie(server.http.post("/v1/session", json={"key": ring.secrets["anna"]}, headers=by_https))["secure"]


def test_a_session_ends_on_request(server: Server, ring: Ring) -> None:
    with browser(server, ring.secrets["anna"]) as anna:
        token = anna.cookies[COOKIE]
        ended = anna.delete("/v1/session")
        assert ended.status_code == 204 and COOKIE not in anna.cookies
        assert cookie(ended)["httponly"] and cookie(ended)["samesite"] == "strict"
        refused(anna.get("/v1/jobs"), 401, "Authorization")
    # Whoever kept the cookie has nothing.
    problem = refused(server.http.get("/v1/jobs", headers={"Cookie": f"{COOKIE}={token}"}), 401, "Cookie")
    assert "POST /v1/session" in problem["remedy"]


def test_the_stream_of_changes_ends_with_its_session(server: Server, ring: Ring) -> None:
    with browser(server, ring.secrets["anna"]) as anna:
        token = anna.cookies[COOKIE]
        with anna.stream("GET", "/v1/events") as told:
            assert told.status_code == 200
            ended = httpx.delete(f"{server.url}/v1/session", headers={"Cookie": f"{COOKIE}={token}"})
            assert ended.status_code == 204
            assert all(not line.startswith("data") for line in told.iter_lines())  # and it ends


def test_a_session_ends_with_its_key(server: Server, ring: Ring) -> None:
    with browser(server, ring.secrets["anna"]) as anna, browser(server, ring.secrets["ben"]) as ben:
        ring.write("ben")
        refused(anna.get("/v1/jobs"), 401, "Cookie")
        assert ben.get("/v1/jobs").status_code == 200
        # Another key of the same name is another key.
        _, again = keys.make("anna")
        ring.entries["anna"] = keys.entry(again)
        ring.write("anna", "ben")
        refused(anna.get("/v1/jobs"), 401, "Cookie")


def test_a_session_ends_by_itself(server: Server, ring: Ring) -> None:
    with browser(server, ring.secrets["anna"]) as anna, browser(server, ring.secrets["ben"]) as ben:
        paths = list((server.store.root / "sessions").iterdir())
        past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        for path in paths:
            path.write_text(json.dumps({**json.loads(path.read_text()), "expires": past}))
        refused(anna.get("/v1/jobs"), 401, "Cookie")
        refused(ben.get("/v1/jobs"), 401, "Cookie")
    retention.sweep(server.service.index, server.service.settings)
    assert not list((server.store.root / "sessions").iterdir())


def test_a_session_survives_a_restart(tmp_path: Path, ring: Ring) -> None:
    with serving(tmp_path / "store", keys=ring.path) as server, browser(server, ring.secrets["anna"]) as anna:
        kept = {"Cookie": f"{COOKIE}={anna.cookies[COOKIE]}"}
    with serving(tmp_path / "store", keys=ring.path) as server:
        assert server.http.get("/v1/session", headers=kept).json()["owner"] == "anna"


def test_beginning_again_ends_the_session_before(server: Server, ring: Ring) -> None:
    with browser(server, ring.secrets["anna"]) as client:
        before = client.cookies[COOKIE]
        assert client.post("/v1/session", json={"key": ring.secrets["ben"]}).json()["owner"] == "ben"
        assert client.get("/v1/session").json()["owner"] == "ben"
    refused(server.http.get("/v1/jobs", headers={"Cookie": f"{COOKIE}={before}"}), 401, "Cookie")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": "rk_wrong"}, 401),
        ({"key": ""}, 401),
        ({"key": 5}, 422),
        ({}, 422),
        ([], 422),
        ({"key": "rk_wrong", "name": "anna"}, 422),
    ],
)
def test_without_a_key_there_is_no_session(server: Server, body: object, status: int) -> None:
    answer = server.http.post("/v1/session", json=body)
    refused(answer, status, "key")
    assert "Set-Cookie" not in answer.headers
    assert not (server.store.root / "sessions").exists()


@pytest.mark.parametrize("token", ["", "x" * 5000, "../../keys"])
def test_made_up_cookies_open_nothing(server: Server, token: str) -> None:
    answer = server.http.get("/v1/jobs", headers={"Cookie": f'{COOKIE}="{token}"'})
    refused(answer, 401, "Cookie")


def test_a_server_without_keys_needs_no_session(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as server:
        assert server.http.get("/v1/session").json() == {"owner": None, "expires": None}
        refused(server.http.post("/v1/session", json={"key": "rk_any"}), 409, "key")
        assert server.http.get("/v1/jobs", headers={"Cookie": f"{COOKIE}=old"}).status_code == 200
