"""Reverse proxies: client, scheme and path prefix of a request, believed only of the proxies that the settings name."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api import links, problems
from operators.errors import InputError

PREFIX = "X-Forwarded-Prefix"
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")


class Proxies:
    """Middleware that believes ``X-Forwarded-For``, ``-Proto`` and ``-Prefix`` of trusted proxies alone.

    Parameters
    ----------
    trusted
        Addresses and networks of the proxies.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[str, ...]) -> None:
        self.app = app
        self._client_and_scheme = ProxyHeadersMiddleware(self._below_prefix, list(trusted))  # type: ignore[arg-type]
        self._trusted = self._client_and_scheme.trusted_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else None  # before it becomes the proxy's client
        scope.setdefault("state", {})["by_proxy"] = peer in self._trusted
        await self._client_and_scheme(scope, receive, send)  # type: ignore[arg-type]

    async def _below_prefix(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = Headers(scope=scope).get(PREFIX, "") if scope["state"]["by_proxy"] else ""
        if not _PATH.fullmatch(prefix):
            error = InputError(
                f"{prefix[:100]!r} is no path", field=PREFIX, remedy="have the proxy send a path such as /recon"
            )
            await problems.of(Request(scope), error)(scope, receive, send)
            return
        prefix = prefix.rstrip("/")
        if prefix:
            path = scope["path"]
            whole = path == prefix or path.startswith(prefix + "/")  # the proxy has not taken the prefix off
            scope["root_path"], scope["path"] = prefix, path if whole else prefix + path
        token = links.root.set(prefix)
        try:
            await self.app(scope, receive, send)
        finally:
            links.root.reset(token)
