"""Montage of a result and its baselines: three planes, the same grey window, physical aspect ratio."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Affine = NDArray[np.float64]


def write(path: Path | IO[bytes], volumes: dict[str, Volume], affine: Affine, unit: str, *, in_patient: bool) -> None:
    """Draw volumes ``(slices, rows, cols)`` in axial, coronal and sagittal planes through the middle.

    Patient volumes are turned by their affine into the radiological view: anterior or superior on top, the
    patient's right on the left. Others are shown in the scanner's frame: x to the right, y and z up.
    The grey window is that of the first volume.
    """
    names = list(volumes)
    first = volumes[names[0]]
    low, high = (float(v) for v in np.percentile(first, [0.5, 99.8]))
    planes = 3 if first.shape[0] > 1 else 1
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


def views(volume: Volume, affine: Affine, *, in_patient: bool) -> list[tuple[str, Volume, float]]:
    """Make axial, coronal and sagittal pictures as displayed (row 0 on top), with the pixels' aspect ratio."""
    # (col, row, slice) turned so that axes run right, anterior (up), superior.
    stored = volume.transpose(2, 1, 0)
    orientation = nib.io_orientation(affine)
    oriented = nib.apply_orientation(stored, orientation)
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
    # RAS axis 0 grows towards the patient's right: the radiological view has it on the left.
    across = oriented[::-1] if in_patient else oriented
    x, y, z = (n // 2 for n in across.shape)
    dx, dy, dz = spacing
    side = " (R left)" if in_patient else ""
    return [
        (f"axial{side}", across[:, ::-1, z].T, dy / dx),
        (f"coronal{side}", across[:, y, ::-1].T, dz / dx),
        ("sagittal", oriented[x, ::-1, ::-1].T, dz / dy),
    ]
