"""Raw detector counts: frames with the object, of the beam alone and without beam, as a file has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from operators.errors import GeometryError, InputError

SMALLEST_TRANSMISSION = 1e-4
"""Lower bound on the transmission; below it is detector noise, so that line integrals are limited to 9.2."""
Frames = NDArray[np.float32]
"""Frames ``(frames, rows, columns)``."""
Times = NDArray[np.float64]
"""Place of each frame in the order in which frames were taken, ``(frames,)``."""


@dataclass(frozen=True)
class Counts:
    """Raw counts of a scan, or of some of its rows.

    Parameters
    ----------
    projections, flats, darks
        Frames with the object, of the beam alone, and without beam; without dark frames the dark signal counts as zero.
    projection_times, flat_times, dark_times
        Places of the frames in the order in which they were taken; None if the file does not tell.
    shifts
        Rows and columns ``(2, frames)`` by which each view is moved once it is divided by the flat field.
    kept_rows
        First of the rows that are asked for, and the one after the last; those around are there to be moved in.
    names
        Names of the three for messages, as the file has them.
    """

    projections: Frames
    flats: Frames
    darks: Frames | None = None
    projection_times: Times | None = None
    flat_times: Times | None = None
    dark_times: Times | None = None
    shifts: NDArray[np.float64] | None = None
    kept_rows: tuple[int, int] | None = None
    names: tuple[str, str, str] = ("counts", "flats", "darks")

    def views(self, wanted: NDArray[np.intp]) -> Counts:
        """Keep some projections only."""
        times, shifts = self.projection_times, self.shifts
        return replace(
            self,
            projections=self.projections[wanted],
            projection_times=None if times is None else times[wanted],
            shifts=None if shifts is None else shifts[:, wanted],
        )

    @staticmethod
    def joined(parts: Sequence[Counts]) -> Counts:
        """Join rows that were read one after another of the same frames."""
        darks = [part.darks for part in parts if part.darks is not None]
        return replace(
            parts[0],
            projections=np.concatenate([part.projections for part in parts], axis=1),
            flats=np.concatenate([part.flats for part in parts], axis=1),
            darks=np.concatenate(darks, axis=1) if darks else None,
        )

    def check(self) -> None:
        """Check that counts are finite and not negative, and that frames are of one size; raises `InputError`."""
        parts = zip(self.names, (self.projections, self.flats, self.darks), strict=True)
        for name, frames in ((n, f) for n, f in parts if f is not None):
            lowest = float(frames.min())  # NaN if any is
            if not np.isfinite(lowest) or not np.isfinite(float(frames.max())):
                _refuse(~np.isfinite(frames), frames, name, "not finite", "leave such frames out by exclude_views")
            if lowest < 0:
                remedy = "give raw detector counts; subtract no background before"
                _refuse(frames < 0, frames, name, "negative", remedy)
            if frames.shape[1:] != self.projections.shape[1:]:
                expected = self.projections.shape[1:]
                raise GeometryError(
                    f"{name} has frames of {frames.shape[1:]}, {self.names[0]} of {expected}",
                    field="input",
                    remedy="give fields of the same rows and columns as the projections",
                )


def _refuse(wrong: NDArray[np.bool_], frames: Frames, name: str, what: str, remedy: str) -> None:
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    raise InputError(
        f"{int(wrong.sum())} counts are {what}, the first at {index} is {frames[index]:g}", field=name, remedy=remedy
    )
