"""Client of the HTTP API: takes the same specification as offline, and uploads local files on the way."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from operators.errors import Cancelled, Conflict, InputError, ReconError
from recon.client import event_stream, transfer
from recon.client.connection import PATIENCE_S, Connection, ServerError, retry_after
from recon.client.event_stream import Event
from recon.spec.contents import Contents
from recon.spec.job import JobSpec
from recon.spec.job_states import TERMINAL

__all__ = ["TERMINAL", "Client", "Event", "JobFailed", "ServerError"]
WAIT_S = 20
"""Seconds that one request waits for a job's end."""


class JobFailed(ReconError):
    """Error of a job that failed, with its own code, field and remedy."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"], field=error.get("field"), remedy=error.get("remedy"))
        self.code = error["code"]
        self.exit_code = 2 if self.code.startswith("invalid") else 1


class Client:
    """Client of a reconstruction server.

    Parameters
    ----------
    url
        For example ``http://127.0.0.1:8000``.
    key
        API key; None for a server without keys.
    timeout_s
        Timeout of one request.
    patience_s
        Time for which the server may be unreachable, for example during a restart. One that never answered is given
        up after two seconds.
    """

    def __init__(
        self, url: str, key: str | None = None, timeout_s: float = 60.0, patience_s: float = PATIENCE_S
    ) -> None:
        self._connection = Connection(url, key, timeout_s, patience_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.http.close()

    def reconstruct(self, array: NDArray[Any], spec: JobSpec | Mapping[str, Any]) -> NDArray[Any]:
        """Reconstruct an array on the server and return the volume, ``(slices, rows, cols)``.

        Parameters
        ----------
        array
            Measured data, as format ``numpy`` of the specification: a sinogram, k-space or a stack.
        spec
            The job without its input; slices in an input that it has are kept.

        Raises
        ------
        ReconError
            The job's or the server's own error.
        """
        given = spec.model_dump(mode="json", exclude_unset=True) if isinstance(spec, JobSpec) else dict(spec)
        with tempfile.TemporaryDirectory(prefix="recon-") as folder:
            path, out = Path(folder) / "array.npy", Path(folder) / "out"
            np.save(path, array, allow_pickle=False)
            slices = {k: v for k, v in (given.get("input") or {}).items() if k == "slices"}
            given["input"] = {"path": str(path), "format": "numpy", **slices}
            given["output"] = {"montage": False, "baselines": [], **(given.get("output") or {}), "format": "numpy"}
            job_id = self.submit(JobSpec.parse(given))["id"]
            try:
                self.wait(job_id)
            except KeyboardInterrupt:
                self.cancel(job_id)
                raise
            self.fetch(job_id, out)
            return np.load(out / "volume.npy", allow_pickle=False)  # type: ignore[no-any-return]

    def upload(self, path: Path) -> str:
        """Send a file, or a folder with all that is in it, verified by its sha256; returns the upload's id."""
        return transfer.upload(self._connection, path)

    def contents(self, upload_id: str, **chosen: str) -> Contents:
        """Contents of an upload: what it holds, what is missing, and a specification to start from.

        Parameters
        ----------
        chosen
            ``format``, ``file``, ``dataset`` or ``scan``, as in the specification's input, where there is a choice.
        """
        answer = self._connection.request("GET", f"/v1/uploads/{upload_id}/contents", params=chosen)
        return Contents.model_validate(answer.json())

    def with_uploads(self, spec: JobSpec) -> JobSpec:
        """Upload the job's local files and folders; returns the job as the server reads it."""
        data = spec.model_dump(mode="json", exclude_unset=True)
        for name, file in spec.files().items():
            if file.path is None:
                continue
            part = data
            for key in name.split("."):
                part = part[key]
            # The server sees no file name, so a format told by the name is sent along.
            if name == "input" and spec.input.resolved_format() is not None:
                part["format"] = spec.input.resolved_format()
            del part["path"]
            part["upload"] = transfer.upload(self._connection, Path(file.path), f"{name}.path")
        return JobSpec.parse(data)

    def submit(self, spec: JobSpec, once: str | None = None) -> dict[str, Any]:
        """Upload the job's local files and submit it; returns the job.

        However often the request has to be sent, it makes one job. `once` is the key under which the server knows
        that, a new one unless given. Sent again later under the same key, the job is one only if it is the same
        in every respect: keep what `with_uploads` gives, whose files are not sent again.
        """
        data = self.with_uploads(spec).model_dump(mode="json", exclude_unset=True)
        headers = {"Idempotency-Key": once or str(uuid.uuid4())}
        answer = self._connection.request("POST", "/v1/jobs", json=data, headers=headers, again=True)
        job: dict[str, Any] = answer.json()
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the job's state."""
        found: dict[str, Any] = self._connection.request("GET", f"/v1/jobs/{job_id}").json()
        return found

    def jobs(
        self, state: str | None = None, limit: int = 50, tag: str | None = None, name: str | None = None
    ) -> list[dict[str, Any]]:
        """List up to `limit` jobs, newest first, over as many pages as necessary."""
        chosen = {"state": state, "tag": tag, "name": name, "limit": str(max(1, min(limit, 1000)))}
        page = self._connection.request(
            "GET", "/v1/jobs", params={k: v for k, v in chosen.items() if v is not None}
        ).json()
        found: list[dict[str, Any]] = page["jobs"]
        while page["next"] and len(found) < limit:
            page = self._connection.request("GET", self._connection.below(page["next"])).json()
            found += page["jobs"]
        return found[:limit]

    def progress(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Yield the job's events as they happen until it has ended; reconnects without missing any."""
        return event_stream.follow(self._connection, job_id, after)

    def watch(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Poll as often as the server asks, yielding the job until it has ended."""
        while True:
            answer = self._connection.request("GET", f"/v1/jobs/{job_id}")
            job = answer.json()
            yield job
            if job["state"] in TERMINAL:
                return
            time.sleep(retry_after(answer, default=1.0))

    def wait(self, job_id: str) -> dict[str, Any]:
        """Wait for the end; raises `ReconError` with the job's error unless it succeeded."""
        while True:
            headers = {"Prefer": f"wait={WAIT_S}"}
            answer = self._connection.request("GET", f"/v1/jobs/{job_id}", headers=headers)
            job: dict[str, Any] = answer.json()
            if job["state"] == "cancelled":
                raise Cancelled(f"job {job_id} was cancelled")
            if job["state"] == "failed":
                raise JobFailed(job["error"])
            if job["state"] in TERMINAL:
                return job
            if "Preference-Applied" not in answer.headers:  # the server is too busy to wait: we do
                time.sleep(retry_after(answer, default=1.0))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Request cancellation."""
        job: dict[str, Any] = self._connection.request("DELETE", f"/v1/jobs/{job_id}").json()
        return job

    def purge(self, job_id: str) -> None:
        """Delete a finished job and its results from the server."""
        self._connection.request("DELETE", f"/v1/jobs/{job_id}", params={"purge": "1"}, again=False)

    def fetch(self, job_id: str, folder: Path, *, replace: bool = False) -> list[Path]:
        """Download every result into `folder`; each is verified by its sha256.

        Raises
        ------
        Conflict
            If another file of that name is there, unless it is to be replaced.
        """
        files = self._connection.request("GET", f"/v1/jobs/{job_id}/results").json()["files"]
        folder.mkdir(parents=True, exist_ok=True)
        fetched = []
        for entry in files:
            target = folder / Path(entry["name"]).name
            if target.name in ("", "..", "."):
                raise InputError(f"the server names a result {entry['name']!r}", field="results")
            fetched.append(target)
            if target.is_file() and not replace:
                if transfer.sha256(target) == entry["sha256"]:
                    continue
                raise Conflict(
                    f"{target} exists already, and is another file", field="out", remedy="choose another folder"
                )
            transfer.download(self._connection, self._connection.below(entry["href"]), target, entry["sha256"])
        return fetched

    def ready(self) -> bool:
        """Whether the server accepts jobs."""
        try:
            return self._connection.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False
