"""Many jobs: from a manifest to results and a summary, on this machine or through a server.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from operators.errors import Conflict, InputError, ReconError
from recon.client import Client
from recon.job import JobSpec

SUBMITTERS = 4
"""Connections that upload at the same time."""


@dataclass(frozen=True)
class Entry:
    """One job of a batch: its specification, or why it has none."""

    name: str
    spec: JobSpec | None
    error: str | None = None

    @property
    def input(self) -> str:
        """The file it reads."""
        return "" if self.spec is None else self.spec.input.path or ""


@dataclass(frozen=True)
class Row:
    """One line of the summary; `state` is succeeded, skipped (done before) or failed."""

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
    """One job a specification file."""
    return _unique([_read(path.stem, lambda path=path: JobSpec.read(path)) for path in paths])  # type: ignore[misc]


def of_glob(pattern: str, template: Path) -> list[Entry]:
    """One job a matching file, which becomes the template's input."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a user's pattern may be absolute
    if not matches:
        raise InputError(f"no file matches {pattern!r}", field="glob")
    rows = [{"name": _stem(match), "input.path": str(Path(match).resolve())} for match in matches]
    return _unique([_of_row(row, template, Path()) for row in rows])


def of_manifest(path: Path, template: Path | None) -> list[Entry]:
    """One job a row of a CSV file.

    Columns are dotted names of specification fields (``input.path``, ``method.iterations``, ``seed``), read as YAML;
    empty cells keep what the template says. ``name`` names the results; ``spec`` names a template for this row.
    Paths are relative to the manifest.
    """
    try:
        with path.open(newline="") as stream:
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
    """The row of a job whose results are in `out` already; raises `Conflict` if they are of another specification."""
    target = out / entry.name
    if entry.spec is None or not target.exists():
        return None
    try:
        known = json.loads((target / "report.json").read_text()).get("spec_sha256")
        mark = target / "batch.json"
        known = json.loads(mark.read_text())["spec_sha256"] if mark.exists() else known
    except (OSError, ValueError, KeyError) as error:
        raise Conflict(f"{target} holds no results that can be read", field="out", remedy="remove it") from error
    if known != entry.spec.sha256():
        raise Conflict(
            f"{target} holds results of another specification", field="out", remedy="remove it, or use another --out"
        )
    return replace(row_of(entry, target), state="skipped")


def row_of(entry: Entry, target: Path) -> Row:
    """The row of a job that has finished."""
    report = json.loads((target / "report.json").read_text())
    method, truth = report["method"]["name"], report["against_truth"]
    return Row(
        entry.name,
        entry.input,
        "succeeded",
        report["seconds"]["total"],
        report["data_misfit"][method],
        truth[method]["psnr"] if truth else None,
    )


def in_processes(entries: Iterable[Entry], out: Path, workers: int, finished: Finished) -> None:
    """Compute on this machine, `workers` jobs at once, each in a process of its own with its share of the cores."""
    threads = str(max((os.cpu_count() or 1) // workers, 1))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def compute(entry: Entry) -> None:
        assert entry.spec is not None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{entry.name}.json"
            file.write_text(json.dumps(entry.spec.model_dump(mode="json", exclude_unset=True)))
            command = [sys.executable, "-m", "recon.cli.main", "run", str(file), "--out", str(out / entry.name)]
            done = subprocess.run(command, env=env, capture_output=True, text=True)  # noqa: S603 - our own command
        if done.returncode == 0:
            finished(row_of(entry, out / entry.name))
            return
        lines = done.stderr.strip().splitlines()
        said = lines[-1].removeprefix("error: ") if lines else f"the process ended with status {done.returncode}"
        finished(failed(entry, said))

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(compute, entries))


def on_server(entries: Sequence[Entry], out: Path, client: Client, finished: Finished) -> None:
    """Submit everything, then fetch what comes; a job submitted before, by a batch that was stopped, is not again."""
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        submitted = pool.map(lambda entry: _submitted(entry, out, client), entries)
        for entry, found in zip(entries, submitted, strict=True):
            if isinstance(found, ReconError):
                finished(failed(entry, str(found)))
                continue
            finished(_fetched(entry, out, client, found))


def _submitted(entry: Entry, out: Path, client: Client) -> str | ReconError:
    """The id of the entry's job, or why there is none."""
    assert entry.spec is not None
    note = out / f".{entry.name}.submitted.json"
    digest = entry.spec.sha256()
    try:
        if note.exists():
            known = json.loads(note.read_text())
            if known["spec_sha256"] == digest and client.job(known["id"])["state"] not in ("failed", "cancelled"):
                return str(known["id"])
        job_id = str(client.submit(entry.spec)["id"])
    except ReconError as error:
        return error
    note.write_text(json.dumps({"id": job_id, "spec_sha256": digest}))
    return job_id


def _fetched(entry: Entry, out: Path, client: Client, job_id: str) -> Row:
    assert entry.spec is not None
    partial, target = out / f".{entry.name}.partial", out / entry.name
    try:
        client.wait(job_id)
        client.fetch(job_id, partial)
    except ReconError as error:
        return failed(entry, str(error))
    # The server's specification names uploads: what was asked for here is noted beside the results.
    (partial / "batch.json").write_text(json.dumps({"id": job_id, "spec_sha256": entry.spec.sha256()}))
    partial.replace(target)
    (out / f".{entry.name}.submitted.json").unlink()
    return row_of(entry, target)


def failed(entry: Entry, error: str) -> Row:
    """The row of a job without results."""
    return Row(entry.name, entry.input, "failed", error=error)


# --- the summary -----------------------------------------------------------------------------------------------------


def summarize(rows: Sequence[Row], out: Path, began: float) -> dict[str, Any]:
    """``summary.csv`` and ``summary.json`` in `out`; returns the latter."""
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
    """Rows in the order of the entries."""
    known = {row.name: row for row in rows}
    return (known[entry.name] for entry in entries if entry.name in known)
