"""Pages of what a job asks for and reports: specification, formats, report."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from pydantic import BaseModel

from recon.formats.format import Format
from recon.spec.acquisitions import methods_of
from recon.spec.job import JobSpec
from recon.spec.registry import ACQUISITIONS, FORMATS, METHODS, OUTPUT_FORMATS
from recon.spec.report import Report
from tools.documents.markdown import cell, code, fields, prose, slug, table

KINDS = {model.__name__: kind for kind, model in ACQUISITIONS.items()}
NAMES = {model.__name__: name for name, model in METHODS.items()}
HEADINGS = {**KINDS, **NAMES, "JobSpec": "The job"}
"""Headings of models that are not their names."""

SPECIFICATION = """# Job specification

A job is a YAML or JSON document. The same one serves the command line, the HTTP API and Python
(`recon.JobSpec`). Unknown fields are refused. A field under a former name is accepted with a warning for one minor
release, then refused with the new name ([deprecation](../how-to/install.md#versions)).

```yaml
name: my scan
input:
  path: tooth.h5
  format: dxchange
acquisition:
  kind: ct-parallel
  rotation_center_column: 295.5
method: red-diff
output:
  baselines: [fbp, tv]
```

A dash as default: the text says what happens without a value. Settings that a job leaves open are taken from a
table of tuned settings where it has a row for the scan
([how](../how-to/choose-a-method.md#tuned-settings)); the report lists those that were used.
"""

REPORT = """# Report

`report.json` of every job, and `result.report` in Python. [How to read it](../how-to/read-the-report.md).
"""

FORMATS_PAGE = """# Formats

Which format a file has is detected from its name, its first bytes, or what an HDF5 file holds; `recon inspect FILE`
says which. [What a file has to say](../how-to/units-and-orientation.md).
"""


def specification() -> str:
    """Page of the job specification: the job, its parts, every kind of acquisition and every method."""
    schema = JobSpec.model_json_schema()
    parts = [SPECIFICATION, "## The job", fields(_short(schema), HEADINGS)]
    parts += _models(schema, ["Input", "Simulation", "Output"], "##")
    parts += ["## Acquisitions", "`acquisition.kind` says which; the kind alone may stand as a string."]
    for kind, model in ACQUISITIONS.items():
        names = methods_of(model.model_construct())
        fitting = ", ".join(f"[{name}](#{slug(name)})" for name in names)
        axes = ", ".join(model.AXES)
        parts += [f"### {kind}", prose(_about(model)), f"Axes of the data: {code(f'({axes})')}. Methods: {fitting}."]
        parts.append(fields(model.model_json_schema(), HEADINGS, leave=("kind",)))
    parts += ["## Methods", "`method.name` says which; the name alone may stand as a string."]
    for name, model in METHODS.items():
        parts += [f"### {name}", prose(_about(model))]
        own = model.model_json_schema()
        if len(own["properties"]) > 1:
            parts.append(fields(own, HEADINGS, leave=("name",)))
    parts += ["## Parts"]
    told = {"Input", "Simulation", "Output", *KINDS, *NAMES}
    parts += _models(schema, sorted(set(schema["$defs"]) - told), "###")
    return "\n\n".join(parts) + "\n"


def report() -> str:
    """Page of the report's fields."""
    schema = Report.model_json_schema()
    parts = [REPORT, "## The report", fields(schema, {}, leave=("schema_version",))]
    parts += _models(schema, sorted(schema["$defs"]), "##")
    return "\n\n".join(parts) + "\n"


def formats() -> str:
    """Page of the formats: of measurements and volumes, as their modules describe them, and of results."""
    parts = [FORMATS_PAGE, "## Input"]
    rows = [
        (f"[{name}](#{slug(name)})", _endings(row), "a known volume, or a stack" if row.volumes else "a measurement")
        for name, row in FORMATS.items()
        if not row.refused
    ]
    parts.append(table(("format", "endings", "what it holds"), rows))
    for name, row in FORMATS.items():
        if not row.refused:
            parts += [f"### {name}", prose(_module(row.read or row.write))]
    refused = ", ".join(code(name) for name, row in FORMATS.items() if row.refused)
    parts += ["### Refused by name", f"{refused}: the error says how to convert such a file."]
    parts += ["## Output"]
    written = [
        (code(name), _endings(row), ", ".join(m.upper() for m in row.modalities), "yes" if row.holds_complex else "no")
        for name, row in OUTPUT_FORMATS.items()
    ]
    parts.append(table(("format", "ending", "modality", "complex numbers"), written))
    return "\n\n".join(parts) + "\n"


def _short(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave the alternatives of acquisition and method to their chapters."""
    properties = dict(schema["properties"])
    for name, chapter in (("acquisition", "Acquisitions"), ("method", "Methods")):
        short = {"$ref": f"#/$defs/{chapter}", "description": properties[name]["description"]}
        properties[name] = {**short, "default": "auto"} if name == "method" else short
    return {**schema, "properties": properties}


def _models(schema: dict[str, Any], names: list[str], level: str) -> list[str]:
    parts = []
    for name in names:
        found = schema["$defs"][name]
        parts += [f"{level} {name}", prose(found.get("description", ""))]
        if "properties" in found:
            parts.append(fields(found, HEADINGS))
    return parts


def _about(model: type[BaseModel]) -> str:
    """Docstring of a model without its sections, which are for programmers."""
    return (inspect.getdoc(model) or "").split("\n\nParameters\n")[0].split("\n\nReferences\n")[0]


def _module(function: Any) -> str:
    """Docstring of the module that a format's function is in, its references as a paragraph."""
    text = inspect.getdoc(sys.modules[function.__module__]) or ""
    return text.replace("References\n----------\n", "References: ")


def _endings(row: Format) -> str:
    return ", ".join(code(ending) for ending in row.endings) or cell("a folder")
