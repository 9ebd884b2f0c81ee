"""Index of all jobs in memory, synchronised with the store: lists thousands of jobs without opening their files."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from operators.errors import ReconError
from workers import schema
from workers.store import JobStore, Record

log = logging.getLogger("recon.store")


class JobIndex:
    """Index of all jobs' records; re-reads only those whose ``state.json`` was replaced.

    Parameters
    ----------
    store
        Store of the jobs.
    """

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[tuple[int, int], Record]] = {}
        self._broken: dict[str, Exception] = {}
        self._ordered: list[Record] = []
        self._uploads: dict[str, frozenset[str]] = {}
        self._sizes: dict[str, int] = {}
        self._peaks: dict[str, int] = {}

    def records(self) -> list[Record]:
        """Current records of all jobs, newest first."""
        with self._lock:
            if self._refresh():
                found = (record for _, record in self._seen.values())
                self._ordered = sorted(found, key=lambda r: (r.created, r.id), reverse=True)
            return self._ordered

    def _refresh(self) -> bool:
        names = {name for path in self.store.jobs.iterdir() if not (name := path.name).startswith(".")}
        gone = self._seen.keys() - names
        for name in gone:
            del self._seen[name]
            self._uploads.pop(name, None)
            self._sizes.pop(name, None)
            self._peaks.pop(name, None)
        for name in self._broken.keys() - names:
            del self._broken[name]
        changed = bool(gone)
        for name in names:
            known = self._seen.get(name)
            if known is not None and known[1].terminal:
                continue  # final states stay as they are
            changed |= self._look(name, known[0] if known else None)
        return changed

    def _look(self, name: str, before: tuple[int, int] | None) -> bool:
        try:
            status = (self.store.jobs / name / "state.json").stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == before:
                return False
            self._seen[name] = (stamp, self.store.record(name))
        except (ReconError, OSError, ValueError, TypeError) as error:
            if name not in self._broken:  # once is enough
                log.error("%s is no readable job: %s", self.store.jobs / name, error)
            self._broken[name] = error
            return self._seen.pop(name, None) is not None
        self._broken.pop(name, None)
        return True

    def uploads(self, job_id: str) -> frozenset[str]:
        """Ids of the uploads that a job's specification names.

        Raises
        ------
        NotFound
            If there is no such job.
        ValueError
            If its specification is damaged.
        workers.schema.NewerStore
            If a newer version wrote it.
        """
        known = self._uploads.get(job_id)
        if known is None:
            known = self._uploads[job_id] = self.store.upload_ids(job_id)
        return known

    def require_readable(self) -> None:
        """Raise `workers.schema.NewerStore` if a newer version wrote a job, whose uploads are then unknown."""
        self.records()
        with self._lock:
            newer = next((e for e in self._broken.values() if isinstance(e, schema.NewerStore)), None)
        if newer is not None:
            raise newer

    def stored_bytes(self, record: Record) -> int:
        """Bytes of a job's results."""
        known = self._sizes.get(record.id)
        if known is None:
            known = folder_bytes(self.store.jobs / record.id / "output")
            if record.terminal:
                self._sizes[record.id] = known
        return known

    def peak_bytes(self, record: Record) -> int:
        """Peak memory of a succeeded job from its report; 0 if unknown."""
        if record.state != "succeeded":
            return 0
        known = self._peaks.get(record.id)
        if known is None:
            try:
                report = json.loads((self.store.jobs / record.id / "output" / "report.json").read_text())
            except FileNotFoundError:
                report = {}
            known = self._peaks[record.id] = int(report.get("peak_memory_bytes") or 0)
        return known


def folder_bytes(folder: Path) -> int:
    """Bytes of the files of a folder, without those of folders in it; 0 if there is none."""
    try:
        return sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
    except FileNotFoundError:
        return 0
