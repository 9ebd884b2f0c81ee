"""The job store: one folder a job, one folder an upload. What is here happened; nothing else counts.

::

    jobs/ID/job.json     the specification, written once
    jobs/ID/state.json   the state, replaced atomically
    jobs/ID/cancel       exists once somebody asked for cancellation
    jobs/ID/run.lock     held by the process that computes; free when that process is gone
    jobs/ID/output/      the results, published by one rename
    uploads/ID/data.EXT  an uploaded file, with meta.json beside it
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from operators.errors import Conflict, NotFound
from recon.disk import sync
from recon.job import UPLOAD_ID, JobSpec
from workers import files

log = logging.getLogger("recon.store")
State = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
TERMINAL = ("succeeded", "failed", "cancelled")
ALLOWED: dict[str, tuple[str, ...]] = {
    "queued": ("running", "cancelled", "failed"),
    "running": ("running", "cancelling", "succeeded", "failed", "cancelled"),
    "cancelling": ("cancelled", "succeeded", "failed"),
    "succeeded": (),
    "failed": (),
    "cancelled": (),
}
"""From each state to the states that may follow; ``running`` to itself is another attempt."""


@dataclass(frozen=True)
class Record:
    """State of a job, as stored in ``state.json``."""

    id: str
    state: State
    created: str
    updated: str
    name: str = ""
    method: str = ""
    progress: float = 0.0
    stage: str = ""
    step: int = 0
    steps: int = 0
    data_misfit: float | None = None
    attempt: int = 0
    started: str | None = None
    finished: str | None = None
    error: dict[str, Any] | None = None
    tags: list[str] = field(default_factory=list)
    priority: str = "normal"
    owner: str | None = None
    """Name of the API key that submitted the job; None without keys."""

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self.state in TERMINAL


class JobStore:
    """Jobs and uploads below one folder.

    Parameters
    ----------
    root
        The folder; created if missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs, self.uploads = root / "jobs", root / "uploads"
        for folder in (self.jobs, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def create(self, spec: JobSpec, job_id: str | None = None, owner: str | None = None) -> Record:
        """Store a job; when this returns, specification and state are on the disk."""
        job_id = job_id or new_id()
        now = timestamp()
        record = Record(
            job_id,
            "queued",
            now,
            now,
            name=spec.name,
            method=spec.method.name,
            tags=spec.tags,
            priority=spec.priority,
            owner=owner,
        )
        hidden = self.jobs / f".{job_id}"
        hidden.mkdir(exist_ok=True)  # one that a crash left is written anew
        files.write_json(hidden / "job.json", spec.model_dump(mode="json", exclude_unset=True))
        files.write_json(hidden / "state.json", asdict(record))
        hidden.rename(self.jobs / job_id)
        sync(self.jobs)
        return record

    def discard(self, job_id: str) -> None:
        """Remove a job that was never accepted; it is out of sight at once."""
        hidden = self.jobs / f".{job_id}"
        self.folder(job_id).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def folder(self, job_id: str) -> Path:
        """The job's folder; raises `NotFound`, also for ids that are no ids."""
        path = self.jobs / job_id
        if not re.fullmatch(UPLOAD_ID, job_id) or not path.is_dir():
            raise NotFound(f"there is no job {job_id!r}", field="id")
        return path

    def spec(self, job_id: str) -> JobSpec:
        """The job's specification, validated again."""
        return JobSpec.parse(json.loads((self.folder(job_id) / "job.json").read_text()), "job.json")

    def record(self, job_id: str) -> Record:
        """The job's state."""
        return Record(**json.loads((self.folder(job_id) / "state.json").read_text()))

    def records(self) -> list[Record]:
        """All jobs, newest first; a folder that cannot be read is logged and left out."""
        found = []
        for path in self.jobs.iterdir():
            if path.name.startswith("."):
                continue
            try:
                found.append(self.record(path.name))
            except (NotFound, OSError, ValueError, TypeError) as error:
                log.error("%s is no readable job: %s", path, error)
        return sorted(found, key=lambda r: (r.created, r.id), reverse=True)

    def move(self, job_id: str, state: State, *, only_from: State | None = None, **changes: Any) -> Record:
        """Move a job to another state; raises `Conflict` where `ALLOWED` or `only_from` forbids it."""
        folder = self.folder(job_id)
        with files.locked(folder / "state.lock"):
            record = self.record(job_id)
            if state not in ALLOWED[record.state] or only_from not in (None, record.state):
                raise Conflict(f"job {job_id} is {record.state} and cannot become {state}", field="state")
            now = timestamp()
            if state == "running":
                changes |= {"started": record.started or now, "attempt": record.attempt + 1}
            if state in TERMINAL:
                changes["finished"] = now
            record = replace(record, state=state, updated=now, **changes)
            files.write_json(folder / "state.json", asdict(record))
        return record

    def report_progress(self, job_id: str, **changes: Any) -> None:
        """Update progress fields of a job that runs; not synced to disk, losing one is harmless."""
        folder = self.folder(job_id)
        with files.locked(folder / "state.lock"):
            record = self.record(job_id)
            if not record.terminal:
                record = replace(record, updated=timestamp(), **changes)
                files.write_json(folder / "state.json", asdict(record), durable=False)

    def request_cancel(self, job_id: str) -> Record:
        """Cancel a queued job at once, ask a running one to stop; final states stay as they are."""
        folder = self.folder(job_id)
        (folder / "cancel").touch()
        for _ in range(3):  # the worker may move the job between our look and our move
            record = self.record(job_id)
            if record.terminal or record.state == "cancelling":
                return record
            try:
                target: State = "cancelled" if record.state == "queued" else "cancelling"
                return self.move(job_id, target, only_from=record.state)
            except Conflict:
                continue
        return self.record(job_id)

    def forgive_attempts(self) -> None:
        """After an orderly stop: the attempt it ended does not count against jobs that were running."""
        for record in self.records():
            if record.state == "running" and record.attempt > 0:
                with self.running_lock(record.id) as free:
                    if free:
                        self.report_progress(record.id, attempt=record.attempt - 1)

    def cancel_requested(self, job_id: str) -> bool:
        """Whether somebody asked for cancellation."""
        return (self.jobs / job_id / "cancel").exists()

    def running_lock(self, job_id: str) -> AbstractContextManager[bool]:
        """Whether this process may compute the job; held until the block ends or the process dies."""
        return files.try_lock(self.folder(job_id) / "run.lock")

    def output(self, job_id: str) -> Path:
        """Where the job's results are published."""
        return self.folder(job_id) / "output"

    @contextmanager
    def new_upload(self) -> Iterator[tuple[str, Path]]:
        """A hidden folder to receive an upload into; it disappears unless `publish_upload` was called."""
        upload_id = new_id()
        hidden = self.uploads / f".{upload_id}"
        hidden.mkdir()
        try:
            yield upload_id, hidden / "data"
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def publish_upload(self, upload_id: str, received: Path, sha256: str, owner: str | None = None) -> dict[str, Any]:
        """Give a received file its ending by its content and make the upload visible."""
        sync(received)
        data = received.rename(received.with_name("data" + _ending(received)))
        meta = {"id": upload_id, "bytes": data.stat().st_size, "sha256": sha256, "created": timestamp()}
        meta["owner"] = owner
        files.write_json(data.parent / "meta.json", meta)
        data.parent.rename(self.uploads / upload_id)
        sync(self.uploads)
        return meta

    def upload(self, upload_id: str) -> Path:
        """The file of an upload; raises `NotFound`."""
        folder = self.uploads / upload_id
        if not re.fullmatch(UPLOAD_ID, upload_id) or not folder.is_dir():
            raise NotFound(f"there is no upload {upload_id!r}", field="input.upload", remedy="upload the file first")
        return next(p for p in folder.iterdir() if p.name.startswith("data"))

    def job_files(self, spec: JobSpec) -> dict[str, Path]:
        """Local path of every file of a job: uploads here, paths as they stand."""
        return {
            name: self.upload(file.upload) if file.upload else Path(str(file.path))
            for name, file in spec.files().items()
        }


def _ending(path: Path) -> str:
    """File name ending by content, so that readers need not trust a client's name."""
    with path.open("rb") as stream:
        magic = stream.read(8)
    known = ((b"\x1f\x8b", ".nii.gz"), (b"\x93NUMPY", ".npy"), (b"\x89HDF", ".h5"), (b"PK\x03\x04", ".npz"))
    for start, ending in known:
        if magic.startswith(start):
            return ending
    return ".nii" if magic[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c") else ".bin"


def manifest(output: Path) -> list[dict[str, Any]]:
    """Name, size and sha256 of every published result."""
    entries = []
    for path in sorted(output.iterdir()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries.append({"name": path.name, "bytes": path.stat().st_size, "sha256": digest})
    return entries


def new_id() -> str:
    """A random 26-character id of letters and digits that no client chooses."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def timestamp() -> str:
    """Now, in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat()
