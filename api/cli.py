"""The command ``recon serve``."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from operators.errors import BackendUnavailable
from recon.cli.show import errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Also run a private Redis and one worker, all stopped together.")
    ] = False,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    store: Annotated[Path | None, typer.Option(help="Folder of jobs and uploads; default RECON_STORE.")] = None,
) -> None:
    """Serve the HTTP API. Without --embedded, REDIS_URL says where Redis is and `recon worker` computes."""
    import uvicorn

    if store is not None:
        os.environ["RECON_STORE"] = str(store.resolve())
    # uvicorn hands SIGTERM on after its own shutdown: as an exception it lets the children be stopped.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with ExitStack() as stack:
        if embedded:
            from workers.embedded import redis_and_worker
            from workers.settings import Settings

            stack.enter_context(redis_and_worker(Settings.from_environment().store))
        # Only now: the Celery application reads REDIS_URL when it is imported.
        from api.app import create_app

        if host not in ("127.0.0.1", "localhost", "::1"):
            errors.print(
                f"warning: listening on {host} without authentication; anyone who reaches it can submit jobs",
                highlight=False,
            )
        config = uvicorn.Config(create_app(), host=host, port=port, log_level="info", timeout_graceful_shutdown=10)
        server = uvicorn.Server(config)
        try:
            server.run()
        except SystemExit as error:  # how uvicorn reports that it cannot bind
            raise BackendUnavailable(
                f"cannot listen on {host}:{port}", field="port", remedy="choose another --port"
            ) from error


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
