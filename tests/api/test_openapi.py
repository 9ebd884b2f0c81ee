"""The OpenAPI document is complete, and what it says is what a real server does, with whatever is sent to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from tests.service.serving import job_body, send
from tests.service.whole_service import api_alone
from workers import keys
from workers.embedded import private_redis
from workers.settings import Settings
from workers.store import JobStore


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """``recon serve`` with a key, and behind it an upload, a job that waits and one that has results."""
    folder = tmp_path_factory.mktemp("openapi")
    secret, key = keys.make("anna")
    (folder / "keys").write_text(f"- {keys.entry(key)}\n")
    with (
        private_redis(folder / "redis") as url,
        api_alone(folder / "store", REDIS_URL=url, RECON_KEYS=str(folder / "keys"), RECON_IDLE_S="5") as http,
    ):
        http.headers["Authorization"] = f"Bearer {secret}"
        upload = send(http)
        for _ in range(2):
            job = http.post("/v1/jobs", json=job_body(upload)).json()["id"]
        store = JobStore(folder / "store")
        record = store.transition(job, "running")
        store.attempt(record).mkdir()
        (store.attempt(record) / "report.json").write_text("{}")
        store.publish(job, str(record.token), store.attempt(record))
        yield http


@pytest.fixture(scope="module")
def schema(server: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/openapi.json").json()
    return found


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(p, m, o) for p, found in schema["paths"].items() for m, o in found.items()]


def test_every_route_says_what_it_answers(server: httpx.Client, schema: dict[str, Any]) -> None:
    problem = "#/components/schemas/Problem"
    for path, method, operation in operations(schema):
        assert operation.get("summary") and operation.get("description"), (method, path)
        for status, response in operation["responses"].items():
            if status == "default" or int(status) >= 400:
                found = response["content"]["application/problem+json"]["schema"]["$ref"]
                assert found == problem, (method, path, status)
    answer = server.get("/v1/jobs/nope").json()
    known = schema["components"]["schemas"]["Problem"]
    assert set(known["required"]) <= set(answer) <= set(known["properties"])
    for reference in set(_references(schema)):
        part: Any = schema
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"input": {"upload": "\\ud800"}}',
        '{"name": "\\u0000", "input": {"path": "\\u0000"}}',
        '{"seed": ' + "9" * 5000 + "}",
        '{"seed": NaN, "input": Infinity}',
        '{"seed": 1e999}',
        "[" * 50_000 + "]" * 50_000,
        '{"a":' * 900 + "1" + "}" * 900,
        '{"webhook_url": "http://[::1"}',
        "\ufeff{}",
        "null",
    ],
    ids=range(12),
)
def test_strange_json_is_refused(server: httpx.Client, text: str) -> None:
    answer = server.post("/v1/jobs", content=text.encode())
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json", answer.text


def test_a_method_that_a_path_does_not_have_is_answered_with_all_that_it_has(server: httpx.Client) -> None:
    allowed = {"/v1/uploads": "GET, HEAD, POST, PUT", "/v1/jobs": "GET, HEAD, POST", "/healthz": "GET, HEAD"}
    for path, methods in allowed.items():
        answer = server.request("OPTIONS", path)
        assert answer.status_code == 405 and answer.headers["Allow"] == methods


def test_the_document_says_whether_a_key_is_needed(schema: dict[str, Any], tmp_path: Path) -> None:
    without = create_app(Settings(store=tmp_path, redis_url="redis://127.0.0.1:1/0")).openapi()
    for path, method, operation in operations(schema):
        assert operation.get("security") == ([{"key": []}] if path.startswith("/v1/") else None)
        assert "security" not in without["paths"][path][method]


def test_what_is_served_is_what_is_described(server: httpx.Client) -> None:
    schemathesis(server, examples=5)


@pytest.mark.slow
def test_what_is_served_is_what_is_described_at_length(server: httpx.Client) -> None:
    schemathesis(server, examples=200)


def schemathesis(server: httpx.Client, examples: int) -> None:
    """Try every operation: the edges of its schema, so many random requests, good and bad, and some in a row."""
    config = Path(__file__).with_name("schemathesis.toml")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    command += [f"{server.base_url}/openapi.json", "-H", f"Authorization: {server.headers['Authorization']}"]
    command += ["--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(examples)]
    command += ["--generation-deterministic", "--suppress-health-check", "all"]
    command += ["--continue-on-failure", "--request-timeout", "20", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    for phase in ("Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in done.stdout, done.stdout[-3000:]
