"""Telling others of every change of state of their jobs: signed, retried, and never in the way of computing.

How far each job's deliveries are stands in ``jobs/ID/webhook.json``, so that a restarted server goes on where the
last one was. An event is delivered at least once, in order; after too many attempts the next one is tried.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx

from operators.errors import NotFound, ReconError
from recon import signature
from workers import addresses, files
from workers.index import JobIndex
from workers.settings import Settings
from workers.store import TERMINAL, Record

log = logging.getLogger("recon.webhooks")
ATTEMPTS = 8
TIMEOUT_S = 10.0
FIRST_DELAY_S = 2.0
"""Before the second attempt; each further one waits four times as long, so that the last is after about three hours."""


@dataclass(frozen=True)
class Delivery:
    """How far the deliveries of a job are."""

    last: int = 0
    """Id of the last event dealt with."""
    attempts: int = 0
    """Failed attempts at the next one."""
    next_at: float = 0.0
    given_up: list[int] = field(default_factory=list)
    done: bool = False
    """The final state has been dealt with."""


class Webhooks:
    """Delivers what is due.

    Parameters
    ----------
    index
        The jobs.
    settings
        With the secret; without one nothing is delivered.
    represent
        A job as the API shows it.
    """

    def __init__(self, index: JobIndex, settings: Settings, represent: Callable[[Record], dict[str, Any]]) -> None:
        self.index, self.secret, self.represent = index, settings.webhook_secret, represent
        self.allow = addresses.allowed_networks(settings.webhook_allow)
        self._over: set[str] = set()  # jobs without a webhook, or dealt with

    def deliver_due(self) -> None:
        """One round over all jobs."""
        if self.secret is None:
            return
        due = [r for r in self.index.records() if r.id not in self._over]
        with ThreadPoolExecutor(8, thread_name_prefix="webhook") as pool:
            for _ in pool.map(self._safely, due):
                pass

    def _safely(self, record: Record) -> None:
        """One broken job must not keep the others from being told."""
        try:
            self._job(record)
        except NotFound:
            self._over.add(record.id)  # deleted meanwhile
        except Exception:
            log.exception("webhook of job %s failed, trying again", record.id)

    def _job(self, record: Record) -> None:
        url = self.index.facts(record.id).notify
        if url is None:
            self._over.add(record.id)
            return
        folder = self.index.store.folder(record.id)
        state_file = folder / "webhook.json"
        state = Delivery(**json.loads(state_file.read_text())) if state_file.exists() else Delivery()
        if state.next_at > time.time():
            return
        if not state.done:
            for event in self.index.store.events(record.id, state.last):
                if event["event"] == "state":
                    state = self._one(record, url, event, state)
                    files.write_json(state_file, asdict(state), durable=False)
                    if state.attempts:
                        return
        if state.done:
            self._over.add(record.id)

    def _one(self, record: Record, url: str, event: dict[str, Any], state: Delivery) -> Delivery:
        over = replace(state, last=event["id"], attempts=0, next_at=0.0, done=event["data"].get("state") in TERMINAL)
        body = json.dumps({**self.represent(record), **event["data"]}, allow_nan=False).encode()
        reason = self._post(url, body, event["id"])
        if reason is None:
            return over
        attempts = state.attempts + 1
        log.warning("webhook of job %s, event %d, attempt %d: %s", record.id, event["id"], attempts, reason)
        if attempts >= ATTEMPTS:
            return replace(over, given_up=[*state.given_up, event["id"]])
        return replace(state, attempts=attempts, next_at=time.time() + FIRST_DELAY_S * 4 ** (attempts - 1))

    def _post(self, url: str, body: bytes, event_id: int) -> str | None:
        """Send one event; returns why it failed. Connects to the address that was checked, follows nothing."""
        try:
            target = addresses.resolve(url, self.allow)
        except ReconError as error:
            return str(error)
        headers = {
            "Host": target.host_header,
            "Content-Type": "application/json",
            "User-Agent": "diffusion-recon",
            "X-Recon-Event": str(event_id),
            signature.HEADER: signature.sign(str(self.secret), body, int(time.time())),
        }
        try:
            with httpx.Client(trust_env=False, timeout=TIMEOUT_S, follow_redirects=False) as http:
                extensions = {"sni_hostname": target.host}
                with http.stream("POST", target.url, content=body, headers=headers, extensions=extensions) as answer:
                    return None if answer.is_success else f"it answered {answer.status_code}"
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
