"""Reconstruct a job: read, set up, solve, judge, write. The command line and the worker both call it.

Nothing is left half-written: results are made in a hidden folder and published by one rename. The finished chunks of
a stopped job stay in another hidden folder until it is run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from operators.errors import Diverged, InputError
from recon.pipeline import chunks, peak, uncertainty
from recon.pipeline.chunk_cache import ChunkCache, digest
from recon.pipeline.prepare import JobProgress, Prepared, prepare, staged
from recon.pipeline.publish import publish
from recon.pipeline.report import Solved, write_report
from recon.problem.problem import run as drive
from recon.spec.job import JobSpec
from recon.spec.report import Report
from recon.storage.atomic import check_new

Job = Generator[JobProgress, None, Report]
"""A running job yields `JobProgress` and returns its report."""
BASELINES_AT, RESULT_AT, JUDGING_AT = 0.05, 0.3, 0.95
"""Fractions of a job at which its parts begin: reading is before the first, judging and writing after the last."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job that was solved and judged, before anything is written."""

    spec: JobSpec
    job: Prepared
    solved: Solved
    report: Report

    def publish(self, out: Path) -> None:
        """Write volume, baselines, pictures and report to the folder `out`, all at once."""
        check_new(out)
        publish(self.spec, self.job.inverse, self.solved, self.report, out)


@dataclass(frozen=True)
class _Run:
    """Running job: a prepared one with its chunk cache and chunk size."""

    spec: JobSpec
    job: Prepared
    cache: ChunkCache
    size: int


def reconstruct(
    spec: JobSpec,
    files: Mapping[str, Path],
    out: Path,
    work: Path | None = None,
    chunk: int | None = None,
    invite: Callable[[int], None] | None = None,
) -> Job:
    """Run a job and write its results to the folder `out`, which must not exist yet.

    Parameters
    ----------
    spec
        Specification of the job.
    files
        Local path of each of ``spec.files()``.
    out
        Receives the volume, baselines, ``montage.png`` and ``report.json``, all at once.
    work
        Folder where finished chunks are kept, so that a stopped job can be resumed; a caller that gives it removes it
        once the results are safe. Default: a hidden one beside `out`, removed once they are published.
    chunk
        Slices that are solved at once in volumes of more than twice as many; as planned when None.
    invite
        Called with the number of chunks that other processes could compute with `recon.pipeline.prepare.assist`.

    Raises
    ------
    ReconError
        Whatever went wrong; closing the generator cancels the job. Either way `out` does not appear.
    """
    check_new(out)
    cache = ChunkCache(work or beside(out), invite)
    outcome = yield from solve(spec, files, cache, chunk)
    yield JobProgress(0.97, "writing")
    outcome.publish(out)
    if work is None:
        cache.clear()
    yield JobProgress(1.0, "done", measure=partial(getattr, outcome.report, "misfit"))
    return outcome.report


def solve(
    spec: JobSpec, files: Mapping[str, Path], cache: ChunkCache, chunk: int | None = None
) -> Generator[JobProgress, None, Outcome]:
    """Run a job up to its report, and write nothing but finished chunks to `cache`; see `reconstruct`."""
    started = time.monotonic()
    peak.reset()
    job = yield from prepare(spec, files)
    run = _Run(spec, job, cache, chunk or job.planned.chunk)
    end = RESULT_AT + (JUDGING_AT - RESULT_AT) / (1 + spec.output.uncertainty)
    volumes, solve_s = yield from _solved(run, end)
    volume = volumes.pop(spec.method.name)
    errors = yield from _expected_errors(run, volume, (end, JUDGING_AT))
    yield JobProgress(0.96, "judging")
    solved = Solved(volume, volumes, errors, solve_s, cache.reused, cache.given)
    return Outcome(spec, job, solved, write_report(spec, job, solved, started))


def run(
    spec: JobSpec,
    files: Mapping[str, Path],
    out: Path,
    on_progress: Callable[[JobProgress], None] | None = None,
    work: Path | None = None,
    invite: Callable[[int], None] | None = None,
) -> Report:
    """Drive `reconstruct` to its end and return the report; an exception in `on_progress` stops the job."""
    try:
        return drive(reconstruct(spec, files, out, work, invite=invite), on_progress)
    except (InputError, Diverged):
        ChunkCache(work or beside(out)).clear()  # it would fail again: there is nothing to go on with
        raise


def beside(out: Path) -> Path:
    """Default folder for the finished chunks of a job that writes to `out`."""
    return out.with_name(f".{out.name}.chunks")


def _solved(run: _Run, end: float) -> Generator[JobProgress, None, tuple[dict[str, Tensor], float]]:
    """Compute the volumes of a job's reconstructions by name, and the seconds that the last one took."""
    volumes: dict[str, Tensor] = {}
    every = run.job.reconstructions
    each = (RESULT_AT - BASELINES_AT) / max(len(every) - 1, 1)
    solve_s = 0.0
    for index, one in enumerate(every):
        span = (BASELINES_AT + each * index, BASELINES_AT + each * (index + 1))
        begun = time.monotonic()
        steps = chunks.solve(run.job.inverse.problem, one.settings, one.start, run.cache, one.key, run.size)
        volumes[one.name] = yield from staged(steps, one.label, (RESULT_AT, end) if one is every[-1] else span)
        solve_s = time.monotonic() - begun
    return volumes, solve_s


def _expected_errors(
    run: _Run, volume: Tensor, span: tuple[float, float]
) -> Generator[JobProgress, None, Tensor | None]:
    """Compute the map of expected errors ``(slices, rows, cols)`` in the result's unit from bootstrap replicates."""
    count, inverse, last = run.spec.output.uncertainty, run.job.inverse, run.job.reconstructions[-1]
    if count == 0:
        return None
    cache = ChunkCache(run.cache.folder)
    shown = torch.from_numpy(inverse.display(inverse.arranged(volume)))
    power, width = torch.zeros_like(shown), (span[1] - span[0]) / count
    for index in range(count):
        again = uncertainty.replicate(inverse, volume, index, run.spec.seed)
        start = partial(last.start, seed=(run.spec.seed + 1 + index) % 2**32)
        key = digest({"key": last.key, "replicate": index})
        steps = chunks.solve(again, last.settings, start, cache, key, run.size)
        part = (span[0] + width * index, span[0] + width * (index + 1))
        found = yield from staged(steps, f"replicate {index + 1} of {count}", part)
        power += (torch.from_numpy(inverse.display(inverse.arranged(found))) - shown).square()
    return uncertainty.expected_errors(power / count, last.settings, inverse.modality)
