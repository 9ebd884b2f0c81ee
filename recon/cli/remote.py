"""Commands that talk to a server: submit, list, watch, fetch, cancel."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recon.cli.options import Job, job_of
from recon.cli.show import bar, console, detail, errors, table
from recon.settings import Settings

if TYPE_CHECKING:
    from recon.client.client import Client

Url = Annotated[str, typer.Option("--url", envvar="RECON_URL", help="The server.")]
DEFAULT_URL = "http://127.0.0.1:8000"
Id = Annotated[str, typer.Argument(help="Job id, as printed by submit.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(submit)
    app.command("list")(list_jobs)
    app.command()(watch)
    app.command()(fetch)
    app.command()(cancel)


def submit(
    spec: Job,
    url: Url = DEFAULT_URL,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it to its end.")] = False,
) -> None:
    """Upload a job's files and submit it; prints the job's id."""
    job = job_of(spec)
    with connect(url) as client:
        job_id = str(client.submit(job)["id"])
        console.print(job_id, highlight=False)
        if wait:
            _follow(client, job_id)


def list_jobs(
    url: Url = DEFAULT_URL,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of jobs to list.")] = 50,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List jobs, newest first."""
    with connect(url) as client:
        jobs = client.jobs(state, limit, tag)
    if as_json:
        console.print_json(json.dumps(jobs))
        return
    rows = [
        [j["id"], j["name"], j["method"], j["state"], f"{100 * j['progress']:.0f} %", j["created"][:19]] for j in jobs
    ]
    table(["id", "name", "method", "state", "progress", "created (UTC)"], rows)


def watch(job_id: Id, url: Url = DEFAULT_URL) -> None:
    """Show a live progress bar until the job has ended; exit status 1 unless it succeeded."""
    with connect(url) as client:
        _follow(client, job_id)


def fetch(
    job_id: Id,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default results/ID.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Download a job's results, verified by their sha256."""
    target = out or Path("results") / job_id
    with connect(url) as client:
        for path in client.fetch(job_id, target):
            console.print(str(path), highlight=False, soft_wrap=True)


def cancel(job_id: Id, url: Url = DEFAULT_URL) -> None:
    """Cancel a job."""
    with connect(url) as client:
        console.print(client.cancel(job_id)["state"])


def connect(url: str) -> Client:
    """Make a client with the API key of the environment."""
    from recon.client.client import Client

    return Client(url, Settings().api_key)


def _follow(client: Client, job_id: str) -> None:
    job = follow(client.watch(job_id), job_id)
    error = job["error"] or {}
    if job["state"] != "succeeded":
        where = f"{error['field']}: " if error.get("field") else ""
        errors.print(f"{job['state']}: {where}{error.get('message', '')}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    console.print(f"succeeded, data misfit {job['data_misfit']}" if job["data_misfit"] else "succeeded")


def follow(updates: Iterable[dict[str, Any]], label: str) -> dict[str, Any]:
    """Show a bar over polled job states and return the last."""
    job: dict[str, Any] = {}
    with bar() as progress:
        task = progress.add_task(label, total=1.0, detail="")
        for job in updates:
            text = detail(job["stage"] or job["state"], job["step"], job["steps"], job["data_misfit"])
            progress.update(task, completed=job["progress"], detail=text)
    return job
