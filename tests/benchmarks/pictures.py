"""Pictures of the quality benchmark: the middle slice of reconstructions, and of the truth if it is known."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from recon.quality.montage import Affine, Volume, upright

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

RIM = 0.95
"""Part of the inscribed circle whose pixels tell the grey window: where few rays pass there are outliers."""


def window(volume: Volume) -> tuple[float, float]:
    """Grey window of what lies inside the inscribed circle."""
    rows, cols = (np.linspace(-1, 1, n) for n in volume.shape[1:])
    inside = rows[:, None] ** 2 + cols**2 < RIM**2
    low, high = np.percentile(volume[:, inside], [0.5, 99.8])
    return float(low), float(high)


def side_by_side(path: Path, volumes: dict[str, Volume], unit: str, affine: Affine, *, in_patient: bool) -> None:
    """Draw the middle slice of reconstructions in one window: the one of the last."""
    low, high = window(list(volumes.values())[-1])
    figure, axes = plt.subplots(1, len(volumes), figsize=(3.6 * len(volumes) + 1, 3.8), layout="constrained")
    for axis, (name, volume) in zip(np.atleast_1d(axes), volumes.items(), strict=True):
        shown = _drawn(axis, *upright(volume[len(volume) // 2], affine, in_patient=in_patient), "gray", low, high)
        axis.set_title(name, fontsize=10)
    figure.colorbar(shown, ax=axes, label=unit, shrink=0.7)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def comparison(
    path: Path, truth: Volume, volumes: dict[str, Volume], unit: str, affine: Affine, *, in_patient: bool
) -> None:
    """Draw the middle slice of a truth and of reconstructions, and their errors, each row in one window."""
    middle = len(truth) // 2
    low, high = window(truth)
    largest = float(np.percentile(np.abs(next(iter(volumes.values()))[middle] - truth[middle]), 99.5)) or 1.0
    figure, axes = plt.subplots(2, len(volumes) + 1, figsize=(3.6 * (len(volumes) + 1), 7.4), layout="constrained")
    for column, (name, volume) in enumerate({"truth": truth, **volumes}.items()):
        images = (upright(v[middle], affine, in_patient=in_patient) for v in (volume, volume - truth))
        shown = _drawn(axes[0][column], *next(images), "gray", low, high)
        errors = _drawn(axes[1][column], *next(images), "RdBu_r", -largest, largest)
        axes[0][column].set_title(name, fontsize=10)
    axes[1][0].set_title("error", fontsize=10)
    figure.colorbar(shown, ax=axes[0], label=unit, shrink=0.7)
    figure.colorbar(errors, ax=axes[1], label=unit, shrink=0.7)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _drawn(axis: Axes, picture: NDArray[np.float32], aspect: float, colours: str, low: float, high: float) -> AxesImage:
    axis.set_xticks([])
    axis.set_yticks([])
    return axis.imshow(picture, cmap=colours, vmin=low, vmax=high, aspect=aspect)
