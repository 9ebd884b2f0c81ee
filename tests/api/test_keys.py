"""API keys: who gets in, who sees what, and how much of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from operators.errors import InputError
from recon.client.client import Client, ServerError
from recon.spec.job import JobSpec
from tests.service.serving import Server, job_body, refused, send, serving, sinogram
from workers import keys

LIMITS = {"anna": {"max_jobs": 2, "max_bytes": 5000}, "ben": {}}


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A file of keys, and the keys by name."""
    secrets, lines = {}, []
    for name, limits in LIMITS.items():
        secrets[name], key = keys.make(name)
        lines.append(f"- {keys.entry(key.model_copy(update=limits))}\n")
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    path.write_text("".join(lines))
    return path, secrets


@pytest.fixture
def server(tmp_path: Path, ring: tuple[Path, dict[str, str]]) -> Iterator[Server]:
    with serving(tmp_path / "store", keys=ring[0]) as found:
        yield found


def user(server: Server, secret: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {secret}"}, timeout=30)


@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer rk_wrong"}, {"Authorization": "Basic rk_wrong"}])
def test_without_a_key_nothing_is_told(server: Server, sent: dict[str, str]) -> None:
    for method, path in [("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/nothing"), ("PUT", "/v1/uploads")]:
        answer = server.http.request(method, path, headers=sent)
        problem = refused(answer, 401, "Authorization")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer") and "recon key" in problem["remedy"]
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert server.http.get(path, headers=sent).status_code == 200


def test_jobs_and_uploads_belong_to_their_key(server: Server, ring: tuple[Path, dict[str, str]]) -> None:
    with user(server, ring[1]["anna"]) as anna, user(server, ring[1]["ben"]) as ben:
        upload = send(anna)
        refused(ben.post("/v1/jobs", json=job_body(upload)), 404, "input.upload")
        job = anna.post("/v1/jobs", json=job_body(upload), headers={"Idempotency-Key": "k"}).json()
        assert job["owner"] == "anna"
        for path in ("", "/spec", "/events", "/logs", "/results", "/results/x"):
            refused(ben.get(f"/v1/jobs/{job['id']}{path}"), 404, "id")
        refused(ben.delete(f"/v1/jobs/{job['id']}"), 404)
        refused(ben.get(f"/v1/uploads/{upload}"), 404)
        refused(ben.delete(f"/v1/uploads/{upload}"), 404)
        assert ben.get("/v1/jobs").json()["total"] == 0 and anna.get("/v1/jobs").json()["total"] == 1
        # The same idempotency key of another user is another one.
        theirs = ben.post("/v1/jobs", json=job_body(send(ben)), headers={"Idempotency-Key": "k"})
        assert theirs.status_code == 202 and theirs.json()["id"] != job["id"]
        # What anna deleted is gone for her, and was never there for ben.
        server.http.headers["Authorization"] = f"Bearer {ring[1]['anna']}"
        anna.delete(f"/v1/jobs/{job['id']}")
        assert anna.delete(f"/v1/jobs/{job['id']}?purge=1").status_code == 200
        refused(anna.get(f"/v1/jobs/{job['id']}"), 410)
        refused(ben.get(f"/v1/jobs/{job['id']}"), 404)
        assert ben.head(f"/v1/uploads/{upload}").status_code == 404


def test_quotas_name_their_limit(server: Server, ring: tuple[Path, dict[str, str]]) -> None:
    with user(server, ring[1]["anna"]) as anna, user(server, ring[1]["ben"]) as ben:
        upload = send(anna)
        jobs = [anna.post("/v1/jobs", json=job_body(upload)).json()["id"] for _ in range(2)]
        answer = anna.post("/v1/jobs", json=job_body(upload))
        assert "max_jobs is 2" in refused(answer, 429, "max_jobs")["detail"] and int(answer.headers["Retry-After"]) > 0
        assert anna.delete(f"/v1/jobs/{jobs[0]}").json()["state"] == "cancelled"
        assert anna.post("/v1/jobs", json=job_body(upload)).status_code == 202
        refused(anna.post("/v1/uploads", content=b"x" * 5001), 413, "max_bytes")
        assert anna.post("/v1/uploads", content=b"x" * 4000).status_code == 201
        refused(anna.post("/v1/uploads", content=b"x" * 4000), 507, "max_bytes")
        refused(anna.post("/v1/uploads", content=iter([b"x" * 2000, b"x" * 2000])), 507, "max_bytes")
        refused(anna.post("/v1/uploads", headers={"Upload-Length": "4000"}), 507, "max_bytes")
        assert ben.post("/v1/uploads", content=b"x" * 6000).status_code == 201
        for _ in range(4):
            assert ben.post("/v1/jobs", json=job_body(send(ben))).status_code in (202, 404)


def test_the_client_sends_its_key(server: Server, ring: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "sinogram.npy").write_bytes(sinogram())
    body = job_body("a" * 26)
    body["input"] = {"path": str(tmp_path / "sinogram.npy")}
    with Client(server.url, ring[1]["anna"]) as client:
        assert client.submit(JobSpec.parse(body))["owner"] == "anna"
    with Client(server.url) as client, pytest.raises(ServerError) as caught:
        client.jobs()
    assert caught.value.status == 401
    command = [sys.executable, "-m", "recon.cli.main", "list", "--url", server.url, "--json"]
    environment = {**os.environ, "RECON_API_KEY": ring[1]["anna"]}
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0 and '"owner": "anna"' in listed.stdout


def test_the_file_of_keys(tmp_path: Path) -> None:
    secret, key = keys.make("carla")
    path = tmp_path / "keys.json"
    path.write_text(f"[{keys.entry(key)}]")
    ring = keys.KeyRing(path)
    assert ring.find(secret) == key and ring.find(secret[:-1]) is None and secret not in path.read_text()
    other_secret, other = keys.make("dora")
    path.write_text(f"[{keys.entry(key)}, {keys.entry(other)}]")  # read again when it changes
    assert ring.find(other_secret) == other
    path.write_text("nonsense: [")
    assert ring.find(other_secret) == other  # a damaged file locks nobody out
    for bad in ("[]", "{}", '[{"name": "x"}]', f"[{keys.entry(key)}, {keys.entry(key)}]", "\x00"):
        path.write_text(bad)
        with pytest.raises(InputError, match="RECON_KEYS"):
            keys.read(path)
    with pytest.raises(InputError, match="RECON_KEYS"):
        keys.read(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="name"):
        keys.make("no spaces")


def cli(*arguments: str, **env: str) -> Any:
    command = [sys.executable, "-m", "recon.cli.main", *arguments]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)


def test_serving_beyond_this_machine_needs_keys(tmp_path: Path) -> None:
    done = cli("serve", "--host", "0.0.0.0", "--store", str(tmp_path / "store"))
    assert done.returncode == 2 and "no keys are set" in done.stderr and "recon key" in done.stderr
    made = cli("key", "erik", "--max-jobs", "5")
    assert made.returncode == 0
    secret, entry = made.stdout.split("\n", 1)
    path = tmp_path / "keys.yaml"
    path.write_text(entry)
    found = keys.KeyRing(path).find(secret)
    assert found is not None and found.name == "erik" and found.max_jobs == 5
