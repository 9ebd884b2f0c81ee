"""Job store: one folder per job, one folder per upload. It is the only truth about jobs.

::

    jobs/ID/job.json       the specification, written once
    jobs/ID/state.json     the state, replaced atomically
    jobs/ID/events.jsonl   every change of state, progress and log line, see `workers.events`
    jobs/ID/cancel         exists once cancellation was requested
    jobs/ID/run.lock       held by the process that computes; free when that process is gone
    jobs/ID/work/          finished chunks, until the job has ended
    jobs/ID/attempt-N/     what attempt N writes
    jobs/ID/output/        the results: the folder of one attempt, published by one rename
    jobs/ID/preview.png    the image as it is now, while the job is computed
    jobs/ID/manifest.json  name, size and sha256 of the results, written just before
    uploads/ID/data.EXT    an uploaded file, with meta.json beside it
    uploads/ID/folder/     or an uploaded folder
"""

from __future__ import annotations

import base64
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from operators.errors import Cancelled, Conflict, NotFound
from recon.spec.files import UPLOAD_ID
from recon.spec.job import JobSpec
from recon.spec.job_states import TERMINAL, TRANSITIONS, Device, Priority, State
from recon.spec.registry import RENAMED_METHODS
from recon.spec.upgrade import upgraded
from recon.storage.atomic import atomic_write, sync, write_json
from recon.storage.locks import locked, try_lock
from workers import events, results, schema
from workers.events import Tail

FOLDER = "folder"
"""Name of an uploaded folder in that of its upload."""
log = logging.getLogger("recon.store")


@dataclass(frozen=True)
class Record:
    """Record of a job's state, as stored in ``state.json``."""

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
    priority: Priority = "normal"
    device: Device = "cpu"
    planned_s: float | None = None
    """Planned seconds on the reference machine, a measure of the job's size."""
    owner: str | None = None
    """Name of the API key that submitted the job; None without keys."""
    token: str | None = None
    """Fencing token of the newest attempt: a worker writes with its own and is refused once there is a newer one."""

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self.state in TERMINAL


_FIELDS = {f.name for f in fields(Record)}


class JobStore:
    """Store of jobs and uploads below one folder.

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

    def create(
        self,
        spec: JobSpec,
        job_id: str | None = None,
        owner: str | None = None,
        planned_s: float | None = None,
        *,
        name: str | None = None,
        notes: Sequence[str] = (),
    ) -> Record:
        """Store a job; on return specification and state are synced to disk.

        Parameters
        ----------
        spec
            The job.
        job_id
            Its id. Default: a new one.
        owner
            Name of the API key that submitted it; None without keys.
        planned_s
            Seconds that its plan foresees on the reference machine.
        name
            Name under which it is listed. Default: that of the specification.
        notes
            Sentences with which its log begins.
        """
        job_id = job_id or new_id()
        now = timestamp()
        record = Record(
            job_id,
            "queued",
            now,
            now,
            name=spec.name if name is None else name,
            method=spec.method.name,
            tags=spec.tags,
            priority=spec.priority,
            device=spec.device,
            planned_s=planned_s,
            owner=owner,
        )
        hidden = self.jobs / f".{job_id}"
        hidden.mkdir(exist_ok=True)  # one that a crash left is written anew
        try:
            schema.write(hidden / "job.json", spec.model_dump(mode="json", exclude_unset=True), durable=False)
            schema.write(hidden / "state.json", asdict(record), durable=False)
            events.append(hidden / "events.jsonl", "state", {"state": "queued"})
            for note in notes:
                line = {"level": "WARNING", "logger": "recon.spec", "message": note}
                events.append(hidden / "events.jsonl", "log", line)
            sync(hidden)
            hidden.rename(self.jobs / job_id)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        sync(self.jobs)
        return record

    def discard(self, job_id: str) -> None:
        """Remove a job that was never accepted; it is hidden at once."""
        hidden = self.jobs / f".{job_id}"
        self.folder(job_id).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def folder(self, job_id: str) -> Path:
        """Folder of a job; raises `NotFound`, also for malformed ids."""
        path = self.jobs / job_id
        if not re.fullmatch(UPLOAD_ID, job_id) or not path.is_dir():
            raise NotFound(f"there is no job {job_id!r}", field="id")
        return path

    def spec(self, job_id: str) -> JobSpec:
        """Read and validate a job's specification; raises `InputError` for one that this version does not compute."""
        return JobSpec.parse(self._job(job_id), "job.json")

    def webhook_url(self, job_id: str) -> str | None:
        """Webhook URL of a job; the rest of its specification is not validated."""
        address: str | None = self._job(job_id).get("webhook_url")
        return address

    def upload_ids(self, job_id: str) -> frozenset[str]:
        """Uploads that the job's specification names anywhere, also one that this version cannot compute.

        Not by the fields of its kinds: the package that added a kind may be gone, and the uploads are needed all the
        same when it comes back.
        """
        return frozenset(_upload_ids(self._job(job_id)))

    def _job(self, job_id: str) -> dict[str, Any]:
        """Read the stored specification and convert it to today's names."""
        return schema.read(self.folder(job_id) / "job.json", upgraded)

    def record(self, job_id: str) -> Record:
        """Read the record of a job's state."""
        found = schema.read(self.folder(job_id) / "state.json", _upgraded_record)
        # A newer program of the same version of the store may have written more than this one knows.
        return Record(**{k: v for k, v in found.items() if k in _FIELDS})

    def transition(
        self, job_id: str, state: State, *, only_from: State | None = None, token: str | None = None, **changes: Any
    ) -> Record:
        """Change a job's state; a transition to ``running`` is a new attempt with a token of its own.

        Parameters
        ----------
        only_from
            Refuse if the job is in any other state.
        token
            Token of the attempt that asks; refused if there is a newer one.
        changes
            Other fields of the record to change.

        Raises
        ------
        Conflict
            If `TRANSITIONS`, `only_from` or `token` forbids it, or results are there already.
        """
        with self._locked(job_id):
            record = self._check_token(job_id, token)
            if state != "succeeded":
                record = self._settled(record)
            if state not in TRANSITIONS[record.state] or only_from not in (None, record.state):
                raise Conflict(f"job {job_id} is {record.state} and cannot become {state}", field="state")
            if state == "running":
                attempt = {"started": record.started or timestamp(), "attempt": record.attempt + 1}
                changes = {"token": new_id(), **changes, **attempt}
            return self._write(record, "state", {**changes, "state": state})

    def report_progress(self, job_id: str, *, token: str | None = None, **changes: Any) -> None:
        """Update the progress of a running job; not synced to disk, since losing an update is harmless.

        A job that has ended stays as it is; an attempt that reports with its `token` then gets a `Conflict`.
        """
        with self._locked(job_id):
            record = self._check_token(job_id, token)
            if not record.terminal:
                self._write(record, "progress", changes)
            elif token is not None:
                raise Conflict(f"job {job_id} is {record.state} already", field="state")

    def show(self, job_id: str, token: str, picture: bytes) -> None:
        """Put a picture of a running job in place of the one before; an attempt that is over gets a `Conflict`."""
        with self._locked(job_id):
            record = self._check_token(job_id, token)
            if record.terminal:
                raise Conflict(f"job {job_id} is {record.state} already", field="state")
            with atomic_write(self.preview(job_id), durable=False) as stream:
                stream.write(picture)

    def log(self, job_id: str, token: str, line: dict[str, Any]) -> None:
        """Add a log line to the job's events, unless it has ended or the attempt is no longer the newest."""
        with self._locked(job_id):
            record = self.record(job_id)
            if record.token == token and not record.terminal:
                events.append(self.folder(job_id) / "events.jsonl", "log", line)

    def tail(self, job_id: str, after: int = 0) -> Tail:
        """Follow the events of a job as they are written; includes the final one of a job that has ended."""
        self.tell_the_end(job_id)
        return Tail(self.folder(job_id) / "events.jsonl", after)

    def tell_the_end(self, job_id: str) -> None:
        """Add the final event of a job that has ended, if the process died between writing the state and the event."""
        path, record = self.folder(job_id) / "events.jsonl", self.record(job_id)
        if not record.terminal:
            return
        newest = events.last(path)
        if newest is None or newest["data"].get("state") != record.state:
            with self._locked(job_id):
                newest = events.last(path)
                if newest is None or newest["data"].get("state") != record.state:
                    events.append(path, "state", {"state": record.state, "error": record.error})

    def publish(self, job_id: str, token: str, finished: Path) -> Record:
        """Publish an attempt's folder as the job's results by one rename, and mark the job as succeeded.

        Raises
        ------
        Conflict
            If the job has ended, or there is a newer attempt.
        Cancelled
            If cancellation was requested in time.
        """
        folder, entries = self.folder(job_id), results.measured(finished)
        with self._locked(job_id):
            record = self._check_token(job_id, token)
            if record.state == "cancelling":
                raise Cancelled("cancelled by request")
            if record.terminal:
                raise Conflict(f"job {job_id} is {record.state} already", field="state")
            write_json(folder / "manifest.json", entries)
            os.replace(finished, self.output(job_id))
            sync(folder)
            return self._succeeded(record)

    def recover(self, job_id: str) -> Record:
        """Read a job's record, and mark it as succeeded if the publisher died between rename and record."""
        with self._locked(job_id):
            before = self.record(job_id)
            record = self._settled(before)
        if record.state != before.state:
            self.clear(job_id)
        return record

    def _settled(self, record: Record) -> Record:
        """Read the record, marked as succeeded if results are published. Call with the state lock held."""
        # Under the lock, results of an unfinished job mean that the process that published them died before the record.
        if record.terminal or not self.output(record.id).exists():
            return record
        return self._succeeded(record)

    def _succeeded(self, record: Record) -> Record:
        return self._write(record, "state", {"state": "succeeded", "progress": 1.0, "stage": "done"})

    def _locked(self, job_id: str) -> AbstractContextManager[None]:
        return locked(self.folder(job_id) / "state.lock")

    def _check_token(self, job_id: str, token: str | None) -> Record:
        """Read the record, and check that `token`, if given, is the newest attempt's. Call with the state lock held."""
        record = self.record(job_id)
        if token is not None and record.token != token:
            raise Conflict(f"another attempt at job {job_id} has begun: this one is over", field="token")
        return record

    def _write(self, record: Record, event: Literal["state", "progress"], changes: dict[str, Any]) -> Record:
        """Write a record to disk, then add its event. Call with the state lock held."""
        now, folder = timestamp(), self.folder(record.id)
        if changes.get("state") in TERMINAL:
            changes["finished"] = now
        record = replace(record, updated=now, **changes)
        schema.write(folder / "state.json", asdict(record), durable=event == "state")
        told = {k: v for k, v in changes.items() if k in events.FIELDS}
        if told:
            events.append(folder / "events.jsonl", event, told)
        return record

    def request_cancel(self, job_id: str) -> Record:
        """Cancel a waiting job at once, ask a running one to stop; final states stay as they are."""
        folder = self.folder(job_id)
        (folder / "cancel").touch()
        for _ in range(3):  # the worker may take the job on between our look and our transition
            record = self.recover(job_id)
            if record.terminal:
                return record
            with self.running_lock(job_id) as nobody:
                try:
                    if nobody or record.state == "queued":
                        record = self.transition(job_id, "cancelled", only_from=record.state)
                        if nobody:  # of attempts that died
                            self.clear(job_id)
                        return record
                    return record if record.state == "cancelling" else self.transition(job_id, "cancelling")
                except Conflict:
                    continue
        return self.record(job_id)

    def cancel_requested(self, job_id: str) -> bool:
        """Whether cancellation was requested."""
        return (self.jobs / job_id / "cancel").exists()

    def running_lock(self, job_id: str) -> AbstractContextManager[bool]:
        """Run lock: whether this process may compute the job; held until the block ends or the process dies."""
        return try_lock(self.folder(job_id) / "run.lock")

    def attempt(self, record: Record) -> Path:
        """Folder to which the record's attempt writes its results."""
        return self.folder(record.id) / f"attempt-{record.attempt}"

    def work(self, job_id: str) -> Path:
        """Folder in which finished chunks are kept for the next attempt."""
        return self.folder(job_id) / "work"

    def clear(self, job_id: str, *, work: bool = True) -> None:
        """Remove the folders of attempts, and with `work` the finished chunks too."""
        place = self.work(job_id)
        if work:
            with suppress(FileNotFoundError):  # nothing was finished, or somebody else clears
                place.rename(place.with_name(f".work.{secrets.token_hex(4)}"))  # helpers may be putting chunks there
        if work:
            self.preview(job_id).unlink(missing_ok=True)
        for path in self.left(job_id):
            if path != place:
                shutil.rmtree(path, ignore_errors=True)

    def left(self, job_id: str) -> list[Path]:
        """List the folders of attempts and of finished chunks, which are garbage once the job has ended."""
        return [path for name in ("*attempt-*", ".work.*", "work") for path in self.folder(job_id).glob(name)]

    def preview(self, job_id: str) -> Path:
        """Picture of the image as it is now; there is one only while the job is computed, and not from the start."""
        return self.folder(job_id) / "preview.png"

    def output(self, job_id: str) -> Path:
        """Folder of the job's published results."""
        return self.folder(job_id) / "output"

    def upload(self, upload_id: str) -> Path:
        """Path of an upload's file or folder; raises `NotFound`."""
        folder = self.uploads / upload_id
        if re.fullmatch(UPLOAD_ID, upload_id) and folder.is_dir():
            if (folder / FOLDER).is_dir():
                return folder / FOLDER
            for path in folder.iterdir():
                if path.name.startswith("data"):
                    return path
        raise NotFound(f"there is no upload {upload_id!r}", field="input.upload", remedy="upload the file first")

    def job_files(self, spec: JobSpec) -> dict[str, Path]:
        """Local path of every file of a job: of uploads in this store, otherwise the given path."""
        return {
            name: self.upload(file.upload) if file.upload else Path(str(file.path))
            for name, file in spec.files().items()
        }


def _upgraded_record(value: dict[str, Any]) -> dict[str, Any]:
    method = value.get("method", "")
    return {**value, "method": RENAMED_METHODS.get(method, method)}


def new_id() -> str:
    """Make a random id of 26 letters and digits."""
    return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()


def timestamp() -> str:
    """Current time in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat()


def _upload_ids(value: Any) -> Iterator[str]:
    """Ids under the key ``upload``, at any depth."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "upload" and isinstance(part, str):
            yield part
        elif isinstance(part, dict | list):
            yield from _upload_ids(part)
