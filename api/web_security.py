"""Protection against other web sites that a user's browser visits, which could otherwise drive a server on loopback."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from operators.errors import ReconError
from workers.http_errors import CrossSite, ForeignHost
from workers.settings import Settings

SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
RESULT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""Policy for result files: a report is one page with its own styles and pictures, and runs nothing."""
HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class SecurityHeaders:
    """Middleware that adds to every answer the headers by which browsers restrict what a page may do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, guarded)


class SameSite:
    """Middleware that refuses foreign hosts, and changes that pages of other sites ask for.

    A foreign name in ``Host`` is that of a site whose name server now leads to this machine (DNS rebinding): to the
    browser, its pages and this service are then one site. Programs that are no browsers send neither ``Origin`` nor
    ``Sec-Fetch-Site``, and are not asked for them.

    Parameters
    ----------
    settings
        Its `hosts` are accepted besides localhost and addresses, which no name server has a say in.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.hosts = app, settings.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            error = self._foreign_host(headers) or self._cross_site(scope["method"], headers)
            if error is not None:
                await problems.of(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _foreign_host(self, headers: Headers) -> ReconError | None:
        given = headers.get("host")
        if given is None:  # HTTP/1.0, which no browser speaks
            return None
        name = _host_name(given)
        if name is not None and self._known(name):
            return None
        return ForeignHost(
            f"this service does not go by the name {given[:200]!r}",
            field="Host",
            remedy="use localhost or the machine's address, or have the operator add the name to RECON_HOSTS",
        )

    def _known(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return True
        return any(h in ("*", name) or (h.startswith("*.") and name.endswith(h[1:])) for h in self.hosts)

    def _cross_site(self, method: str, headers: Headers) -> ReconError | None:
        if method in SAFE:
            return None
        site = headers.get("sec-fetch-site")
        if site is not None:
            field, wrong = "Sec-Fetch-Site", site.lower() not in ("same-origin", "none")
        else:
            origin = headers.get("origin")
            field, site = "Origin", origin
            wrong = origin is not None and _authority(origin) != headers.get("host", "").lower()
        if not wrong:
            return None
        return CrossSite(
            f"{str(site)[:200]!r} is another site's page, which may change nothing here",
            field=field,
            remedy="use this service's own page, or a program that is no browser; "
            "have a reverse proxy pass Host on as it came",
        )


def _host_name(host: str) -> str | None:
    """Name or address in a Host header, without the port, in lower case; None if there is none."""
    if set(host) & set("@/?#\\"):
        return None
    try:
        found = urlsplit(f"//{host}")
        _ = found.port  # raises for what is no port
    except ValueError:
        return None
    return found.hostname.rstrip(".") if found.hostname else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _authority(origin: str) -> str | None:
    """Host and port of an Origin header; None for the origin ``null`` and for what is none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
