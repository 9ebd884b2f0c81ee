"""The OpenAPI document is complete, and nothing that it lets in makes the server fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import Server, job_body, send, serving

METHODS = ("get", "head", "post", "put", "patch", "delete")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("openapi") / "store") as found:
        yield found


@pytest.fixture(scope="module")
def schema(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/openapi.json").json()
    return found


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(p, m, o) for p, found in schema["paths"].items() for m, o in found.items()]


def test_every_route_says_what_it_answers(server: Server, schema: dict[str, Any]) -> None:
    problem = "#/components/schemas/Problem"
    for path, method, operation in operations(schema):
        assert operation.get("summary") and operation.get("description"), (method, path)
        for status, response in operation["responses"].items():
            if status == "default" or (int(status) >= 400 and int(status) != 416):
                found = response["content"]["application/problem+json"]["schema"]["$ref"]
                assert found == problem, (method, path, status)
    answer = server.http.get("/v1/jobs/nope").json()
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


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_no_request_makes_the_server_fail(server: Server, schema: dict[str, Any], data: st.DataObject) -> None:
    path, documented, operation = data.draw(st.sampled_from(operations(schema)))
    method = data.draw(st.sampled_from([documented] * 4 + list(METHODS)))
    if path.endswith("/events") and method == "get":
        method = "head"  # it streams
    segment = st.text(min_size=1, max_size=30) | st.sampled_from(["a" * 26, "..", "%2e%2e", "."])
    url = path
    for name in ("job_id", "upload_id", "name"):
        if f"{{{name}}}" in url:
            url = url.replace(f"{{{name}}}", _quoted(data.draw(segment)))
    query, headers = {}, {}
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query" and data.draw(st.booleans()):
            query[parameter["name"]] = data.draw(st.text(max_size=20) | st.integers().map(str))
        if parameter["in"] == "header" and data.draw(st.booleans()):
            headers[parameter["name"]] = data.draw(HEADER_TEXT | st.integers().map(str)).strip()
    for name in ("If-None-Match", "Prefer", "Range", "X-Request-ID"):
        if data.draw(st.integers(0, 4)) == 0:
            headers[name] = data.draw(HEADER_TEXT).strip()
    body = data.draw(st.binary(max_size=50) | JSON.map(lambda v: json.dumps(v).encode()))
    answer = server.http.request(method, url, params=_clean(query), headers=headers, content=body)
    _no_failure(answer, schema)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_no_specification_makes_the_server_fail(server: Server, schema: dict[str, Any], data: st.DataObject) -> None:
    spec = job_body(_UPLOAD.setdefault(server.url, send(server.http)))
    place: Any = spec
    while isinstance(place, dict) and place:  # change something anywhere
        key = data.draw(st.sampled_from(sorted(place)) | st.text(max_size=8))
        if not isinstance(place.get(key), dict) or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    _no_failure(server.http.post("/v1/jobs", content=json.dumps(spec).encode()), schema)


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
        '{"notify": "http://[::1"}',
        "\ufeff{}",
        "null",
    ],
    ids=range(12),
)
def test_strange_json_is_refused(server: Server, schema: dict[str, Any], text: str) -> None:
    answer = server.http.post("/v1/jobs", content=text.encode())
    assert answer.status_code == 422, answer.text
    _no_failure(answer, schema)


_UPLOAD: dict[str, str] = {}


def _no_failure(answer: httpx.Response, schema: dict[str, Any]) -> None:
    assert answer.status_code < 500, (answer.request.method, answer.request.url, answer.text)
    if answer.status_code >= 400 and answer.request.method != "HEAD" and answer.status_code != 416:
        assert answer.headers["content-type"] == "application/problem+json", answer.text


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text.encode("utf-8", "surrogatepass"), safe="%")


def _clean(query: dict[str, str]) -> dict[str, str]:
    return {k: v.encode("utf-8", "replace").decode() for k, v in query.items()}
