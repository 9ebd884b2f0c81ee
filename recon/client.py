"""A client of the HTTP API: the same specification as offline, with local files uploaded on the way."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from operators.errors import BackendUnavailable, Cancelled, InputError, ReconError
from recon.job import JobSpec

CHUNK = 2**20
TERMINAL = ("succeeded", "failed", "cancelled")


class ServerError(ReconError):
    """The server refused or failed; its own code, field and remedy are kept."""

    def __init__(self, body: dict[str, Any], status: int) -> None:
        super().__init__(str(body.get("detail", f"HTTP {status}")), field=body.get("field"), remedy=body.get("remedy"))
        self.code, self.status = str(body.get("code", "http_error")), status
        self.exit_code = 2 if 400 <= status < 500 else 3


class JobFailed(ReconError):
    """A job ended in an error; its own code, field and remedy are kept."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"], field=error.get("field"), remedy=error.get("remedy"))
        self.code = error["code"]
        self.exit_code = 2 if self.code.startswith("invalid") else 1


class Client:
    """A reconstruction server.

    Parameters
    ----------
    url
        For example ``http://127.0.0.1:8000``.
    timeout_s
        Of one request.
    """

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(self, path: Path) -> str:
        """Send a file, verified by its sha256, and return its upload id."""
        if not path.is_file():
            raise InputError(f"there is no file {path}", field="input.path")
        digest = _sha256(path)
        with path.open("rb") as stream:
            answer = self._request(
                "POST", "/v1/uploads", content=_chunks(stream), headers={"X-Checksum-SHA256": digest}
            )
        return str(answer.json()["id"])

    def submit(self, spec: JobSpec) -> dict[str, Any]:
        """Upload the job's local files and submit it; returns the job."""
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
            part["upload"] = self.upload(Path(file.path))
        job: dict[str, Any] = self._request("POST", "/v1/jobs", json=data).json()
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        """The job's state."""
        found: dict[str, Any] = self._request("GET", f"/v1/jobs/{job_id}").json()
        return found

    def jobs(self, state: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Jobs, newest first."""
        params: dict[str, str | int] = {"limit": limit, **({"state": state} if state else {})}
        found: list[dict[str, Any]] = self._request("GET", "/v1/jobs", params=params).json()["jobs"]
        return found

    def watch(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Poll as often as the server asks, yielding the job until it has ended."""
        while True:
            answer = self._request("GET", f"/v1/jobs/{job_id}")
            job = answer.json()
            yield job
            if job["state"] in TERMINAL:
                return
            time.sleep(float(answer.headers.get("Retry-After", "1")))

    def wait(self, job_id: str) -> dict[str, Any]:
        """Wait for the end; raises `ReconError` with the job's error unless it succeeded."""
        job: dict[str, Any] = {}
        for job in self.watch(job_id):  # noqa: B007 - the last one counts
            pass
        if job["state"] != "succeeded":
            if job["state"] == "cancelled":
                raise Cancelled(f"job {job_id} was cancelled")
            raise JobFailed(job["error"])
        return job

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for cancellation."""
        job: dict[str, Any] = self._request("DELETE", f"/v1/jobs/{job_id}").json()
        return job

    def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Download every result into `folder`; each is verified by its sha256."""
        files = self._request("GET", f"/v1/jobs/{job_id}/results").json()["files"]
        folder.mkdir(parents=True, exist_ok=True)
        fetched = []
        for entry in files:
            target = folder / Path(entry["name"]).name
            partial = target.with_name(f".{target.name}.partial")
            try:
                self._download(entry["href"], partial)
                if _sha256(partial) != entry["sha256"]:
                    raise BackendUnavailable(f"{entry['name']} arrived damaged", field="results", remedy="fetch again")
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            fetched.append(target)
        return fetched

    def ready(self) -> bool:
        """Whether the server accepts jobs."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _download(self, path: str, target: Path) -> None:
        try:
            with self._http.stream("GET", path) as answer, target.open("wb") as stream:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                for chunk in answer.iter_bytes(CHUNK):
                    stream.write(chunk)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> BackendUnavailable:
        return BackendUnavailable(
            f"no answer from {self._http.base_url}: {error}", field="url", remedy="is `recon serve` running?"
        )

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx.Response) -> ServerError:
    problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    return ServerError(answer.json() if problem else {}, answer.status_code)


def _chunks(stream: Any) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
