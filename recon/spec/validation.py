"""Validation errors as sentences about fields, without the validator's own words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from operators.errors import InputError
from recon.spec.registry import ACQUISITIONS, METHODS

Model = TypeVar("Model", bound=BaseModel)


def reason(error: Exception) -> str:
    """First validation failure in one line, with its place; an exception's own text may have several lines, or none."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a document: where, what, and what to do."""

    field: str
    message: str
    remedy: str | None


def problems(error: ValidationError) -> list[Problem]:
    """List what is wrong with a document, each in a sentence about its field."""
    return described([dict(item) for item in error.errors(include_url=False)])


def described(items: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Describe validation failures as pydantic lists them; those of alternatives that were not meant are left out."""
    # Discriminated unions put the chosen tag into the path; the user never wrote it.
    tags = {"AngleRange", "list[float]", *ACQUISITIONS, *METHODS}
    paths = [tuple(str(p) for p in item["loc"] if str(p) not in tags) for item in items]
    meant = [
        (path, item)
        for path, item in zip(paths, items, strict=True)
        if not (item["type"] in WRONG_KIND and any(o != path and o[: len(path)] == path for o in paths))
    ]
    missing = [path[-1] for path, item in meant if item["type"] == "missing"]
    # A misspelt field first: what it should have been is then missing.
    meant.sort(key=lambda found: found[1]["type"] != "extra_forbidden")
    return [_described(list(path), item, missing) for path, item in meant]


WRONG_KIND = {
    "dict_type": "fields with their values",
    "model_type": "fields with their values",
    "model_attributes_type": "fields with their values",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
}
"""Expected kind of value, by the type of failure."""
BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
"""Limits of numbers: their name in a failure, and in words."""
LENGTHS = {
    "string_too_short": ("min_length", "characters", "at least"),
    "string_too_long": ("max_length", "characters", "at most"),
    "too_short": ("min_length", "entries", "at least"),
    "too_long": ("max_length", "entries", "at most"),
}
"""Limits of lengths: their name in a failure, what is counted, and the limit in words."""
KINDS: dict[str, Mapping[str, Any]] = {"kind": ACQUISITIONS, "name": METHODS}
"""Names from which to choose, by the field that chooses."""
MOST_SAID = 12
"""Problems of one document that are said in full; the others are counted."""
REMEDY = "docs/reference/specification.md describes every field, and so does /docs of a server"


def _described(path: list[str], item: Mapping[str, Any], missing: list[str]) -> Problem:
    failure, value, context = item["type"], item.get("input"), item.get("ctx") or {}
    message, remedy = f"{_shown(value)}: {item['msg']}", None
    if failure == "missing":
        message, remedy = "it is missing", "give it"
        if path and path[-1].isdigit():
            path, message, remedy = path[:-1], f"{_shown(value)} has too few entries", "give all of them"
    elif failure == "extra_forbidden":
        close = get_close_matches(path[-1], missing, 1)
        message = f"there is no field {path[-1]!r}"
        remedy = f"did you mean {close[0]}?" if close else "check its name, or leave it out"
    elif failure == "union_tag_invalid":
        names = list(KINDS.get(str(context["discriminator"]).strip("'"), ()))
        message = f"{context['tag']!r} is not one of {', '.join(names)}"
        close = get_close_matches(str(context["tag"]), names, 1)
        remedy = f"did you mean {close[0]}?" if close else "choose one of these"
    elif failure == "union_tag_not_found":
        name = str(context["discriminator"]).strip("'")
        path, message, remedy = [*path, name], "it is missing", f"choose one of {', '.join(KINDS.get(name, ()))}"
    elif failure == "literal_error":
        message, remedy = f"{_shown(value)} is not {context['expected']}", "choose one of these"
    elif failure in WRONG_KIND:
        message, remedy = f"{_shown(value)} is not {WRONG_KIND[failure]}", f"give {WRONG_KIND[failure]}"
    elif failure in BOUNDS:
        limit, words = BOUNDS[failure]
        bound = f"{words} {context[limit]:g}"
        message, remedy = f"{_shown(value)} is not {bound}", f"give {bound}"
    elif failure in LENGTHS:
        limit, counted, words = LENGTHS[failure]
        length = len(value) if isinstance(value, str | list | tuple) else context.get("actual_length")
        message, remedy = f"it has {length} {counted}", f"give {words} {context[limit]}"
    elif failure == "string_pattern_mismatch":
        message, remedy = f"{_shown(value)} is not written as it should be", f"it has to match {context['pattern']}"
    elif failure == "renamed":
        path, message, remedy = [*path, context["field"]], item["msg"], f"write {context['new']}"
    elif failure == "value_error":
        message, _, remedy = item["msg"].removeprefix("Value error, ").rpartition("; ")
        message, remedy = (message, remedy) if message else (remedy, None)
        if remedy is None and " is not one of " in message:
            remedy = "choose one of these"
        about = re.match(r"\w+", message)
        if about and isinstance(value, dict) and about[0] in value:  # which of the fields it is about
            path = [*path, about[0]]
        elif not isinstance(value, dict | list):
            message = message if _shown(value) in message else f"{message}, got {_shown(value)}"
    return Problem(".".join(path) or "specification", message, remedy or REMEDY)


def _shown(value: Any) -> str:
    """A value in a sentence; what has fields or entries of its own is only named."""
    if isinstance(value, dict):
        return "what is given"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def invalid(error: ValidationError, source: str | None = None) -> InputError:
    """Validation failures as an `InputError`, which is the first with some of the others beside it.

    `source` says in which document, where there are several.
    """
    found = problems(error)
    first = found[0]
    where = f", in {source}" if source else ""
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    also = [InputError(other.message, field=other.field, remedy=other.remedy) for other in found[1:MOST_SAID]]
    return InputError(f"{first.message}{where}{more}", field=first.field, remedy=first.remedy, also=also)


def read_yaml(model: type[Model], path: Path, what: str, *, field: str, remedy: str) -> Model:
    """Read a YAML file as a model; `InputError` that says what it should have been if it is not.

    Parameters
    ----------
    model
        Class of the result.
    path
        The file.
    what
        What the file should be, with its article: "a card".
    field, remedy
        Field and remedy that the error names.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{path.name} is not {what}: {reason(error)}", field=field, remedy=remedy) from error
