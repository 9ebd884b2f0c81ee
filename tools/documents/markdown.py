"""Markdown of the reference pages: text, code and tables, the same on GitHub and on the site."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape, unescape
from typing import Any

from api import reference

SIGNS = {"|": "&#124;", "*": "&#42;", "[": "&#91;"}
"""Characters that would be read as Markdown, and what stands for them."""


NONE = "\N{EN DASH}"
"""Default of a field whose text says what happens without a value."""


def plain(text: str) -> str:
    """Escape a text, so that it is read as it is; what stands in backticks becomes code."""
    parts = re.split(r"`{1,2}(.+?)`{1,2}", text.strip())  # every second one stood in backticks
    return "".join(code(part) if i % 2 else guarded(escape(part, quote=False)) for i, part in enumerate(parts))


def code(text: str) -> str:
    """Mark a text as code; a bar, which would end a cell of a table, needs HTML."""
    return f"<code>{guarded(escape(text, quote=False))}</code>" if set(text) & set("|`") else f"`{text}`"


def guarded(html: str) -> str:
    """Escape what Markdown would read in HTML, and write code in it as Markdown does."""
    html = re.sub(r"<code>([^<>&|`]*)</code>", r"`\1`", html)
    parts = html.split("`")
    return "`".join(
        part if i % 2 else "".join(SIGNS.get(character, character) for character in part)
        for i, part in enumerate(parts)
    )


def cell(text: str) -> str:
    """Format a docstring for a cell of a table: its paragraphs follow each other."""
    return plain(" ".join(text.split()))


def prose(text: str) -> str:
    """Format a docstring's paragraphs; indented blocks of code stay blocks."""
    return "\n\n".join(plain(" ".join(part.split())) for part in text.strip().split("\n\n"))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def type_of(schema: Mapping[str, Any], headings: Mapping[str, str]) -> str:
    """Type of a value in words; a model is a link to its heading, which `headings` has if it is not its name."""
    html = unescape(str(reference.kind(without_null(schema))))

    def link(found: re.Match[str]) -> str:
        name = found.group(1)
        heading = headings.get(name, name)
        return f"({heading})(#{slug(heading)})"

    html = re.sub(r'<a href="#schema-[^"]*">([^<]*)</a>', link, html)
    # The links' brackets are put in last, so that they are not escaped.
    return re.sub(r"\(([^()]*)\)\(#", r"[\1](#", guarded(html))


def without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out null among the alternatives of a value: the default says that it may be left out."""
    found = dict(schema)
    for union in ("anyOf", "oneOf"):
        if union in found:
            found[union] = [one for one in found[union] if one.get("type") != "null"]
    return found


def limits_of(schema: Mapping[str, Any]) -> str:
    """Limits of a value in words; patterns are left to the error messages."""
    kept = {name: value for name, value in schema.items() if name != "pattern"}
    kept["anyOf"] = [
        {name: value for name, value in one.items() if name != "pattern"} for one in schema.get("anyOf", [])
    ]
    return numbers(guarded(unescape(str(reference.limits(kept)))))


def numbers(text: str) -> str:
    """Shorten the fractions that stand as code: 1e+12 instead of 1000000000000.0."""
    return re.sub(r"`(-?[\d.]+(?:e[-+]?\d+)?)`", lambda m: f"`{float(m[1]):g}`" if "." in m[1] else m[0], text)


def slug(heading: str) -> str:
    """Anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def fields(schema: Mapping[str, Any], headings: Mapping[str, str], leave: Sequence[str] = ()) -> str:
    """Make the table of a model's fields from its JSON schema: name, type with limits, default, meaning."""
    required = schema.get("required", [])
    rows = []
    for name, found in schema.get("properties", {}).items():
        if name in leave:
            continue
        kind = "; ".join(part for part in (type_of(found, headings), limits_of(found)) if part)
        rows.append((code(name), kind, default(name, found, required), cell(found.get("description", ""))))
    return table(("field", "type", "default", "meaning"), rows)


def default(name: str, schema: Mapping[str, Any], required: Sequence[str]) -> str:
    """Default of a field; a dash where its text says what happens without a value."""
    if name in required:
        return "*required*"
    value = schema.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict):
        return NONE
    return numbers(guarded(unescape(str(reference.value(value)))))
