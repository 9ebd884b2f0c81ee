"""Random shapes of synthetic images: signed distances to edges, and pixel coverage.

Lengths are in pixels. Coordinates are columns ``(1, size)`` and rows ``(size, 1)``, or what these broadcast to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

NEIGHBOURS = 5
"""Number of nearest cells that are searched for a pixel's own and the one beyond the nearest wall."""

Image = NDArray[np.floating[Any]]
"""Array of the size of an image; always float32."""


def power_law(rng: np.random.Generator, low: float, high: float, exponent: float, count: int) -> Image:
    """Draw numbers between `low` and `high` of a density ``r**-exponent``."""
    u = rng.random(count, np.float32)
    if exponent == 1:
        return low * (high / low) ** u
    power = 1 - exponent
    found: Image = (low**power + u * (high**power - low**power)) ** (1 / power)
    return found


def grid(size: int) -> tuple[Image, Image]:
    """Pixel coordinates from the centre: columns ``(1, size)`` and rows ``(size, 1)``."""
    offsets = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return offsets[None], offsets[:, None]


def turned(rng: np.random.Generator, x: Image, y: Image) -> tuple[Image, Image]:
    """Rotate coordinates by a random angle."""
    angle = rng.uniform(0, 2 * math.pi)
    c, s = math.cos(angle), math.sin(angle)
    return x * c + y * s, y * c - x * s


def angles(rng: np.random.Generator, count: int) -> list[float]:
    """Draw directions, evenly spread over half a turn or random."""
    found = math.pi * (np.arange(count) / count if rng.random() < 0.7 else rng.random(count))
    return [float(angle) for angle in found]


def oblique(rng: np.random.Generator, x: Image, y: Image) -> list[Image]:
    """Draw a random plane through space; returns three coordinates per pixel."""
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
    return [x * a + y * b + c for a, b, c in zip(axes[0], axes[1], axes[2] * 100, strict=True)]


def ramp(rng: np.random.Generator, rows: int, cols: int) -> Image:
    """Linear ramp from -1 to 1 across a rectangle, in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.linspace(-1, 1, cols, dtype=np.float32), np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    ramp: Image = (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2)
    return ramp


def sawtooth(x: Image, period: float) -> Image:
    """Distance from the nearest multiple of a period."""
    return np.abs(x - period * np.round(x / period))


def slope(level: Image) -> Image:
    """Length of the gradient per pixel; never quite 0, so that a level divided by it is a distance."""
    down, right = np.gradient(level)
    slope: Image = np.hypot(down, right).clip(1e-3)
    return slope


def inside(distance: Image) -> Image:
    """Coverage (0 to 1) of a pixel at a signed distance from an edge."""
    covered: Image = (np.float32(0.5) - distance).clip(0, 1)
    return covered


def band(distance: Image, width: float | Image) -> Image:
    """Coverage of a pixel at a distance from a band's middle: below 1 for a band thinner than a pixel."""
    covered: Image = (distance + width / 2).clip(-0.5, 0.5) - (distance - width / 2).clip(-0.5, 0.5)
    return covered


def blend(below: Image, above: Image | np.float32, covered: Image) -> Image:
    """Blend one image over another."""
    blended: Image = below + covered * (above - below)
    return blended


def field(
    rng: np.random.Generator, size: int, *, cut: float | None = None, exponent: float = 0.0, stretch: float = 1.0
) -> Image:
    """Draw a Gaussian random field of unit variance: of wavelength `cut`, or of amplitude ``frequency**-exponent``."""
    rows, cols = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    cols, rows = turned(rng, cols, rows)
    frequency = np.hypot(cols, rows * stretch)
    if cut is not None:
        weight = np.exp(-0.5 * ((frequency * cut - 1) / 0.25) ** 2)
    else:
        weight = frequency.clip(1 / size) ** -exponent
    weight[0, 0] = 0.0
    noise = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    field: Image = fft.irfft2(noise * weight.astype(np.float32), s=(size, size))
    return field / max(float(field.std()), 1e-6)


def smooth(rng: np.random.Generator, size: int, waves: int) -> Image:
    """Draw a smooth field of about unit amplitude, with a given number of waves across the image."""
    return field(rng, size, cut=size / waves)


# Forms: signed distance to the edge of a part of radius `r` around the origin, negative inside.


def ellipse(rng: np.random.Generator, x: Image, y: Image, r: float) -> Image:
    """Draw an ellipse, in half of all cases a circle."""
    a, b = r, r * (rng.uniform(0.3, 1) if rng.random() < 0.5 else 1.0)
    # To first order, which is exact for a circle and at the edge.
    scaled = np.hypot(x / a, y / b)
    distance: Image = scaled * (scaled - 1) / np.hypot(x / a**2, y / b**2).clip(1e-6)
    return distance


def polygon(rng: np.random.Generator, x: Image, y: Image, r: float) -> Image:
    """Draw a convex polygon of three to seven sides, in a third of all cases a rectangle."""
    if rng.random() < 1 / 3:
        rectangle: Image = np.maximum(np.abs(x) - r, np.abs(y) - r * rng.uniform(0.2, 1))
        return rectangle
    sides = int(rng.integers(3, 8))
    angles = 2 * math.pi * (np.arange(sides) + rng.uniform(-0.3, 0.3, sides)) / sides
    reach = (r * rng.uniform(0.4, 0.8, sides)).astype(np.float32)
    distance: Image = x * math.cos(angles[0]) + y * math.sin(angles[0]) - reach[0]
    for angle, far in zip(angles[1:], reach[1:], strict=True):
        distance = np.maximum(distance, x * math.cos(angle) + y * math.sin(angle) - far)
    return distance


def rod(rng: np.random.Generator, x: Image, y: Image, r: float) -> Image:
    """Draw a rod with round ends."""
    half = r * rng.uniform(0.03, 0.3)
    distance: Image = np.hypot((np.abs(x) - (r - half)).clip(0), y) - half
    return distance


FORMS = [ellipse, polygon, rod]


def outline(rng: np.random.Generator, size: int) -> tuple[Image, Image]:
    """Draw an object's outline (smooth, with corners, or uneven); returns coverage and distance from the outline."""
    radius = size * math.exp(rng.uniform(math.log(0.25), math.log(2.0)))
    away, angle = rng.uniform(0, max(radius - 0.1 * size, 0.1 * size)), rng.uniform(0, 2 * math.pi)
    x, y = grid(size)
    x, y = turned(rng, x - np.float32(away * math.cos(angle)), y - np.float32(away * math.sin(angle)))
    distance = polygon(rng, x, y, 1.3 * radius) if rng.random() < 0.3 else ellipse(rng, x, y, radius)
    if rng.random() < 0.5:
        distance = distance + rng.uniform(0.02, 0.15) * radius * smooth(rng, size, int(rng.integers(2, 10)))
        distance = distance / slope(distance)
    return inside(distance), distance


@dataclass(frozen=True)
class Cells:
    """Voronoi tessellation: per pixel its cell, the one beyond the nearest wall, and the distance of that wall."""

    first: NDArray[np.integer[Any]]
    second: NDArray[np.integer[Any]]
    distance: Image
    count: int
    spacing: float


def cells(rng: np.random.Generator, size: int) -> Cells:
    """Draw cells of a random mean size, even or uneven, sometimes stretched."""
    spacing = float(power_law(rng, 4, 0.35 * size, 1.0, 1)[0])
    stretch = math.exp(rng.uniform(0, 1.2)) if rng.random() < 0.3 else 1.0
    x, y = turned(rng, *grid(size))
    half = 0.75 * size + spacing
    count = int((2 * half / spacing) ** 2 / stretch)
    seeds = rng.uniform(-half, half, (count, 2))
    if rng.random() < 0.5:
        # Uneven sizes: half of the seeds come in clusters.
        moved = count // 2
        seeds[:moved] = seeds[rng.integers(moved, count, moved)] + rng.normal(0, 0.7 * spacing, (moved, 2))
    points = np.stack([(x / stretch).ravel(), y.ravel()], axis=1)
    seeds = seeds * [1 / stretch, 1]
    away, which = (np.asarray(found) for found in cKDTree(seeds).query(points, k=NEIGHBOURS))
    between = seeds[which[:, 1:]] - seeds[which[:, :1]]
    # From the line half-way between two seeds, and back from the stretched plane into pixels.
    distances = (away[:, 1:] ** 2 - away[:, :1] ** 2) / (2 * np.hypot(between[..., 0] / stretch, between[..., 1]))
    nearest = distances.argmin(axis=1)
    each = np.arange(len(points))
    wall = distances[each, nearest].astype(np.float32)
    first, second = which[:, 0], which[each, 1 + nearest]
    shape = size, size
    return Cells(first.reshape(shape), second.reshape(shape), wall.reshape(shape), count, spacing)
