"""Synthetic training images of objects that are not patients, made from a seed, so that no data or licence is needed.

An image shows an object in air, or a part of one: a scene of one kind (two in some), of materials that are constant,
graded or textured, with inclusions in some; half of the images are a little blurred. Sizes follow a power law, so that
no size is special, as in the dead leaves model (Lee, Mumford and Huang 2001, IJCV 41, 35). Edges are
anti-aliased from the signed distance to them.

Attenuation counts in the robust maximum of a scan; air is 0. Lengths are in pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from recon.training import shapes
from recon.training.shapes import Image

VERSION = 1
"""Version of the generator: another one makes other images from the same seed."""
CORE, LEAST_CONTRAST = 0.85, 0.03
"""Radius of specimens over half the side of the image, and the least standard deviation inside."""
DENSEST = 2.0
"""Attenuation of the densest inclusions: small ones are beyond the robust maximum."""


@dataclass(frozen=True)
class Materials:
    """Materials of one image: attenuations, and how they vary inside a part."""

    values: Image
    texture: Image
    """Relative deviations ``(rows, cols)`` inside textured parts."""
    varied: float
    """Fraction of the parts that are graded or textured."""

    def draw(self, rng: np.random.Generator) -> float:
        """Attenuation of one part."""
        return float(self.values[rng.integers(len(self.values))])

    def fill(self, rng: np.random.Generator, place: tuple[slice, slice], value: float) -> Image | float:
        """Fill a part of attenuation `value` at a place of the image: constant, graded or textured."""
        if rng.random() >= self.varied:
            return value
        texture = self.texture[place]
        if rng.random() < 0.5:
            return value * (1 + texture)
        rows, cols = texture.shape
        ramp = shapes.ramp(rng, rows, cols)
        return value * (1 + rng.uniform(0.05, 0.4) * ramp)


def image(seed: int, index: int, size: int) -> NDArray[np.float32]:
    """Make image `index` of a seed, ``(size, size)``; bit-identical for the same numbers."""
    rng = np.random.default_rng([VERSION, seed, index])
    kind = _kind(rng)
    materials = _materials(rng, size)
    scene = KINDS[kind](rng, size, materials)
    if rng.random() < 0.2:
        scene = shapes.blend(scene, KINDS[_kind(rng)](rng, size, materials), shapes.outline(rng, size)[0])
    scene = _with_inclusions(rng, scene, materials)
    if rng.random() < 0.7:
        scene = _in_air(rng, scene, materials)
    if rng.random() < 0.5:
        scene = gaussian_filter(scene, rng.uniform(0.3, 1.0))
    return scene.clip(0, DENSEST).astype(np.float32, copy=False)


def specimens(seed: int, count: int, size: int) -> NDArray[np.float32]:
    """Cut round specimens ``(count, size, size)`` with air around, as cores are, out of images that hold something."""
    axis = np.linspace(-1, 1, size)
    within = gaussian_filter((np.hypot(axis, axis[:, None]) < CORE).astype(np.float64), 1.0)
    images = (image(seed, index, size) for index in itertools.count())
    filled = (one * within for one in images if one[within > CORE].std() > LEAST_CONTRAST)
    return np.stack(list(itertools.islice(filled, count))).astype(np.float32)


def kind_of(seed: int, index: int) -> str:
    """Kind of that image's scene, one of `KINDS`."""
    return _kind(np.random.default_rng([VERSION, seed, index]))


def _kind(rng: np.random.Generator) -> str:
    return list(KINDS)[rng.integers(len(KINDS))]


@dataclass(frozen=True)
class Made(Sequence[NDArray[np.generic]]):
    """Sequence of the synthetic images of one seed, each made on access."""

    seed: int
    images: int
    size: int

    def __len__(self) -> int:
        return self.images

    @overload
    def __getitem__(self, index: int) -> NDArray[np.generic]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.generic]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.generic] | list[NDArray[np.generic]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.images))]
        return image(self.seed, index, self.size)


# Scenes: attenuation of every pixel.


def leaves(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Dead-leaves scene: ellipses, polygons, rods and shells of all sizes, each over those before it."""
    scene = _background(rng, size, materials)
    forms = [shapes.FORMS[i] for i in np.flatnonzero(rng.random(len(shapes.FORMS)) < 0.6)] or shapes.FORMS
    count = int(rng.integers(20, 1 + size * 3 // 2))
    radii = shapes.power_law(rng, rng.uniform(1, 3), rng.uniform(0.2, 0.5) * size, 3.0, count)
    if rng.random() < 0.5:
        radii = np.sort(radii)[::-1]  # the small ones in front
    for radius in radii:
        _stamp(rng, scene, materials, forms[rng.integers(len(forms))], radius, thin=rng.random() < 0.25)
    return scene


def assembly(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of a few large machined parts, with bores and thin walls, in air or embedded."""
    scene = _background(rng, size, materials) * np.float32(rng.random() < 0.5)
    for radius in np.sort(shapes.power_law(rng, 0.05 * size, 0.6 * size, 1.5, int(rng.integers(3, 14))))[::-1]:
        hollow = rng.random()
        _stamp(rng, scene, materials, shapes.FORMS[rng.integers(len(shapes.FORMS))], radius, thin=hollow < 0.4)
    return scene


def lattice(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of a periodic structure: bars in up to three directions, balls, or a section of a minimal surface."""
    period = float(shapes.power_law(rng, 4, size / 3, 1.0, 1)[0])
    fill = rng.uniform(0.08, 0.5)
    x, y = shapes.turned(rng, *shapes.grid(size))
    if rng.random() < 0.5:
        bend = rng.uniform(0, 0.5) * period
        x, y = x + bend * shapes.smooth(rng, size, 3), y + bend * shapes.smooth(rng, size, 3)
    which = rng.integers(3)
    if which == 0:
        directions = shapes.angles(rng, int(rng.integers(1, 4)))
        distance = np.min([shapes.sawtooth(x * math.cos(a) + y * math.sin(a), period) for a in directions], axis=0)
        covered = shapes.band(distance, fill * period)
    elif which == 1:
        shift = np.where(np.round(y / period) % 2, period * rng.choice([0.0, 0.5]), 0.0).astype(np.float32)
        covered = shapes.inside(
            np.hypot(shapes.sawtooth(x + shift, period), shapes.sawtooth(y, period)) - fill * period
        )
    else:
        # The gyroid or the Schwarz P surface, cut by an oblique plane.
        u, v, w = shapes.oblique(rng, x * (2 * math.pi / period), y * (2 * math.pi / period))
        if rng.random() < 0.5:
            level = np.sin(u) * np.cos(v) + np.sin(v) * np.cos(w) + np.sin(w) * np.cos(u)
        else:
            level = np.cos(u) + np.cos(v) + np.cos(w)
        slope = shapes.slope(level)
        if rng.random() < 0.5:
            covered = shapes.band(level / slope, 2 * fill / slope)
        else:
            covered = shapes.inside((level - rng.uniform(-0.8, 0.8)) / slope)
    return shapes.blend(*_two(rng, size, materials), covered)


def foam(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of foam: cells with thin or thick walls, mostly full of air."""
    cells = shapes.cells(rng, size)
    wall = math.exp(rng.uniform(math.log(0.4), math.log(0.35 * cells.spacing + 0.5)))
    inside, walls = _two(rng, size, materials)
    if rng.random() < 0.7:
        inside = inside * np.float32(0)
    return shapes.blend(inside, walls, shapes.band(cells.distance, wall))


def grains(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of grains of different attenuation, like crystals, sometimes with a boundary phase between them."""
    cells = shapes.cells(rng, size)
    spread = math.exp(rng.uniform(math.log(0.02), math.log(0.8)))
    own: Image = materials.draw(rng) * (1 + spread * rng.uniform(-1, 1, cells.count))
    if rng.random() < 0.3:
        own = materials.values[rng.integers(len(materials.values), size=cells.count)]
    own = own.astype(np.float32)
    scene = shapes.blend(own[cells.second], own[cells.first], shapes.inside(-cells.distance))
    if rng.random() < 0.4:
        scene = shapes.blend(
            scene, _background(rng, size, materials), shapes.band(cells.distance, rng.uniform(0.3, 2.5))
        )
    return scene * (1 + materials.texture) if rng.random() < materials.varied else scene


def fibres(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of straight and bent fibres, aligned or not, thin or thick, seen from the side or cut across."""
    scene = _background(rng, size, materials) * np.float32(rng.random() < 0.6)
    width = float(shapes.power_law(rng, 0.8, 0.08 * size, 2.0, 1)[0])
    value, main, spread = materials.draw(rng), rng.uniform(0, math.pi), float(rng.choice([0.05, 0.3, math.pi]))
    if rng.random() < 0.25:
        bundle = _held(materials, [value])
        for _ in range(int(min(rng.uniform(0.1, 0.6) * size**2 / (4 * width**2), 2 * size))):
            _stamp(rng, scene, bundle, shapes.ellipse, width * rng.uniform(0.8, 1.2), thin=False)
        return scene
    x, y = shapes.grid(size)
    for _ in range(int(rng.integers(5, 60))):
        angle = main + spread * rng.uniform(-0.5, 0.5)
        across = x * math.cos(angle) + y * math.sin(angle) - rng.uniform(-0.7, 0.7) * size
        along = y * math.cos(angle) - x * math.sin(angle)
        bend = rng.uniform(-0.3, 0.3) * size * (rng.random() < 0.5)
        across = across + bend * (along / size) ** 2
        scene = shapes.blend(scene, np.float32(value), shapes.band(across, width * rng.uniform(0.7, 1.3)))
    return scene


def cracks(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of a material with branching, tapering cracks, full of air or of another material."""
    scene = _background(rng, size, materials)
    filling = materials.draw(rng) if rng.random() < 0.2 else 0.0
    for _ in range(int(rng.integers(1, 6))):
        start = (size * rng.uniform(-0.5, 0.5, 2)).astype(np.float32)
        _crack(rng, scene, filling, start, rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 4))
    return scene


def pores(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of a material with pores or particles, of power-law sizes, round or not."""
    scene = _background(rng, size, materials)
    held = _held(materials, [0.0 if rng.random() < 0.7 else materials.draw(rng)])
    form = shapes.ellipse if rng.random() < 0.7 else shapes.FORMS[rng.integers(len(shapes.FORMS))]
    count = int(rng.integers(10, 1 + 2 * size))
    for radius in shapes.power_law(
        rng, rng.uniform(0.6, 3), rng.uniform(0.05, 0.3) * size, rng.uniform(2.0, 3.5), count
    ):
        _stamp(rng, scene, held, form, radius, thin=False)
    return scene


def layers(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of thin and thick layers, flat, wavy or wound around a centre."""
    x, y = shapes.turned(rng, *shapes.grid(size))
    if rng.random() < 0.3:
        x0, y0 = rng.uniform(-1, 1, 2) * size
        x = np.hypot(x - x0, y - y0)
    if rng.random() < 0.6:
        x = x + rng.uniform(0, 0.08) * size * shapes.smooth(rng, size, int(rng.integers(2, 8)))
    thick = shapes.power_law(rng, rng.uniform(0.5, 3), rng.uniform(0.05, 0.4) * size, rng.uniform(1, 2.5), 4 * size)
    edges = np.concatenate([[0.0], np.cumsum(thick)])
    values = materials.values[rng.integers(len(materials.values), size=len(thick))]
    # The mean over a pixel's width is a difference of the integral.
    integral = np.concatenate([[0.0], np.cumsum(values * thick)])
    half, start = shapes.slope(x) / 2, x - x.min()
    total = np.interp(start + half, edges, integral) - np.interp(start - half, edges, integral)
    scene: Image = (total / (2 * half)).astype(np.float32)
    return scene * (1 + materials.texture) if rng.random() < materials.varied else scene


def mixture(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Scene of two interpenetrating materials, as after phase separation, or of one that varies without edges."""
    level = shapes.field(rng, size, cut=float(shapes.power_law(rng, 4, size / 3, 1.0, 1)[0]))
    first, second = _two(rng, size, materials)
    if rng.random() < 0.3:
        return shapes.blend(first, second, (0.5 + 0.2 * level).clip(0, 1))
    return shapes.blend(first, second, shapes.inside((level - rng.uniform(-1, 1)) / shapes.slope(level)))


KINDS: dict[str, Callable[[np.random.Generator, int, Materials], Image]] = {
    scene.__name__: scene for scene in (leaves, assembly, lattice, foam, grains, fibres, cracks, pores, layers, mixture)
}
"""Kinds of scenes by name, all with the same frequency."""


def _stamp(
    rng: np.random.Generator,
    scene: Image,
    materials: Materials,
    form: Callable[[np.random.Generator, Image, Image, float], Image],
    radius: float,
    *,
    thin: bool,
) -> None:
    """Place one part somewhere over a scene, in place: whole, or its shell if `thin`."""
    size = len(scene)
    row, col = rng.uniform(-0.2 * radius, size - 1 + 0.2 * radius, 2)
    reach = 1.5 * radius + 1  # of a rectangle's corners
    rows, cols = (slice(max(math.floor(c - reach), 0), max(math.ceil(c + reach) + 1, 0)) for c in (row, col))
    x, y = shapes.grid(size)
    x, y = shapes.turned(rng, x[:, cols] + (size - 1) / 2 - np.float32(col), y[rows] + (size - 1) / 2 - np.float32(row))
    distance = form(rng, x, y, radius)
    covered = shapes.band(distance, max(0.4, radius * rng.uniform(0.03, 0.3))) if thin else shapes.inside(distance)
    place = scene[rows, cols]
    place += covered * (materials.fill(rng, (rows, cols), materials.draw(rng)) - place)


def _crack(rng: np.random.Generator, scene: Image, filling: float, at: Image, angle: float, width: float) -> None:
    """Draw a crack from a point, in place: straight pieces that turn, taper, and branch."""
    size = len(scene)
    x, y = shapes.grid(size)
    pieces = int(rng.integers(6, 25))
    for piece in range(pieces):
        length, wide = rng.uniform(0.02, 0.1) * size, width * (1 - piece / pieces)
        angle += rng.normal(0, 0.5)
        step = np.array([length * math.cos(angle), length * math.sin(angle)], np.float32)
        low, high = np.minimum(at, at + step) - wide - 1, np.maximum(at, at + step) + wide + 1
        cols, rows = (
            slice(max(math.floor(a + size / 2), 0), max(math.ceil(b + size / 2), 0))
            for a, b in zip(low, high, strict=True)
        )
        u, v = x[:, cols] - at[0], y[rows] - at[1]
        along = ((u * step[0] + v * step[1]) / length**2).clip(0, 1)
        distance = np.hypot(u - along * step[0], v - along * step[1])
        place = scene[rows, cols]
        place += shapes.band(distance, wide) * (filling - place)
        at = at + step
        if piece > 2 and width > 0.8 and rng.random() < 0.08:
            aside = math.copysign(rng.uniform(0.4, 1.2), rng.random() - 0.5)
            _crack(rng, scene, filling, at, angle + aside, wide * 0.7)


def _with_inclusions(rng: np.random.Generator, scene: Image, materials: Materials) -> Image:
    """Add specks denser than anything else, or voids, to some images."""
    size, chance = len(scene), rng.random()
    if chance < 0.3:
        value = rng.uniform(materials.values.max(), DENSEST) if chance < 0.2 else 0.0
        held = _held(materials, [value])
        for radius in shapes.power_law(rng, 0.6, 0.06 * size, 2.5, int(rng.integers(1, 40))):
            _stamp(rng, scene, held, shapes.FORMS[rng.integers(len(shapes.FORMS))], radius, thin=False)
    return scene


def _in_air(rng: np.random.Generator, scene: Image, materials: Materials) -> Image:
    """Cut a scene to the outline of an object, with a wall of its own in some images."""
    size = len(scene)
    covered, distance = shapes.outline(rng, size)
    scene = scene * covered
    if rng.random() < 0.35:
        wall = float(shapes.power_law(rng, 0.6, 0.08 * size, 1.5, 1)[0])
        gap = rng.uniform(-0.5, 1) * 0.08 * size * (rng.random() < 0.5)
        wall_value = np.float32(materials.draw(rng) if rng.random() < 0.7 else rng.uniform(0.3, 1.2))
        scene = shapes.blend(scene, wall_value, shapes.band(distance - gap, wall))
    return scene


# Materials.


def _materials(rng: np.random.Generator, size: int) -> Materials:
    """Draw two to six materials of very different or similar attenuation."""
    count = int(rng.integers(2, 7))
    brightest = rng.uniform(0.4, 1.1)
    if rng.random() < 0.3:
        values = brightest * (1 - math.exp(rng.uniform(math.log(0.02), math.log(0.4))) * rng.random(count))
    else:
        values = brightest * rng.uniform(0.05, 1, count)
        values[1] = brightest
    if rng.random() < 0.3:
        values[0] = 0.0
    strength = math.exp(rng.uniform(math.log(0.01), math.log(0.25)))
    texture = (strength * _texture(rng, size)).clip(-0.9, 0.9)
    return Materials(values.astype(np.float32), texture.astype(np.float32), float(rng.choice([0.0, 0.0, 0.4, 1.0])))


def _held(materials: Materials, values: Sequence[float]) -> Materials:
    """Return the same texture with other attenuations."""
    return Materials(np.array(values, np.float32), materials.texture, materials.varied)


def _background(rng: np.random.Generator, size: int, materials: Materials) -> Image:
    """Fill a whole image with one material that is not air, often the densest."""
    value = float(materials.values.max() if rng.random() < 0.4 else rng.choice(materials.values[materials.values > 0]))
    filled = materials.fill(rng, (slice(0, size), slice(0, size)), value)
    return np.zeros((size, size), np.float32) + np.float32(filled)


def _two(rng: np.random.Generator, size: int, materials: Materials) -> tuple[Image, Image]:
    """Fill two images with two materials, one of them air in half of all cases."""
    first, second = _background(rng, size, materials), _background(rng, size, materials)
    return (first * np.float32(rng.random() < 0.5), second) if rng.random() < 0.7 else (second, first)


def _texture(rng: np.random.Generator, size: int) -> Image:
    """Draw a random field of unit variance: fine or coarse, isotropic or brushed."""
    if rng.random() < 0.3:
        return shapes.field(rng, size, cut=float(shapes.power_law(rng, 2.5, 20, 1.5, 1)[0]))
    return shapes.field(
        rng, size, exponent=rng.uniform(0.5, 2.5), stretch=rng.uniform(1, 6) if rng.random() < 0.3 else 1.0
    )
