"""Around every request: an id, a log line, a count, a key, and a problem document whatever happens."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from datetime import UTC, datetime

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.service import Service
from workers.refusals import Unauthorized

access = logging.getLogger("recon.access")
log = logging.getLogger("recon.api")
OPEN = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
"""Paths that need no key; a new one needs one unless it is listed here."""


class Requests:
    """Gives each request an id, answers what nothing else answered, and writes one JSON line to the log."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)
        problems.request_id.set(request_id)
        begun, status = time.monotonic(), 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, tagged)
        except ClientDisconnect:
            status = status or 499  # nobody is there to be answered
        except Exception:
            log.exception("unexpected error on %s, request %s", scope["path"], request_id)
            if status:
                raise
            answer = problems.problem(500, "internal", "unexpected error; the server's log has the details")
            await answer(scope, receive, tagged)
        finally:
            self._record(scope, request_id, status, begun)

    def _record(self, scope: Scope, request_id: str, status: int, begun: float) -> None:
        self.service.answers[status] += 1
        key = scope.get("state", {}).get("key")
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * (time.monotonic() - begun), 1),
            "client": scope["client"][0] if scope.get("client") else None,
            "key": key.name if key else None,
        }
        access.info("%s", json.dumps(line))


class Access:
    """Lets requests with a key of the key ring in; without a ring, all of them."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        ring = self.service.keys
        if scope["type"] == "http" and ring is not None and scope["path"] not in OPEN:
            kind, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
            key = await run_in_threadpool(ring.find, secret.strip()) if kind.lower() == "bearer" else None
            if key is None:
                error = Unauthorized(
                    "this server needs a key" if not kind else "nobody has this key",
                    field="Authorization",
                    remedy="send `Authorization: Bearer KEY`; `recon key NAME` makes one",
                )
                await problems.of(Request(scope), error)(scope, receive, send)
                return
            scope.setdefault("state", {})["key"] = key
        await self.app(scope, receive, send)
