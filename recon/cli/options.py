"""Arguments and options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from operators.errors import InputError
from recon.spec.job import Input, JobSpec
from recon.spec.registry import FORMATS
from recon.storage.atomic import check_new

SPECIFICATIONS = (".yaml", ".yml", ".json")
"""Endings of specifications; what ends otherwise, and as files of some format do, is data."""
Job = Annotated[
    Path, typer.Argument(help="Job specification, YAML or JSON; or a file or folder of data that says all it needs.")
]


def new(is_ours: Callable[[Path], object]) -> Callable[[Path | None], Path | None]:
    """Make the callback of an option that names a file to write: one of the same kind is replaced, no other.

    Parameters
    ----------
    is_ours
        Reads a file of that kind; raises `InputError`, ValueError or LookupError for others.
    """

    def check(path: Path | None) -> Path | None:
        if path is not None:
            try:
                ours = path.is_file() and is_ours(path) is not None
            except (InputError, ValueError, LookupError, TypeError):
                ours = False
            check_new(path, replace=ours)
        return path

    return check


def slice_range(text: str) -> tuple[int, int]:
    """Parse ``FIRST:LAST`` as two numbers."""
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise InputError(f"{text!r} is not FIRST:LAST", field="slices", remedy="for example 30:46")
    return int(first), int(last)


def job_of(path: Path) -> JobSpec:
    """Read a specification; or make that of a measurement whose file says all that is needed.

    Raises
    ------
    InputError
        Also if the measurement's file leaves something open.
    """
    names = tuple(ending for row in FORMATS.values() for ending in row.endings)
    if path.name.lower().endswith(SPECIFICATIONS) or not (path.is_dir() or path.name.lower().endswith(names)):
        return JobSpec.read(path)
    from recon.formats.inspect import inspect

    found = inspect(path, Input(path=str(path)))
    if found.missing:
        first = found.missing[0]
        raise InputError(
            f"{path.name} leaves it open: {first.why}",
            field=first.field,
            remedy=first.remedy
            if first.field == "input"
            else f"`recon inspect {path} -o job.yaml` writes a specification to fill in",
        )
    return JobSpec.parse(found.specification)
