"""Reconstruct a job: read, set up, solve, judge, write. The command line and the worker both call it.

Nothing is left half-written: results are made in a hidden folder and published by one rename. The finished chunks of
a stopped job stay in another hidden folder until it is run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from operators.errors import Diverged, InputError
from recon.pipeline import chunks, peak, uncertainty
from recon.pipeline.chunk_cache import ChunkCache, digest
from recon.pipeline.prepare import JobProgress, Prepared, Reconstruction, prepare, staged
from recon.pipeline.preview import preview
from recon.pipeline.publish import publish
from recon.pipeline.report import Solved, write_report
from recon.pipeline.streamed import Streamed
from recon.pipeline.uncertainty import Errors
from recon.pipeline.undetermined import undetermined
from recon.pipeline.volumes import HeldVolume, Volume, held
from recon.problem.problem import run as drive
from recon.spec.job import JobSpec
from recon.spec.report import Report
from recon.storage.atomic import check_new

Job = Generator[JobProgress, None, Report]
"""A running job yields `JobProgress` and returns its report."""
BASELINES_AT, RESULT_AT, JUDGING_AT, WRITING_AT = 0.05, 0.3, 0.95, 0.97
"""Fractions of a job at which its parts begin: reading is before the first, judging and writing after the last."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job that was solved and judged, before anything is written."""

    spec: JobSpec
    job: Prepared
    solved: Solved
    report: Report

    def held(self) -> Outcome:
        """The same with its volumes in memory, whatever becomes of the chunk cache."""
        baselines: dict[str, Volume] = {name: held(volume) for name, volume in self.solved.baselines.items()}
        return replace(self, solved=replace(self.solved, volume=held(self.solved.volume), baselines=baselines))

    def publish(self, out: Path) -> None:
        """Write volume, baselines, pictures and report to the folder `out`, all at once."""
        check_new(out)
        publish(self.spec, self.job.inverse, self.solved, self.report, out, self.job.measurement)


@dataclass(frozen=True)
class _Run:
    """Running job: a prepared one with its chunk cache."""

    spec: JobSpec
    job: Prepared
    cache: ChunkCache


def reconstruct(
    spec: JobSpec,
    files: Mapping[str, Path],
    out: Path,
    work: Path | None = None,
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
    invite
        Called with the number of chunks that other processes could compute with `recon.pipeline.prepare.assist`.

    Raises
    ------
    ReconError
        Whatever went wrong; closing the generator cancels the job. Either way `out` does not appear.
    """
    check_new(out)
    cache = ChunkCache(work or beside(out), invite)
    outcome = yield from solve(spec, files, cache)
    yield JobProgress(WRITING_AT, "writing")
    outcome.publish(out)
    if work is None:
        cache.clear()
    yield JobProgress(1.0, "done", measure=partial(getattr, outcome.report, "misfit"))
    return outcome.report


def solve(spec: JobSpec, files: Mapping[str, Path], cache: ChunkCache) -> Generator[JobProgress, None, Outcome]:
    """Run a job up to its report, and write nothing but finished chunks to `cache`; see `reconstruct`."""
    started = time.monotonic()
    peak.reset()
    job = yield from prepare(spec, files, cache.folder)
    run = _Run(spec, job, cache)
    end = RESULT_AT + (JUDGING_AT - RESULT_AT) / (1 + spec.output.uncertainty)
    volumes, solve_s = yield from _solved(run, end)
    volume = volumes.pop(spec.method.name)
    errors, drawn = None, None
    if spec.output.uncertainty or spec.says_undetermined:
        drawn = undetermined(job.inverse, held(volume).values)
    if spec.output.uncertainty and drawn is not None:
        errors = yield from _expected_errors(run, held(volume).values, drawn[0], (end, JUDGING_AT))
    asked = drawn if spec.says_undetermined else None
    solved = Solved(volume, volumes, errors, asked, solve_s, cache.reused, cache.given)
    report = yield from write_report(spec, job, solved, started, (JUDGING_AT, WRITING_AT))
    return Outcome(spec, job, solved, report)


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


def _solved(run: _Run, end: float) -> Generator[JobProgress, None, tuple[dict[str, Volume], float]]:
    """Compute the volumes of a job's reconstructions by name, and the seconds that the last one took."""
    volumes: dict[str, Volume] = {}
    every = run.job.reconstructions
    each = (RESULT_AT - BASELINES_AT) / max(len(every) - 1, 1)
    solve_s = 0.0
    for index, one in enumerate(every):
        span = (BASELINES_AT + each * index, BASELINES_AT + each * (index + 1))
        begun = time.monotonic()
        part = (RESULT_AT, end) if one is every[-1] else span
        picture = partial(preview, run.job.inverse)
        volumes[one.name] = yield from staged(_volume(run, one), one.label, part, picture)
        solve_s = time.monotonic() - begun
    return volumes, solve_s


def _volume(run: _Run, one: Reconstruction) -> chunks.Steps[Volume]:
    """Compute one reconstruction, in memory, or slab by slab."""
    stack, size = run.job.stack, run.job.planned.chunk
    if isinstance(stack, Streamed):
        return (yield from chunks.solve_apart(stack, one.settings, one.start, run.cache, one.key, size))
    return HeldVolume((yield from chunks.solve(stack, one.settings, one.start, run.cache, one.key, size)))


def _expected_errors(
    run: _Run, volume: Tensor, drawn: Tensor, span: tuple[float, float]
) -> Generator[JobProgress, None, Errors]:
    """Explain the errors of a volume by bootstrap replicates, by what no sample determined of it, and by its edges."""
    count, inverse, last = run.spec.output.uncertainty, run.job.inverse, run.job.reconstructions[-1]
    cache = ChunkCache(run.cache.folder)
    shown = torch.from_numpy(inverse.display(inverse.arranged(volume)))
    power, width = torch.zeros_like(shown), (span[1] - span[0]) / count
    for index in range(count):
        again = uncertainty.replicate(inverse, volume, index, run.spec.seed)
        start = partial(last.start, seed=(run.spec.seed + 1 + index) % 2**32)
        key = digest({"key": last.key, "replicate": index})
        steps = chunks.solve(again, last.settings, start, cache, key, run.job.planned.chunk)
        part = (span[0] + width * index, span[0] + width * (index + 1))
        found = yield from staged(steps, f"replicate {index + 1} of {count}", part)
        power += (torch.from_numpy(inverse.display(inverse.arranged(found))) - shown).square()
    clues = uncertainty.Clues.of(shown, power / count, drawn)
    operator = inverse.problem.operator
    sampling = operator.sampling_pattern, operator.undersampling
    return uncertainty.errors(clues, run.job.errors_like, inverse.modality, *sampling)
