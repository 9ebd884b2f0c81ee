"""Validation errors in one line each, with the name of the field."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

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


def problems(error: ValidationError) -> list[dict[str, str]]:
    """List each validation failure as field, message and given value."""
    # Discriminated unions put the chosen tag into the path; the user never wrote it.
    tags = {"AngleRange", "list[float]", *ACQUISITIONS, *METHODS}
    found = []
    for item in error.errors(include_url=False):
        parts = [str(p) for p in item["loc"] if str(p) not in tags]
        value = item.get("input")
        if item["type"] == "renamed":
            parts.append(item["ctx"]["field"])
            value = item["ctx"]["value"]
        shown = repr(value)
        found.append(
            {
                "field": ".".join(parts) or "specification",
                "message": item["msg"].removeprefix("Value error, "),
                "value": shown if len(shown) <= 100 else shown[:97] + "...",
            }
        )
    return found


def invalid(error: ValidationError, source: str) -> InputError:
    """The first validation failure as an `InputError`."""
    found = problems(error)
    first = found[0]
    more = f"; {len(found) - 1} more" if len(found) > 1 else ""
    return InputError(
        f"{first['message']}, got {first['value']} in {source}{more}",
        field=first["field"],
        remedy="see docs/specification.md for every field",
    )


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
