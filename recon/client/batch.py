"""Batches of jobs: from a manifest to results and a summary, on this machine or through a server.

A job that fails does not stop the others, and a batch that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from operators.errors import Conflict, InputError, ReconError
from recon.spec.job import JobSpec
from recon.spec.report import Report
from recon.storage.atomic import write_json

if TYPE_CHECKING:
    from recon.client.client import Client

SUBMITTERS = 4
"""Number of concurrent uploads."""


@dataclass(frozen=True)
class Entry:
    """Job of a batch: its specification, or the error in it."""

    name: str
    spec: JobSpec | None
    error: str | None = None

    @property
    def input(self) -> str:
        """Path of the input file."""
        return "" if self.spec is None else self.spec.input.path or ""


@dataclass(frozen=True)
class Row:
    """Row of the summary; `state` is succeeded, skipped (done before) or failed."""

    name: str
    input: str
    state: str
    seconds: float | None = None
    misfit: float | None = None
    psnr: float | None = None
    error: str | None = None


Finished = Callable[[Row], None]


# --- what to do ------------------------------------------------------------------------------------------------------


def of_specifications(paths: Sequence[Path]) -> list[Entry]:
    """Make one job per specification file."""
    return _unique([_read(path.stem, lambda path=path: JobSpec.read(path)) for path in paths])  # type: ignore[misc]


def of_glob(pattern: str, template: Path) -> list[Entry]:
    """Make one job per matching file, which becomes the template's input."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a user's pattern may be absolute
    if not matches:
        raise InputError(f"no file matches {pattern!r}", field="glob")
    rows = [{"name": _stem(match), "input.path": str(Path(match).resolve())} for match in matches]
    return _unique([_of_row(row, template, Path()) for row in rows])


def of_manifest(path: Path, template: Path | None) -> list[Entry]:
    """Make one job per row of a CSV file.

    Columns are dotted names of specification fields (``input.path``, ``method.iterations``, ``seed``), read as YAML;
    empty cells keep what the template says. ``name`` names the results; ``spec`` names a template for this row.
    Paths are relative to the manifest.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}", field="manifest") from error
    if not rows:
        raise InputError(f"{path} has no rows", field="manifest", remedy="the first line names the columns")
    return _unique([_of_row(row, template, path.parent, f"{path.stem}-{i + 1:04d}") for i, row in enumerate(rows)])


def _of_row(row: dict[str, str], template: Path | None, folder: Path, default: str = "job") -> Entry:
    row = {k: v for k, v in row.items() if k and v}
    own = row.pop("spec", None)
    base = folder / own if own else template
    name = row.pop("name", None) or (_stem(row["input.path"]) if "input.path" in row else default)

    def made() -> JobSpec:
        if "/" in name or name.startswith("."):
            raise InputError(f"{name!r} is no name of a folder", field="name")
        value = {} if base is None else JobSpec.read(base).model_dump(mode="json", exclude_unset=True)
        for field, text in row.items():
            _set(value, field, text)
        return JobSpec.parse(value, f"row {name!r}").with_base(folder)

    return _read(name, made)


def _set(value: dict[str, Any], field: str, text: str) -> None:
    """Set a dotted field; `method: tv` becomes a mapping when a part of it is set."""
    *parents, last = field.split(".")
    for key in parents:
        inner = value.get(key)
        if isinstance(inner, str):
            inner = {{"method": "name", "acquisition": "kind"}.get(key, "path"): inner}
        value[key] = inner = dict(inner or {})
        value = inner
    try:
        value[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} cannot be read", field=field) from error


def _read(name: str, make: Callable[[], JobSpec]) -> Entry:
    try:
        return Entry(name, make())
    except ReconError as error:
        return Entry(name, None, str(error))


def _unique(entries: list[Entry]) -> list[Entry]:
    names = [e.name for e in entries]
    doubles = sorted({n for n in names if names.count(n) > 1})
    if doubles:
        raise InputError(f"two jobs are named {doubles[0]!r}", field="name", remedy="name them in a manifest")
    return entries


def _stem(path: str) -> str:
    name = Path(path).name
    return name.removesuffix(".gz").rsplit(".", 1)[0] or name


# --- doing it --------------------------------------------------------------------------------------------------------


def done_before(entry: Entry, out: Path) -> Row | None:
    """Make the row of a job with results in `out`; raises `Conflict` if they are of another specification."""
    target = out / entry.name
    if entry.spec is None or not target.exists():
        return None
    try:
        known = Report.read(target / "report.json").spec_sha256
        mark = target / "batch.json"
        known = json.loads(mark.read_text())["spec_sha256"] if mark.exists() else known
        row = row_of(entry, target)
    except (InputError, OSError, ValueError, KeyError) as error:
        raise Conflict(f"{target} holds no results that can be read", field="out", remedy="remove it") from error
    if known != entry.spec.sha256():
        raise Conflict(
            f"{target} holds results of another specification", field="out", remedy="remove it, or use another --out"
        )
    return replace(row, state="skipped")


def row_of(entry: Entry, target: Path) -> Row:
    """Make the row of a finished job."""
    report = Report.read(target / "report.json")
    scores = report.scores
    return Row(
        entry.name,
        entry.input,
        "succeeded",
        report.seconds.total,
        report.misfit,
        None if scores is None else scores.psnr,
    )


def guarded(entry: Entry, out: Path, compute: Callable[[], Row]) -> Row:
    """Run `compute` for its row; an error in it fails only this entry and stops no other.

    An unexpected error leaves its traceback in ``NAME.log`` of `out`.
    """
    log = _log(entry, out)
    log.unlink(missing_ok=True)
    try:
        return compute()
    except ReconError as error:
        return failed(entry, str(error))
    except Exception as error:  # noqa: BLE001 - it is told, and the batch goes on
        log.write_text("".join(traceback.format_exception(error)))
        return failed(entry, f"{type(error).__name__}: {error} (see {log})")


def in_processes(entries: Iterable[Entry], out: Path, workers: int, finished: Finished) -> None:
    """Compute on this machine, `workers` jobs at once, each in a process of its own with its share of the cores."""
    threads = str(max((os.cpu_count() or 1) // workers, 1))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def compute(entry: Entry) -> Row:
        assert entry.spec is not None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{entry.name}.json"
            file.write_text(json.dumps(entry.spec.model_dump(mode="json", exclude_unset=True)))
            command = [sys.executable, "-m", "recon.cli.main", "run", str(file), "--out", str(out / entry.name)]
            done = subprocess.run(command, env=env, capture_output=True, text=True)  # noqa: S603 - our own command
        if done.returncode == 0:
            return row_of(entry, out / entry.name)
        lines = done.stderr.strip().splitlines()
        said = lines[-1].removeprefix("error: ") if lines else f"the process ended with status {done.returncode}"
        if len(lines) > 1:  # more than one of our errors: a traceback
            _log(entry, out).write_text(done.stderr)
            said += f" (see {_log(entry, out)})"
        return failed(entry, said)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda entry: finished(guarded(entry, out, lambda: compute(entry))), entries))


def _log(entry: Entry, out: Path) -> Path:
    return out / f"{entry.name}.log"


# --- on a server -----------------------------------------------------------------------------------------------------


def on_server(entries: Sequence[Entry], out: Path, client: Client, finished: Finished) -> None:
    """Submit all jobs, then fetch results as they come; jobs that an earlier, stopped batch submitted are reused.

    Raises
    ------
    BackendUnavailable, ServerError
        Before anything is submitted, if the server cannot be reached or does not let us in.
    """
    if entries:
        client.jobs(limit=1)
    pool = ThreadPoolExecutor(SUBMITTERS)
    try:
        submitted = [pool.submit(_submitted, entry, out, client) for entry in entries]
        for entry, job in zip(entries, submitted, strict=True):
            finished(guarded(entry, out, partial(_fetched, entry, out, client, job)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # who interrupts a batch wants no more jobs submitted


def _submitted(entry: Entry, out: Path, client: Client) -> str:
    """Submit the entry's job if necessary; returns its id."""
    assert entry.spec is not None
    note, digest = _note(entry, out), entry.spec.sha256()
    known = _known_job(note, digest, client)
    if known is not None:
        return known
    # Noted before it is sent: after a crash the same request under the same key is the same job.
    sent, once = client.with_uploads(entry.spec), str(uuid.uuid4())
    said = {"spec_sha256": digest, "once": once, "sent": sent.model_dump(mode="json", exclude_unset=True)}
    write_json(note, said)
    job_id = str(client.submit(sent, once)["id"])
    write_json(note, {**said, "id": job_id})
    return job_id


def _known_job(note: Path, digest: str, client: Client) -> str | None:
    """Find the job that an earlier batch submitted or was about to; None if no results can come from it."""
    from recon.client.connection import ServerError

    if not note.exists():
        return None
    try:
        known = json.loads(note.read_text())
        if known["spec_sha256"] != digest:
            return None
        job = client.job(known["id"]) if "id" in known else client.submit(JobSpec.parse(known["sent"]), known["once"])
    except ServerError as error:
        if error.status in (404, 410):  # the job, or what was uploaded for it, has been deleted
            return None
        raise
    except (OSError, ValueError, KeyError) as error:
        raise Conflict(f"{note} cannot be read: {error}", field="out", remedy="remove it") from error
    return None if job["state"] in ("failed", "cancelled") else str(job["id"])


def _fetched(entry: Entry, out: Path, client: Client, submitted: Future[str]) -> Row:
    assert entry.spec is not None
    job_id = submitted.result()
    arriving, target = out / f".{entry.name}.partial", out / entry.name
    client.wait(job_id)
    client.fetch(job_id, arriving, replace=True)
    # The server's specification names uploads: what was asked for here is noted beside the results.
    write_json(arriving / "batch.json", {"id": job_id, "spec_sha256": entry.spec.sha256()})
    arriving.replace(target)
    _note(entry, out).unlink()
    return row_of(entry, target)


def _note(entry: Entry, out: Path) -> Path:
    return out / f".{entry.name}.submitted.json"


# --- what became of it -----------------------------------------------------------------------------------------------


def failed(entry: Entry, error: str) -> Row:
    """Make the row of a job without results."""
    return Row(entry.name, entry.input, "failed", error=error)


def summarize(rows: Sequence[Row], out: Path, began: float) -> dict[str, Any]:
    """Write ``summary.csv`` and ``summary.json`` to `out`; returns the content of the latter."""
    names = [f.name for f in fields(Row)]
    with (out / "summary.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    states = [row.state for row in rows]
    counts = {state: states.count(state) for state in ("succeeded", "skipped", "failed")}
    value = {**counts, "seconds": round(time.monotonic() - began, 1), "jobs": [asdict(row) for row in rows]}
    (out / "summary.json").write_text(json.dumps(value, indent=2) + "\n")
    return value


def ordered(rows: Iterable[Row], entries: Sequence[Entry]) -> Iterator[Row]:
    """Sort rows in the order of the entries."""
    known = {row.name: row for row in rows}
    return (known[entry.name] for entry in entries if entry.name in known)
