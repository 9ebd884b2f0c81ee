"""Bad detector elements: dead, hot, stuck and unstable ones found in raw counts, and filled in along their row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.measurement.counts import Counts, Frames
from recon.spec.report import Step

NEIGHBOURS = 31
"""Elements of the row with which one is compared, itself included."""
LEAST_RESPONSE = 0.1
"""Flat above dark, over that of the neighbours, below which an element is dead."""
HOT = 0.5
"""Dark signal above that of the neighbours, over their flat above dark, from which an element is hot."""
UNSTABLE = 10.0
"""Relative scatter of an element's flats over that of the neighbours from which it is unstable."""
LEAST_SCATTER = 0.05
"""Relative scatter of an element's flats below which it is never unstable."""
STUCK = 0.9
"""Fraction of the frames in which a stuck element has the same value, and its neighbours have not."""
MOST = 0.2
"""Fraction of the elements above which the fields are wrong, not the elements."""
SAMPLED = 64
"""Projections in which stuck elements are looked for."""


def find(
    counts: Counts,
    flats: Frames,
    darks: Frames,
    scatter: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    *,
    find: bool,
) -> tuple[NDArray[np.bool_], Step]:
    """Find bad elements ``(rows, columns)``.

    Parameters
    ----------
    counts
        The frames.
    flats, darks
        Averaged fields ``(sets, rows, columns)``.
    scatter
        Standard deviation of the flats.
    mask
        Elements that are known to be bad.
    find
        Whether to look for others.

    Raises
    ------
    InputError
        If more than a fifth of the elements are bad.
    """
    shape = counts.projections.shape[1:]
    given = np.zeros(shape, bool) if mask is None else mask
    kinds = _kinds(counts, flats, darks, scatter) if find else {}
    bad = given.copy()
    numbers: dict[str, int | float | list[int]] = {"given": int(given.sum())}
    for kind, found in kinds.items():
        numbers[kind] = int((found & ~bad).sum())
        bad |= found
    total = int(bad.sum())
    numbers["share"] = round(total / bad.size, 6)
    if total > MOST * bad.size:
        row, column = (int(i) for i in np.argwhere(bad & ~given if (bad & ~given).any() else bad)[0])
        raise InputError(
            f"{total} of {bad.size} detector elements are bad: the flat field is not above the dark field at row {row},"
            f" column {column}, or does not change",
            field=counts.names[1],
            remedy="check that flat and dark fields are not swapped, or give a right acquisition.preparation.mask",
        )
    if bad.all(axis=1).any():
        row = int(np.argmax(bad.all(axis=1)))
        raise InputError(
            f"every detector element of row {row} is bad",
            field=counts.names[1],
            remedy="leave the row out by input.slices",
        )
    listed = ", ".join(f"{n} {kind}" for kind, n in numbers.items() if n and kind != "share")
    text = f"{total} of {bad.size} detector elements are filled in along their row: {listed}" if total else "none found"
    return bad, Step(name="bad_elements", changed=total > 0, text=text, numbers=numbers)


def fill(sinogram: NDArray[np.float32], bad: NDArray[np.bool_]) -> None:
    """Interpolate bad elements ``(columns,)`` of a sinogram ``(views, columns)`` in place, linearly along its row."""
    if not bad.any():
        return
    good, missing = np.flatnonzero(~bad), np.flatnonzero(bad)
    after = np.searchsorted(good, missing)
    left, right = good[np.maximum(after - 1, 0)], good[np.minimum(after, len(good) - 1)]
    share = np.where(right > left, (missing - left) / np.maximum(right - left, 1), 0).astype(np.float32)
    sinogram[:, missing] = sinogram[:, left] * (1 - share) + sinogram[:, right] * share


def _kinds(
    counts: Counts, flats: Frames, darks: Frames, scatter: NDArray[np.float32] | None
) -> dict[str, NDArray[np.bool_]]:
    """Bad elements by kind."""
    spans = flats - darks.mean(0)
    span = spans.min(0)  # an element that died during the scan has no response in the last set
    usual = np.maximum(_median(span), 0.02 * np.median(span))
    dark = darks.max(0)
    hot = dark - _median(dark) > HOT * np.maximum(usual, 1e-6)
    found = {"hot": hot, "dead": (span <= 0) | (span < LEAST_RESPONSE * usual), "stuck": _stuck(counts.projections)}
    if scatter is not None and len(counts.flats) >= 5:
        relative = scatter / np.maximum(span, 1e-6)
        found["unstable"] = (relative > UNSTABLE * _median(relative)) & (relative > LEAST_SCATTER)
    return found


def _stuck(projections: Frames) -> NDArray[np.bool_]:
    """Elements that hardly ever change while those beside them do."""
    frames = projections[:: max(len(projections) // SAMPLED, 1)]
    if len(frames) < 10:
        return np.zeros(projections.shape[1:], bool)
    constant = (frames == np.median(frames, axis=0)).mean(0) >= STUCK
    return np.asarray(constant & (_median(constant.astype(np.float32)) == 0))


def _median(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Median of the neighbours along the row."""
    from scipy.ndimage import median_filter

    found: NDArray[np.float32] = median_filter(image.astype(np.float32), size=(1, NEIGHBOURS), mode="nearest")
    return found
