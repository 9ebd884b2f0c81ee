"""Flat and dark fields: raw counts to line integrals, and the noise that repeated flats show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.measurement.counts import SMALLEST_TRANSMISSION, Counts, Frames, Times
from recon.measurement.preparation import elements, principal
from recon.spec.preparation import Preparation
from recon.spec.report import Step

OUTLIER = 8.0
"""Multiple of the noise beyond which a sample of a flat or dark frame is a zinger."""
LEAST_EXCESS = 0.01
"""Least excess of such a zinger, over the median of the flat fields: elements flicker by less."""


class LineIntegrals(NamedTuple):
    """Line integrals of raw counts.

    Parameters
    ----------
    data
        ``(slices, views, detectors)``: a detector row is a slice. Bad elements are filled in.
    middle
        Those of the middle slice before bad elements were filled in.
    photons_per_ray
        Photons per ray in air that have the noise of the flat fields, if there are enough of these to show it.
    steps
        What was found.
    """

    data: NDArray[np.float32]
    middle: NDArray[np.float32]
    photons_per_ray: float | None
    steps: list[Step]

    @property
    def noise_std(self) -> float | None:
        """Standard deviation of the noise, of the median ray."""
        if self.photons_per_ray is None:
            return None
        return math.sqrt(float(np.median(np.exp(self.data))) / self.photons_per_ray)


@dataclass(frozen=True)
class Field:
    """Flat or dark field, one image for each set of frames that were taken one after another.

    Parameters
    ----------
    images
        ``(sets, rows, columns)``.
    times
        Place of each set in the order of the frames.
    scatter, freedom
        Standard deviation of the frames of a set, ``(rows, columns)``, and its degrees of freedom; None and 0 if no set
        has three frames.
    frames, zingers
        Number of frames, and of samples of them that were replaced.
    """

    images: Frames
    times: Times
    scatter: NDArray[np.float32] | None
    freedom: int
    frames: int
    zingers: int

    def of_row(self, row: int, times: Times | None) -> NDArray[np.float32]:
        """The field of a row at some times, ``(times, columns)``, or ``(1, columns)`` if it is the same at all."""
        images = self.images[:, row]
        if len(images) == 1 or times is None:
            return images[:1]
        place = np.interp(times, self.times, np.arange(len(images)))
        before = np.minimum(place.astype(np.intp), len(images) - 2)
        after = (place - before).astype(np.float32)[:, None]
        return np.asarray(images[before] * (1 - after) + images[before + 1] * after, dtype=np.float32)


def line_integrals(counts: Counts, settings: Preparation, mask: NDArray[np.bool_] | None = None) -> LineIntegrals:
    """Convert raw counts to line integrals.

    Parameters
    ----------
    counts
        Checked counts.
    mask
        Elements that are known to be bad, ``(rows, columns)``.

    Raises
    ------
    InputError
        If flat fields are not brighter than dark ones in too many elements, or in any that is not to be filled in.
    """
    names, steps = counts.names, []
    least = LEAST_EXCESS * float(np.median(counts.flats))
    changing = settings.flat_field == "principal-components"  # then all flats are one set
    flat = _field(counts.flats, None if changing else counts.flat_times, counts.projection_times, settings, least)
    if counts.darks is None:
        dark = Field(np.zeros_like(flat.images[:1]), np.zeros(1), None, 0, 0, 0)
    else:
        dark = _field(counts.darks, counts.dark_times, counts.projection_times, settings, least)
    bad, said = elements.find(counts, flat.images, dark.images, flat.scatter, mask, find=settings.bad_elements)
    span = flat.images.mean(0) - dark.images.mean(0)
    wrong = (span <= 0) & ~bad
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"the flat field is not above the dark field at row {row}, column {column}"
            f" ({int((span <= 0).sum())} of {span.size} elements)",
            field=names[1],
            remedy="check that flat and dark fields are not swapped; dead elements are filled in by"
            " acquisition.preparation.bad_elements",
        )
    frames, rows, columns = counts.projections.shape
    data = np.empty((rows, frames, columns), np.float32)
    middle = data[rows // 2]
    for row in range(rows):
        ends = dark.of_row(row, counts.projection_times), flat.of_row(row, counts.projection_times)
        span_of_row = ends[1] - ends[0]
        np.copyto(span_of_row, np.median(span_of_row), where=bad[row] & (span_of_row <= 0))
        transmission = (counts.projections[:, row] - ends[0]) / span_of_row
        np.log(np.maximum(transmission, SMALLEST_TRANSMISSION), out=data[row])
        np.negative(data[row], out=data[row])
        if row == rows // 2:
            middle = data[row].copy()
        elements.fill(data[row], bad[row])
    if changing:
        steps.append(_taken_out(data, counts.flats, flat, dark, bad))
    photons = _photons(flat, span, bad)
    steps.append(_told(flat, dark, photons, settings))
    if settings.bad_elements or mask is not None:
        steps.append(said)
    return LineIntegrals(data, middle, photons, steps)


def _field(
    frames: Frames, times: Times | None, projections: Times | None, settings: Preparation, least: float
) -> Field:
    """Average the frames of each set; single samples that are far off the others of their element are replaced."""
    if times is None or projections is None:
        order, starts = np.zeros(len(frames)), [0]
    else:  # a set ends where projections were taken before the next frame
        order = times
        between = [((projections > a) & (projections < b)).any() for a, b in pairwise(times)]
        starts = [0, *(int(i) + 1 for i in np.flatnonzero(between))]
    images, places, variances, freedom, zingers = [], [], [], 0, 0
    for begin, end in zip(starts, [*starts[1:], len(frames)], strict=True):
        part, replaced = _without_zingers(frames[begin:end], least) if settings.zingers else (frames[begin:end], 0)
        zingers += replaced
        images.append(part.mean(0) if settings.flat_field != "median" else np.median(part, axis=0))
        places.append(float(order[begin:end].mean()))
        if len(part) > 2:
            steady = part / _brightness(part, np.median(part, axis=0))
            variances.append((len(part) - 1) * steady.var(0, ddof=1))
            freedom += len(part) - 1
    scatter = np.sqrt(np.sum(variances, axis=0) / freedom) if freedom else None
    return Field(np.asarray(images, np.float32), np.asarray(places), scatter, freedom, len(frames), zingers)


def _without_zingers(frames: Frames, least: float) -> tuple[Frames, int]:
    """Replace samples that are brighter than their element's other frames by more than noise can be, and `least`.

    Of two frames the darker one is right, of more their median. The noise is that of the middle of all samples, in
    units of the root of the signal, as photons have it.
    """
    if len(frames) < 2:
        return frames, 0
    usual = np.median(frames, axis=0) if len(frames) > 2 else frames.min(0)
    level = _brightness(frames, usual)
    root = np.sqrt(np.maximum(usual, max(1e-3 * float(np.median(usual)), 1e-12)))
    excess = frames - usual * level
    noise = float(np.median(np.abs(excess) / root)) / 0.6745
    outliers = excess > np.maximum(OUTLIER * noise * root, least)
    outliers &= outliers.sum(0) <= max(len(frames) // 3, 1)  # an element that is often off is unstable, see `elements`
    count = int(outliers.sum())
    return (np.where(outliers, usual * level, frames).astype(np.float32), count) if count else (frames, 0)


def _brightness(frames: Frames, usual: NDArray[np.float32]) -> NDArray[np.float32]:
    """The beam's brightness in each frame over that in the usual one, ``(frames, 1, 1)``."""
    middle = float(np.median(usual))
    found = np.median(frames, axis=(1, 2)) / middle if middle > 0 else np.ones(len(frames))
    return np.where(found > 0, found, 1).astype(np.float32)[:, None, None]


def _photons(flat: Field, span: NDArray[np.float32], bad: NDArray[np.bool_]) -> float | None:
    """Photons with the relative noise of the flats, which repeat one measurement; None if there are too few to tell."""
    if flat.scatter is None or bad.all():
        return None
    relative = float(np.median((flat.scatter / np.where(bad, 1, span))[~bad]))
    # The median of a variance of few frames is below its mean (Wilson and Hilferty).
    below = (1 - 2 / (9 * flat.freedom)) ** 3
    return below / relative**2 if relative > 0 else None


def _taken_out(data: Frames, flats: Frames, flat: Field, dark: Field, bad: NDArray[np.bool_]) -> Step:
    """Take what flats differ by out of each view."""
    span = np.where(bad, 1, flat.images.mean(0) - dark.images.mean(0))
    parts = principal.components(np.log(np.maximum((flats - dark.images.mean(0)) / span, SMALLEST_TRANSMISSION)), bad)
    rms = principal.correct(data, parts, bad)
    text = (
        f"{len(parts)} principal components of the flats are taken out of each view, {rms:.2g} (rms) in line integrals"
    )
    numbers: dict[str, int | float | list[int]] = {"components": len(parts), "rms": round(rms, 6)}
    return Step(name="flat_field", changed=len(parts) > 0, text=text, numbers=numbers)


def _told(flat: Field, dark: Field, photons: float | None, settings: Preparation) -> Step:
    change = float(np.abs(np.diff(np.median(flat.images, axis=(1, 2)))).sum() / np.median(flat.images[0]))
    text = f"{settings.flat_field} of {flat.frames} flat and {dark.frames} dark frames"
    if len(flat.images) > 1:
        text += f", interpolated in time between {len(flat.images)} sets of flats, which differ by {change:.2%}"
    if photons is not None:
        text += f"; flats have the noise of {photons:.3g} photons per ray"
    said = []
    if dark.frames == 0:
        said.append("no dark frames: the dark signal is taken as zero")
    if flat.zingers + dark.zingers:
        said.append(f"{flat.zingers + dark.zingers} zingers in flat and dark frames were removed")
    zingers = flat.zingers + dark.zingers
    numbers: dict[str, int | float | list[int]] = {
        "flats": flat.frames,
        "flat_sets": len(flat.images),
        "darks": dark.frames,
        "dark_sets": len(dark.images) if dark.frames else 0,
        "change_between_sets": round(change, 6),
        "zingers": zingers,
    }
    if photons is not None:
        numbers["photons_per_ray"] = round(photons, 1)
    return Step(
        name="flat_field",
        changed=zingers > 0,
        warning=dark.frames == 0,
        text="; ".join([*said, text]),
        numbers=numbers,
    )
