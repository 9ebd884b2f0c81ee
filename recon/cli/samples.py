"""Command ``recon samples``: data that come with the package, put into a folder with the specification of their job."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
import yaml

from operators.errors import InputError
from recon.cli.show import console, table
from recon.samples.shipped import SHIPPED
from recon.storage.atomic import check_new


def samples(
    name: Annotated[str | None, typer.Argument(help="Sample to copy; without one, all are listed.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the copy.")] = Path(),
) -> None:
    """List the data that come with the package, or copy one into a folder, with the specification of its job."""
    if name is None:
        table(["sample", "what it is", "file"], [[key, f"{s.title}. {s.about}", s.file] for key, s in SHIPPED.items()])
        return
    if name not in SHIPPED:
        raise InputError(f"there is no sample {name!r}", field="name", remedy=f"choose one of {', '.join(SHIPPED)}")
    sample = SHIPPED[name]
    data, spec = out / sample.file, out / f"{name}.yaml"
    for path in (data, spec):
        check_new(path)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample.path, data)
    job = {"name": sample.title, "input": {"path": sample.file, **sample.input}, **sample.rest}
    spec.write_text(yaml.safe_dump(job, sort_keys=False))
    console.print(f"{spec}: reconstruct it with: recon run {spec}", highlight=False, soft_wrap=True)
