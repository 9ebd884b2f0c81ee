"""Requests to a reconstruction server: errors as ours, and repeated where that can do no harm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from operators.errors import BackendUnavailable, ReconError

RETRY_AFTER_S = (0.2, 1.0, 3.0)
"""Pauses before a request is sent again, unless the server says how long."""
TRANSIENT = ("in_progress", "backend_unavailable", "busy")
"""Codes of refusals that pass by themselves."""


class ServerError(ReconError):
    """The server refused or failed; its own code, field and remedy are kept."""

    def __init__(self, body: dict[str, Any], status: int) -> None:
        super().__init__(str(body.get("detail", f"HTTP {status}")), field=body.get("field"), remedy=body.get("remedy"))
        self.code, self.status = str(body.get("code", "http_error")), status
        self.exit_code = 2 if 400 <= status < 500 else 3


class Connection:
    """HTTP to one server.

    Parameters
    ----------
    url
        Of the server.
    key
        API key; None for a server without keys.
    timeout_s
        Of one request.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, timeout=timeout_s, headers=headers)

    def request(self, method: str, path: str, *, again: bool | None = None, **options: Any) -> httpx.Response:
        """One request; raises `ServerError` or `BackendUnavailable`.

        `again` says whether it may be sent again after a broken connection or a passing refusal; by default what
        changes nothing, or the same however often it is sent.
        """
        may_repeat = method in ("GET", "HEAD", "DELETE") if again is None else again
        pauses = list(RETRY_AFTER_S) if may_repeat else []
        while True:
            try:
                answer = self.http.request(method, path, **options)
            except httpx.TransportError as error:
                # Nobody listening is no accident of the line: it is said at once.
                if isinstance(error, httpx.ConnectError) or not pauses:
                    raise self.unreachable(error) from error
                time.sleep(pauses.pop(0))
                continue
            if not answer.is_error:
                return answer
            refused = refusal(answer)
            if refused.code not in TRANSIENT or not pauses:
                raise refused
            time.sleep(max(pauses.pop(0), retry_after(answer)))

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """A GET whose body is read as it comes; raises `ServerError` for a refusal, httpx's errors otherwise."""
        with self.http.stream("GET", path, **options) as answer:
            if answer.is_error:
                answer.read()
                raise refusal(answer)
            yield answer

    def unreachable(self, error: httpx.TransportError) -> BackendUnavailable:
        """What to say when there is no answer."""
        return BackendUnavailable(
            f"no answer from {self.http.base_url}: {error}", field="url", remedy="is `recon serve` running?"
        )


def refusal(answer: httpx.Response) -> ServerError:
    """The error that a server answered with."""
    problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    return ServerError(answer.json() if problem else {}, answer.status_code)


def retry_after(answer: httpx.Response, default: float = 0.0) -> float:
    """Seconds after which the server would be asked again, at most a minute."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 60.0) if text.isdigit() else default
