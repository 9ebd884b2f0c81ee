"""Conversion of raw detector counts to line integrals: flat and dark fields, logarithm, noise that the flats show."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError

SMALLEST_TRANSMISSION = 1e-4
"""Lower bound on the transmission; below it is detector noise, so that line integrals are limited to 9.2."""
Counts = NDArray[np.float32]
"""Frames ``(frames, rows, columns)``."""


class LineIntegrals(NamedTuple):
    """Line integrals with their noise and remarks.

    Parameters
    ----------
    data
        ``(slices, views, detectors)``: a detector row is a slice.
    noise_std
        Standard deviation of the noise, if there are flat fields enough to show it.
    notes
        Remarks for the report.
    """

    data: NDArray[np.float32]
    noise_std: float | None
    notes: list[str]


def line_integrals(
    counts: Counts, flats: Counts, darks: Counts | None, names: tuple[str, str, str] = ("counts", "flats", "darks")
) -> LineIntegrals:
    """Convert raw counts to line integrals.

    Parameters
    ----------
    counts, flats, darks
        Frames with the object, of the beam alone, and without beam; without dark frames the dark signal counts as zero.
    names
        Names of the three for messages, as the file has them.

    Raises
    ------
    InputError
        If counts are negative, frames differ in shape, or flat fields are not brighter than dark ones.
    """
    notes = []
    if darks is None:
        darks = np.zeros_like(flats[:1])
        notes.append("no dark frames: the dark signal is taken as zero")
    for name, frames in zip(names, (counts, flats, darks), strict=True):
        _check_positive(frames, name)
    for name, frames in zip(names[1:], (flats, darks), strict=True):
        if frames.shape[1:] != counts.shape[1:]:
            raise GeometryError(
                f"{name} has frames of {frames.shape[1:]}, {names[0]} of {counts.shape[1:]}", field="input"
            )
    dark, flat = darks.mean(0), flats.mean(0)
    span = flat - dark
    if not (span > 0).all():
        row, column = (int(i) for i in np.argwhere(span <= 0)[0])
        raise InputError(
            f"the flat field is not above the dark field at row {row}, column {column}",
            field=names[1],
            remedy="check that flat and dark fields are not swapped; mask dead detector elements",
        )
    transmission = (counts - dark) / span
    low = int((transmission < SMALLEST_TRANSMISSION).sum())
    if low:
        notes.append(f"{low} of {counts.size} transmissions were below {SMALLEST_TRANSMISSION:g} and set to it")
    integrals = -np.log(np.maximum(transmission, SMALLEST_TRANSMISSION))
    # Flat frames repeat one measurement: their scatter over their mean is the relative noise of a count.
    relative = float(np.median(flats.std(0, ddof=1) / span)) if len(flats) > 2 else 0.0
    noise = relative * math.sqrt(float(np.median(span / np.maximum(counts - dark, 1.0)))) or None
    return LineIntegrals(np.ascontiguousarray(integrals.transpose(1, 0, 2), dtype=np.float32), noise, notes)


def _check_positive(counts: Counts, name: str) -> None:
    if (counts < 0).any():
        index = tuple(int(i) for i in np.argwhere(counts < 0)[0])
        raise InputError(
            f"{int((counts < 0).sum())} counts are negative, the first at {index} is {counts[index]:g}",
            field=name,
            remedy="give raw detector counts; subtract no background before",
        )
