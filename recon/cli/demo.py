"""Command ``recon demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon.cli.bench import machine
from recon.cli.remote import follow
from recon.cli.show import console, table
from recon.spec.report import Report


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the store and the results.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(envvar="RECON_DATA", help="Folder with test volumes; else the shipped samples.")
    ] = None,
) -> None:
    """Start a server, submit a CT and an MRI job over HTTP, poll, fetch, and compare."""
    from recon.cli import demo_server as demonstration
    from recon.client.client import Client

    reports = {}
    with demonstration.server(out / "store") as url, Client(url) as client:
        console.print(f"server at {url}", highlight=False)
        submitted = {name: client.submit(spec)["id"] for name, spec in demonstration.jobs(data).items()}
        for name, job_id in submitted.items():
            follow(client.watch(job_id), name)
            client.wait(job_id)  # raises the job's own error if it failed
            client.fetch(job_id, out / name, replace=True)
            reports[name] = Report.read(out / name / "report.json")
    columns = ["job", "method", "seconds", "data misfit", "PSNR, dB"]
    table(columns, demonstration.rows(reports), f"Seconds are of the whole job, baselines included; {machine()}")
    for name in submitted:
        console.print(f"results: {out / name} (look at montage.png)", highlight=False, soft_wrap=True)
