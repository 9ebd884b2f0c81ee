"""Binning: intensities of neighbouring detector elements, rows or views are averaged, as a coarser detector does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError
from recon.spec.acquisitions.ct import CT
from recon.spec.preparation import Binning
from recon.spec.report import Step

MOST_UNEVEN = 2.0
"""Range of angles that are averaged, over that of as many views of the median step, up to which they are neighbours."""


def apply(
    sinograms: NDArray[np.float32], by: Binning, acquisition: CT
) -> tuple[NDArray[np.float32], Step, dict[str, Any]]:
    """Average intensities ``exp(-p)`` of ``(slices, views, detectors)``; what is left over at the end is left out.

    Returns
    -------
    ndarray
        Coarser line integrals.
    Step
        What was done.
    dict
        Fields of the acquisition that change.

    Raises
    ------
    InputError
        If there are fewer than are to be averaged, or views that are to be averaged do not follow each other.
    """
    shape = sinograms.shape
    factors = {"rows": by.rows, "views": by.views, "columns": by.columns}
    for (name, factor), count in zip(factors.items(), shape, strict=True):
        if factor > count:
            raise InputError(
                f"{factor}, the input has {count}",
                field=f"acquisition.preparation.binning.{name}",
                remedy="give a smaller number",
            )
    slices, views, columns = (n // f for n, f in zip(shape, factors.values(), strict=True))
    changes = _geometry(acquisition, by, shape)
    found = np.empty((slices, views, columns), np.float32)
    for index in range(slices):
        rows = sinograms[index * by.rows : (index + 1) * by.rows, : views * by.views, : columns * by.columns]
        blocks = np.exp(-rows).reshape(by.rows, views, by.views, columns, by.columns)
        found[index] = -np.log(blocks.mean(axis=(0, 2, 4), dtype=np.float64))
    text = f"intensities are averaged over {by.rows} rows, {by.views} views and {by.columns} columns"
    left = {name: n % f for (name, f), n in zip(factors.items(), shape, strict=True) if n % f}
    if left:
        text += f"; {', '.join(f'{n} {name}' for name, n in left.items())} at the end are left out"
    return found, Step(name="binning", changed=True, text=text, numbers=dict(factors)), changes


def _geometry(acquisition: CT, by: Binning, shape: tuple[int, ...]) -> dict[str, Any]:
    """Fields of the acquisition for the coarser detector."""
    changes: dict[str, Any] = {}
    angles = acquisition.angles()
    if by.views > 1 and angles is not None:
        changes["angles_rad"] = _angles(angles, by.views)
    if acquisition.detector_mm is not None:
        changes["detector_mm"] = acquisition.detector_mm * by.columns
    cut = shape[2] % by.columns
    if isinstance(acquisition.rotation_center_column, float):
        changes["rotation_center_column"] = (acquisition.rotation_center_column - (by.columns - 1) / 2) / by.columns
    elif cut and acquisition.rotation_center_column is None:  # the middle of the detector moves
        old = acquisition.detector_shift_mm or 0.0
        if acquisition.detector_mm is not None:
            changes["detector_shift_mm"] = old - cut / 2 * acquisition.detector_mm
    slice_mm = acquisition.slice_mm or acquisition.pixel_mm
    if slice_mm is None and acquisition.detector_mm is not None:
        slice_mm = acquisition.detector_mm / acquisition.magnification()
    if slice_mm is not None:  # also where only columns are averaged: by default slices are as thick as pixels are wide
        changes["slice_mm"] = slice_mm * by.rows
    averaged = by.rows * by.views * by.columns
    if acquisition.photons_per_ray is not None:
        changes["photons_per_ray"] = min(acquisition.photons_per_ray * averaged, 1e12)
    if acquisition.noise_std is not None:
        changes["noise_std"] = acquisition.noise_std / math.sqrt(averaged)
    return changes | acquisition.binned_rows(shape[0], by.rows)


def _angles(angles: tuple[float, ...], by: int) -> list[float]:
    """Mean angle of the views that are averaged."""
    groups = np.asarray(angles[: len(angles) // by * by]).reshape(-1, by)
    steps = np.abs(np.diff(angles))
    if (np.ptp(groups, axis=1) > MOST_UNEVEN * (by - 1) * np.median(steps)).any() or np.median(steps) > math.pi / 8:
        raise GeometryError(
            "views that follow each other are not neighbours in angle, or some are missing",
            field="acquisition.preparation.binning.views",
            remedy="average columns or rows only",
        )
    return [float(angle) for angle in groups.mean(axis=1)]
