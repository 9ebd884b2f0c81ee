"""Preview of a reconstruction that is being computed: its middle planes as they are now, side by side, as PNG."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon.problem.inverse_problem import InverseProblem
from recon.quality import png
from recon.quality.views import View, grey_window, views_of

LONGEST_SIDE = 384
"""Most pixels along a side of a plane."""
THINNEST = 12
"""Least slices of which planes across them are worth a picture; a chunk of a volume has few."""
GAP = 4


def preview(inverse: InverseProblem, volume: Tensor) -> bytes:
    """Picture of a solver's volume ``(slices, rows, cols)``, or of some slices of it, in physical units.

    Axial, coronal and sagittal plane through the middle, as far as there are slices enough, with square pixels.
    """
    arranged = inverse.arranged(volume.detach())
    views = [
        view
        for view in views_of(inverse.affine, in_patient=inverse.in_patient)
        if view.across == 0 or len(arranged) >= THINNEST
    ]
    # Units are converted voxel by voxel: of the planes that are shown alone.
    middles = [arranged.narrow(view.across, arranged.shape[view.across] // 2, 1) for view in views]
    planes = [view.picture(inverse.display(middle), 0) for view, middle in zip(views, middles, strict=True)]
    low, high = grey_window(np.concatenate([plane.reshape(1, -1) for plane in planes], axis=1))
    pixel_mm = max(
        min(min(view.down_mm, view.right_mm) for view in views),
        max(max(_size_mm(plane, view)) for plane, view in zip(planes, views, strict=True)) / LONGEST_SIDE,
    )
    shown = [_square(png.windowed(p, low, high), view, pixel_mm) for p, view in zip(planes, views, strict=True)]
    height = max(len(picture) for picture in shown)
    width = sum(picture.shape[1] for picture in shown) + GAP * (len(shown) - 1)
    canvas, left = np.zeros((height, width), np.uint8), 0
    for picture in shown:
        top = (height - len(picture)) // 2
        canvas[top : top + len(picture), left : left + picture.shape[1]] = picture
        left += picture.shape[1] + GAP
    return png.encode(canvas)


def _size_mm(plane: NDArray[np.float32], view: View) -> tuple[float, float]:
    return plane.shape[0] * view.down_mm, plane.shape[1] * view.right_mm


def _square(shades: NDArray[np.uint8], view: View, pixel_mm: float) -> NDArray[np.uint8]:
    """The same picture in pixels of one size, by the nearest of its own."""
    taken = []
    for count, size_mm in zip(shades.shape, (view.down_mm, view.right_mm), strict=True):
        pixels = max(1, round(count * size_mm / pixel_mm))
        taken.append(np.minimum((np.arange(pixels) + 0.5) * count / pixels, count - 1).astype(int))
    return shades[np.ix_(*taken)]
