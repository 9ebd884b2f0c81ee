"""Publish the results of a job atomically."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.interrupt import checkpoint
from recon.formats.format import Format, Origin, Quantity, Written
from recon.measurement.measurement import Measurement
from recon.pipeline.report import Solved
from recon.pipeline.volumes import ArrangedVolume, HeldVolume, Volume
from recon.problem.inverse_problem import InverseProblem
from recon.spec.job import JobSpec, Output, Part
from recon.spec.registry import OUTPUT_FORMATS
from recon.spec.report import Report
from recon.storage.atomic import sync

if TYPE_CHECKING:
    from recon.quality.montage import Planes

ERRORS: dict[str, tuple[str, Quantity, str]] = {
    "half_widths": ("interval", "interval", "half of the 90 % interval"),
    "expected": ("uncertainty", "error", "standard deviation"),
}
"""Files of `recon.pipeline.uncertainty.Errors`, what they hold, and their titles in the picture; the widest first."""

Convert = Callable[[Tensor], NDArray[Any]]
"""Function from slices of a volume to what is written or shown of them."""


def publish(
    spec: JobSpec,
    inverse: InverseProblem,
    solved: Solved,
    report: Report,
    out: Path,
    measurement: Measurement,
) -> None:
    """Write all results into a hidden folder beside `out`, then rename it."""
    preparation = measurement.preparation
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_all(spec, inverse, solved, partial, report, origin_of(measurement, report))
        if preparation is not None and spec.output.montage:
            from recon.quality import preparation as picture  # matplotlib takes its time

            picture.write(partial / "preparation.png", preparation)
        if spec.output.montage:
            from recon.pipeline import page  # its templates are for those who ask for pictures

            page.write(partial / "report.html", report, partial)
        (partial / "job.json").write_text(json.dumps(spec.model_dump(mode="json", exclude_unset=True)) + "\n")
        (partial / "report.json").write_text(report.json_text())
        for path in partial.iterdir():
            sync(path)
        os.replace(partial, out)
        sync(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def origin_of(measurement: Measurement, report: Report) -> Origin:
    """Make the origin of a job's volumes from its measurement and its report."""
    kind = measurement.acquisition.kind
    return Origin(
        modality=measurement.acquisition.MODALITY,
        scan=f"{kind} data, simulated from a known volume" if "simulated" in measurement.provenance else f"{kind} data",
        software=f"diffusion-recon {report.versions['diffusion-recon']}",
        source=measurement.source,
    )


def _write_all(
    spec: JobSpec, inverse: InverseProblem, solved: Solved, folder: Path, report: Report, origin: Origin
) -> None:
    volumes = {name: arranged(inverse, volume) for name, volume in solved.volumes(spec.method.name).items()}
    errors = {} if solved.errors is None else {name: HeldVolume(getattr(solved.errors, name)) for name in ERRORS}
    drawn = None if solved.drawn is None else HeldVolume(solved.drawn[0])
    prior = "" if report.prior is None else f" with the prior {report.prior['name']}"
    written = _Writer(spec.output, inverse, folder, origin)
    for name, volume in volumes.items():
        if name == spec.method.name:
            written.volume("volume", volume, name + prior)
        else:
            written.volume(f"baseline-{name}", volume, name)
    made_by = f"{spec.method.name}{prior}, {spec.output.uncertainty} bootstrap replicates"
    for name, values in errors.items():
        file, quantity, _ = ERRORS[name]
        written.part(file, values, _values, made_by, quantity=quantity)
    if drawn is not None:
        written.part("undetermined", drawn, _values, f"{spec.method.name}{prior}", quantity="undetermined")
    if not spec.output.montage:
        return
    from recon.quality import montage  # matplotlib takes its time

    pictures = {"montage": {name: planes(inverse, volume, inverse.display) for name, volume in volumes.items()}}
    if errors:
        panels = {ERRORS[name][2]: planes(inverse, values, _values) for name, values in errors.items()}
        pictures = {"uncertainty": panels, **pictures}
    if drawn is not None:
        pictures = {"undetermined": {"not determined": planes(inverse, drawn, _values)}, **pictures}
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


@dataclass
class _Writer:
    """Writer of the volumes of a job into a folder, in their format.

    Parameters
    ----------
    output
        What is asked for.
    origin
        Origin of the volumes.
    number
        Number of volumes written so far.
    """

    output: Output
    inverse: InverseProblem
    folder: Path
    origin: Origin
    number: int = 0

    @property
    def format(self) -> Format:
        """Their format."""
        found: Format = OUTPUT_FORMATS[self.output.format]
        return found

    def volume(self, name: str, volume: Volume, made_by: str) -> None:
        """Write an arranged volume in the result's unit, a complex one in the parts that are asked for."""
        inverse, wanted = self.inverse, self.output.parts
        if not volume.part(0, 1).is_complex():
            self.part(name, volume, inverse.display, made_by)
            return
        if wanted is None:
            split: list[Part] = ["magnitude", "phase"] if name == "volume" else ["magnitude"]
            wanted = ["complex"] if self.format.keeps_complex else split
        if "magnitude" in wanted:
            self.part(name, volume, inverse.display, made_by)
        if "complex" in wanted:
            self.part(f"{name}-complex" if "magnitude" in wanted else name, volume, _values, made_by)
        if "phase" in wanted:
            self.part(f"{name}-phase", volume, _phase, made_by, quantity="phase")

    def part(
        self,
        name: str,
        volume: Volume,
        convert: Convert,
        made_by: str,
        quantity: Quantity = "values",
    ) -> None:
        """Write a volume as one file."""
        self.number += 1
        inverse = self.inverse
        written = Written(
            shape=_shape(volume),
            dtype=convert(volume.part(0, 1)).dtype,
            affine=inverse.affine,
            unit="phase, rad" if quantity == "phase" else inverse.unit,
            slabs=partial(_slabs, volume, convert),
            origin=self.origin,
            method=made_by,
            number=self.number,
            quantity=quantity,
            in_patient=inverse.in_patient,
            codes=inverse.codes,
        )
        assert self.format.write is not None  # a row of the output formats
        self.format.write(self.folder / f"{name}{self.format.endings[0]}", written)


def _slabs(volume: Volume, convert: Convert) -> Iterator[NDArray[Any]]:
    """Pass through a volume, its values converted."""
    for part in volume.parts():
        checkpoint()
        yield convert(part)


def _shape(volume: Volume) -> tuple[int, int, int]:
    rows, cols = volume.part(0, 1).shape[1:]
    return volume.slices, rows, cols


def _values(volume: Tensor) -> NDArray[Any]:
    """Values as solved."""
    return volume.numpy()


def _phase(volume: Tensor) -> NDArray[np.float32]:
    """Phase in radians."""
    return volume.angle().numpy()
