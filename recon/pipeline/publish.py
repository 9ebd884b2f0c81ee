"""Publish the results of a job atomically."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.interrupt import checkpoint
from recon.formats.format import Format, Written
from recon.measurement.measurement import PreparationRecord
from recon.pipeline import peak
from recon.pipeline.report import Solved
from recon.pipeline.volumes import ArrangedVolume, HeldVolume, Volume
from recon.problem.inverse_problem import InverseProblem
from recon.spec.job import JobSpec
from recon.spec.registry import OUTPUT_FORMATS
from recon.spec.report import Report
from recon.storage.atomic import sync

if TYPE_CHECKING:
    from recon.quality.montage import Planes

Convert = Callable[[Tensor], NDArray[Any]]
"""Function from slices of a volume to what is written or shown of them."""


def publish(
    spec: JobSpec,
    inverse: InverseProblem,
    solved: Solved,
    report: Report,
    out: Path,
    preparation: PreparationRecord | None = None,
) -> None:
    """Write all results into a hidden folder beside `out`, then rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_all(spec, inverse, solved, partial)
        if preparation is not None and spec.output.montage:
            from recon.quality import preparation as picture  # matplotlib takes its time

            picture.write(partial / "preparation.png", preparation)
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
    volumes = {name: arranged(inverse, volume) for name, volume in solved.volumes(spec.method.name).items()}
    for name, volume in volumes.items():
        result = name == spec.method.name
        _write_volume(chosen, inverse, folder, "volume" if result else f"baseline-{name}", volume, phase=result)
    errors = None if solved.errors is None else HeldVolume(solved.errors)
    if errors is not None:
        _write(chosen, inverse, folder, "uncertainty", errors, _values)
    if not spec.output.montage:
        return
    from recon.quality import montage  # matplotlib takes its time

    pictures = {"montage": {name: planes(inverse, volume, inverse.display) for name, volume in volumes.items()}}
    if errors is not None:
        pictures = {"uncertainty": {"uncertainty": planes(inverse, errors, _values)}, **pictures}
    for name, panels in pictures.items():
        montage.write(folder / f"{name}.png", panels, inverse.affine, inverse.unit, in_patient=inverse.in_patient)


def arranged(inverse: InverseProblem, volume: Volume) -> Volume:
    """Arrange a solved volume as ``(slices, rows, cols)`` of the result; slice by slice if it is not held."""
    if isinstance(volume, HeldVolume):
        return HeldVolume(inverse.arranged(volume.values))
    return ArrangedVolume(volume, inverse.arranged)


def planes(inverse: InverseProblem, volume: Volume, convert: Convert) -> Planes:
    """Take the planes of an arranged volume that a picture shows, its values converted."""
    from recon.quality.montage import Planes

    return Planes.of(_slabs(volume, convert), _shape(volume), inverse.affine)


def _write_volume(
    chosen: Format, inverse: InverseProblem, folder: Path, name: str, volume: Volume, *, phase: bool
) -> None:
    """Write a volume in the result's unit; a complex one as it is, or as magnitude and, for the result, phase."""
    is_complex = volume.part(0, 1).is_complex()
    if is_complex and chosen.keeps_complex:
        _write(chosen, inverse, folder, name, volume, _values)
        return
    _write(chosen, inverse, folder, name, volume, inverse.display)
    if is_complex and phase:
        _write(chosen, inverse, folder, f"{name}-phase", volume, _phase, unit="phase, rad")


def _write(
    chosen: Format,
    inverse: InverseProblem,
    folder: Path,
    name: str,
    volume: Volume,
    convert: Convert,
    unit: str | None = None,
) -> None:
    assert chosen.write is not None  # a row of the output formats
    dtype = convert(volume.part(0, 1)).dtype
    slabs = partial(_slabs, volume, convert)
    unit = unit or inverse.unit
    written = Written(_shape(volume), dtype, inverse.affine, unit, slabs, inverse.in_patient, inverse.codes)
    chosen.write(folder / f"{name}{chosen.endings[0]}", written)


def _slabs(volume: Volume, convert: Convert) -> Iterator[NDArray[Any]]:
    """Pass through a volume, its values converted."""
    for part in volume.parts():
        checkpoint()
        yield convert(part)
        peak.release()


def _shape(volume: Volume) -> tuple[int, int, int]:
    rows, cols = volume.part(0, 1).shape[1:]
    return volume.slices, rows, cols


def _values(volume: Tensor) -> NDArray[Any]:
    """Values as solved."""
    return volume.numpy()


def _phase(volume: Tensor) -> NDArray[np.float32]:
    """Phase in radians."""
    return volume.angle().numpy()
