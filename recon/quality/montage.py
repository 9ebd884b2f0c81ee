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

Volume = NDArray[np.float32]
Affine = NDArray[np.float64]
WINDOW_SLICES = 32
"""Most slices, evenly spaced, from which the grey window is taken."""


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

    Patient volumes are turned by their affine into the radiological view: anterior or superior on top, the
    patient's right on the left. Others are shown in the scanner's frame: x to the right, y and z up.
    The grey window is that of the first volume.
    """
    names = list(volumes)
    first = volumes[names[0]]
    low, high = (float(v) for v in np.percentile(first.sample, [0.5, 99.8]))
    planes = 3 if len(first.planes[1]) > 1 else 1
    # Not by pyplot, which would choose a backend for the whole process, a notebook's too.
    figure = Figure(figsize=(4.2 * planes, 4.0 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), planes, squeeze=False)
    image = None
    for row, name in enumerate(names):
        for column, (title, picture, aspect) in enumerate(views(volumes[name], affine, in_patient=in_patient)[:planes]):
            axis = axes[row][column]
            image = axis.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), aspect=aspect)
            axis.set_title(f"{name}, {title}", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    if image is not None:
        figure.colorbar(image, ax=axes, label=unit, shrink=0.6)
    figure.savefig(path, dpi=90, format="png")


def views(volume: Planes, affine: Affine, *, in_patient: bool) -> list[tuple[str, Volume, float]]:
    """Make axial, coronal and sagittal pictures as displayed (row 0 on top), with the pixels' aspect ratio."""
    orientation = nib.io_orientation(affine)
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
    dx, dy, dz = spacing
    # (col, row, slice) turned so that axes run right, anterior (up), superior; each plane lies across one of them.
    turned = [nib.apply_orientation(plane.transpose(2, 1, 0), orientation) for plane in reversed(volume.planes)]
    sagittal, coronal, axial = (turned[_stored_axis(orientation, axis)] for axis in range(3))
    if in_patient:
        # RAS axis 0 grows towards the patient's right: the radiological view has it on the left.
        axial, coronal = axial[::-1], coronal[::-1]
    side = " (R left)" if in_patient else ""
    return [
        (f"axial{side}", axial[:, ::-1, 0].T, dy / dx),
        (f"coronal{side}", coronal[:, 0, ::-1].T, dz / dx),
        ("sagittal", sagittal[0, ::-1, ::-1].T, dz / dy),
    ]


def upright(image: Volume, affine: Affine, *, in_patient: bool) -> tuple[Volume, float]:
    """Turn a slice ``(rows, cols)`` as a radiologist sees it; also returns the aspect ratio of its pixels."""
    every = views(Planes.of([image[None]], (1, *image.shape), affine), affine, in_patient=in_patient)
    _, picture, aspect = max(every, key=lambda view: view[1].size)
    return picture, aspect


def _stored_axis(orientation: NDArray[np.float64], axis: int) -> int:
    """Axis of ``(col, row, slice)`` that becomes `axis` when it is turned."""
    return int(np.flatnonzero(orientation[:, 0] == axis)[0])


def _middle(shape: tuple[int, int, int], affine: Affine) -> tuple[int, int, int]:
    """Slice, row and column in the middle: of an even number the upper one, counted in the patient's directions."""
    orientation = nib.io_orientation(affine)
    col, row, slice_ = (
        n // 2 if direction > 0 else n - 1 - n // 2 for n, direction in zip(shape[::-1], orientation[:, 1], strict=True)
    )
    return slice_, row, col
