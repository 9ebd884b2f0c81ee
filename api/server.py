"""Server process: binds the socket and runs the application, with a timeout for connections that stop reading."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

STALLED_MS = 120_000
"""Milliseconds without progress after which the kernel closes a connection; downloads can resume with Range."""


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve until interrupted; raises SystemExit if the address cannot be bound."""
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
    uvicorn.Server(config).run(sockets=[listening])
