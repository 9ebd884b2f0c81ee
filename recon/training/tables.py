"""Things that patients lie on and wear, added to slices: tables, mattresses, head holders, masks, sheets, lines.

The scans of one hospital have one table. A prior that has seen no other bends those of others into its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from recon.training.shapes import Image, band, blend

FIELD_MM = 360.0
"""Longer side of a slice in mm, where it is not known."""
AIR_HU, EMPTY_HU, BODY_HU = -1000.0, -900.0, -400.0
"""Air; HU below which there is room for something else; HU above which a pixel may be the patient's."""
HEAD_MM = 260.0
"""Width up to which a patient's slice may be a head or a neck."""


@dataclass
class Place:
    """Slice to be furnished: where its patient is, in mm from the patient's middle, and what has been added."""

    x: Image
    """Columns ``(1, cols)``."""
    y: Image
    """Rows ``(rows, 1)``, growing downwards, where the table is."""
    half_width: float
    half_height: float
    outside: Image
    """Distance from the patient ``(rows, cols)``; 0 inside."""
    bottom: float
    """Level above which there is something already."""
    pixel_mm: float
    added: Image
    """HU ``(rows, cols)`` of what has been added; air elsewhere."""

    @classmethod
    def of(cls, image: NDArray[np.floating[Any]], pixel_mm: float) -> Place | None:
        """Find the patient, the largest piece above `BODY_HU`; None if there is none."""
        pieces, count = ndimage.label(image > BODY_HU)
        if count == 0:
            return None
        body = ndimage.binary_fill_holes(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax())
        rows, cols = (np.nonzero(body.any(axis))[0] for axis in (1, 0))
        middle = [(v[0] + v[-1]) / 2 for v in (rows, cols)]
        y, x = (
            (np.arange(size, dtype=np.float32) - np.float32(at)) * np.float32(pixel_mm)
            for size, at in zip(image.shape, middle, strict=True)
        )
        half_height, half_width = (len(v) * pixel_mm / 2 for v in (rows, cols))
        outside = (ndimage.distance_transform_edt(~body) * pixel_mm).astype(np.float32)
        added = np.full(image.shape, AIR_HU, np.float32)
        return cls(x[None], y[:, None], half_width, half_height, outside, half_height, pixel_mm, added)

    def layer(
        self, distance_mm: Image, thickness_mm: float | Image, hu: float, where: NDArray[np.bool_] | None
    ) -> None:
        """Add a layer around the points at distance 0, thinner than a pixel too, where nothing is denser."""
        covered = band(distance_mm / self.pixel_mm, thickness_mm / self.pixel_mm)
        if where is not None:
            covered = covered * where
        self.added = np.maximum(self.added, blend(np.full_like(covered, AIR_HU), np.float32(hu), covered))


def furnished(image: NDArray[np.floating[Any]], rng: np.random.Generator, pixel_mm: float | None = None) -> Image:
    """Add a table or a head holder to a slice ``(rows, cols)`` in HU, and some of what is found around patients.

    What is already in the slice stays as it is. The patient lies on the lower rows' side. A slice without a patient is
    returned as it is.

    Parameters
    ----------
    image
        HU.
    rng
        Source of all random numbers.
    pixel_mm
        Pixel size; such that the longer side is `FIELD_MM` when None.
    """
    place = Place.of(image, pixel_mm or FIELD_MM / max(image.shape))
    if place is None:
        return image.astype(np.float32)
    narrow = 2 * place.half_width < HEAD_MM
    for part, share in ((head_holder, 0.6 * narrow), (mattress, 0.5), (table, 0.9), (mask, 0.3 * narrow)):
        if rng.random() < share:
            part(rng, place)
    for part in (sheet, lines):
        if rng.random() < 0.3:
            part(rng, place)
    added = ndimage.gaussian_filter(place.added, rng.uniform(0.3, 0.8), mode="nearest")
    if rng.random() < 0.5:
        # As scanners do: nothing beyond the disc that all views see.
        y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in image.shape)
        added[np.hypot(y[:, None], x[None]) > 1] = AIR_HU
    more = image + (added - AIR_HU)
    found: Image = np.where(image < EMPTY_HU, more, np.maximum(image, added)).astype(np.float32)
    return found


def table(rng: np.random.Generator, place: Place) -> None:
    """Add a table: two thin shells of carbon fibre or plastic, foam between them, both bent or the upper one flat."""
    half = rng.uniform(190, 270)
    thick, edge = rng.uniform(12, 90), rng.uniform(4, 15)
    # The edges of a table that is bent upwards are higher than its middle.
    rise = rng.uniform(0, 45) if rng.random() < 0.7 else 0.0
    upper = place.bottom + rng.uniform(0, 8) - rise * (place.x / half) ** 2
    lens = 1 - (place.x / half) ** 2 if rng.random() < 0.7 else np.ones_like(place.x)
    depth = (edge + (thick - edge) * lens.clip(0)).astype(np.float32)
    slope = np.gradient(upper[0], place.pixel_mm)[None].astype(np.float32)
    within = np.broadcast_to(np.abs(place.x) < half, place.added.shape)
    cosine = 1 / np.hypot(1, slope)
    place.layer((place.y - upper - depth / 2) * cosine, depth * cosine, rng.uniform(-980, -850), within)
    for level in (upper, upper + depth):
        place.layer((place.y - level) * cosine, rng.uniform(0.6, 3.5), rng.uniform(-600, 250), within)
    if rng.random() < 0.3:  # a third shell, as of a cradle on a frame
        level = upper + depth + rng.uniform(5, 60)
        place.layer((place.y - level) * cosine, rng.uniform(0.6, 5), rng.uniform(-600, 250), within)
    place.bottom = float(upper.max() + thick)


def mattress(rng: np.random.Generator, place: Place) -> None:
    """Add a mattress: a layer of foam under the patient, who sinks into it, in a thin cover."""
    half, thick, sunk = rng.uniform(150, 250), rng.uniform(8, 35), rng.uniform(0, 15)
    wave = 2 * np.sin(place.x / rng.uniform(15, 60) + rng.uniform(0, 6))
    top = place.bottom - sunk + wave * (rng.random() < 0.5)
    within = np.broadcast_to(np.abs(place.x) < half, place.added.shape)
    place.layer(place.y - top - thick / 2, thick, rng.uniform(-985, -880), within)
    for level in (top, top + thick):
        place.layer(place.y - level, rng.uniform(0.3, 1.2), rng.uniform(-900, -300), within)
    place.bottom += thick - sunk


def head_holder(rng: np.random.Generator, place: Place) -> None:
    """Add a head holder: a bent shell, thin or of two walls with foam, around the lower half of the head; with pads."""
    gap, reach = rng.uniform(4, 25), math.radians(rng.uniform(40, 110))
    wide, high = place.half_width + gap, place.half_height + gap
    thick, wall, hu = rng.uniform(2, 14), rng.uniform(0.8, 3.5), rng.uniform(-500, 250)
    scaled = np.hypot(place.x / wide, place.y / high)
    # To first order, near the ellipse.
    distance = scaled * (scaled - 1) / np.hypot(place.x / wide**2, place.y / high**2).clip(1e-6)
    within = np.abs(np.arctan2(place.x / wide, place.y / high)) < reach
    if rng.random() < 0.6:
        place.layer(distance, thick, rng.uniform(-970, -850), within)
        for level in (-thick / 2, thick / 2):
            place.layer(distance - np.float32(level), wall, hu, within)
    else:
        place.layer(distance, rng.uniform(2, 6), hu, within)
    if rng.random() < 0.6:  # pads between head and shell
        pads = within & (distance < 0) & (np.abs(np.arctan2(place.x, place.y)) > rng.uniform(0, 0.6))
        place.layer(np.where(place.outside > 0, np.float32(0), np.float32(1e4)), 1e3, rng.uniform(-985, -930), pads)
    place.bottom = high + thick


def mask(rng: np.random.Generator, place: Place) -> None:
    """Add a mask as radiotherapy has them: a perforated sheet of plastic on the upper side of the head."""
    holes = rng.uniform(4, 9)
    solid = np.sin(place.x * (math.pi / holes)) ** 2 + np.sin(place.y * (math.pi / holes)) ** 2 > rng.uniform(0.2, 0.9)
    upper = (place.y < rng.uniform(0, 0.6) * place.half_height) & (place.outside > 0)
    distance = place.outside - np.float32(rng.uniform(1, 6))
    place.layer(distance, rng.uniform(1.2, 3.0), rng.uniform(-300, 150), upper & solid)


def sheet(rng: np.random.Generator, place: Place) -> None:
    """Add a sheet: thin wavy layers above the patient or at the sides."""
    for _ in range(int(rng.integers(1, 4))):
        lift = rng.uniform(2, 30) + rng.uniform(1, 5) * np.sin(place.x / rng.uniform(8, 50) + rng.uniform(0, 6))
        beyond = np.broadcast_to(np.abs(place.x) < place.half_width + rng.uniform(0, 120), place.added.shape)
        place.layer(place.outside - lift, rng.uniform(0.5, 2.5), rng.uniform(-960, -700), beyond & (place.outside > 0))


def lines(rng: np.random.Generator, place: Place) -> None:
    """Add lines across the slice: tubes, cables and needles beside the patient."""
    for _ in range(int(rng.integers(1, 5))):
        turn, away = rng.uniform(0, 2 * math.pi), rng.uniform(5, 60)
        at_x = (place.half_width + away) * math.cos(turn)
        at_y = (place.half_height + away) * math.sin(turn)
        distance = np.hypot(place.x - np.float32(at_x), place.y - np.float32(at_y))
        radius = rng.uniform(0.5, 4)
        hollow = radius > 1.5
        hu = rng.uniform(-100, 500) if hollow else rng.uniform(500, 3000)
        thickness = rng.uniform(0.5, 1.2) if hollow else 2 * radius
        place.layer(distance - np.float32(radius if hollow else 0), thickness, hu, None)
