"""Command ``recon plan``: cost of a job before it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from operators.errors import InputError
from recon.cli.options import job_of, new
from recon.cli.show import console, duration, table
from recon.spec.job import local_files


def _table(path: Path) -> object:
    from recon.planning import plan as planning

    return planning.read_table(path)


def plan(
    spec: Annotated[Path | None, typer.Argument(help="Job specification, YAML or JSON, or data.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    measure: Annotated[
        Path | None,
        typer.Option(
            callback=new(_table), help="Measure this machine and write its table here; RECON_PLAN names it later."
        ),
    ] = None,
) -> None:
    """Estimate memory, time and chunks of a job without running it; exit status 2 if it does not fit into memory."""
    from recon.planning import plan as planning

    if measure is not None:
        from recon.planning.measure_costs import measured

        planning.write_table(measure, measured())
        console.print(f"{measure}: use it with RECON_PLAN={measure}", highlight=False, soft_wrap=True)
    if spec is None:
        if measure is None:
            raise InputError("nothing to plan", field="spec", remedy="give a specification, or --measure FILE")
        return
    from recon.formats import reader

    job = job_of(spec)
    found = planning.make(job, reader.check(job, local_files(job)))
    if as_json:
        console.print_json(json.dumps(found.model_dump(mode="json")))
    else:
        rows = [[name, f"{size / 1e9:.2f}"] for name, size in found.memory.items()]
        rows.append(["together", f"{found.memory_bytes / 1e9:.2f}"])
        table(["memory", "GB"], rows, f"{found.method}, {' x '.join(map(str, found.shape))} voxels")
        parts = "at once" if found.chunks == 1 else f"in {found.chunks} parts, {found.at_once} at once"
        parts += ", read and written one after another" if found.streamed else ""
        console.print(
            f"{found.slices} slices {parts}; {found.network_evaluations} network evaluations;"
            f" about {duration(found.seconds)}",
            highlight=False,
        )
        if found.effort_gain_db is not None:
            console.print(
                f"this effort was measured to gain {found.effort_gain_db:+.2f} dB over the standard one",
                highlight=False,
            )
    planning.require_fit(found)
