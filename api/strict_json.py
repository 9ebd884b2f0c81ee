"""Strict JSON parser: refuses NaN, duplicate keys and deep nesting."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from operators.errors import InputError

DEEPEST = 64
"""Maximum nesting; a specification has five levels."""


def parse(body: bytes) -> Any:
    """Parse JSON without NaN, infinities, duplicate keys or deep nesting; raises `InputError`."""
    try:
        value = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the body is not JSON: {error}", field="body", remedy="send one JSON document, in UTF-8"
        ) from error
    if _depth(value) > DEEPEST:
        raise InputError(f"the body is nested deeper than {DEEPEST} levels", field="body")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {double[:100]!r} is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _depth(value: Any) -> int:
    """Depth of nesting, found without recursion."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [v for part in inner for v in (part.values() if isinstance(part, dict) else part)]
    return deepest
