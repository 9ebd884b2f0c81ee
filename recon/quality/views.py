"""Views of a volume as radiology shows them: which voxels a plane has, and how they lie in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recon.spec.affine import Affine, voxel_size

PlaneName = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[PlaneName, ...] = get_args(PlaneName)
GREY_PERCENTILES = (0.5, 99.8)
"""Percentiles of a volume between which its pictures are grey, where nothing better is known."""
WINDOW_SLICES = 32
"""Most slices, evenly spaced, from which a grey window is taken."""


@dataclass(frozen=True)
class View:
    """View of the planes across one axis of a volume ``(slices, rows, cols)``.

    Parameters
    ----------
    plane
        Name of the planes, by the axis of the patient or of the scanner that is nearest.
    across, down, right
        Axes of the array: the one along which planes are counted, and those that run down and to the right.
    flip_down, flip_right
        Whether the picture runs against its axis.
    down_mm, right_mm
        Size of a pixel.
    labels
        What lies to the left, to the right, on top and below: letters of the patient, axes of the scanner.
    """

    plane: PlaneName
    across: int
    down: int
    right: int
    flip_down: bool
    flip_right: bool
    down_mm: float
    right_mm: float
    labels: tuple[str, str, str, str]

    def picture(self, volume: NDArray[Any], index: int) -> NDArray[Any]:
        """Plane number `index`, counted as the array counts, as displayed: row 0 on top."""
        plane: NDArray[Any] = np.take(volume, index, self.across)
        plane = plane if self.down < self.right else plane.T
        plane = plane[::-1] if self.flip_down else plane
        return plane[:, ::-1] if self.flip_right else plane


def views_of(affine: Affine, *, in_patient: bool) -> tuple[View, View, View]:
    """Axial, coronal and sagittal view of a volume.

    Patient volumes are seen in the radiological view: anterior or superior on top, the patient's right on the left.
    Others are seen in the scanner's frame: x to the right, y and z up. Planes are those of the array, named by the
    nearest axis of the frame, so that no value is interpolated.

    Parameters
    ----------
    affine
        Voxel ``(col, row, slice)`` to millimetres, RAS of the patient or the scanner's frame.
    in_patient
        Whether it leads into the patient.
    """
    import nibabel as nib  # takes its time, and the routes of a service are imported without pictures

    orientation = nib.io_orientation(affine)
    stored = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    grows = [int(orientation[axis, 1]) for axis in stored]
    size_mm = [voxel_size(affine)[axis] for axis in stored]
    left_right = ("R", "L") if in_patient else ("", "x")
    up_down = ("A", "P") if in_patient else ("y", "")
    top_bottom = ("S", "I") if in_patient else ("z", "")
    front_back = ("A", "P") if in_patient else ("y", "")
    # Axis of the frame across the plane, that to the right with its direction, and that on top.
    rightwards = -1 if in_patient else 1
    layout: tuple[tuple[PlaneName, int, int, int, int, tuple[str, str, str, str]], ...] = (
        ("axial", 2, 0, rightwards, 1, (*left_right, *up_down)),
        ("coronal", 1, 0, rightwards, 2, (*left_right, *top_bottom)),
        ("sagittal", 0, 1, -1, 2, (*front_back, *top_bottom)),
    )
    axial, coronal, sagittal = (
        View(
            plane,
            across=2 - stored[across],  # the array is (slices, rows, cols)
            down=2 - stored[upwards],
            right=2 - stored[right],
            flip_down=grows[upwards] > 0,
            flip_right=grows[right] != direction,
            down_mm=size_mm[upwards],
            right_mm=size_mm[right],
            labels=labels,
        )
        for plane, across, right, direction, upwards, labels in layout
    )
    return axial, coronal, sagittal


def grey_window(volume: NDArray[Any]) -> tuple[float, float]:
    """Window ``(low, high)`` of a volume or of some of its slices: values that are black and white."""
    low, high = percentiles(volume, GREY_PERCENTILES)
    return low, max(high, low + 1e-12)


def percentiles(volume: NDArray[Any], shares: Sequence[float]) -> list[float]:
    """Percentiles of the finite values of a volume, of some slices if there are many; zeros if none is finite."""
    sample = volume[:: -(-len(volume) // WINDOW_SLICES)]
    sample = sample[np.isfinite(sample)]
    return [float(value) for value in np.percentile(sample, shares)] if sample.size else [0.0 for _ in shares]
