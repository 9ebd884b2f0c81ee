"""Picture of the preparation of measured data: one sinogram before and after, and what changed."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import IO

import numpy as np
from matplotlib.figure import Figure

from recon.measurement.measurement import PreparationRecord


def write(path: Path | IO[bytes], record: PreparationRecord) -> None:
    """Draw the sinogram of the middle slice before and after, with the same grey window, and what the steps found.

    The window is that of the prepared sinogram, so that what was removed stands out.
    """
    low, high = (float(v) for v in np.percentile(record.after, [0.2, 99.8]))
    figure = Figure(figsize=(10, 6), layout="constrained")
    pictures, texts = figure.subfigures(2, 1, height_ratios=(3, 1), squeeze=False).ravel()
    axes = pictures.subplots(1, 2)
    image = None
    for axis, title, sinogram in ((axes[0], "before", record.before), (axes[1], "after", record.after)):
        shape = f"{sinogram.shape[0]} views, {sinogram.shape[1]} detectors"
        image = axis.imshow(
            sinogram, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), aspect="auto", interpolation="nearest"
        )
        axis.set_title(f"{title}: {shape}", fontsize=9)
        axis.set_xlabel("detector", fontsize=8)
        axis.set_ylabel("view", fontsize=8)
    if image is not None:
        pictures.colorbar(image, ax=axes, label="line integral", shrink=0.8)
    said = [f"{step.name}: {step.text}" for step in record.steps]
    texts.text(0.01, 0.98, "\n".join(line for one in said for line in wrap(one, 140)), va="top", fontsize=7)
    figure.savefig(path, dpi=100, format="png")
