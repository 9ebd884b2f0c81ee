"""Command ``recon demo``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon.cli.bench import machine
from recon.cli.remote import follow
from recon.cli.show import console, errors, table
from recon.spec.report import Report

if TYPE_CHECKING:
    from recon.client.client import Client

PICTURES = ("ct/montage.png", "ct/undetermined.png", "mri/montage.png")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the store and the results.")] = Path("demo"),
) -> None:
    """Start a server, reconstruct a CT and an MRI scan through it, and compare with classical methods."""
    from recon.cli import demo_server as demonstration
    from recon.client.client import Client

    told("starting the service: an API, a private Redis and one worker")
    with demonstration.server(out / "store") as url, Client(url) as client:
        reports = _reconstructed(client, out)
        columns = ["job", "method", "seconds", "data misfit", "PSNR, dB"]
        table(columns, demonstration.rows(reports), f"Seconds are of the whole job, baselines included; {machine()}")
        told("pictures:")
        for picture in PICTURES:
            told(f"  {out / picture}")
        if sys.stdin.isatty() and console.is_terminal:
            told(f"the page with both jobs: {url}/")
            console.input("Enter stops the service: ")
            return
    told(f"the page with both jobs: http://127.0.0.1:8000/ after `recon serve --embedded --store {out / 'store'}`")


def told(text: str) -> None:
    """Print a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _reconstructed(client: Client, out: Path) -> dict[str, Report]:
    """Submit the jobs, follow each to its end and fetch its results; returns their reports."""
    from recon.cli import demo_server as demonstration

    reports = {}
    submitted = {name: client.submit(spec)["id"] for name, spec in demonstration.jobs().items()}
    for name, job_id in submitted.items():
        follow(_said(client.watch(job_id), name), name)
        client.wait(job_id)  # raises the job's own error if it failed
        client.fetch(job_id, out / name, replace=True)
        reports[name] = Report.read(out / name / "report.json")
    return reports


def _said(updates: Iterable[dict[str, Any]], name: str) -> Iterable[dict[str, Any]]:
    """Pass the states of a job on; where no bar shows them, print each new stage."""
    last = None
    for job in updates:
        stage = job["stage"] or job["state"]
        if stage != last and not errors.is_terminal:
            told(f"{name}: {stage}")
        last = stage
        yield job
