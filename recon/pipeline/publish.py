"""Publish the results of a job atomically."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon.formats.format import Format, Written
from recon.pipeline.report import Solved
from recon.problem.inverse_problem import InverseProblem
from recon.spec.job import JobSpec
from recon.spec.registry import OUTPUT_FORMATS
from recon.spec.report import Report
from recon.storage.atomic import sync


def publish(spec: JobSpec, inverse: InverseProblem, solved: Solved, report: Report, out: Path) -> None:
    """Write all results into a hidden folder beside `out`, then rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_all(spec, inverse, solved, partial)
        (partial / "job.json").write_text(json.dumps(spec.model_dump(mode="json", exclude_unset=True)) + "\n")
        (partial / "report.json").write_text(report.json_text())
        for path in partial.iterdir():
            sync(path)
        os.replace(partial, out)
        sync(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_all(spec: JobSpec, inverse: InverseProblem, solved: Solved, folder: Path) -> None:
    chosen: Format = OUTPUT_FORMATS[spec.output.format]
    volumes = {spec.method.name: solved.volume, **solved.baselines}
    arranged = {name: inverse.arranged(volume) for name, volume in volumes.items()}
    for name, volume in arranged.items():
        result = name == spec.method.name
        _write_volume(chosen, inverse, folder, "volume" if result else f"baseline-{name}", volume, phase=result)
    errors = None if solved.errors is None else solved.errors.numpy()
    if errors is not None:
        _write(chosen, inverse, folder, "uncertainty", errors)
    if not spec.output.montage:
        return
    from recon.quality import montage  # matplotlib takes its time

    shown = {name: inverse.display(volume) for name, volume in arranged.items()}
    pictures = {"montage": shown} if errors is None else {"uncertainty": {"uncertainty": errors}, "montage": shown}
    for name, panels in pictures.items():
        montage.write(folder / f"{name}.png", panels, inverse.affine, inverse.unit, in_patient=inverse.in_patient)


def _write_volume(
    chosen: Format, inverse: InverseProblem, folder: Path, name: str, volume: Tensor, *, phase: bool
) -> None:
    """Write a volume in the result's unit; a complex one as it is, or as magnitude and, for the result, phase."""
    if volume.is_complex() and chosen.keeps_complex:
        _write(chosen, inverse, folder, name, volume.numpy())
        return
    _write(chosen, inverse, folder, name, inverse.display(volume))
    if volume.is_complex() and phase:
        _write(chosen, inverse, folder, f"{name}-phase", volume.angle().numpy(), unit="phase, rad")


def _write(
    chosen: Format,
    inverse: InverseProblem,
    folder: Path,
    name: str,
    values: NDArray[np.float32] | NDArray[np.complex64],
    unit: str | None = None,
) -> None:
    assert chosen.write is not None  # a row of the output formats
    written = Written(values, inverse.affine, unit or inverse.unit, inverse.in_patient, inverse.codes)
    chosen.write(folder / f"{name}{chosen.endings[0]}", written)
