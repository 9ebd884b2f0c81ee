"""Command ``recon batch``."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from operators.errors import Conflict, InputError, ReconError
from recon.cli.remote import connect
from recon.cli.show import bar, on_bar, table
from recon.client import batch as batches


def batch(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    specs: Annotated[list[Path] | None, typer.Argument(help="Job specifications.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV: one job per row; columns are fields such as input.path or method.name.")
    ] = None,
    pattern: Annotated[str | None, typer.Option("--glob", help="A job for each matching file.")] = None,
    template: Annotated[Path | None, typer.Option(help="Specification that manifest or glob fill in.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Jobs computed at once, on this machine.")] = 1,
    server: Annotated[
        str | None, typer.Option(help="URL of a server that computes instead; its key is in RECON_API_KEY.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip jobs whose results exist.")] = False,
) -> None:
    """Reconstruct many jobs; one that fails does not stop the rest. Exit status 1 if any failed."""
    entries = _entries(specs or [], manifest, pattern, template)
    if server is not None and workers > 1:
        raise InputError("computing is up to the server", field="workers", remedy="leave out --workers or --server")
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    rows: list[batches.Row] = []
    one_at_a_time = threading.Lock()
    with bar() as progress:
        whole = progress.add_task("all jobs", total=len(entries), detail="")

        def finished(row: batches.Row) -> None:
            with one_at_a_time:
                rows.append(row)
                progress.advance(whole)
                # Written after every job: a batch that is stopped leaves what it knew.
                batches.summarize(list(batches.ordered(rows, entries)), out, began)

        todo = [entry for entry in entries if not _settled(entry, out, finished, resume=resume)]
        if server is not None:
            with connect(server) as client:
                batches.on_server(todo, out, client, finished)
        elif workers > 1:
            batches.in_processes(todo, out, workers, finished)
        else:
            for entry in todo:
                finished(batches.guarded(entry, out, partial(_here, entry, out, progress)))
    shown = list(batches.ordered(rows, entries))
    counts = batches.summarize(shown, out, began)
    title = f"{len(rows) - counts['failed']} of {len(rows)} jobs done, results and summary in {out}"
    table(["job", "outcome"], [[row.name, _outcome(row)] for row in shown], title)
    if counts["failed"]:
        raise typer.Exit(1)


def _entries(
    specs: list[Path], manifest: Path | None, pattern: str | None, template: Path | None
) -> list[batches.Entry]:
    if sum(bool(given) for given in (specs, manifest, pattern)) != 1:
        raise InputError("give specifications, or --manifest, or --glob", field="specs")
    if manifest is not None:
        return batches.of_manifest(manifest, template)
    if pattern is not None:
        if template is None:
            raise InputError("needed with --glob", field="template", remedy="give a specification to fill in")
        return batches.of_glob(pattern, template)
    return batches.of_specifications(specs)


def _settled(entry: batches.Entry, out: Path, finished: Any, *, resume: bool) -> bool:
    """Whether there is nothing to compute: results exist, or the job cannot be read."""
    if entry.spec is None:
        finished(batches.failed(entry, entry.error or "unreadable"))
        return True
    target = out / entry.name
    try:
        if not resume and target.exists():
            raise Conflict(f"{target} exists already", field="output", remedy="use --resume, or another --out")
        row = batches.done_before(entry, out)
    except ReconError as error:
        row = batches.failed(entry, str(error))
    if row is not None:
        finished(row)
    return row is not None


def _here(entry: batches.Entry, out: Path, progress: Any) -> batches.Row:
    """Compute in this process, which keeps system matrices and networks from job to job."""
    from recon.pipeline.reconstruct import run
    from recon.spec.job import local_files

    assert entry.spec is not None
    run(entry.spec, local_files(entry.spec), out / entry.name, on_bar(progress, entry.name))
    return batches.row_of(entry, out / entry.name)


def _outcome(row: batches.Row) -> str:
    if row.state == "failed":
        return f"failed: {row.error}"
    text = f"misfit {row.misfit:.4f}" + (f", PSNR {row.psnr} dB" if row.psnr is not None else "")
    return f"done before, {text}" if row.state == "skipped" else f"{text}, {row.seconds:.0f} s"
