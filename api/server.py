"""Server process: binds the socket and runs the application, with a timeout for connections that stop reading."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

STALLED_MS = 120_000
"""Milliseconds without progress after which the kernel closes a connection; downloads can resume with Range."""


class _Announcing(uvicorn.Server):
    """Server that says when it answers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._announce()


def run(app: FastAPI, host: str, port: int, announce: Callable[[str], None] = lambda _address: None) -> None:
    """Serve until interrupted; raises SystemExit if the address cannot be bound.

    Parameters
    ----------
    port
        0 takes a free one.
    announce
        Called with the address, as a browser writes it, once it answers.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,  # what uvicorn has to say goes where everything else goes
        access_log=False,
        proxy_headers=False,  # `api.proxies` reads them
        timeout_graceful_shutdown=10,
    )
    listening = config.bind_socket()
    # asyncio sets this only on sockets that name their protocol. Without it the body of a short answer waits some
    # 40 ms for the client to acknowledge the header.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
    address = f"http://{_named(host)}:{listening.getsockname()[1]}/"
    _Announcing(config, lambda: announce(address)).run(sockets=[listening])


def _named(host: str) -> str:
    """Host of an address under which this machine itself reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{host}]" if ":" in host else host
