"""One picture of a result: three planes, the baselines beside it, the same grey window, physical aspect."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Affine = NDArray[np.float64]


def write(path: Path, volumes: dict[str, Volume], affine: Affine, unit: str, *, in_patient: bool) -> None:
    """Draw volumes ``(slices, rows, cols)`` in axial, coronal and sagittal planes through the middle.

    Patient volumes are turned by their affine into the radiological view: anterior or superior on top, the
    patient's right on the left. Others are shown in the scanner's frame: x to the right, y and z up.
    The grey window is that of the first volume.
    """
    names = list(volumes)
    first = volumes[names[0]]
    low, high = (float(v) for v in np.percentile(first, [0.5, 99.8]))
    planes = 3 if first.shape[0] > 1 else 1
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
    figure.savefig(path, dpi=90)


def views(volume: Volume, affine: Affine, *, in_patient: bool) -> list[tuple[str, Volume, float]]:
    """Axial, coronal and sagittal pictures as displayed (row 0 on top), with the pixels' aspect ratio."""
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


def side_by_side(path: Path, volumes: dict[str, Volume], unit: str) -> None:
    """Draw the middle slice of reconstructions, as stored, in one window: the one of the last."""
    reference = list(volumes.values())[-1]
    low, high = (float(v) for v in np.percentile(reference, [0.5, 99.8]))
    figure = Figure(figsize=(3.6 * len(volumes) + 1, 3.8), layout="constrained")
    axes = figure.subplots(1, len(volumes))
    for axis, (name, volume) in zip(np.atleast_1d(axes), volumes.items(), strict=True):
        shown = axis.imshow(volume[len(volume) // 2], cmap="gray", vmin=low, vmax=high)
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes, label=unit, shrink=0.7)
    figure.savefig(path, dpi=70)


def comparison(path: Path, truth: Volume, volumes: dict[str, Volume], unit: str) -> None:
    """Draw the middle slice of a truth and of reconstructions, as stored, and their errors, each row in one window."""
    middle = len(truth) // 2
    low, high = (float(v) for v in np.percentile(truth, [0.5, 99.8]))
    largest = float(np.percentile(np.abs(next(iter(volumes.values()))[middle] - truth[middle]), 99.5)) or 1.0
    figure = Figure(figsize=(3.6 * (len(volumes) + 1), 7.4), layout="constrained")
    axes = figure.subplots(2, len(volumes) + 1)
    for column, (name, volume) in enumerate({"truth": truth, **volumes}.items()):
        shown = axes[0][column].imshow(volume[middle], cmap="gray", vmin=low, vmax=high)
        error = volume[middle] - truth[middle]
        errors = axes[1][column].imshow(error, cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes[0][column].set_title(name, fontsize=10)
    axes[1][0].set_title("error", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes[0], label=unit, shrink=0.7)
    figure.colorbar(errors, ax=axes[1], label=unit, shrink=0.7)
    figure.savefig(path, dpi=70)
