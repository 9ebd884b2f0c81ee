"""Webhooks: deliver every change of a job's state, signed and with retries, without delaying computation.

How far each job's deliveries are stands in ``jobs/ID/webhook.json``, so that a restarted server goes on where the
last one was. An event is delivered at least once, in order; after too many attempts the next one is tried.

Each receiver has a thread of a pool while something is due to it, and gives it back at the first delivery that fails:
a slow or broken one holds up its own deliveries, not those of others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from operators.errors import NotFound, ReconError
from recon.client import webhook_signature
from recon.spec.job_states import TERMINAL
from recon.storage.atomic import write_json
from workers import addresses
from workers.events import Tail
from workers.index import JobIndex
from workers.settings import Settings
from workers.store import Record

log = logging.getLogger("recon.webhooks")
ATTEMPTS = 8
TIMEOUT_S = 10.0
"""Timeout of one delivery as a whole, once the name is resolved."""
RECEIVERS = 16
"""Maximum number of receivers served at the same time."""
FIRST_DELAY_S = 2.0
"""Delay before the second attempt; each further delay is four times as long, so the last ends after three hours."""


@dataclass(frozen=True)
class Delivery:
    """Progress of a job's deliveries."""

    last: int = 0
    """Id of the last event that was delivered or given up."""
    attempts: int = 0
    """Number of failed attempts at the next event."""
    next_at: float = 0.0
    given_up: list[int] = field(default_factory=list)
    done: bool = False
    """Whether the final state was delivered or given up."""


@dataclass
class _Job:
    """Webhook of a job; only its receiver's thread touches it while there is one."""

    url: str
    tail: Tail
    state: Delivery
    due: list[dict[str, Any]] = field(default_factory=list)
    """Changes of state that were read but not yet delivered."""

    @property
    def receiver(self) -> str:
        """Receiver's host, the only one that a broken webhook may delay."""
        return urlsplit(self.url).netloc


class Webhooks:
    """Deliver due events to webhooks.

    Parameters
    ----------
    index
        The jobs.
    settings
        Settings with the secret; without one nothing is delivered.
    represent
        Converts a record to the API's representation of a job.
    """

    def __init__(self, index: JobIndex, settings: Settings, represent: Callable[[Record], dict[str, Any]]) -> None:
        self.index, self.secret, self.represent = index, settings.webhook_secret, represent
        self.allow = addresses.allowed_networks(settings.webhook_allow)
        self._over: set[str] = set()  # jobs without a webhook, or dealt with
        self._jobs: dict[str, _Job] = {}
        self._busy: set[str] = set()  # receivers that have a thread, or wait for one
        self._pool = ThreadPoolExecutor(RECEIVERS, thread_name_prefix="webhook")
        self._closed = False
        self._tls = httpx.create_ssl_context(trust_env=False)

    def close(self) -> None:
        """Stop after the deliveries in progress."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)

    def deliver_due(self) -> None:
        """Check all jobs and pass due deliveries to the pool, without waiting for receivers."""
        if self.secret is None:
            return
        records = self.index.records()
        for gone in self._jobs.keys() - {r.id for r in records}:
            self._jobs.pop(gone, None)
        turns: dict[str, list[tuple[Record, _Job]]] = {}
        for record in records:
            if record.id not in self._over:
                job = self._due(record)
                if job is not None:
                    turns.setdefault(job.receiver, []).append((record, job))
        for receiver, jobs in turns.items():
            self._busy.add(receiver)
            self._pool.submit(self._turn, receiver, jobs)

    def _due(self, record: Record) -> _Job | None:
        """Return the webhook if something is due now; an error is logged, so that one broken job stops no other."""
        try:
            job = self._jobs.get(record.id) or self._opened(record)
            if job is None or job.receiver in self._busy or job.state.next_at > time.time():
                return None
            if not job.due:
                self._read(record, job)
            return job if job.due else None
        except NotFound:
            self._over.add(record.id)  # deleted meanwhile
        except Exception:
            log.exception("webhook of job %s failed, trying again", record.id)
        return None

    def _opened(self, record: Record) -> _Job | None:
        url = self.index.store.webhook_url(record.id)
        state_file = self.index.store.folder(record.id) / "webhook.json"
        state = Delivery(**json.loads(state_file.read_text())) if state_file.exists() else Delivery()
        if url is None or state.done:
            self._over.add(record.id)
            return None
        job = self._jobs[record.id] = _Job(url, self.index.store.tail(record.id, state.last), state)
        return job

    def _read(self, record: Record, job: _Job) -> None:
        """Read the events written since the last check."""
        if record.terminal:
            self.index.store.tell_the_end(record.id)
        while some := job.tail.read():
            job.due += [event for event in some if event["event"] == "state"]

    def _turn(self, receiver: str, jobs: list[tuple[Record, _Job]]) -> None:
        """Deliver what is due to one receiver until something fails; the rest waits behind the other receivers."""
        try:
            for record, job in jobs:
                if self._closed or not self._told(record, job):
                    return
        finally:
            self._busy.discard(receiver)

    def _told(self, record: Record, job: _Job) -> bool:
        """Deliver what is due for one job; returns whether all of it was delivered."""
        try:
            state_file = self.index.store.folder(record.id) / "webhook.json"
            while job.due:
                job.state = self._one(record, job, job.due[0])
                if not job.state.attempts:
                    job.due.pop(0)
                write_json(state_file, asdict(job.state), durable=False)
                if job.state.attempts:
                    return False
            if job.state.done:
                self._over.add(record.id)
                self._jobs.pop(record.id, None)
        except NotFound:
            self._over.add(record.id)  # deleted meanwhile
        except Exception:
            log.exception("webhook of job %s failed, trying again", record.id)
            return False
        return True

    def _one(self, record: Record, job: _Job, event: dict[str, Any]) -> Delivery:
        state = job.state
        over = replace(state, last=event["id"], attempts=0, next_at=0.0, done=event["data"].get("state") in TERMINAL)
        body = json.dumps({**self.represent(record), **event["data"]}, allow_nan=False).encode()
        reason = self._post(job.url, body, event["id"])
        if reason is None:
            return over
        attempts = state.attempts + 1
        log.warning("webhook of job %s, event %d, attempt %d: %s", record.id, event["id"], attempts, reason)
        if attempts >= ATTEMPTS:
            return replace(over, given_up=[*state.given_up, event["id"]])
        return replace(state, attempts=attempts, next_at=time.time() + FIRST_DELAY_S * 4 ** (attempts - 1))

    def _post(self, url: str, body: bytes, event_id: int) -> str | None:
        """Send one event; returns why it failed. Connects to the checked address only and follows no redirects."""
        try:
            target = addresses.resolve(url, self.allow)
        except ReconError as error:
            return str(error)
        headers = {
            "Host": target.host_header,
            "Content-Type": "application/json",
            "User-Agent": "diffusion-recon",
            "X-Recon-Event": str(event_id),
            webhook_signature.HEADER: webhook_signature.sign(str(self.secret), body, int(time.time())),
        }
        try:
            return asyncio.run(self._sent(target, body, headers))
        except TimeoutError:
            return f"it did not answer within {TIMEOUT_S:g} s"
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"

    async def _sent(self, target: addresses.Target, body: bytes, headers: dict[str, str]) -> str | None:
        # httpx's own timeouts are of single reads and writes, which a receiver can make as many as it likes.
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(trust_env=False, verify=self._tls, timeout=TIMEOUT_S, follow_redirects=False) as http,
            http.stream(
                "POST", target.url, content=body, headers=headers, extensions={"sni_hostname": target.host}
            ) as answer,
        ):
            return None if answer.is_success else f"it answered {answer.status_code}"
