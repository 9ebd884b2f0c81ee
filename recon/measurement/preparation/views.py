"""Views that are left out: those that are named, and frames that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.spec.report import Step

LEAST_LIGHT = 0.2
"""Transmission of a view's brightest rays over that of the views around it, below which there was no beam."""
BRIGHTEST = 5.0
"""Percentage of the rays of a view that are its brightest."""
AROUND = 11
"""Views around, in the order of angles, with which one is compared."""
MOST_REPEATED = 0.1
"""Fraction of the views above which repetitions are no failures: data without noise of a round object have them."""
MOST = 0.3
"""Fraction of lost views above which it is the scan that failed."""
SAMPLED = 5_000
"""Rays of a view that are looked at."""


def excluded(given: Sequence[int], count: int) -> NDArray[np.intp]:
    """Return the views that stay when those that are named are left out; raises `InputError` if there are none such."""
    wrong = [view for view in given if view >= count]
    if wrong:
        raise InputError(
            f"view {wrong[0]}, the input has {count}",
            field="acquisition.preparation.exclude_views",
            remedy="count views from 0, in the order of the file",
        )
    kept = np.setdiff1d(np.arange(count), np.asarray(given, np.intp))
    if not len(kept):
        raise InputError("no view is left", field="acquisition.preparation.exclude_views", remedy="exclude fewer")
    return kept


def lost(sinograms: NDArray[np.float32], order: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    """Find frames that failed, by kind.

    ``dark``: far less light than in the views around, even in the brightest rays. ``blank``: all rays have one value,
    where others vary. ``repeated``: the same as the frame before in every ray, which noise never lets happen.

    Parameters
    ----------
    sinograms
        Line integrals ``(slices, views, detectors)``, views in the order of the file.
    order
        Views in the order of their angles.
    """
    views = sinograms.shape[1]
    step = max(sinograms.shape[0] * sinograms.shape[2] // SAMPLED, 1)
    rays = sinograms[::step].transpose(1, 0, 2).reshape(views, -1)
    brightest = np.percentile(rays, BRIGHTEST, axis=1)
    blank = np.ptp(rays, axis=1) == 0
    if blank.mean() > MOST:
        blank[:] = False  # so is the scan
    dark = np.zeros(views, bool)
    dark[order] = _far_below(brightest[order])
    repeated = np.zeros(views, bool)
    repeated[1:] = (rays[1:] == rays[:-1]).all(axis=1)
    if repeated.mean() > MOST_REPEATED or views < AROUND:
        repeated[:] = False
    kinds = {"dark": dark & ~blank, "blank": blank, "repeated": repeated & ~dark & ~blank}
    return {kind: np.flatnonzero(found) for kind, found in kinds.items()}


def _far_below(brightest: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Views whose brightest rays have far less light than those around them, and than those of most."""
    if len(brightest) < 3:
        return np.zeros(len(brightest), bool)
    limit = -math.log(LEAST_LIGHT)
    found: NDArray[np.bool_] = np.asarray(brightest > np.median(brightest) + limit)
    lit = np.flatnonzero(~found)
    for index in np.flatnonzero(found):
        # The nearest views that have light: an object turns gradually, a shutter does not.
        nearest = lit[np.argsort(np.abs(lit - index), kind="stable")[:AROUND]]
        found[index] = brightest[index] > brightest[nearest].max() + limit if len(nearest) else False
    return found


def left_out(found: dict[str, NDArray[np.intp]], kept: NDArray[np.intp]) -> tuple[NDArray[np.intp], Step]:
    """Return the views that stay, and what is said of the others.

    Parameters
    ----------
    found
        Frames that failed, by kind, as indices into `kept`.
    kept
        Views that were not excluded, as indices of the file.

    Raises
    ------
    InputError
        If too many have failed.
    """
    failed = np.unique(np.concatenate(list(found.values())))
    if len(failed) > MOST * len(kept):
        raise InputError(
            f"{len(failed)} of {len(kept)} views have no beam, or repeat the one before",
            field="input",
            remedy="check the flat fields, or say acquisition.preparation.lost_frames: false",
        )
    numbers: dict[str, int | float | list[int]] = {
        kind: [int(view) for view in kept[indices]] for kind, indices in found.items()
    }
    listed = [f"{kind} {_listed(kept[indices])}" for kind, indices in found.items() if len(indices)]
    text = f"{len(failed)} of {len(kept)} views are left out: {'; '.join(listed)}" if listed else "none found"
    stay = np.setdiff1d(np.arange(len(kept)), failed)
    return stay, Step(name="lost_frames", changed=bool(listed), text=text, numbers=numbers)


def _listed(views: NDArray[np.intp]) -> str:
    """The first ten of some views."""
    return ", ".join(str(int(view)) for view in views[:10]) + (", ..." if len(views) > 10 else "")
