"""Judge the result of a job and write its report."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from recon.measurement.measurement import Measurement
from recon.pipeline import doubt, peak, versions
from recon.pipeline.prepare import Prepared
from recon.priors.prior import NetworkPrior
from recon.problem.inverse_problem import InverseProblem
from recon.spec.job import JobSpec
from recon.spec.methods import FrozenNoise, Method
from recon.spec.report import Duration, Familiarity, Intensity, Memory, Report, Scores, Uncertainty
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
        Map of expected errors in the result's unit, if requested.
    solve_s
        Seconds of the final reconstruction.
    resumed, given
        Chunks that an earlier attempt, and that other workers computed.
    """

    volume: Tensor
    baselines: dict[str, Tensor]
    errors: Tensor | None
    solve_s: float
    resumed: int
    given: int


def write_report(spec: JobSpec, job: Prepared, solved: Solved, started: float) -> Report:
    """Judge a solved job that began at `started` on the monotonic clock, and write its report.

    Raises
    ------
    Diverged
        If an empty image would fit the data better than the result.
    """
    inverse, measurement = job.inverse, job.measurement
    method = job.reconstructions[-1].settings
    volumes = {spec.method.name: solved.volume, **solved.baselines}
    evaluations = 0 if job.prior is None else job.prior.evaluations  # before judging adds its own
    familiarity = _familiarity(job.judge, inverse, inverse.planes(inverse.arranged(solved.volume)))
    noise = inverse.problem.noise
    notes = [
        *inverse.notes,
        *doubt.unfamiliar(familiarity),
        *doubt.misfitting(method, inverse, solved.volume, measurement.acquisition.SUSPECTS),
    ]
    shape = tuple(inverse.arranged(solved.volume).shape)
    misfits = {name: inverse.problem.misfit(volume) for name, volume in volumes.items()}
    against_truth = _against_truth(measurement, inverse, volumes)
    resident = peak.resident_bytes()  # after the misfits, which may be the first to need the operator
    return Report(
        name=spec.name,
        spec_sha256=spec.sha256(),
        method=method.model_dump(mode="json"),
        acquisition=measurement.acquisition.model_dump(mode="json", exclude_none=True),
        seed=spec.seed,
        unit=inverse.unit,
        shape=(shape[0], shape[1], shape[2]),
        data_misfit=misfits,
        noise_std=float(noise.square().mean().sqrt()),
        noise_std_range=(float(noise.min()), float(noise.max())),
        expected_misfit=doubt.expected_misfit(inverse),
        against_truth=against_truth,
        prior=None if job.prior is None else job.prior.card.model_dump(mode="json", exclude={"familiarity"}),
        intensity_map=None
        if job.intensity is None
        else Intensity(scale=_listed(job.intensity.scale), offset=_listed(job.intensity.offset)),
        familiarity=familiarity,
        uncertainty=_uncertainty(spec, inverse, solved, measurement),
        frozen_noise=_noise(job, method),
        network_evaluations=evaluations,
        chunks_resumed=solved.resumed,
        chunks_by_other_workers=solved.given,
        notes=notes,
        provenance=measurement.provenance,
        seconds=Duration(solve=round(solved.solve_s, 3), total=round(time.monotonic() - started, 3)),
        peak_memory_bytes=resident,
        memory=Memory(peak_bytes=resident, planned_bytes=job.planned.memory_bytes, planned=job.planned.memory),
        versions=versions.installed(),
    )


def _listed(values: float | Tensor) -> float | list[float]:
    return values.tolist() if isinstance(values, Tensor) else values


def _noise(job: Prepared, method: Method) -> ReportedNoise | None:
    if job.frozen is None or not isinstance(method, FrozenNoise):
        return None
    return ReportedNoise(**job.frozen._asdict(), source=method.frozen_noise or "shipped")


def _uncertainty(
    spec: JobSpec, inverse: InverseProblem, solved: Solved, measurement: Measurement
) -> Uncertainty | None:
    """Summarise the uncertainty map, and compare it with the true errors if the truth is known."""
    if solved.errors is None:
        return None
    found: dict[str, Any] = {"rms": _finite(float(solved.errors.square().mean().sqrt()), 6)}
    if measurement.truth is not None:
        error = np.abs(inverse.display(inverse.arranged(solved.volume)) - measurement.truth)
        found["rms_error"] = _finite(float(np.sqrt(np.square(error).mean())), 6)
        found["within_two"] = _finite(float((error <= 2 * solved.errors.numpy()).mean()), 4)
    return Uncertainty(replicates=spec.output.uncertainty, **found)


def _familiarity(judge: NetworkPrior | None, inverse: InverseProblem, volume: Tensor) -> Familiarity | None:
    """Familiarity of the result's slices: percentiles among slices like those that the judge was trained on."""
    if judge is None:
        return None
    chosen = slice(None, None, max(len(volume) // JUDGED_SLICES, 1))
    intensity = inverse.intensity_map(judge.card).part(chosen)
    found = judge.familiarity(intensity.to_prior(volume[chosen]))
    found = found[found.isfinite()]
    if not len(found):
        return None
    return Familiarity(
        median=round(float(found.median()), 1), lowest=round(float(found.min()), 1), judge=judge.card.name
    )


def _against_truth(
    measurement: Measurement, inverse: InverseProblem, volumes: dict[str, Tensor]
) -> dict[str, Scores] | None:
    if measurement.truth is None:
        return None
    from recon.quality import metrics  # heavy, and only known volumes need it

    found = {}
    for name, volume in volumes.items():
        shown = inverse.display(inverse.arranged(volume))
        found[name] = Scores(
            psnr=_finite(metrics.psnr(shown, measurement.truth), 3),
            ssim=_finite(metrics.ssim(shown, measurement.truth), 4),
            nrmse=_finite(metrics.nrmse(shown, measurement.truth), 5),
        )
    return found


def _finite(value: float, digits: int) -> float | None:
    """Convert NaN, the score against a constant truth, to None, which is null in JSON."""
    return round(value, digits) if math.isfinite(value) else None
