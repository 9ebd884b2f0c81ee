"""``python -m tests.gpu``: checks every CUDA path and prints one table, run from a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon.cli.bench import machine
from recon.cli.main import report_errors
from recon.cli.show import console, table
from tests.gpu import checks


def gpu(
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")] = None,
) -> None:
    """Check projectors, priors and jobs on a GPU against the CPU; exit status 1 if a bound is missed."""
    reason = checks.missing()
    if reason is not None:
        console.print(f"skipped: {reason}", highlight=False)
        return
    rows = []
    for row in checks.every():
        rows.append(row)
        console.print(f"{row.check}: {row.error:.3g} ({'at least' if row.least else 'at most'} {row.allowed:g})")
        if json_file is not None:
            checks.save(rows, json_file)
    table(
        ["check", "found", "bound", "", "GPU, s", "CPU, s", "GPU, MB"],
        [
            [
                r.check, f"{r.error:.3g}", f"{'>=' if r.least else '<='} {r.allowed:g}", "" if r.passed else "MISSED",
                f"{r.seconds:.4f}", f"{r.cpu_seconds:.4f}", f"{r.peak_bytes / 1e6:.0f}",
            ]
            for r in rows
        ],
        machine(),
    )  # fmt: skip
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


app = typer.Typer()
app.command()(gpu)

if __name__ == "__main__":
    report_errors(app)
