"""Middlewares: request ids, request log, counts, API key check, and a response to every failure."""

from __future__ import annotations

import logging
import re
import secrets
import time

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import page_files, problems, sessions
from api.links import local_path
from api.service import Service
from recon.spec.files import UPLOAD_ID
from workers import logs
from workers import sessions as stored_sessions
from workers.http_errors import Unauthorized
from workers.keys import Key, KeyRing

access = logging.getLogger("recon.access")
log = logging.getLogger("recon.api")
OPEN = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs.css")
"""Public paths, which need no key, besides the page; all others do. To begin a session needs none either, and shows
one."""
_JOB = re.compile(rf"/v1/jobs/({UPLOAD_ID.strip('^$')})(?:/|$)")


class RequestLog:
    """Middleware that gives each request an id, turns uncaught errors into a 500, and writes one log line."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)
        logs.request_id.set(request_id)
        logs.job_id.set(_job(scope["path"]))
        begun, status = time.monotonic(), 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                made = _job(headers.get("location", ""))
                if made is not None:
                    logs.job_id.set(made)
            await send(message)

        try:
            await self.app(scope, receive, tagged)
        except ClientDisconnect:
            status = status or 499  # nobody is there to be answered
        except Exception:
            log.exception("unexpected error on %s", scope["path"])
            if status:
                raise
            answer = problems.problem(500, "internal", "unexpected error; the server's log has the details")
            await answer(scope, receive, tagged)
        finally:
            self._record(scope, status, begun)

    def _record(self, scope: Scope, status: int, begun: float) -> None:
        self.service.answers[status] += 1
        key = scope.get("state", {}).get("key")
        fields = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * (time.monotonic() - begun), 1),
            "client": scope["client"][0] if scope.get("client") else None,
            "key": key.name if key else None,
        }
        access.info("%s %s %s", scope["method"], scope["path"], status, extra={"fields": fields})


def _job(path: str) -> str | None:
    """Id of the job in a path, if there is one."""
    found = _JOB.search(path)
    return found[1] if found else None


class Authentication:
    """Middleware that accepts requests with a key of the key ring; without a ring, all of them."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        ring = self.service.keys
        if scope["type"] == "http" and ring is not None and not _is_open(scope):
            request = Request(scope)
            found = await run_in_threadpool(self._find, ring, request)
            if isinstance(found, Unauthorized):
                await problems.of(request, found)(scope, receive, send)
                return
            request.state.key, request.state.session_expires = found
        await self.app(scope, receive, send)

    def _find(self, ring: KeyRing, request: Request) -> tuple[Key, str | None] | Unauthorized:
        """Key of a request, and the end of its session if it has one; the header goes before the cookie."""
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        token = request.cookies.get(sessions.COOKIE)
        # A proxy's own authentication (Basic) says nothing here.
        if kind.lower() == "bearer" or token is None:
            key = ring.find(secret.strip()) if kind.lower() == "bearer" else None
            if key is not None:
                return key, None
            return Unauthorized(
                "this server needs a key" if not kind else "this key is unknown",
                field="Authorization",
                remedy="send `Authorization: Bearer KEY`; `recon key NAME` makes one",
            )
        found = stored_sessions.find(self.service.sessions, ring, token)
        if found is None:
            return Unauthorized(
                "the session has ended, or its key was removed",
                field="Cookie",
                remedy="begin another one with POST /v1/session",
            )
        return found[0], found[1].expires


def _is_open(scope: Scope) -> bool:
    path = local_path(scope)
    return path in OPEN or page_files.holds(path) or (path == sessions.PATH and scope["method"] == "POST")
