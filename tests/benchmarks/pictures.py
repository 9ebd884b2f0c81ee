"""Pictures of the quality benchmark: the middle slice of reconstructions, and of the truth if it is known."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from recon.quality.montage import Volume

mpl.use("Agg")
from matplotlib import pyplot as plt


def side_by_side(path: Path, volumes: dict[str, Volume], unit: str) -> None:
    """Draw the middle slice of reconstructions, as stored, in one window: the one of the last."""
    reference = list(volumes.values())[-1]
    low, high = (float(v) for v in np.percentile(reference, [0.5, 99.8]))
    figure, axes = plt.subplots(1, len(volumes), figsize=(3.6 * len(volumes) + 1, 3.8), layout="constrained")
    for axis, (name, volume) in zip(np.atleast_1d(axes), volumes.items(), strict=True):
        shown = axis.imshow(volume[len(volume) // 2], cmap="gray", vmin=low, vmax=high)
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes, label=unit, shrink=0.7)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def comparison(path: Path, truth: Volume, volumes: dict[str, Volume], unit: str) -> None:
    """Draw the middle slice of a truth and of reconstructions, as stored, and their errors, each row in one window."""
    middle = len(truth) // 2
    low, high = (float(v) for v in np.percentile(truth, [0.5, 99.8]))
    largest = float(np.percentile(np.abs(next(iter(volumes.values()))[middle] - truth[middle]), 99.5)) or 1.0
    figure, axes = plt.subplots(2, len(volumes) + 1, figsize=(3.6 * (len(volumes) + 1), 7.4), layout="constrained")
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
    plt.close(figure)
