"""RED-Diff against TV on the same anatomy at several pixel sizes: is the prior right at all of them?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.bench.solving import solved
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.quality import body, metrics
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.affine import voxel_size
from recon.spec.job import JobSpec, local_files
from recon.spec.simulation import Simulation

METHODS = ("tv", "red-diff")
VIEWS_PER_COLUMN = 60 / 256
"""Views over columns of the image, so that the undersampling is the same at every pixel size."""


@dataclass(frozen=True)
class Row:
    """One method at one pixel size; PSNR in dB of whole slices and of the inside of the body."""

    pixel_mm: float
    columns: int
    views: int
    method: str
    psnr: float
    psnr_inside: float
    seconds: float


def compare(
    volume: Path, slices: tuple[int, int] | None, factors: Sequence[int], photons: float, field_mm: float | None = None
) -> Iterator[Row]:
    """Measure a known volume with pixels `factors` times as large, means over the given ones, and reconstruct it.

    Parameters
    ----------
    volume
        Known CT volume in HU, at its full resolution.
    slices
        Range of slices; all when None.
    photons
        Photons per ray in air; the detector's elements are as wide as the pixels.
    field_mm
        Side of the square around the middle that is used; all of it when None.
    """
    full = _known(volume, slices)
    assert full.truth is not None and full.affine is not None
    truth, (pixel_mm, _, slice_mm) = full.truth, voxel_size(full.affine)
    side = min(truth.shape[1:]) if field_mm is None else round(field_mm / pixel_mm)
    least = int(np.lcm.reduce(list(factors)))
    side -= side % (8 * least)  # networks take sizes that are divisible by eight
    if not 0 < side <= min(truth.shape[1:]):
        raise InputError(f"{volume.name} has {truth.shape[1]} x {truth.shape[2]} pixels, too few", field="factors")
    first_row, first_col = ((size - side) // 2 for size in truth.shape[1:])
    truth = truth[:, first_row : first_row + side, first_col : first_col + side]
    for factor in factors:
        coarse = binned(truth, factor)
        columns = side // factor
        settings = Simulation(views=round(VIEWS_PER_COLUMN * columns), photons_per_ray=photons)
        affine = np.diag([pixel_mm * factor, pixel_mm * factor, slice_mm, 1.0])
        measurement = simulate(coarse, affine, CTParallel(), settings)
        model = inverse_problem.build(measurement)
        inside = body.inside(coarse)
        for name in METHODS:
            found = solved({"name": name}, model, "ct-parallel")
            shown = model.display(found.volume)
            yield Row(
                round(pixel_mm * factor, 3), columns, settings.views, name,
                round(metrics.psnr(shown, coarse), 3), round(metrics.psnr(shown, coarse, inside), 3),
                round(found.seconds, 1),
            )  # fmt: skip


def binned(volume: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Means over `factor` x `factor` pixels of slices ``(slices, rows, cols)``."""
    slices, rows, cols = volume.shape
    found: NDArray[np.float32] = volume.reshape(slices, rows // factor, factor, cols // factor, factor).mean((2, 4))
    return found


def _known(path: Path, slices: tuple[int, int] | None) -> Measurement:
    """Read the volume as a job does, measured in the quickest way."""
    given = {"path": str(path), "slices": slices, "simulate": {"views": 1, "model": "ideal"}}
    spec = JobSpec.parse({"input": given, "acquisition": "ct-parallel", "method": "fbp"})
    return reader.read(spec, local_files(spec))


def gains(rows: Sequence[Row]) -> list[tuple[float, int, int, float, float, float, float, float, float]]:
    """By pixel size, columns, views: TV's and RED-Diff's PSNR and the gain, of whole slices and of the inside."""
    found = []
    for tv in (row for row in rows if row.method == "tv"):
        ours = next(row for row in rows if row.method == "red-diff" and row.pixel_mm == tv.pixel_mm)
        whole = (tv.psnr, ours.psnr, ours.psnr - tv.psnr)
        inner = (tv.psnr_inside, ours.psnr_inside, ours.psnr_inside - tv.psnr_inside)
        found.append((tv.pixel_mm, tv.columns, tv.views, *whole, *inner))
    return found
