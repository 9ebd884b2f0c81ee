"""Why something was not accepted, in one line that names the field."""

from __future__ import annotations

import yaml
from pydantic import ValidationError


def reason(error: Exception) -> str:
    """The first thing that is wrong, with its place; what it says of itself is often several lines, or none."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
