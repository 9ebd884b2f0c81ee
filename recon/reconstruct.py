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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import Diverged, InputError
from recon import model as models
from recon import peak, replicas, slabs, versions
from recon.disk import check_new, sync
from recon.formats import nifti
from recon.job import JobSpec
from recon.measurement import Measurement
from recon.methods import Diffusion, Method
from recon.prepare import JobProgress, Prepared, prepare, staged
from recon.priors.prior import NetworkPrior
from recon.quality import metrics

JUDGED_SLICES = 16
"""At least so many slices of the result, evenly spaced, are judged for familiarity."""
UNFAMILIAR = 1.0
"""Percentile below which the report warns."""

NOTABLE_MISFIT, NOTABLE_TIMES = 0.1, 3.0
"""Relative data misfit, and times that which noise alone would leave, from which the report warns."""
HOPELESS_MISFIT = 1.2
"""From which there is no result: an empty image has 1."""

Job = Generator[JobProgress, None, dict[str, Any]]
"""A running job yields `JobProgress` and returns its report."""


def reconstruct(
    spec: JobSpec,
    files: Mapping[str, Path],
    out: Path,
    work: Path | None = None,
    slab: int | None = None,
    invite: Callable[[int], None] | None = None,
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
        Folder where finished slabs are kept, so that a job that was stopped can go on; whoever names it removes it,
        once the results are safe. By default a hidden one beside `out`, which goes when they are there.
    slab
        Slices that are solved at once in volumes of more than twice as many; as planned when None.
    invite
        Called with the number of slabs that other processes could compute with `recon.prepare.assist`.

    Raises
    ------
    ReconError
        Whatever went wrong; closing the generator cancels the job. Either way `out` does not appear.
    """
    check_new(out)
    started = time.monotonic()
    peak.reset()
    job = yield from prepare(spec, files)
    measurement, model, prior, axis = job.measurement, job.model, job.prior, job.axis
    shelf = slabs.Shelf(work or beside(out), invite)
    volumes: dict[str, Tensor] = {}
    each = 0.25 / max(len(job.stages) - 1, 1)
    solved_at = 0.3 + 0.65 / (1 + spec.output.uncertainty)
    for index, stage in enumerate(job.stages):
        span = (0.05 + each * index, 0.05 + each * (index + 1)) if stage is not job.stages[-1] else (0.3, solved_at)
        solving = time.monotonic()
        size = slab or job.planned.slab
        parts = slabs.solve(
            model.problem, stage.settings, stage.start, shelf, stage.key, size, neighbours=stage.neighbours
        )
        volumes[stage.name] = yield from staged(parts, stage.label, span)
        solve_s = time.monotonic() - solving
    method, baselines = job.stages[-1].settings, volumes
    volume = volumes.pop(spec.method.name)
    size = slab or job.planned.slab
    uncertainty = yield from _uncertainty(spec, job, volume, slabs.Shelf(shelf.folder), size, (solved_at, 0.95))
    evaluations = 0 if prior is None else prior.evaluations
    yield JobProgress(0.96, "judging")
    familiarity = _familiarity(job.judge, model, volume)
    notes = list(model.notes)
    if familiarity is not None and familiarity["median"] < UNFAMILIAR:
        notes.append(
            f"prior {familiarity['judge']} does not know such images (familiarity {familiarity['median']} of 100,"
            " median of the slices):"
            " what the data leave open may be filled in wrongly; compare with the baselines"
        )
    misfits = {k: model.problem.misfit(v) for k, v in {spec.method.name: volume, **baselines}.items()}
    expected = _expected_misfit(model)
    doubt = _doubt(method, model, volume, expected)
    notes += [] if doubt is None else [doubt]
    yield JobProgress(0.97, "writing")
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
        "expected_misfit": expected,
        "against_truth": _against_truth(measurement, model, {spec.method.name: volume, **baselines}),
        "prior": None if prior is None else prior.card.model_dump(mode="json", exclude={"familiarity"}),
        "prior_axis": None if axis is None else {"scale": axis.scale, "offset": axis.offset},
        "familiarity": familiarity,
        "uncertainty": None if uncertainty is None else _of_uncertainty(spec, model, volume, measurement, uncertainty),
        "starting_noise": job.noise,
        "network_evaluations": evaluations,
        "slabs_resumed": shelf.reused,
        "slabs_by_other_workers": shelf.given,
        "notes": notes,
        "provenance": measurement.provenance,
        "seconds": {"solve": round(solve_s, 3), "total": round(time.monotonic() - started, 3)},
        "peak_memory_bytes": peak.resident_bytes(),
        "memory": {
            "peak_bytes": peak.resident_bytes(),
            "planned_bytes": job.planned.memory_bytes,
            "planned": job.planned.memory,
        },
        "versions": versions.installed(),
    }
    _publish(spec, model, volume, baselines, uncertainty, report, out)
    if work is None:
        shelf.clear()
    yield JobProgress(1.0, "done", measure=partial(misfits.__getitem__, spec.method.name))
    return report


def run(
    spec: JobSpec,
    files: Mapping[str, Path],
    out: Path,
    on_progress: Callable[[JobProgress], None] | None = None,
    work: Path | None = None,
    invite: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Drive `reconstruct` to its end and return the report; an exception in `on_progress` stops the job."""
    job = reconstruct(spec, files, out, work, invite=invite)
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


def _uncertainty(
    spec: JobSpec, job: Prepared, volume: Tensor, shelf: slabs.Shelf, size: int, span: tuple[float, float]
) -> Generator[JobProgress, None, Tensor | None]:
    """Errors to be expected, ``(slices, rows, cols)`` in the result's unit, from replicas of the job; None without."""
    count, stage = spec.output.uncertainty, job.stages[-1]
    if count == 0:
        return None
    shown = torch.from_numpy(job.model.display(volume))
    power, width = torch.zeros_like(shown), (span[1] - span[0]) / count
    for index in range(count):
        again = replicas.replica(job.model.problem, volume, index, spec.seed)
        start = partial(stage.start, seed=(spec.seed + 1 + index) % 2**32)
        key = slabs.digest({"key": stage.key, "replica": index})
        parts = slabs.solve(again, stage.settings, start, shelf, key, size, neighbours=stage.neighbours)
        part = (span[0] + width * index, span[0] + width * (index + 1))
        found = yield from staged(parts, f"replica {index + 1} of {count}", part)
        power += (torch.from_numpy(job.model.display(found)) - shown).square()
    return replicas.expected_errors(power / count, stage.settings, is_complex=volume.is_complex())


def _of_uncertainty(
    spec: JobSpec, model: models.Model, volume: Tensor, measurement: Measurement, uncertainty: Tensor
) -> dict[str, Any]:
    """What the report says of the map, and where the truth is known how far the map is to be trusted."""
    rms = float(uncertainty.square().mean().sqrt())
    found: dict[str, Any] = {"replicas": spec.output.uncertainty, "rms": _finite(rms, 6)}
    if measurement.truth is not None:
        error = np.abs(model.display(volume) - measurement.truth)
        found["rms_error"] = _finite(float(np.sqrt(np.square(error).mean())), 6)
        found["within_two"] = _finite(float((error <= 2 * uncertainty.numpy()).mean()), 4)
    return found


def _familiarity(judge: NetworkPrior | None, model: models.Model, volume: Tensor) -> dict[str, Any] | None:
    """How usual the result's slices look, as percentiles of slices of the kind that the judge was trained on."""
    if judge is None:
        return None
    chosen = volume[:: max(len(volume) // JUDGED_SLICES, 1)]
    found = judge.familiarity(model.prior_axis(judge.card).to_prior(chosen))
    found = found[found.isfinite()]
    if not len(found):
        return None
    return {
        "median": round(float(found.median()), 1),
        "lowest": round(float(found.min()), 1),
        "judge": judge.card.name,
    }


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


def _doubt(method: Method, model: models.Model, volume: Tensor, expected: float | None) -> str | None:
    """What there is to say of a result of a prior that does not fit the data, each sample weighted by its noise.

    Raises
    ------
    Diverged
        If an empty image would fit better.
    """
    if not isinstance(method, Diffusion) or not bool(model.problem.data.any()):
        return None
    misfit, noise = model.problem.whitened.misfit(volume), expected or 0.0
    if not misfit <= max(HOPELESS_MISFIT, NOTABLE_TIMES * noise):
        raise Diverged(
            f"the result of {method.name} fits the data worse than an empty image: relative misfit {misfit:.3g}",
            field="method",
            remedy="leave its settings to their defaults, or lower the weight and the learning rate",
        )
    if misfit < max(NOTABLE_MISFIT, NOTABLE_TIMES * noise):
        return None
    usual = "" if expected is None else f", noise alone would leave {expected:.2g}"
    return (
        f"the result misses the data by {misfit:.2g} of their size{usual}: geometry, rotation centre, coil maps or"
        " units may be wrong, or the prior overrules the data; compare with the baselines"
    )


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
    spec: JobSpec,
    model: models.Model,
    volume: Tensor,
    baselines: dict[str, Tensor],
    uncertainty: Tensor | None,
    report: dict[str, Any],
    out: Path,
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
        if uncertainty is not None:
            _write(spec, model, partial, "uncertainty", uncertainty.numpy())
        if spec.output.montage:
            from recon.quality import montage

            if uncertainty is not None:
                errors = {"uncertainty": uncertainty.numpy()}
                montage.write(
                    partial / "uncertainty.png", errors, model.affine, model.unit, in_patient=model.in_patient
                )
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
    if spec.output.format == "numpy" and volume.is_complex():
        np.save(folder / f"{name}.npy", volume.numpy())  # complex MRI stays complex
        return
    _write(spec, model, folder, name, model.display(volume))
    if volume.is_complex() and name == "volume":
        nifti.write(folder / f"{name}-phase.nii.gz", volume.angle().numpy(), model.affine, "phase, rad")


def _write(spec: JobSpec, model: models.Model, folder: Path, name: str, values: NDArray[np.float32]) -> None:
    """Values in the result's unit."""
    if spec.output.format == "numpy":
        np.save(folder / f"{name}.npy", values)
    else:
        nifti.write(folder / f"{name}.nii.gz", values, model.affine, f"diffusion-recon, {model.unit}")
