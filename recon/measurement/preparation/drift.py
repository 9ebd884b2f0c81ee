"""Beam drift: each view's line integrals of the air at the ends of the detector, which should be zero."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon.spec.report import Step

FEWEST, PART = 3, 32
"""Least number of columns at an end that have to be air, and the part of all columns that they are."""
MOST_PART = 8
"""Part of the columns that is used at each end, at most."""
FLAT = 0.005
"""Change of the line integral over these columns up to which they may be air, beside noise."""
LARGEST = 1.0
"""Largest line integral of air: a beam that lost more is no drift."""
VISIBLE = 0.05
"""Least line integral of the densest rays over that of the ends, in the median view."""
NOTABLE = 0.005
"""Standard deviation over the views of the air's line integrals, or mean, from which they are corrected."""
TIMES_NOISE = 2.0
"""Variance of the air's line integrals over that of their noise, from which they are corrected."""
CONSTANT = 0.02
"""Mean of the air's line integrals, where they hardly vary, up to which it is corrected."""


class Air(NamedTuple):
    """Air at one end of the detector.

    Parameters
    ----------
    level
        Its line integral in each view.
    noise
        Standard deviation of that.
    columns
        Number of columns.
    """

    level: NDArray[np.float64]
    noise: float
    columns: int


def found(sinograms: NDArray[np.float32], *, counted: bool) -> tuple[Step, NDArray[np.float32] | None]:
    """Find the drift in some slices ``(slices, views, detectors)``: the air's line integral of each view.

    It is interpolated along the detector where there is air at both ends.

    Parameters
    ----------
    counted
        Whether the data are raw counts, whose air has to be at zero also if it does not vary.

    Returns
    -------
    Step
        What is said.
    ndarray
        ``(views, detectors)`` to subtract, or None if the air does not vary.
    """
    ends = [_air(sinograms), _air(sinograms[..., ::-1])]
    seen = [end for end in ends if end is not None]
    numbers: dict[str, int | float | list[int]] = {"columns_left": ends[0].columns if ends[0] else 0}
    numbers["columns_right"] = ends[1].columns if ends[1] else 0
    if not seen:
        return _told("no air at the ends of the detector, by which drift could be told", numbers), None
    levels = np.asarray([end.level for end in seen])
    noise = float(np.sqrt(np.mean([end.noise**2 for end in seen])))
    mean, deviation = float(levels.mean()), float(levels.std(axis=1).max())
    numbers |= {
        "mean": round(mean, 6),
        "std": round(deviation, 6),
        "lowest": round(float(levels.min()), 6),
        "largest": round(float(levels.max()), 6),
        "noise": round(noise, 6),
    }
    varies = deviation > NOTABLE and deviation**2 > TIMES_NOISE * noise**2
    if (not varies and abs(mean) > CONSTANT) or float(np.abs(levels).max()) > LARGEST:
        text = (
            f"the ends of the detector are at {mean:.3g} in line integrals, and left so: the object may be larger than"
            " the detector, or the flat fields were taken in another beam"
        )
        return _told(text, numbers), None
    if not varies and not (counted and abs(mean) > NOTABLE):
        return _told(f"air beside the object is at {mean:.1e}, and varies by {deviation:.1e}", numbers), None
    across = _across(ends[0] or seen[0], ends[1] or seen[0], sinograms.shape[2])
    text = (
        f"the beam drifted: air beside the object was at {levels.min():.3g} to {levels.max():.3g} in line integrals,"
        " which is subtracted view by view"
    )
    return _told(text, numbers, changed=True), across


def _told(text: str, numbers: dict[str, int | float | list[int]], *, changed: bool = False) -> Step:
    return Step(name="beam_drift", changed=changed, text=text, numbers=numbers)


def _across(left: Air, right: Air, columns: int) -> NDArray[np.float32]:
    """The line through the middles of both ends, ``(views, columns)``."""
    first, last = (left.columns - 1) / 2, columns - 1 - (right.columns - 1) / 2
    share = (np.arange(columns) - first) / (last - first)
    return (left.level[:, None] * (1 - share) + right.level[:, None] * share).astype(np.float32)


def _air(sinograms: NDArray[np.float32]) -> Air | None:
    """Air at the left end; None if something else is there, or nothing else anywhere."""
    slices, views, columns = sinograms.shape
    first = max(FEWEST, columns // PART)
    if columns < 4 * first or views < 3:
        return None
    profile = np.median(sinograms, axis=0) if slices > 2 else sinograms.mean(0)  # (views, columns)
    edge = profile[:, :first].astype(np.float64)
    if edge.shape[1] < FEWEST:
        return None
    noise = _noise(edge)
    # Air is flat in every view: the inner columns of the end are as bright as the outer ones.
    half = first // 2
    slope = np.abs(edge[:, -max(half, 1) :].mean(1) - edge[:, : max(half, 1)].mean(1))
    if np.percentile(slope, 95) > FLAT + 4 * noise * np.sqrt(2 / max(half, 1)):
        return None
    level = np.median(edge, axis=1)
    dense = np.percentile(profile, 98, axis=1) - level
    if np.median(dense) < VISIBLE + 4 * noise:
        return None
    # More columns of the same kind make the level less noisy.
    above = profile[:, : columns // MOST_PART] - level[:, None]
    same = (np.abs(above.mean(0)) < FLAT + noise) & (above.max(0) < FLAT + 6 * noise)
    count = max(first, int(np.argmin(same)) if not same.all() else len(same))
    used = profile[:, :count].astype(np.float64)
    return Air(used.mean(1), noise / np.sqrt(count), count)


def _noise(edge: NDArray[np.float64]) -> float:
    """Noise of a sample of air: scatter of neighbouring columns around what they have in all views."""
    change = np.diff(edge, axis=1)
    change = change - np.median(change, axis=0)
    return float(np.median(np.abs(change)) / (0.6745 * np.sqrt(2.0)))
