"""Command ``recon inspect``: what a file holds, what is missing, and a specification to start from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from recon.cli.options import slice_range
from recon.cli.show import console, table
from recon.spec.contents import Contents, Missing
from recon.spec.job import Input
from recon.spec.validation import invalid
from recon.storage.atomic import check_new

_MOST_ROWS = 40
_END = "...\n"
"""Mark that YAML puts behind a scalar that is a document of its own."""


def inspect(
    path: Annotated[Path, typer.Argument(help="File or folder.")],
    format_: Annotated[str | None, typer.Option("--format", help="Format; default: detected.")] = None,
    file: Annotated[str | None, typer.Option(help="File to read in a folder, by its name inside.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set or variable, as input.dataset.")] = None,
    scan: Annotated[str | None, typer.Option(help="Scan in the file, as input.scan.")] = None,
    slices: Annotated[str | None, typer.Option(help="Only slices FIRST:LAST.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the specification to start from here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a file holds: format, data sets, geometry, what is missing; and a specification to start from."""
    if out is not None:
        check_new(out)
    place = path if out is None else Path(os.path.relpath(path, out.parent))
    chosen = {"format": format_, "file": file, "dataset": dataset, "scan": scan}
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if slices is not None:
        given["slices"] = slice_range(slices)
    try:
        chosen_input = Input.model_validate({"path": str(place), **given})
    except ValidationError as error:
        raise invalid(error, "the options") from error
    from recon.formats.inspect import inspect as contents_of

    found = contents_of(path, chosen_input)
    if as_json:
        console.print_json(found.model_dump_json())
    else:
        _show(path, found)
    text = specification_text(found)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        gaps = [item.field for item in found.missing if item.suggestion is None]
        before = f"fill in {', '.join(gaps)}, then " if gaps else ""
        console.print(f"{out}: {before}reconstruct it with: recon run {out}", highlight=False, soft_wrap=True)
    elif not as_json:
        console.print("\nspecification to start from:\n", highlight=False)
        console.print(text, highlight=False, markup=False, soft_wrap=True, end="")


def specification_text(found: Contents) -> str:
    """Specification to start from as YAML; comments say what to fill in, and what to check."""
    return "\n".join(_lines(found.specification, "", {item.field: item for item in found.missing})) + "\n"


def _lines(value: dict[str, Any], place: str, missing: dict[str, Missing]) -> Iterator[str]:
    indent = "  " * place.count(".")
    for key, item in value.items():
        name = f"{place}{key}"
        if isinstance(item, dict):
            yield f"{indent}{key}:"
            yield from _lines(item, f"{name}.", missing)
            continue
        text = yaml.safe_dump(item, default_flow_style=True, width=10**6, allow_unicode=True)
        asked = missing.get(name)
        comment = "" if asked is None else f"  # {'FILL IN' if asked.suggestion is None else 'CHECK'}: {_reason(asked)}"
        yield f"{indent}{key}: {text.removesuffix(_END).strip()}{comment}"


def _reason(asked: Missing) -> str:
    text = asked.why if asked.remedy is None else f"{asked.why}; {asked.remedy}"
    return " ".join(text.split())


def _show(path: Path, found: Contents) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    name = str(path / found.file) if found.file else str(path)
    told = f"{found.format}, told by {found.told_by}" if found.format else "format unknown"
    files = "" if found.files == 1 else f" in {found.files} files"
    say(f"{name}: {told.replace('told by given', 'as given')}; {found.bytes / 1e6:.2f} MB{files}")
    rows = [
        [d.name, "" if d.shape is None else " x ".join(map(str, d.shape)), d.dtype or "", d.unit or "", d.note or ""]
        for d in found.datasets[:_MOST_ROWS]
    ]
    if rows:
        more = len(found.datasets) - len(rows) + found.datasets_left_out
        table(["inside", "shape", "type", "unit", ""], rows, f"{more} more, see --json" if more else None)
    if found.shape is not None:
        axes = found.axes or [""] * len(found.shape)
        sizes = " x ".join(f"{n} {axis}".strip() for n, axis in zip(found.shape, axes, strict=True))
        say(f"{found.holds}{f' ({found.kind})' if found.kind else ''}: {sizes}")
    if found.values is not None:
        first, last = found.values.slices
        where = f"slice {first}" if last - first == 1 else f"slices {first} to {last - 1}"
        say(f"values in {where}: {found.values.lowest:.5g} to {found.values.highest:.5g}")
    if found.angles is not None:
        a = found.angles
        step = "" if a.step_deg is None else f", step {a.step_deg:g}{'' if a.equispaced else ' (not even)'}"
        say(f"angles: {a.count}, from {a.first_deg:g} to {a.last_deg:g} degrees{step}; {a.source}")
    for field, value in found.geometry.items():
        say(f"{field}: {value:g}" if isinstance(value, float) else f"{field}: {value}")
    if found.affine is not None:
        frame = f"in the patient, {found.orientation}" if found.in_patient else "not said how it lies in the patient"
        say(f"place: {frame}")
    for note in found.notes:
        say(f"note: {note}")
    for item in found.missing:
        say(f"{'missing' if item.suggestion is None else 'check'}: {item.field}: {_reason(item)}")
