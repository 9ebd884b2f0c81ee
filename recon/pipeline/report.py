"""Judge the result of a job and write its report."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.measurement.measurement import Measurement
from recon.pipeline import doubt, peak, versions
from recon.pipeline.doubt import Fit
from recon.pipeline.prepare import JobProgress, Prepared
from recon.pipeline.uncertainty import Errors
from recon.pipeline.volumes import Volume, held
from recon.priors import precision, registry
from recon.priors.prior import NetworkPrior
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import IntensityMap
from recon.quality import body
from recon.spec.job import JobSpec
from recon.spec.methods import FrozenNoise, Method
from recon.spec.methods.base import Splitting
from recon.spec.report import (
    Duration,
    Familiarity,
    Intensity,
    Memory,
    Report,
    Scores,
    Uncertainty,
    Undetermined,
)
from recon.spec.report import FrozenNoise as ReportedNoise

JUDGED_SLICES = 16
"""Minimum number of evenly spaced slices of the result that are judged for familiarity."""


@dataclass(frozen=True)
class Solved:
    """Solved job: the volumes as its solvers made them.

    Parameters
    ----------
    volume, baselines
        The result, and baselines by method.
    errors
        Expected errors and intervals in the result's unit, if requested.
    drawn
        What no sample determined, in the result's unit, and its shares, if requested.
    solve_s
        Seconds of the final reconstruction.
    resumed, given
        Chunks that an earlier attempt, and that other workers computed.
    """

    volume: Volume
    baselines: dict[str, Volume]
    errors: Errors | None
    drawn: tuple[Tensor, Undetermined] | None
    solve_s: float
    resumed: int
    given: int

    def volumes(self, name: str) -> dict[str, Volume]:
        """All volumes by method; the result's is `name`."""
        return {name: self.volume, **self.baselines}


def write_report(
    spec: JobSpec, job: Prepared, solved: Solved, started: float, span: tuple[float, float]
) -> Generator[JobProgress, None, Report]:
    """Judge a solved job that began at `started` on the monotonic clock, and write its report.

    Parameters
    ----------
    span
        Fractions of the job at which judging begins and ends.

    Raises
    ------
    Diverged
        If an empty image would fit the data better than the result.
    """
    inverse, measurement = job.inverse, job.measurement
    method = job.reconstructions[-1].settings
    volumes = solved.volumes(spec.method.name)
    evaluations = 0 if job.prior is None else job.prior.evaluations  # before judging adds its own
    judged = yield from _judged(job, volumes, spec.method.name, span)
    noise = torch.cat(judged.noise)
    notes = [
        *judged.notes,
        *([] if job.selection is None else [job.selection.text]),
        *([] if solved.drawn is None else [doubt.drawn(solved.drawn[1])]),
        *_of_noise(job, method),
        *_of_arithmetic(job, method),
        *doubt.unfamiliar(judged.summary, judged.familiarity, intervals=solved.errors is not None),
        *doubt.misfitting(method, judged.whitened, measurement.acquisition.SUSPECTS),
    ]
    truth = measurement.truth
    resident = peak.resident_bytes()  # after the misfits, which may be the first to need the operator
    return Report(
        name=spec.name,
        spec_sha256=spec.sha256(),
        method=method.model_dump(mode="json"),
        acquisition=measurement.acquisition.model_dump(mode="json", exclude_none=True),
        preparation=[*([] if measurement.preparation is None else measurement.preparation.steps), *inverse.steps],
        selection=job.selection,
        seed=spec.seed,
        unit=inverse.unit,
        shape=job.planned.shape,
        data_misfit={name: fit.misfit for name, fit in judged.fits.items()},
        noise_std=float(noise.square().mean().sqrt()),
        noise_std_range=(float(noise.min()), float(noise.max())),
        expected_misfit=judged.fits[spec.method.name].expected_misfit,
        against_truth=None if truth is None else _against_truth(truth, inverse, volumes),
        prior=None if job.prior is None else job.prior.card.model_dump(mode="json", exclude={"familiarity"}),
        intensity_map=None if job.prior is None else _intensity(judged.intensity),
        familiarity=judged.summary,
        uncertainty=_uncertainty(spec, inverse, solved, measurement),
        undetermined=None if solved.drawn is None else solved.drawn[1],
        frozen_noise=_noise(job, method),
        network_evaluations=evaluations,
        network_arithmetic=None if job.prior is None else job.prior.network.arithmetic,
        chunks_resumed=solved.resumed,
        chunks_by_other_workers=solved.given,
        notes=notes,
        provenance=measurement.provenance,
        seconds=Duration(solve=round(solved.solve_s, 3), total=round(time.monotonic() - started, 3)),
        peak_memory_bytes=resident,
        memory=Memory(peak_bytes=resident, planned_bytes=job.planned.memory_bytes, planned=job.planned.memory),
        versions=versions.installed(),
    )


def _intensity(maps: list[IntensityMap]) -> Intensity:
    """Intensity map of all slabs: one number, or one per slice."""
    return Intensity(scale=_listed(m.scale for m in maps), offset=_listed(m.offset for m in maps))


def _listed(values: Iterable[float | Tensor]) -> float | list[float]:
    found = list(values)
    tensors = [v for v in found if isinstance(v, Tensor)]
    return torch.cat(tensors).tolist() if tensors else float(found[0])


def _noise(job: Prepared, method: Method) -> ReportedNoise | None:
    if job.frozen is None or not isinstance(method, FrozenNoise):
        return None
    return ReportedNoise(seed=job.frozen.seed, amplitude=method.noise_amplitude, source=job.frozen.source)


def _of_noise(job: Prepared, method: Method) -> list[str]:
    """Remarks on the frozen noise, unless none of it enters."""
    if job.frozen is None or job.frozen.note is None or not isinstance(method, FrozenNoise):
        return []
    return [job.frozen.note] if method.noise_amplitude > 0 else []


def _of_arithmetic(job: Prepared, method: Method) -> list[str]:
    """Remark on the network's arithmetic, where it is not the one asked for."""
    if job.prior is None or not isinstance(method, Splitting) or not method.int8:
        return []
    used = job.prior.network.arithmetic
    if "int8" in used:
        return []
    return [f"the network computed in {used}, not in int8: {precision.lacks_int8() or 'it is on a GPU'}"]


def _uncertainty(
    spec: JobSpec, inverse: InverseProblem, solved: Solved, measurement: Measurement
) -> Uncertainty | None:
    """Summarise expected errors and intervals, and compare them with the true errors if the truth is known."""
    if solved.errors is None:
        return None
    shown = inverse.display(inverse.arranged(held(solved.volume).values))
    half = solved.errors.half_widths.numpy()
    found: dict[str, Any] = {
        "rms": _finite(float(solved.errors.expected.square().mean().sqrt()), 6),
        "interval": _finite(2 * float(half[body.inside(shown)].mean()), 6),
    }
    if measurement.truth is not None:
        error = np.abs(shown - measurement.truth)
        found["rms_error"] = _finite(float(np.sqrt(np.square(error).mean())), 6)
        found["held"] = _finite(float((error <= half)[body.inside(measurement.truth)].mean()), 4)
    return Uncertainty(replicates=spec.output.uncertainty, **found)


@dataclass
class _Judged:
    """Judgement of a result, slab by slab.

    Parameters
    ----------
    fits
        Fit of every volume, by name.
    whitened
        Fit of the result with each sample weighted by its noise.
    noise
        Noise standard deviation of each slice.
    intensity
        Maps to the prior's intensity scale.
    familiarity
        Percentile of each slice that `judge` has seen.
    notes
        Remarks; those of a slab only if they say something else than other numbers.
    """

    judge: NetworkPrior | None
    fits: dict[str, Fit]
    whitened: Fit
    noise: list[Tensor] = field(default_factory=list)
    intensity: list[IntensityMap] = field(default_factory=list)
    familiarity: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> Familiarity | None:
        """Familiarity of the result: percentiles among slices like those that the judge was trained on."""
        if self.judge is None or not self.familiarity:
            return None
        found = list(self.familiarity.values())
        median = float(torch.tensor(found).median())
        return Familiarity(median=round(median, 1), lowest=round(min(found), 1), judge=self.judge.card.name)


def _judged(
    job: Prepared, volumes: dict[str, Volume], result: str, span: tuple[float, float]
) -> Generator[JobProgress, None, _Judged]:
    """Judge the volumes of a job slab by slab."""
    fits: dict[str, list[Fit]] = {name: [] for name in volumes}
    whitened: list[Fit] = []
    empty = Fit(*torch.zeros(3, 0))
    found = _Judged(_judge(job.prior), {}, empty, notes=list(job.inverse.notes))
    slices, first = volumes[result].slices, 0
    stride = max(slices // JUDGED_SLICES, 1)
    for inverse in job.slabs():
        yield JobProgress(span[0] + (span[1] - span[0]) * first / slices, "judging", first, slices)
        problem, last = inverse.problem, first + inverse.problem.slices
        for name, volume in volumes.items():
            fits[name].append(Fit.of(inverse, problem, volume.part(first, last)))
        part, white = volumes[result].part(first, last), problem.whitened
        whitened.append(fits[result][-1] if white is problem else Fit.of(inverse, white, part))
        found.noise.append(problem.noise)
        if job.prior is not None:
            found.intensity.append(inverse.intensity_map(job.prior.card))
        seen_of = inverse.planes(inverse.arranged(part))
        chosen = of_scale = slice(-first % stride, None, stride)
        if problem.operator.whole_volume or len(seen_of) != len(part):  # slices of one piece, which share its intensity
            chosen = slice(0, None, max(len(seen_of) // JUDGED_SLICES, 1))
        if problem.operator.whole_volume:
            of_scale = slice(None)
        if found.judge is not None and len(seen_of[chosen]):
            intensity = inverse.intensity_map(found.judge.card).part(of_scale)
            seen = found.judge.familiarity(intensity.to_prior(seen_of[chosen]))
            places = range(first, first + len(seen_of))[chosen]
            found.familiarity |= {i: v for i, v in zip(places, seen.tolist(), strict=True) if math.isfinite(v)}
        known = {_words(note) for note in found.notes}
        found.notes += [note for note in inverse.notes if _words(note) not in known]
        first = last
    found.fits = {name: Fit.together(slabs) for name, slabs in fits.items()}
    found.whitened = Fit.together(whitened)
    return found


def _judge(prior: NetworkPrior | None) -> NetworkPrior | None:
    """Prior that judges the familiarity of the result: the one used, or the one that its card names."""
    if prior is not None and prior.card.judge is not None:
        prior = registry.load(prior.card.judge)
    return None if prior is None or prior.card.familiarity is None else prior


def _words(note: str) -> str:
    """Note without its numbers."""
    return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "0", note)


def _against_truth(
    truth: NDArray[np.float32], inverse: InverseProblem, volumes: dict[str, Volume]
) -> dict[str, Scores]:
    from recon.quality import metrics  # heavy, and only known volumes need it

    found = {}
    for name, volume in volumes.items():
        shown = inverse.display(inverse.arranged(held(volume).values))
        found[name] = Scores(
            psnr=_finite(metrics.psnr(shown, truth), 3),
            ssim=_finite(metrics.ssim(shown, truth), 4),
            nrmse=_finite(metrics.nrmse(shown, truth), 5),
        )
    return found


def _finite(value: float, digits: int) -> float | None:
    """Convert NaN, the score against a constant truth, to None, which is null in JSON."""
    return round(value, digits) if math.isfinite(value) else None
