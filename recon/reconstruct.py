"""The one path of every job: read, model, solve, judge, write. The command line and the worker both call it.

Nothing is left half-written: results are made in a hidden folder and published by one rename. Of a job that was
stopped, finished slabs stay in another hidden folder until it is run again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from torch import Tensor

from operators.errors import Conflict, Diverged, InputError
from recon import calibration, defaults, peak, plan, slabs, versions
from recon import model as models
from recon.disk import sync
from recon.formats import nifti, reader
from recon.job import JobSpec, MRIResolution
from recon.measurement import Measurement
from recon.methods import DEFAULT_PRIOR, QUICK, Boundary, Diffusion, Method
from recon.priors import registry as priors
from recon.priors.prior import NetworkPrior
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.solvers.problem import Axis, Progress

_METHODS: TypeAdapter[Method] = TypeAdapter(Method)
JUDGED_SLICES = 16
"""At least so many slices of the result, evenly spaced, are judged for familiarity."""
UNFAMILIAR = 1.0
"""Percentile below which the report warns."""


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: a fraction of the whole, and the stage it is in."""

    fraction: float
    stage: str
    step: int = 0
    steps: int = 0
    data_misfit: float | None = None


Job = Generator[JobProgress, None, dict[str, Any]]
"""A running job yields `JobProgress` and returns its report."""


def reconstruct(
    spec: JobSpec, files: Mapping[str, Path], out: Path, work: Path | None = None, slab: int = plan.SLAB
) -> Job:
    """Run a job and write its results to the folder `out`, which must not exist yet.

    Parameters
    ----------
    spec
        What to do.
    files
        Local path of each of ``spec.files()``.
    out
        Receives the volume, baselines, ``montage.png`` and ``report.json``, all at once.
    work
        Folder where finished slabs are kept until then, so that a job that was stopped can go on; by default a
        hidden one beside `out`.
    slab
        Slices that are solved at once in volumes of more than twice as many.

    Raises
    ------
    ReconError
        Whatever went wrong; closing the generator cancels the job. Either way `out` does not appear.
    """
    if out.exists():
        raise Conflict(f"{out} exists already", field="output", remedy="choose another folder or remove it")
    started = time.monotonic()
    peak.reset()
    yield JobProgress(0.0, "reading")
    measurement = reader.read(spec, files)
    planned = plan.make(spec, reader.outline(measurement, files))
    yield JobProgress(0.02, "modelling")
    model = models.build(measurement)
    shelf = slabs.Shelf(work or beside(out))
    measured = {"measurement": slabs.digest_of(measurement), "versions": versions.installed(), "seed": spec.seed}
    prior, axis = chosen_prior(spec.method, model)
    baselines: dict[str, Tensor] = {}
    wanted = _baselines(spec, measurement)
    for index, name in enumerate(wanted):
        span = (0.05 + 0.25 * index / len(wanted), 0.05 + 0.25 * (index + 1) / len(wanted))
        plain = _METHODS.validate_python({"name": name})
        settings = defaults.resolved(plain, measurement.acquisition.kind, model.problem)
        solver = partial(solvers.start, settings=settings)
        key = slabs.digest({**measured, "method": settings.model_dump(mode="json")})
        parts = slabs.solve(model.problem, settings, solver, shelf, key, slab)
        baselines[name] = yield from _stage(parts, f"baseline {name}", span)
    method = defaults.resolved(spec.method, measurement.acquisition.kind, model.problem)
    solving = time.monotonic()
    solver = partial(solvers.start, settings=method, prior=prior, axis=axis, seed=spec.seed)
    noise = _starting_noise(method, prior, model, spec.seed)
    weights = None if prior is None else prior.card.sha256
    key = slabs.digest({**measured, "method": method.model_dump(mode="json"), "prior": weights, "noise": noise})
    volume = yield from _stage(slabs.solve(model.problem, method, solver, shelf, key, slab), method.name, (0.3, 0.95))
    solve_s = time.monotonic() - solving
    evaluations = 0 if prior is None else prior.evaluations
    yield JobProgress(0.96, "judging")
    familiarity = _familiarity(prior, axis, volume)
    notes = list(model.notes)
    if familiarity is not None and familiarity["median"] < UNFAMILIAR:
        notes.append(
            f"the prior does not know such images (familiarity {familiarity['median']} of 100, median of the slices):"
            " what the data leave open may be filled in wrongly; compare with the baselines"
        )
    yield JobProgress(0.97, "writing")
    misfits = {k: model.problem.misfit(v) for k, v in {spec.method.name: volume, **baselines}.items()}
    volume, baselines = model.arranged(volume), {k: model.arranged(v) for k, v in baselines.items()}
    report = {
        "name": spec.name,
        "spec_sha256": spec.sha256(),
        "method": method.model_dump(mode="json"),
        "acquisition": measurement.acquisition.model_dump(mode="json", exclude_none=True),
        "seed": spec.seed,
        "unit": model.unit,
        "shape": list(volume.shape),
        "axes": ["slices", "rows", "cols"],
        "data_misfit": misfits,
        "noise_std": model.problem.noise_std,
        "expected_misfit": _expected_misfit(model),
        "against_truth": _against_truth(measurement, model, {spec.method.name: volume, **baselines}),
        "prior": None if prior is None else prior.card.model_dump(mode="json", exclude={"familiarity"}),
        "prior_axis": None if axis is None else {"scale": axis.scale, "offset": axis.offset},
        "familiarity": familiarity,
        "starting_noise": noise,
        "network_evaluations": evaluations,
        "slabs_resumed": shelf.reused,
        "notes": notes,
        "provenance": measurement.provenance,
        "seconds": {"solve": round(solve_s, 3), "total": round(time.monotonic() - started, 3)},
        "peak_memory_bytes": peak.resident_bytes(),
        "memory": {
            "peak_bytes": peak.resident_bytes(),
            "planned_bytes": planned.memory_bytes,
            "planned": planned.memory,
        },
        "versions": versions.installed(),
    }
    _publish(spec, model, volume, baselines, report, out)
    shelf.clear()
    yield JobProgress(1.0, "done", data_misfit=misfits[spec.method.name])
    return report


def run(
    spec: JobSpec,
    files: Mapping[str, Path],
    out: Path,
    on_progress: Callable[[JobProgress], None] | None = None,
    work: Path | None = None,
) -> dict[str, Any]:
    """Drive `reconstruct` to its end and return the report; an exception in `on_progress` stops the job."""
    job = reconstruct(spec, files, out, work)
    try:
        while True:
            progress = next(job)
            if on_progress is not None:
                on_progress(progress)
    except StopIteration as end:
        report: dict[str, Any] = end.value
        return report
    except (InputError, Diverged):
        slabs.Shelf(work or beside(out)).clear()  # it would fail again: there is nothing to go on with
        raise
    finally:
        job.close()


def beside(out: Path) -> Path:
    """Where the finished slabs of a job that writes to `out` are kept, unless somebody says otherwise."""
    return out.with_name(f".{out.name}.slabs")


def local_files(spec: JobSpec) -> dict[str, Path]:
    """The files of a job that runs on this machine; uploads exist on a server only."""
    found = {}
    for field, file in spec.files().items():
        if file.path is None:
            raise InputError("an upload id means nothing without a server", field=field, remedy="give a path")
        found[field] = Path(file.path)
    return found


def _baselines(spec: JobSpec, measurement: Measurement) -> list[str]:
    """What to compute beside the result; a method is no baseline of itself."""
    default = [QUICK[measurement.acquisition.kind]]
    wanted = default if spec.output.baselines is None else spec.output.baselines
    return [name for name in wanted if name != spec.method.name]


def _stage(
    parts: Generator[tuple[str, Progress], None, Tensor], stage: str, span: tuple[float, float]
) -> Generator[JobProgress, None, Tensor]:
    """Drive a solver, mapping its steps onto a span of the job's fraction."""
    try:
        while True:
            label, p = next(parts)
            fraction = span[0] + (span[1] - span[0]) * p.step / p.steps
            yield JobProgress(fraction, f"{stage}, {label}" if label else stage, p.step, p.steps, p.data_misfit)
    except StopIteration as end:
        volume: Tensor = end.value
        return volume
    finally:
        parts.close()


def chosen_prior(method: Method, model: models.Model) -> tuple[NetworkPrior | None, Axis | None]:
    """The prior that a method uses on a problem and the map to its axis; none for a method without.

    Raises
    ------
    InputError
        If the prior that is named is for other data.
    """
    if not isinstance(method, Diffusion):
        return None, None
    modality = "mri" if model.problem.operator.domain.complex else "ct"
    prior = priors.load(method.prior or _default_prior(method, modality, model.refined))
    if prior.card.modality != modality:
        raise InputError(
            f"prior {prior.card.name!r} is for {prior.card.modality}, the data are {modality}", field="method.prior"
        )
    if isinstance(method, Boundary):
        factor = None if model.refined is None else model.refined.factor
        if prior.card.super_resolution != factor:
            known = prior.card.super_resolution
            raise InputError(
                f"prior {prior.card.name!r} is for {'none' if known is None else f'x{known}'}, the data need x{factor}",
                field="method.prior",
                remedy="use a conditional prior of this factor, or another method",
            )
    elif prior.conditional:
        raise InputError(
            f"prior {prior.card.name!r} is conditional: it needs a low-resolution image of the same slice",
            field="method.prior",
            remedy=f"use one that is not, as {DEFAULT_PRIOR[modality]}",
        )
    return prior, model.prior_axis(prior.card)


def _default_prior(method: Diffusion, modality: str, refined: MRIResolution | None) -> str:
    name = DEFAULT_PRIOR[modality]
    return f"{name}-x{refined.factor}" if isinstance(method, Boundary) and refined is not None else name


def _starting_noise(
    method: Method, prior: NetworkPrior | None, model: models.Model, seed: int
) -> dict[str, Any] | None:
    """Which starting noise `boundary` used: its seed, and the calibration that chose it."""
    if not isinstance(method, Boundary) or prior is None or model.refined is None:
        return None
    used = calibration.seed_of(method, prior.card, model.refined.direction, seed)
    return {"seed": used, "calibration": method.calibration or "shipped"}


def _familiarity(prior: NetworkPrior | None, axis: Axis | None, volume: Tensor) -> dict[str, float] | None:
    """How usual the result's slices look to the prior, as percentiles of slices of the kind it was trained on."""
    if prior is None or axis is None or prior.card.familiarity is None:
        return None
    chosen = volume[:: max(len(volume) // JUDGED_SLICES, 1)]
    found = prior.familiarity(axis.to_prior(chosen))
    found = found[found.isfinite()]
    if not len(found):
        return None
    return {"median": round(float(found.median()), 1), "lowest": round(float(found.min()), 1)}


def _expected_misfit(model: models.Model) -> float | None:
    """The relative misfit that noise alone would leave: the reconstruction should come close, not below."""
    problem = model.problem
    size = float(problem.data.abs().square().sum())
    if problem.noise_std == 0.0 or size == 0.0:
        return None
    measured = int((problem.data != 0).sum())
    # A stack of magnitudes keeps the noise along the image only.
    parts = 2 if problem.data.is_complex() and model.refined is None else 1
    per_sample = problem.noise_std**2 * parts
    return float((measured * per_sample / size) ** 0.5)


def _against_truth(
    measurement: Measurement, model: models.Model, volumes: dict[str, Tensor]
) -> dict[str, dict[str, float | None]] | None:
    if measurement.truth is None:
        return None
    found = {}
    for name, volume in volumes.items():
        shown = model.display(volume)
        found[name] = {
            "psnr": _finite(metrics.psnr(shown, measurement.truth), 3),
            "ssim": _finite(metrics.ssim(shown, measurement.truth), 4),
            "nrmse": _finite(metrics.nrmse(shown, measurement.truth), 5),
        }
    return found


def _finite(value: float, digits: int) -> float | None:
    """A constant truth has no range to compare with: that is null in JSON."""
    return round(value, digits) if math.isfinite(value) else None


def _publish(
    spec: JobSpec, model: models.Model, volume: Tensor, baselines: dict[str, Tensor], report: dict[str, Any], out: Path
) -> None:
    """Write everything into a hidden folder beside `out`, then rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        named = {"volume": volume, **{f"baseline-{k}": v for k, v in baselines.items()}}
        for name, values in named.items():
            _write_volume(spec, model, partial, name, values)
        if spec.output.montage:
            from recon.quality import montage

            shown = {
                spec.method.name: model.display(volume),
                **{k: model.display(v) for k, v in baselines.items()},
            }
            montage.write(partial / "montage.png", shown, model.affine, model.unit, in_patient=model.in_patient)
        (partial / "job.json").write_text(json.dumps(spec.model_dump(mode="json", exclude_unset=True)) + "\n")
        (partial / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False, default=str) + "\n")
        for path in partial.iterdir():
            sync(path)
        os.replace(partial, out)
        sync(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_volume(spec: JobSpec, model: models.Model, folder: Path, name: str, volume: Tensor) -> None:
    if spec.output.format == "numpy":
        # Complex MRI stays complex; CT is in the result's unit.
        np.save(folder / f"{name}.npy", volume.numpy() if volume.is_complex() else model.display(volume))
        return
    nifti.write(folder / f"{name}.nii.gz", model.display(volume), model.affine, f"diffusion-recon, {model.unit}")
    if volume.is_complex() and name == "volume":
        nifti.write(folder / f"{name}-phase.nii.gz", volume.angle().numpy(), model.affine, "phase, rad")
