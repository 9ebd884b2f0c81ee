"""Commands ``recon serve`` and ``recon key``."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from operators.errors import BackendUnavailable, InputError
from recon.cli.show import console, errors

if TYPE_CHECKING:
    from fastapi import FastAPI

    from workers.settings import Settings

log = logging.getLogger("recon.api")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(view)
    app.command()(key)


def serve(
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Also run a private Redis and one worker, all stopped together.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    store: Annotated[Path | None, typer.Option(help="Folder of jobs and uploads; default RECON_STORE.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without keys.")] = False,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="With --embedded: do not open the page in a browser.")
    ] = False,
) -> None:
    """Serve the HTTP API and its page. Without --embedded, REDIS_URL says where Redis is; `recon worker` computes."""
    from workers import logs
    from workers.settings import Settings

    logs.install()
    if store is not None:
        os.environ["RECON_STORE"] = str(store.resolve())
    _check_exposure(host, Settings().keys, insecure)
    # uvicorn hands SIGTERM on after its own shutdown: as an exception it lets the children be stopped.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with ExitStack() as stack:
        if embedded:
            from workers.embedded import redis_and_worker

            stack.enter_context(redis_and_worker(Settings().store))
        # Only now: the Celery application reads REDIS_URL when it is imported.
        from api import browser
        from api.app import create_app

        def announce(address: str) -> None:
            if embedded:
                browser.show(address, wanted=not no_browser)

        _run(create_app(_named(Settings(), host)), host, port, announce)


def view(
    folder: Annotated[Path, typer.Argument(help="Folder of results, as `recon run` and `recon fetch` write them.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page in a browser.")] = False,
) -> None:
    """Show results on disk in a browser on this machine, without Redis and without a service."""
    from api import browser, folder_view

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    app = folder_view.create_app(folder)
    _run(app, LOOPBACK[0], port, lambda address: browser.show(address, wanted=not no_browser))


def _run(app: FastAPI, host: str, port: int, announce: Callable[[str], None]) -> None:
    from api.server import run

    try:
        run(app, host, port, announce)
    except SystemExit as error:  # how uvicorn reports that it cannot bind
        raise BackendUnavailable(
            f"cannot listen on {host}:{port}", field="port", remedy="choose another --port"
        ) from error


def _check_exposure(host: str, keys: Path | None, insecure: bool) -> None:
    if host in LOOPBACK or keys is not None:
        return
    if not insecure:
        raise InputError(
            f"{host} can be reached from outside this machine, and no keys are set: anyone could submit jobs",
            field="host",
            remedy="make a key with `recon key NAME`, put its entry into a file and name that in RECON_KEYS; "
            "or pass --insecure behind a proxy that authenticates",
        )
    log.warning("listening on %s without keys: anyone who reaches it can submit jobs and read results", host)


def _named(settings: Settings, host: str) -> Settings:
    """The same settings, by which the API also goes by the name under which it listens."""
    return settings.model_copy(update={"hosts": (*settings.hosts, host.lower())})


def key(
    name: Annotated[str, typer.Argument(help="Name of the key's user, to whom jobs and uploads belong.")],
    max_jobs: Annotated[int | None, typer.Option(min=0, help="Limit of jobs waiting and running at a time.")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=0, help="Limit of bytes stored at a time.")] = None,
) -> None:
    """Make an API key; prints it, once, and the entry for the file that RECON_KEYS names."""
    from workers import keys

    secret, made = keys.make(name)
    made = made.model_copy(update={"max_jobs": max_jobs, "max_bytes": max_bytes})
    errors.print("the key, for its user; it is not stored anywhere:", highlight=False)
    console.print(secret, highlight=False, soft_wrap=True)
    errors.print("the entry, for the file of keys:", highlight=False)
    console.print(f"- {keys.entry(made)}", highlight=False, markup=False, soft_wrap=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
