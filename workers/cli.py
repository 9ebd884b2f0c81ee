"""Command ``recon worker``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from operators.errors import InputError
from recon.spec.job_states import DEVICES


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Jobs computed at once.")] = 1,
    queue: Annotated[str, typer.Option(help="Kind of jobs to take: cpu or gpu, each in order of priority.")] = "cpu",
) -> None:
    """Compute jobs: reads REDIS_URL and RECON_STORE, gives its job back on Ctrl-C (see RECON_STOP_S)."""
    from workers.embedded import worker_command

    device = next((known for known in DEVICES if known == queue), None)
    if device is None:
        raise InputError(f"{queue!r} is no queue", field="queue", remedy=f"choose {' or '.join(DEVICES)}")
    command = worker_command(concurrency, device)
    # The worker takes this process's place, so that signals and exit status are its own.
    os.execv(command[0], command)  # noqa: S606
