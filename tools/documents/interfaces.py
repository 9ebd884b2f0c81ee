"""Pages of the ways in and of what may go wrong: command line, HTTP API, errors, environment."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import typer
from pydantic_settings import BaseSettings

from api.app import create_app
from operators.errors import ReconError
from recon import settings as machine
from tools.documents.markdown import NONE, cell, code, default, fields, limits_of, prose, slug, table, type_of
from tools.documents.specification import HEADINGS
from workers import settings as service

COMMAND_LINE = """# Command line

`recon COMMAND --help` prints the same. Errors are one line, `error: field: what is wrong (remedy)`, and an exit
status ([list](errors.md)). Options that name an environment variable take its value when they are not given.
"""

HTTP_API = """# HTTP API

Every route of `recon serve`, from its OpenAPI document (`/openapi.json`; as a page, without a network, at `/docs`).
[How to use it](../how-to/use-the-http-api.md). Errors are `application/problem+json` ([list](errors.md)).
"""

ERRORS = """# Errors

An error names the field, what is wrong with its value, and the remedy. The command line prints one line and ends
with an exit status; the API answers `application/problem+json` with `code`, `detail`, `field` and `remedy`; Python
raises the class. A job that failed has the code in `error` of its state. On the client's side, `JobFailed` and
`ServerError` carry the code that the server sent.
"""

ENVIRONMENT = """# Environment variables

An empty variable counts as not set, a value that cannot be read is an error that names the variable.
"""

PYTHON = """# Python API

`import recon` is light: each name is imported when it is first used.
"""
PIECES = (
    "operators.linear.LinearOperator",
    "operators.geometry.ParallelBeam",
    "operators.geometry.FanBeam",
    "operators.tomography.Tomography",
    "recon.problem.problem.Problem",
    "recon.problem.problem.IntensityMap",
    "recon.problem.problem.Progress",
    "recon.problem.problem.run",
    "recon.problem.data_step.DataStep",
    "recon.priors.prior.Prior",
    "recon.solvers.registry.start",
)
"""Names beside those of `recon` that a program of one's own needs."""

JOB_ERRORS = {
    "worker_lost": "The process that computed the job ended, three times.",
    "out_of_memory": "The job needed more memory than there was.",
    "internal": "A fault of this software; the server's log has the details.",
}
"""Codes of failed jobs that are not those of an exception."""
ERROR_MODULES = (
    "operators.errors",
    "recon.client.connection",
    "recon.client.client",
    "workers.schema",
    "workers.http_errors",
)


def command_line() -> str:
    """Page of every command with its arguments and options."""
    with patch.dict(os.environ):
        from recon.cli.main import app

        group: Any = typer.main.get_command(app)
    parts = [COMMAND_LINE]
    rows = [(f"[recon {name}](#{slug(f'recon {name}')})", cell(_first(found.help))) for name, found in _commands(group)]
    parts.append(table(("command", "what it does"), rows))
    for name, found in _commands(group):
        parts += [f"## recon {name}", prose(found.help or "")]
        shown = [one for one in found.params if one.name != "help"]
        parts.append("```text\nrecon " + name + _usage(shown) + "\n```")
        if shown:
            parts.append(table(("option", "value", "default", "meaning"), [_parameter(one) for one in shown]))
    return "\n\n".join(parts) + "\n"


def http_api() -> str:
    """Page of every route with its parameters and answers, and of every schema that is not the specification's."""
    with TemporaryDirectory() as store:  # which a service makes its folders in
        document = create_app(service.Settings(store=Path(store))).openapi()
    parts = [HTTP_API]
    for path, routes in document["paths"].items():
        for verb, about in routes.items():
            parts += [f"## {verb.upper()} {path}", prose(about.get("description") or about.get("summary", ""))]
            parameters = [one for one in about.get("parameters", []) if "name" in one]
            if parameters:
                rows = [_http_parameter(one) for one in parameters]
                parts.append(table(("parameter", "in", "type", "meaning"), rows))
            answers = [(code(status), _meaning(found), _body(found)) for status, found in about["responses"].items()]
            parts.append(table(("status", "meaning", "body"), answers))
    parts.append("## Schemas")
    told = _specification_models()
    for name, found in sorted(document["components"]["schemas"].items()):
        if name in told or "properties" not in found:
            continue
        parts += [f"### {name}", prose(found.get("description", "")), fields(found, told)]
    return "\n\n".join(parts) + "\n"


def errors() -> str:
    """Page of the error classes with their codes, exit statuses and HTTP statuses."""
    for module in ERROR_MODULES:
        import_module(module)
    rows = [
        (code(found.code), code(found.__name__), str(found.exit_code), str(found.status), cell(_first(found.__doc__)))
        for found in sorted(_tree(ReconError), key=lambda one: (one.exit_code, one.status, one.code))
        if "code" in vars(found)
    ]
    parts = [ERRORS, table(("code", "class", "exit status", "HTTP", "when"), rows)]
    parts += ["## Codes of failed jobs", table(("code", "when"), [(code(c), text) for c, text in JOB_ERRORS.items()])]
    parts += ["## Classes", "```text\n" + "\n".join(_drawn(ReconError)) + "\n```"]
    return "\n\n".join(parts) + "\n"


def environment() -> str:
    """Page of the environment variables: of a machine, of a service, and of options."""
    parts = [ENVIRONMENT, "## Of any process", _settings(machine.Settings)]
    parts += ["## Of a service and its workers", _settings(service.Settings, leave=set(machine.Settings.model_fields))]
    with patch.dict(os.environ):
        from recon.cli.main import app

        group: Any = typer.main.get_command(app)
    found: dict[str, tuple[str, list[str]]] = {}
    for name, command in _commands(group):
        for one in command.params:
            if getattr(one, "envvar", None):
                variable = one.envvar if isinstance(one.envvar, str) else one.envvar[0]
                found.setdefault(variable, (one.help or "", []))[1].append(f"recon {name}")
    rows = [(code(variable), cell(text), ", ".join(map(code, names))) for variable, (text, names) in found.items()]
    parts += ["## Defaults of options", table(("variable", "meaning", "commands"), rows)]
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from _commands(found, f"{before}{name} ")
        else:
            yield before + name, found


def _usage(parameters: list[Any]) -> str:
    options = " [OPTIONS]" if any(one.param_type_name == "option" for one in parameters) else ""
    words = [one.name.upper() for one in parameters if one.param_type_name == "argument"]
    return options + "".join(f" {word}" for word in words)


def _parameter(one: Any) -> tuple[str, str, str, str]:
    """Row of an argument or option."""
    name = code(", ".join(one.opts)) if one.param_type_name == "option" else code(one.name.upper())
    annotation = one.type_descriptor.annotation
    value = {"bool": NONE, "Path": "path", "str": "text", "int": "whole number", "float": "number"}
    kind = value.get(getattr(annotation, "__name__", ""), "")
    given = "*required*" if one.required else NONE if one.default in (None, False, ()) else code(str(one.default))
    text = cell(one.help or "")
    if getattr(one, "envvar", None):
        text += f" Environment: {code(str(one.envvar))}."
    return name, kind, given, text


def _http_parameter(one: dict[str, Any]) -> tuple[str, str, str, str]:
    schema = one.get("schema", {})
    kind = "; ".join(part for part in (type_of(schema, {}), limits_of(schema)) if part)
    name = code(one["name"]) + (" *required*" if one.get("required") and one["in"] != "path" else "")
    return name, one["in"], kind, cell(one.get("description", ""))


def _meaning(response: dict[str, Any]) -> str:
    text = response.get("description", "")
    return "Done." if text == "Successful Response" else cell(text)  # FastAPI's own words


def _body(response: dict[str, Any]) -> str:
    found = []
    for media, content in response.get("content", {}).items():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        here = name not in _specification_models()
        place = f"#{slug(name)}" if here else f"specification.md#{slug(HEADINGS.get(name, name))}"
        found.append(f"[{name}]({place})" if name else code(media))
    return ", ".join(found) or NONE


def _specification_models() -> dict[str, str]:
    """Models of the specification, which has a page of its own."""
    from recon.spec.job import JobSpec

    return {name: name for name in ("JobSpec", *JobSpec.model_json_schema()["$defs"])}


def _settings(model: type[BaseSettings], leave: set[str] | None = None) -> str:
    rows = []
    for name, found in model.model_json_schema()["properties"].items():
        variable = name if name.isupper() else machine.variable(name)
        if name not in (leave or set()):
            rows.append((code(variable), type_of(found, {}), default(name, found, ()), cell(found["description"])))
    return table(("variable", "value", "default", "meaning"), rows)


def _tree(root: type[ReconError]) -> list[type[ReconError]]:
    """Public error classes below one, itself included; those that other packages add are not ours to describe."""
    found = [root] if not root.__name__.startswith("_") and root.__module__ in ERROR_MODULES else []
    for child in root.__subclasses__():
        found += _tree(child)
    return list(dict.fromkeys(found))


def _drawn(root: type[ReconError], depth: int = 0) -> list[str]:
    lines = ["    " * depth + root.__name__]
    ours = [child for child in root.__subclasses__() if child in _tree(child)]
    # Python has them in the order of their modules' imports, which others may have begun.
    for child in sorted(ours, key=lambda one: ERROR_MODULES.index(one.__module__)):
        lines += _drawn(child, depth + 1)
    return lines


def _first(text: str | None) -> str:
    """First paragraph of a docstring."""
    return inspect.cleandoc(text or "").split("\n\n")[0]


def python() -> str:
    """Page of the Python API: the public names of `recon`, and the pieces that it is made of."""
    import recon

    parts = [PYTHON, "## recon"]
    public = {name: recon._HOMES[name] for name in recon.__all__ if name in recon._HOMES}
    parts += [f"::: {home}.{name}\n    options: {{heading: recon.{name}}}" for name, home in public.items()]
    parts += ["## Pieces", "Each piece is usable alone: [how](../how-to/use-the-pieces.md)."]
    parts += [f"::: {name}" for name in PIECES]
    return "\n\n".join(parts) + "\n"
