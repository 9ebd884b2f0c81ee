"""Reference of the HTTP API as a page, made from the OpenAPI document here, so that it is read without a network."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "minLength": "characters at least",
    "maxLength": "characters at most",
    "minItems": "entries at least",
    "maxItems": "entries at most",
    "pattern": "matches",
}
"""Limits of a value in a schema, in words."""


def install(app: FastAPI) -> None:
    """Add the page ``/docs`` and its style sheet."""

    @cache
    def page() -> str:
        return made(app.openapi())

    @app.get("/docs", include_in_schema=False)
    @app.head("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(page())

    @app.get("/docs.css", include_in_schema=False)
    @app.head("/docs.css", include_in_schema=False)
    def style() -> FileResponse:
        return FileResponse(HERE / "reference.css", media_type="text/css")


def made(document: dict[str, Any]) -> str:
    """Make the page of an OpenAPI document."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"prose": prose, "kind": kind, "limits": limits, "value": value}
    operations = [
        {"method": method.upper(), "path": path, "id": operation["operationId"], "about": operation}
        for path, found in document["paths"].items()
        for method, operation in found.items()
    ]
    tags = dict.fromkeys(tag for operation in operations for tag in operation["about"]["tags"])
    by_tag = {tag: [o for o in operations if tag in o["about"]["tags"]] for tag in tags}
    return environment.get_template("reference.html.jinja").render(
        title=document["info"]["title"], by_tag=by_tag, schemas=document["components"]["schemas"]
    )


def prose(text: str) -> Markup:
    """Paragraphs of a description, with what stands in backticks as code."""
    return Markup("").join(Markup("<p>{}</p>").format(_with_code(" ".join(p.split()))) for p in text.split("\n\n"))


def _with_code(text: str) -> Markup:
    parts = re.split(r"`{1,2}(.+?)`{1,2}", text)  # every second one stood in backticks
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def kind(schema: dict[str, Any]) -> Markup:
    """Type of a value in words, with links to the schemas that it refers to."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "const" in schema:
        return value(schema["const"])
    if "enum" in schema:
        return _either([value(one) for one in schema["enum"]])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _either([kind(one) for one in schema[union]])
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return Markup("list of {}").format(Markup(", ").join(kind(one) for one in schema["prefixItems"]))
        return Markup("list of {}").format(kind(schema["items"]) if schema.get("items") else "any")
    named = {"object": "mapping", "integer": "whole number"}
    found = str(schema.get("type", "anything"))
    return escape(schema.get("format") or named.get(found, found))


def limits(schema: dict[str, Any]) -> Markup:
    """Limits of a value, and of the alternatives that it has."""
    found = [Markup("{} {}").format(words, value(schema[name])) for name, words in LIMITS.items() if name in schema]
    found += [limits(one) for one in schema.get("anyOf", [])]
    return Markup("; ").join(part for part in found if part)


def value(given: Any) -> Markup:
    """A value as JSON, a string as it is."""
    return Markup("<code>{}</code>").format(given if isinstance(given, str) else json.dumps(given))


def _either(choices: list[Markup]) -> Markup:
    return Markup(" or ").join(dict.fromkeys(choices))
