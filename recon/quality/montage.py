"""Montage of a result and its baselines: three planes, the same grey window, physical aspect ratio."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from recon.quality.views import WINDOW_SLICES, grey_window, views_of

Volume = NDArray[np.float32]
Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Planes:
    """Three planes through the middle of a volume ``(slices, rows, cols)``, and some of its slices.

    Parameters
    ----------
    planes
        ``(1, rows, cols)``, ``(slices, 1, cols)`` and ``(slices, rows, 1)``.
    sample
        Evenly spaced slices, which tell the grey window.
    """

    planes: tuple[Volume, Volume, Volume]
    sample: Volume

    @classmethod
    def of(cls, slabs: Iterable[Volume], shape: tuple[int, int, int], affine: Affine) -> Planes:
        """Take the planes from a volume of `shape`, which comes in slabs of slices, in order."""
        index = _middle(shape, affine)
        stride = -(-shape[0] // WINDOW_SLICES)
        first, axial, coronal, sagittal, sample = 0, [], [], [], []
        for slab in slabs:
            if first <= index[0] < first + len(slab):
                axial.append(slab[index[0] - first][None].copy())
            coronal.append(slab[:, index[1] : index[1] + 1].copy())
            sagittal.append(slab[:, :, index[2] : index[2] + 1].copy())
            sample.append(slab[-first % stride :: stride].copy())
            first += len(slab)
        found = [np.concatenate(parts) for parts in (axial, coronal, sagittal, sample)]
        return cls((found[0], found[1], found[2]), found[3])


def write(path: Path | IO[bytes], volumes: dict[str, Planes], affine: Affine, unit: str, *, in_patient: bool) -> None:
    """Draw volumes in axial, coronal and sagittal planes through the middle.

    They are turned as `recon.quality.views.views_of` says. The grey window is that of the first volume.
    """
    names = list(volumes)
    first = volumes[names[0]]
    low, high = grey_window(first.sample)
    planes = 3 if len(first.planes[1]) > 1 else 1
    # Not by pyplot, which would choose a backend for the whole process, a notebook's too.
    figure = Figure(figsize=(4.2 * planes, 4.0 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), planes, squeeze=False)
    image = None
    for row, name in enumerate(names):
        for column, (title, picture, aspect) in enumerate(views(volumes[name], affine, in_patient=in_patient)[:planes]):
            axis = axes[row][column]
            image = axis.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect)
            axis.set_title(f"{name}, {title}", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    if image is not None:
        figure.colorbar(image, ax=axes, label=unit, shrink=0.6)
    figure.savefig(path, dpi=90, format="png")


def views(volume: Planes, affine: Affine, *, in_patient: bool) -> list[tuple[str, Volume, float]]:
    """Make axial, coronal and sagittal pictures as displayed (row 0 on top), with the pixels' aspect ratio."""
    side = " (R left)" if in_patient else ""
    return [
        (
            view.plane if view.plane == "sagittal" else f"{view.plane}{side}",
            view.picture(volume.planes[view.across], 0),
            view.down_mm / view.right_mm,
        )
        for view in views_of(affine, in_patient=in_patient)
    ]


def upright(image: Volume, affine: Affine, *, in_patient: bool) -> tuple[Volume, float]:
    """Turn a slice ``(rows, cols)`` as a radiologist sees it; also returns the aspect ratio of its pixels."""
    every = views(Planes.of([image[None]], (1, *image.shape), affine), affine, in_patient=in_patient)
    _, picture, aspect = max(every, key=lambda view: view[1].size)
    return picture, aspect


def _middle(shape: tuple[int, int, int], affine: Affine) -> tuple[int, int, int]:
    """Slice, row and column in the middle: of an even number the upper one, counted in the patient's directions."""
    orientation = nib.io_orientation(affine)
    col, row, slice_ = (
        n // 2 if direction > 0 else n - 1 - n // 2 for n, direction in zip(shape[::-1], orientation[:, 1], strict=True)
    )
    return slice_, row, col
