"""Judge the result of a job and write its report."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.errors import Diverged
from recon.measurement.measurement import Measurement
from recon.pipeline import peak, versions
from recon.pipeline.prepare import Prepared
from recon.priors.prior import NetworkPrior
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import Problem
from recon.spec.job import JobSpec
from recon.spec.methods import Diffusion, FrozenNoise, Method
from recon.spec.report import Duration, Familiarity, Intensity, Memory, Report, Scores, Uncertainty
from recon.spec.report import FrozenNoise as ReportedNoise

JUDGED_SLICES = 16
"""Minimum number of evenly spaced slices of the result that are judged for familiarity."""
UNFAMILIAR = 1.0
"""Familiarity percentile below which the report warns."""
NOTABLE_MISFIT, NOTABLE_TIMES = 0.1, 3.0
"""Relative data misfit, and multiple of the misfit from noise alone, from which the report warns."""
EMPTY_SHARE = 0.1
"""Share of the largest slice's data below which a slice is not judged by its misfit."""
HOPELESS_MISFIT = 1.2
"""Relative data misfit from which a job fails as diverged: an empty image has 1."""


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
    expected = _expected_misfit(inverse)
    noise = inverse.problem.noise
    notes = [
        *inverse.notes,
        *_unfamiliar(familiarity),
        *_doubt(method, inverse, solved.volume, measurement.acquisition.SUSPECTS),
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
        expected_misfit=expected,
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


def _unfamiliar(familiarity: Familiarity | None) -> list[str]:
    """Warn about images unlike those that the prior was trained on, if there is reason to."""
    if familiarity is None or familiarity.median >= UNFAMILIAR:
        return []
    return [
        f"prior {familiarity.judge} does not know such images (familiarity {familiarity.median} of 100, median of the"
        " slices): what the data leave open may be filled in wrongly; compare with the baselines"
    ]


def _expected_misfit(inverse: InverseProblem) -> float | None:
    """Relative misfit that noise alone would leave; a good reconstruction comes close to it, but not below."""
    problem = inverse.problem
    size = torch.linalg.vector_norm(problem.data[..., problem.measured])
    if not bool(problem.noise.any()) or size == 0:
        return None
    return float(torch.linalg.vector_norm(_noise_sizes(inverse, problem)) / size)


def _noise_sizes(inverse: InverseProblem, problem: Problem) -> Tensor:
    """Expected norm ``(slices,)`` of the noise in each slice's measured samples."""
    measured = torch.tensor([int(one.count_nonzero()) for one in problem.data[..., problem.measured]])
    return problem.noise * (measured * inverse.noisy_parts).sqrt()


def _doubt(method: Method, inverse: InverseProblem, volume: Tensor, suspects: str) -> list[str]:
    """Warn about slices of a result that do not fit the data, each sample weighted by its noise.

    Raises
    ------
    Diverged
        If an empty image would fit better.
    """
    problem = inverse.problem.whitened
    if not method.FITS_DATA or not bool(problem.data.any()):
        return []
    residuals, sizes = problem.residuals(volume)
    noise = _noise_sizes(inverse, problem)
    whole, size = (torch.linalg.vector_norm(v) for v in (residuals, sizes))
    allowed = NOTABLE_TIMES * torch.linalg.vector_norm(noise)
    if isinstance(method, Diffusion) and not whole <= max(HOPELESS_MISFIT * size, allowed):
        raise Diverged(
            f"the result of {method.name} fits the data worse than an empty image: relative misfit {whole / size:.3g}",
            field="method",
            remedy="leave its settings to their defaults, or lower the weight and the learning rate",
        )
    # A slice with next to nothing in it is missed by all of that, and it does not matter.
    judged = sizes > EMPTY_SHARE * sizes.max()
    doubtful = judged & ~(residuals < (NOTABLE_MISFIT * sizes).maximum(NOTABLE_TIMES * noise))
    if not bool(doubtful.any()):
        return []
    worst = int(torch.where(doubtful, residuals / sizes, -1.0).argmax())
    misfit, usual = float(residuals[worst] / sizes[worst]), float(noise[worst] / sizes[worst])
    where = "" if len(sizes) == 1 else f" in {int(doubtful.sum())} of {len(sizes)} slices, most in slice {worst},"
    told = f"; noise alone would leave {usual:.2g}" if usual > 0 else ""
    prior = ", or the prior overrules the data; compare with the baselines" if isinstance(method, Diffusion) else ""
    return [
        f"the result misses the data{where} by {misfit:.2g} of their size{told}. What may be wrong: {suspects}{prior}"
    ]


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
