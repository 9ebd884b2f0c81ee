"""HTTP connection to a reconstruction server: converts its errors to ours, and retries safe requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from operators.errors import BackendUnavailable, ReconError

log = logging.getLogger("recon.client.connection")
PATIENCE_S = 120.0
"""Retry time for a server that has answered before: enough for a restart."""
FIRST_PATIENCE_S = 2.0
"""Retry time before the first answer, so that a wrong address fails soon."""
CONNECT_S = 10.0
"""Timeout of one attempt to connect."""
PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
"""Delay before the second attempt, and maximum delay: each is twice the one before."""
PASSING = (429, 502, 503, 504)
"""HTTP statuses of temporary refusals, those of proxies included."""


class ServerError(ReconError):
    """Error response of the server, with its own code, field and remedy."""

    def __init__(self, body: dict[str, Any], status: int, retry_after_s: float = 0.0) -> None:
        super().__init__(str(body.get("detail", f"HTTP {status}")), field=body.get("field"), remedy=body.get("remedy"))
        self.code, self.status = str(body.get("code", "http_error")), status
        self.retry_after_s = retry_after_s
        foreign = status >= 500 and "code" not in body  # not the service's own words: it was being stopped
        self.passing = status in PASSING or self.code == "in_progress" or foreign
        """Whether the same request may succeed later."""
        self.exit_code = 2 if 400 <= status < 500 else 3


class Patience:
    """Retry budget: time for attempts that fail now and may succeed later; it starts with the first failure.

    Parameters
    ----------
    total_s
        Time after which the failure is final.
    """

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self.renew()

    def renew(self) -> None:
        """Reset the budget after a success."""
        self._deadline: float | None = None
        self._pause_s = PAUSE_S

    def spend(self, error: BackendUnavailable | ServerError) -> None:
        """Wait before the next attempt; raises `error` if a retry is useless or the time is over."""
        if isinstance(error, ServerError) and not error.passing:
            raise error
        at_least_s = error.retry_after_s if isinstance(error, ServerError) else 0.0
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._total_s
            if self._total_s > FIRST_PATIENCE_S:
                log.warning("%s, trying again for up to %.0f s", error.message, self._total_s)
        left_s = self._deadline - now
        if left_s <= 0 or at_least_s > left_s:
            raise error
        time.sleep(min(max(self._pause_s, at_least_s), left_s))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


class Connection:
    """HTTP connection to one server.

    Parameters
    ----------
    url
        URL of the server.
    key
        API key; None for a server without keys.
    timeout_s
        Timeout of one request.
    patience_s
        Time for which safe requests are retried while the server is unreachable or refuses temporarily.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float, patience_s: float = PATIENCE_S) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S))
        self.http = httpx.Client(base_url=url, timeout=timeout, headers=headers)
        self._patience_s, self._reached = patience_s, False

    def patience(self) -> Patience:
        """Make the retry budget of one request or group of requests; short until the server has answered once."""
        return Patience(self._patience_s if self._reached else min(self._patience_s, FIRST_PATIENCE_S))

    def _patience_for(self, may_repeat: bool) -> Patience:
        return self.patience() if may_repeat else Patience(0.0)

    def request(self, method: str, path: str, *, again: bool | None = None, **options: Any) -> httpx.Response:
        """Send a request; raises `ServerError` or `BackendUnavailable`.

        `again` says whether it may be sent again after a broken connection or a temporary refusal. Default: if the
        method is idempotent.
        """
        may_repeat = method in ("GET", "HEAD", "DELETE") if again is None else again
        patience = self._patience_for(may_repeat)
        while True:
            try:
                answer = self.http.request(method, path, **options)
            except httpx.TransportError as error:
                patience.spend(self.unreachable(error))
                continue
            if not self._reached:
                self._reached = True
                patience = self._patience_for(may_repeat)
            if not answer.is_error:
                return answer
            patience.spend(refusal(answer))

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Stream the body of a GET; raises `ServerError` for a refusal, httpx's errors otherwise."""
        with self.http.stream("GET", path, **options) as answer:
            self._reached = True
            if answer.is_error:
                answer.read()
                raise refusal(answer)
            yield answer

    def below(self, link: str) -> str:
        """Path of a link of the server below the base URL: a server behind a proxy may know of its prefix, or not."""
        prefix = self.http.base_url.path.rstrip("/")
        return link.removeprefix(prefix) if link.startswith(prefix + "/v1/") else link

    def unreachable(self, error: httpx.TransportError) -> BackendUnavailable:
        """Make the error for a missing answer."""
        return BackendUnavailable(
            f"no answer from {self.http.base_url}: {error}", field="url", remedy="is `recon serve` running?"
        )


def refusal(answer: httpx.Response) -> ServerError:
    """Convert an error response."""
    problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    return ServerError(answer.json() if problem else {}, answer.status_code, retry_after(answer))


def retry_after(answer: httpx.Response, default: float = 0.0) -> float:
    """Seconds after which the server asks to retry, at most a minute."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 60.0) if text.isdigit() else default
