"""Pictures that compare slices of several volumes side by side, upright and in one grey window."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from recon.quality.png import Colours
from recon.quality.views import grey_window

PANEL_INCHES, DPI = 3.0, 100


@dataclass(frozen=True)
class Picture:
    """Picture in PNG format, which a notebook shows by itself.

    Parameters
    ----------
    png
        Bytes of the file.
    """

    png: bytes = field(repr=False)

    def save(self, path: str | Path) -> Picture:
        """Write the picture to a file; returns the picture, so that a notebook shows it too."""
        Path(path).write_bytes(self.png)
        return self

    def _repr_png_(self) -> bytes:
        return self.png


def side_by_side(
    images: Mapping[str, NDArray[Any]],
    *,
    unit: str = "",
    window: tuple[float, float] | None = None,
    colours: Colours = "gray",
    aspect: float = 1.0,
) -> Picture:
    """Draw images beside each other, with the same window of values for all.

    Parameters
    ----------
    images
        Images ``(rows, cols)``, row 0 on top, by title; of complex ones the magnitude is drawn.
    unit
        Unit of the values.
    window
        Values that are black and white (the first and the last colour). Default: percentiles of the first image.
    colours
        Map of colours, ``gray`` or ``inferno``.
    aspect
        Height of a pixel over its width.
    """
    drawn = {title: np.abs(image) if np.iscomplexobj(image) else image for title, image in images.items()}
    low, high = grey_window(next(iter(drawn.values()))[None]) if window is None else window
    height = PANEL_INCHES * max(aspect * image.shape[0] / image.shape[1] for image in drawn.values())
    # Not by pyplot, which would choose a backend for the whole process, a notebook's too.
    figure = Figure(figsize=(PANEL_INCHES * len(drawn) + 0.8, height + 0.4), layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axis, (title, image) in zip(axes, drawn.items(), strict=True):
        shown = axis.imshow(image, cmap=colours, vmin=low, vmax=high, aspect=aspect)
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes, label=unit, shrink=0.8)
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png")
    return Picture(file.getvalue())
