"""Service object that the routes share, and access control: which jobs and uploads a request may see."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Request

from api.durations import Durations
from api.queue_estimate import QueueEstimates
from operators.errors import Conflict, NotFound
from workers import resumable_uploads, retention, sessions
from workers.http_errors import Gone
from workers.index import JobIndex
from workers.keys import Key, KeyRing
from workers.settings import Settings
from workers.store import JobStore, Record
from workers.usage import Usage


@dataclass
class Service:
    """Service of one deployment: store, index, quotas and queue estimate of an API process."""

    settings: Settings
    store: JobStore
    index: JobIndex
    usage: Usage
    queue_estimates: QueueEstimates
    keys: KeyRing | None
    answers: Counter[int] = field(default_factory=Counter)
    """Number of requests by status."""
    durations: Durations = field(default_factory=Durations)

    @property
    def sessions(self) -> Path:
        """Folder of the browsers' sessions."""
        return self.store.root / sessions.FOLDER

    @classmethod
    def of(cls, settings: Settings) -> Service:
        """Open the store."""
        store = JobStore(settings.store)
        index = JobIndex(store)
        keys = KeyRing(settings.keys) if settings.keys else None
        return cls(settings, store, index, Usage(index), QueueEstimates(index, settings.redis_url), keys)

    def job(self, key: Key | None, job_id: str) -> Record:
        """Return a job that a key may see; raises `NotFound` or `Gone`."""
        try:
            record = self.store.record(job_id)
        except (NotFound, FileNotFoundError):
            self._say_if_gone("jobs", key, job_id)
            raise NotFound(f"there is no job {job_id!r}", field="id") from None
        if not owns(key, record.owner):
            raise NotFound(f"there is no job {job_id!r}", field="id")
        return record

    def upload(self, key: Key | None, upload_id: str, field_name: str = "id") -> dict[str, Any]:
        """Return the description of a complete upload that a key may use; raises `NotFound`, `Gone` or `Conflict`."""
        absent = NotFound(f"there is no upload {upload_id!r}", field=field_name, remedy="upload the file first")
        try:
            meta = retention.upload_meta(self.store, upload_id)
        except (NotFound, FileNotFoundError):
            self._say_if_gone("uploads", key, upload_id, field_name)
            self._say_if_arriving(key, upload_id, field_name)
            raise absent from None
        if not owns(key, meta["owner"]):
            raise absent
        return meta

    def _say_if_arriving(self, key: Key | None, upload_id: str, field_name: str) -> None:
        try:
            begun = resumable_uploads.find(self.store, upload_id)
            received = resumable_uploads.offset(self.store, begun)
        except NotFound:
            return
        if owns(key, begun.owner):
            raise Conflict(
                f"upload {upload_id} is not complete: {received} of {begun.length} bytes are here",
                field=field_name,
                remedy="send the rest of it",
            )

    def _say_if_gone(self, kind: retention.Kind, key: Key | None, found_id: str, field_name: str = "id") -> None:
        note = retention.note(self.store, kind, found_id)
        if note is not None and owns(key, note.owner):
            raise Gone(f"{kind[:-1]} {found_id} was deleted on {note.at[:10]}: {note.reason}", field=field_name)


def owns(key: Key | None, owner: str | None) -> bool:
    """Whether a request may see what belongs to `owner`; without API keys it may see everything."""
    return key is None or key.name == owner


def service(request: Request) -> Service:
    """Return the service of a request."""
    found: Service = request.app.state.service
    return found


def key_of(request: Request) -> Key | None:
    """Return the API key of a request; None if the service has no keys."""
    return getattr(request.state, "key", None)
