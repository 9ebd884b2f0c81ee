"""The page /docs tells everything that the OpenAPI document has, and needs nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from api.reference import kind, limits, prose
from tests.service.serving import Server, serving
from workers import keys


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("reference") / "store") as found:
        yield found


class Page(HTMLParser):
    """Links, ids, scripts and styles of a page, and the elements that are open at its end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.runs: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [str(found[name]) for name in ("href", "src") if name in found]
        self.ids += [str(found["id"])] if "id" in found else []
        self.runs += [tag] if tag in ("script", "style", "iframe") or "style" in found else []
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_has_every_route_and_every_field(server: Server) -> None:
    answer = server.http.get("/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page, document = Page(answer.text), server.http.get("/openapi.json").json()
    assert not page.open and len(set(page.ids)) == len(page.ids)
    text = re.sub(r"<[^>]*>", "", answer.text)
    for path, found in document["paths"].items():
        for method, operation in found.items():
            assert operation["operationId"] in page.ids and f"{method.upper()} {path}" in text
    for name, schema in document["components"]["schemas"].items():
        assert f"schema-{name}" in page.ids
        for field in schema.get("properties", {}):
            assert f"<code>{field}</code>" in answer.text, (name, field)


def test_it_needs_nothing_from_elsewhere(server: Server) -> None:
    """Under a policy that allows no scripts or styles within the page, either."""
    page = Page(server.http.get("/docs").text)
    assert not page.runs
    within = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert within <= set(page.ids) and len(within) > 50
    others = {link for link in page.links if not link.startswith("#")}
    assert others == {"docs.css", "openapi.json", "data:,"}  # relative: below the prefix of a proxy, too
    style = server.http.get("/docs.css")
    assert style.headers["Content-Type"].startswith("text/css")
    assert "url(" not in style.text and "@import" not in style.text
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert server.http.get(path).status_code == 404


def test_it_needs_no_key(tmp_path: Path) -> None:
    _, key = keys.make("anna")
    (tmp_path / "keys.yaml").write_text(f"- {keys.entry(key)}\n")
    with serving(tmp_path / "store", keys=tmp_path / "keys.yaml") as server:
        for path in ("/docs", "/docs.css", "/openapi.json"):
            assert server.http.get(path).status_code == server.http.head(path).status_code == 200


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer"}, "whole number"),
        ({"type": "string", "format": "binary"}, "binary"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Job"}}, 'list of <a href="#schema-Job">Job</a>'),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "null"}]}, "list of number, null"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        ({"enum": ["a", 1]}, "<code>a</code> or <code>1</code>"),
        ({"const": "<b>"}, "<code>&lt;b&gt;</code>"),
        ({}, "anything"),
    ],
)
def test_types_in_words(schema: dict[str, Any], words: str) -> None:
    assert kind(schema) == words


def test_limits_and_prose() -> None:
    found = limits({"anyOf": [{"exclusiveMinimum": 0, "maximum": 10}, {"type": "null"}]})
    assert found == "more than <code>0</code>; at most <code>10</code>"
    assert prose("One `a<b`\nline.\n\n``two``") == "<p>One <code>a&lt;b</code> line.</p><p><code>two</code></p>"
