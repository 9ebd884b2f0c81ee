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

from operators.errors import Diverged
from recon.measurement.measurement import Measurement
from recon.pipeline import peak, versions
from recon.pipeline.prepare import JobProgress, Prepared
from recon.pipeline.volumes import Volume, held
from recon.priors import registry
from recon.priors.prior import NetworkPrior
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import IntensityMap, Problem
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

    volume: Volume
    baselines: dict[str, Volume]
    errors: Tensor | None
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
        *_unfamiliar(judged.summary),
        *_doubt(method, judged.whitened, measurement.acquisition.SUSPECTS),
    ]
    truth = measurement.truth
    resident = peak.resident_bytes()  # after the misfits, which may be the first to need the operator
    return Report(
        name=spec.name,
        spec_sha256=spec.sha256(),
        method=method.model_dump(mode="json"),
        acquisition=measurement.acquisition.model_dump(mode="json", exclude_none=True),
        preparation=[] if measurement.preparation is None else measurement.preparation.steps,
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
    return ReportedNoise(**job.frozen._asdict(), source=method.frozen_noise or "shipped")


def _uncertainty(
    spec: JobSpec, inverse: InverseProblem, solved: Solved, measurement: Measurement
) -> Uncertainty | None:
    """Summarise the uncertainty map, and compare it with the true errors if the truth is known."""
    if solved.errors is None:
        return None
    found: dict[str, Any] = {"rms": _finite(float(solved.errors.square().mean().sqrt()), 6)}
    if measurement.truth is not None:
        error = np.abs(inverse.display(inverse.arranged(held(solved.volume).values)) - measurement.truth)
        found["rms_error"] = _finite(float(np.sqrt(np.square(error).mean())), 6)
        found["within_two"] = _finite(float((error <= 2 * solved.errors.numpy()).mean()), 4)
    return Uncertainty(replicates=spec.output.uncertainty, **found)


@dataclass(frozen=True)
class _Fit:
    """Fit of a volume to its data, slice by slice.

    Parameters
    ----------
    residuals, sizes
        Norms ``|A x - y|`` and ``|y|``, ``(slices,)``.
    noise
        Norm that noise alone would leave, ``(slices,)``.
    """

    residuals: Tensor
    sizes: Tensor
    noise: Tensor

    @classmethod
    def of(cls, inverse: InverseProblem, problem: Problem, volume: Tensor) -> _Fit:
        """Compare a volume with the data of a problem: of `inverse`, or that with white noise."""
        measured = torch.tensor([int(one.count_nonzero()) for one in problem.data[..., problem.measured]])
        return cls(*problem.residuals(volume), problem.noise * (measured * inverse.noisy_parts).sqrt())

    @classmethod
    def together(cls, slabs: list[_Fit]) -> _Fit:
        """Fit of all slabs."""
        parts = ([fit.residuals for fit in slabs], [fit.sizes for fit in slabs], [fit.noise for fit in slabs])
        return cls(*(torch.cat(part) for part in parts))

    @property
    def misfit(self) -> float:
        """Relative data misfit of the whole volume; the residual itself for data that are zero."""
        residual, size = torch.linalg.vector_norm(self.residuals), torch.linalg.vector_norm(self.sizes)
        return float(residual / size) if size > 0 else float(residual)

    @property
    def expected_misfit(self) -> float | None:
        """Relative misfit that noise alone would leave; a good reconstruction comes close to it, but not below."""
        size = torch.linalg.vector_norm(self.sizes)
        return float(torch.linalg.vector_norm(self.noise) / size) if bool(self.noise.any()) and size > 0 else None


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
        Percentiles of the slices that `judge` has seen.
    notes
        Remarks; those of a slab only if they say something else than other numbers.
    """

    judge: NetworkPrior | None
    fits: dict[str, _Fit]
    whitened: _Fit
    noise: list[Tensor] = field(default_factory=list)
    intensity: list[IntensityMap] = field(default_factory=list)
    familiarity: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> Familiarity | None:
        """Familiarity of the result: percentiles among slices like those that the judge was trained on."""
        if self.judge is None or not self.familiarity:
            return None
        median = float(torch.tensor(self.familiarity).median())
        return Familiarity(median=round(median, 1), lowest=round(min(self.familiarity), 1), judge=self.judge.card.name)


def _judged(
    job: Prepared, volumes: dict[str, Volume], result: str, span: tuple[float, float]
) -> Generator[JobProgress, None, _Judged]:
    """Judge the volumes of a job slab by slab."""
    fits: dict[str, list[_Fit]] = {name: [] for name in volumes}
    whitened: list[_Fit] = []
    empty = _Fit(*torch.zeros(3, 0))
    found = _Judged(_judge(job.prior), {}, empty, notes=list(job.inverse.notes))
    slices, first = volumes[result].slices, 0
    stride = max(slices // JUDGED_SLICES, 1)
    for inverse in job.slabs():
        yield JobProgress(span[0] + (span[1] - span[0]) * first / slices, "judging", first, slices)
        problem, last = inverse.problem, first + inverse.problem.slices
        for name, volume in volumes.items():
            fits[name].append(_Fit.of(inverse, problem, volume.part(first, last)))
        part, white = volumes[result].part(first, last), problem.whitened
        whitened.append(fits[result][-1] if white is problem else _Fit.of(inverse, white, part))
        found.noise.append(problem.noise)
        if job.prior is not None:
            found.intensity.append(inverse.intensity_map(job.prior.card))
        chosen = slice(-first % stride, None, stride)
        if found.judge is not None and len(part[chosen]):
            intensity = inverse.intensity_map(found.judge.card).part(chosen)
            shown = inverse.planes(inverse.arranged(part))[chosen]
            seen = found.judge.familiarity(intensity.to_prior(shown))
            found.familiarity += seen[seen.isfinite()].tolist()
        known = {_words(note) for note in found.notes}
        found.notes += [note for note in inverse.notes if _words(note) not in known]
        first = last
    found.fits = {name: _Fit.together(slabs) for name, slabs in fits.items()}
    found.whitened = _Fit.together(whitened)
    return found


def _judge(prior: NetworkPrior | None) -> NetworkPrior | None:
    """Prior that judges the familiarity of the result: the one used, or the one that its card names."""
    if prior is not None and prior.card.judge is not None:
        prior = registry.load(prior.card.judge)
    return None if prior is None or prior.card.familiarity is None else prior


def _words(note: str) -> str:
    """Note without its numbers."""
    return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "0", note)


def _unfamiliar(familiarity: Familiarity | None) -> list[str]:
    """Warn about images unlike those that the prior was trained on, if there is reason to."""
    if familiarity is None or familiarity.median >= UNFAMILIAR:
        return []
    return [
        f"prior {familiarity.judge} does not know such images (familiarity {familiarity.median} of 100, median of the"
        " slices): what the data leave open may be filled in wrongly; compare with the baselines"
    ]


def _doubt(method: Method, whitened: _Fit, suspects: str) -> list[str]:
    """Warn about slices of a result that do not fit the data, each sample weighted by its noise.

    Raises
    ------
    Diverged
        If an empty image would fit better.
    """
    residuals, sizes, noise = whitened.residuals, whitened.sizes, whitened.noise
    if not method.FITS_DATA or not bool(sizes.any()):
        return []
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
