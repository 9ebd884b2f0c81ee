"""``python -m tests.faults``: breaks a deployment of its own and writes what it lost, run from a checkout."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from recon.cli.bench import machine
from recon.cli.main import report_errors
from recon.cli.show import console, errors
from tests.faults import reliability
from tests.faults.faults import Scale


def faults(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for reliability.md and reliability.json.")],
    only: Annotated[str | None, typer.Option(help="Scenarios, comma-separated; all when not given.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of the batch whose workers are killed.")] = 50,
    kills: Annotated[int, typer.Option(min=0)] = 20,
    submitters: Annotated[int, typer.Option(min=1)] = 200,
    queued: Annotated[int, typer.Option(min=1)] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Submissions a second.")] = 50,
    requests: Annotated[int, typer.Option(min=100)] = 10_000,
    iterations: Annotated[int, typer.Option(min=1, help="Of jobs that take their time.")] = 150,
    settle_s: Annotated[float, typer.Option(help="Patience with the jobs of one scenario.")] = 400.0,
    keep: Annotated[Path | None, typer.Option(help="Keep stores and logs in this new folder.")] = None,
) -> None:
    """Break a deployment in every way and count what it lost; exit status 1 unless every target is met.

    With --only, the other scenarios of a report that exists are kept, if it is of the same scale.
    """
    scale = Scale(jobs, kills, submitters, queued, rate, requests, iterations, settle_s)
    outcomes = []
    wanted = None if only is None else [name.strip().replace("-", "_") for name in only.split(",")]
    with tempfile.TemporaryDirectory(prefix="recon-faults-") as temporary:
        for outcome in reliability.scenarios(keep or Path(temporary), scale, wanted):
            outcome.at = datetime.now(UTC).isoformat(timespec="minutes")
            outcome.machine = machine()
            outcomes.append(outcome)
            console.print(
                f"{outcome.name}: {outcome.accepted} accepted, {outcome.finished} finished, {outcome.lost} lost,"
                f" {outcome.duplicated} duplicated, {outcome.corrupted} corrupted, {outcome.faults} faults,"
                f" {outcome.seconds:.0f} s {outcome.measured or ''}",
                highlight=False,
            )
    if wanted is not None:
        outcomes = reliability.merged(out, outcomes, scale)
    reliability.write(out, outcomes, scale)
    missed = reliability.failures(outcomes)
    for line in missed:
        errors.print(f"missed: {line}", highlight=False)
    if missed:
        raise typer.Exit(1)


app = typer.Typer()
app.command()(faults)

if __name__ == "__main__":
    report_errors(app)
