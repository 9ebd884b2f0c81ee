"""Reverse proxies: what they say of the client, the scheme and the prefix counts, and only what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from operators.errors import InputError
from recon.client.client import Client
from tests.service.serving import Server, job_body, refused, send, serving, sinogram
from workers import keys
from workers.settings import Settings

PREFIX = {"X-Forwarded-Prefix": "/recon"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("proxies") / "store") as found:
        yield found


def finished(server: Server) -> str:
    job = str(server.http.post("/v1/jobs", json=job_body(send(server.http))).json()["id"])
    record = server.store.transition(job, "running")
    server.store.attempt(record).mkdir()
    (server.store.attempt(record) / "report.json").write_text("{}")
    server.store.publish(job, str(record.token), server.store.attempt(record))
    return job


@pytest.mark.parametrize("prefix", ["/recon", "/recon/", "/a/b-c.d"])
def test_links_lead_below_the_prefix(server: Server, prefix: str) -> None:
    job, root = finished(server), prefix.rstrip("/")
    headers = {"X-Forwarded-Prefix": prefix}
    for path in (f"/v1/jobs/{job}", f"{root}/v1/jobs/{job}"):  # taken off by the proxy, or not
        links = server.http.get(path, headers=headers).json()["links"]
        assert links["self"] == f"{root}/v1/jobs/{job}" and links["results"] == f"{root}/v1/jobs/{job}/results"
    files = server.http.get(f"/v1/jobs/{job}/results", headers=headers).json()["files"]
    assert files[0]["href"] == f"{root}/v1/jobs/{job}/results/report.json"
    finished(server)
    assert server.http.get("/v1/jobs?limit=1", headers=headers).json()["next"].startswith(f"{root}/v1/jobs?")
    begun = server.http.post("/v1/uploads", headers={**headers, "Upload-Length": "5"})
    assert begun.headers["Location"].startswith(f"{root}/v1/uploads/")
    submitted = server.http.post("/v1/jobs", json=job_body(send(server.http)), headers=headers)
    assert submitted.headers["Location"] == f"{root}/v1/jobs/{submitted.json()['id']}"
    assert server.http.get("/openapi.json", headers=headers).json()["servers"] == [{"url": root}]
    assert server.http.get(f"/v1/jobs/{job}").json()["links"]["self"] == f"/v1/jobs/{job}"


@pytest.mark.parametrize("prefix", ["recon", "//evil.example", "/a?b", "https://evil.example", "/a/../b\\", "/a//b"])
def test_what_is_no_prefix_is_told(server: Server, prefix: str) -> None:
    refused(server.http.get("/v1/jobs", headers={"X-Forwarded-Prefix": prefix}), 422, "X-Forwarded-Prefix")


def test_who_is_no_proxy_is_not_believed(tmp_path: Path) -> None:
    secret, key = keys.make("anna")
    (tmp_path / "keys.yaml").write_text(f"- {keys.entry(key)}\n")
    with serving(tmp_path / "store", keys=tmp_path / "keys.yaml", proxies=("10.1.0.0/16",)) as server:
        server.http.headers["Authorization"] = f"Bearer {secret}"
        job = finished(server)
        sent = {**PREFIX, "X-Forwarded-Proto": "https"}
        assert server.http.get(f"/v1/jobs/{job}", headers=sent).json()["links"]["self"] == f"/v1/jobs/{job}"
        refused(server.http.get(f"/recon/v1/jobs/{job}", headers=sent), 404)
        begun = server.http.post("/v1/session", json={"key": secret}, headers=sent)
        assert "secure" not in begun.headers["Set-Cookie"].lower() and "Path=/;" in begun.headers["Set-Cookie"] + ";"
        assert server.http.get("/v1/jobs", headers={"X-Forwarded-Prefix": "nonsense"}).status_code == 200


def test_the_key_is_needed_below_a_prefix_as_without(tmp_path: Path) -> None:
    secret, key = keys.make("anna")
    (tmp_path / "keys.yaml").write_text(f"- {keys.entry(key)}\n")
    with serving(tmp_path / "store", keys=tmp_path / "keys.yaml") as server:
        for path in ("/v1/jobs", "/recon/v1/jobs", "/recon/healthz/../v1/jobs"):
            assert server.http.get(path, headers=PREFIX).status_code == 401
        assert server.http.get("/recon/healthz", headers=PREFIX).status_code == 200
        assert server.http.get("/v1/jobs", headers={"X-Forwarded-Prefix": "/v1"}).status_code == 401
        begun = server.http.post("/recon/v1/session", json={"key": secret}, headers=PREFIX)
        assert "Path=/recon/" in begun.headers["Set-Cookie"]


@pytest.mark.parametrize("says_so", [True, False])
def test_the_client_works_behind_a_prefix(server: Server, tmp_path: Path, says_so: bool) -> None:
    """Through a proxy that takes the prefix off, whether or not it tells the server of it."""
    (tmp_path / "a.npy").write_bytes(sinogram())
    job = finished(server)

    def proxied(request: httpx.Request) -> httpx.Response:
        assert request.url.path.startswith("/recon/v1/"), request.url
        headers = {**request.headers, **(PREFIX if says_so else {})}
        path = request.url.raw_path.decode().removeprefix("/recon")
        return server.http.request(request.method, path, headers=headers, content=request.read())

    with Client(f"{server.url}/recon/") as client:
        inner = client._connection
        inner.http = httpx.Client(base_url=inner.http.base_url, transport=httpx.MockTransport(proxied))
        assert client.upload(tmp_path / "a.npy")
        assert [p.name for p in client.fetch(job, tmp_path / "out")] == ["report.json"]
        assert len(client.jobs(limit=2000)) >= 1


@pytest.mark.parametrize("wrong", ["proxy.example", "10.0.0.0/99", "10.1.0.1/16"])
def test_proxies_are_addresses(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_PROXIES", wrong)
    with pytest.raises(InputError, match="RECON_PROXIES"):
        Settings()
    monkeypatch.setenv("RECON_PROXIES", "10.1.0.0/16, ::1")
    assert Settings().proxies == ("10.1.0.0/16", "::1")
