"""Lesions that are inserted into known slices: their shapes, where they go, and how their contrast is read off."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from recon.quality import body

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Pixel = tuple[float, float]
"""Size of a pixel in mm, along rows' index and along columns' index."""
FINER = 24
"""Sub-pixels along a pixel, by which a lesion's share of it is found."""
GAP, RING = 1, 2
"""Pixels between a lesion and the ring around it, and the ring's width."""
APART_MM = 6.0
"""Least distance between the rings of two lesions in one slice."""
LINE_MM = 16.0
"""Length of a vessel."""
ROUNDNESS = 0.7
"""Short over long axis of an ellipse."""
ACROSS_MM = 12.0
"""Radius in which the direction of a bone is found."""
BONE_HU, SHELL_HU = 200.0, 400.0
"""Least of bone, and what its densest twentieth exceeds."""
STONE_HU = 100.0
"""Excess over the neighbours' median from which a pixel of soft tissue is something else, as a stone."""
SKULL_MM = 18.0
"""Depth in the head from which there is brain."""
STRUCTURE_MM2 = (30.0, 150.0)
"""Area of a structure that is taken away."""
SURROUNDINGS_MM = 3.0
"""Standard deviation of the Gaussian by which a missing structure's place is filled from around it."""
SEED = 0

NODULES_MM, LINES_MM = (4.0, 6.0, 8.0, 12.0), (1.5, 2.0, 3.0)
Shape = Literal["disc", "ellipse", "line", "crack", "missing"]
RAREST: tuple[Shape, ...] = ("missing", "crack", "line", "ellipse", "disc")
"""Shapes, those with the fewest places first."""


@dataclass(frozen=True)
class Kind:
    """Kind of lesion.

    Parameters
    ----------
    contrast
        Difference to the tissue, in HU or as a fraction of the median of the brain. A missing structure has that of the
        anatomy, and its size.
    sizes_mm
        Diameters of discs, long axes of ellipses, widths of lines.
    """

    name: str
    shape: Shape
    tissue: str
    contrast: float = 0.0
    sizes_mm: tuple[float, ...] = (0.0,)


CT_KINDS = (
    Kind("nodule -60 HU in soft tissue", "disc", "soft tissue", -60.0, NODULES_MM),
    Kind("nodule +60 HU in soft tissue", "disc", "soft tissue", 60.0, NODULES_MM),
    Kind("nodule +150 HU in soft tissue", "disc", "soft tissue", 150.0, NODULES_MM),
    Kind("nodule +150 HU in lung", "disc", "lung", 150.0, NODULES_MM),
    Kind("vessel +150 HU in soft tissue", "line", "soft tissue", 150.0, LINES_MM),
    Kind("vessel +500 HU in lung", "line", "lung", 500.0, LINES_MM),
    Kind("fracture -300 HU", "crack", "bone", -300.0, LINES_MM),
    Kind("missing structure", "missing", "soft tissue"),
)
MRI_KINDS = (
    Kind("bright lesion +20 %", "ellipse", "brain", 0.2, NODULES_MM),
    Kind("bright lesion +40 %", "ellipse", "brain", 0.4, NODULES_MM),
    Kind("dark lesion -40 %", "ellipse", "brain", -0.4, NODULES_MM),
    Kind("missing structure", "missing", "brain"),
)


@dataclass(frozen=True)
class Tissues:
    """Healthy tissue of a slice ``(rows, cols)``, by name.

    Parameters
    ----------
    masks
        Where lesions may lie.
    structures
        Small parts of the anatomy that differ from what is around them; one of them goes missing.
    unit
        What a contrast of 1 is in the unit of the slice.
    """

    masks: dict[str, Mask]
    structures: Mask
    unit: float

    @classmethod
    def of_ct(cls, image: Image) -> Tissues:
        """Find the tissues of a slice in HU."""
        smooth = ndimage.median_filter(image, 3)
        within = ndimage.binary_erosion(body.inside(image[None])[0], iterations=2)
        masks = {
            "soft tissue": _thick(_closed(within & (smooth > -20.0) & (smooth < 150.0)) & (image - smooth < STONE_HU)),
            "lung": _thick(_closed(within & (smooth > -970.0) & (smooth < -600.0))),
            "bone": within & _bone(image),
        }
        return cls(masks, masks["bone"], 1.0)

    @classmethod
    def of_brain(cls, image: Image, pixel_mm: Pixel) -> Tissues:
        """Find the brain in a slice of a head, in any magnitude, and liquor as its structures."""
        inside = body.inside(image[None])[0]
        deep = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=pixel_mm)[1:-1, 1:-1] > SKULL_MM
        median = float(np.median(image[deep])) if deep.any() else 1.0
        usual = (image > 0.6 * median) & (image < 1.5 * median)
        return cls({"brain": _thick(_closed(deep & usual))}, ndimage.binary_opening(deep & ~usual), median)


def _bone(image: Image) -> Mask:
    """Dense parts that have a hard shell, as blood with contrast agent has none."""
    labels, count = ndimage.label(ndimage.binary_fill_holes(ndimage.binary_opening(image > BONE_HU)))
    hard = [n for n in range(1, count + 1) if np.percentile(image[labels == n], 95) > SHELL_HU]
    return np.isin(labels, hard)


def _closed(mask: Mask) -> Mask:
    """Tissue with what is fine in it, as vessels in the lung and sulci, which belongs to it: anatomy cancels out."""
    return np.asarray(ndimage.binary_closing(mask, np.ones((3, 3), bool)), bool)


def _thick(mask: Mask) -> Mask:
    return np.asarray(ndimage.binary_opening(mask, np.ones((3, 3), bool)), bool)


@dataclass(frozen=True)
class Lesion:
    """Lesion at its place.

    Parameters
    ----------
    kind, size_mm
        What it is; the size of a missing structure is the diameter of a disc of the same area.
    index, row, col
        Slice, and corner of the patch.
    change
        What it adds to the slice in this patch, in the slice's unit, with a margin of `GAP` + `RING`.
    """

    kind: Kind
    size_mm: float
    index: int
    row: int
    col: int
    change: Image

    @property
    def at(self) -> tuple[int, slice, slice]:
        """Its patch in a volume."""
        rows, cols = self.change.shape
        return self.index, slice(self.row, self.row + rows), slice(self.col, self.col + cols)

    @property
    def template(self) -> Image:
        """Matched filter: mean over the core (half of the largest change and more) minus mean over the ring."""
        size = np.abs(self.change)
        core, ring = size >= size.max() / 2, _ring(size > 0)
        return np.asarray(core / core.sum() - ring / ring.sum(), np.float32)

    def contrast(self, difference: Image) -> float:
        """Contrast in a volume of differences ``(slices, rows, cols)``: mean over the core minus that over the ring."""
        return float(np.sum(self.template * difference[self.at], dtype=np.float64))

    def responses(self, error: Image, tissue: Mask) -> NDArray[np.float64]:
        """Contrast that this filter finds in an error ``(rows, cols)``, wherever the lesion fits into `tissue`."""
        found = signal.fftconvolve(error.astype(np.float64), self.template[::-1, ::-1], "valid")
        return np.asarray(found[places(tissue, self.footprint)])

    @property
    def footprint(self) -> Mask:
        """Pixels that have to be healthy tissue: the lesion with its ring, or a crack alone, whose ring leaves it."""
        return np.abs(self.change) > 0 if self.kind.shape == "crack" else self.surroundings

    @property
    def surroundings(self) -> Mask:
        """The lesion with the ring and what is between them."""
        return _with_ring(np.abs(self.change) > 0)

    @property
    def invented_sign(self) -> float:
        """Sign of an error that would pass for it; for a missing structure the sign of one that is not there."""
        sign = float(np.sign(np.sum(self.change)))
        return -sign if self.kind.shape == "missing" else sign


def _with_ring(support: Mask) -> Mask:
    return np.asarray(ndimage.binary_dilation(support, np.ones((3, 3), bool), iterations=GAP + RING), bool)


def _ring(support: Mask) -> Mask:
    return _with_ring(support) & ~ndimage.binary_dilation(support, np.ones((3, 3), bool), iterations=GAP)


def places(tissue: Mask, footprint: Mask) -> Mask:
    """Corners at which a patch lies in the image and its footprint in the tissue."""
    missed = signal.fftconvolve((~tissue).astype(np.float64), footprint[::-1, ::-1].astype(np.float64), "valid")
    return np.asarray(missed < 0.5, bool)


def covered(shape: Shape, size_mm: float, pixel_mm: Pixel, angle_rad: float) -> Image:
    """Share of each pixel that a shape in the middle of a patch covers, with the margin of a lesion's patch.

    The shape reaches through the slice; it is turned by `angle_rad` from the columns' index to the rows'.
    """
    long_mm = 2 * ACROSS_MM if shape == "crack" else LINE_MM if shape == "line" else size_mm
    half = [int(np.ceil(long_mm / 2 / mm)) + GAP + RING for mm in pixel_mm]
    sides = [(np.arange((2 * n + 1) * FINER) + 0.5) / FINER - n - 0.5 for n in half]
    y, x = np.meshgrid(*(s * mm for s, mm in zip(sides, pixel_mm, strict=True)), indexing="ij")
    along = np.cos(angle_rad) * x + np.sin(angle_rad) * y
    across = np.cos(angle_rad) * y - np.sin(angle_rad) * x
    if shape in ("line", "crack"):
        within = (np.abs(along) <= long_mm / 2) & (np.abs(across) <= size_mm / 2)
    else:
        round_ = ROUNDNESS if shape == "ellipse" else 1.0
        within = along**2 + (across / round_) ** 2 <= (size_mm / 2) ** 2
    blocks = within.reshape(2 * half[0] + 1, FINER, 2 * half[1] + 1, FINER)
    return np.asarray(blocks.mean((1, 3)), np.float32)


def insert(volume: Image, lesions: Sequence[Lesion]) -> Image:
    """Copy of a volume with its lesions."""
    found = volume.copy()
    for lesion in lesions:
        found[lesion.at] += lesion.change
    return found


def lay_out(volume: Image, tissues: Sequence[Tissues], kinds: Sequence[Kind], pixel_mm: Pixel) -> list[Lesion]:
    """Find places for lesions in a volume ``(slices, rows, cols)``: one of each kind and size per slice that has room.

    Rare places go first: structures, cracks, long lines, then what is large. Places are drawn with a fixed seed among
    all that are healthy tissue, with the ring, and far from others.
    """
    found = []
    for index, (image, tissue) in enumerate(zip(volume, tissues, strict=True)):
        rng = np.random.default_rng([SEED, index])
        first = index % len(kinds)  # none is always the last
        every = [(kind, size) for kind in (*kinds[first:], *kinds[:first]) for size in kind.sizes_mm]
        every.sort(key=lambda one: (RAREST.index(one[0].shape), -one[1]))
        free = np.ones(image.shape, bool)
        for kind, size_mm in every:
            candidates = _candidates(kind, size_mm, image, tissue, free, pixel_mm, rng)
            placed = next((Lesion(kind, round(s, 1), index, r, c, change) for s, r, c, change in candidates), None)
            if placed is None:
                continue
            found.append(placed)
            mine = np.zeros(image.shape, bool)
            mine[placed.at[1:]] = placed.surroundings
            free &= ndimage.distance_transform_edt(~mine, sampling=pixel_mm) > APART_MM
    return found


def _candidates(
    kind: Kind, size_mm: float, image: Image, tissue: Tissues, free: Mask, pixel_mm: Pixel, rng: np.random.Generator
) -> Iterator[tuple[float, int, int, Image]]:
    """Sizes, corners and changes of a kind of lesion at places that are free, in the order of a draw."""
    if kind.shape == "missing":
        yield from _structures(image, tissue, tissue.masks[kind.tissue], free, pixel_mm, rng)
        return
    if kind.shape == "crack":
        yield from _cracks(kind, size_mm, tissue.masks[kind.tissue], free, pixel_mm, rng)
        return
    change = kind.contrast * tissue.unit * covered(kind.shape, size_mm, pixel_mm, rng.uniform(0, np.pi))
    footprint = _with_ring(change != 0)
    for row, col in rng.permutation(np.argwhere(places(tissue.masks[kind.tissue] & free, footprint))):
        yield size_mm, int(row), int(col), np.asarray(change, np.float32)


def _cracks(
    kind: Kind, size_mm: float, bone: Mask, free: Mask, pixel_mm: Pixel, rng: np.random.Generator
) -> Iterator[tuple[float, int, int, Image]]:
    """Cracks across bones at points of their middle lines, through the whole bone."""
    depth = ndimage.distance_transform_edt(bone, sampling=pixel_mm)
    middle = (depth == ndimage.maximum_filter(depth, 3)) & (depth >= 2 * max(pixel_mm)) & (depth < ACROSS_MM / 2)
    scale = np.asarray(pixel_mm)
    labels, _ = ndimage.label(bone)
    for row, col in rng.permutation(np.argwhere(middle)):
        near = np.argwhere(labels == labels[row, col]) - (row, col)
        near = near[np.linalg.norm(near * scale, axis=1) <= ACROSS_MM] * scale
        _, axes = np.linalg.eigh(np.cov(near.T))
        across = axes[:, 0]  # (rows, cols), of the least spread
        share = covered("crack", size_mm, pixel_mm, float(np.arctan2(across[0], across[1])))
        half = [n // 2 for n in share.shape]
        top, left = int(row) - half[0], int(col) - half[1]
        at = slice(top, top + share.shape[0]), slice(left, left + share.shape[1])
        if top < 0 or left < 0 or at[0].stop > bone.shape[0] or at[1].stop > bone.shape[1]:
            continue
        share = share * (labels[at] == labels[row, col])
        if free[at][_with_ring(share > 0)].all():
            yield size_mm, top, left, np.asarray(kind.contrast * share, np.float32)


def _structures(
    image: Image, tissue: Tissues, around: Mask, free: Mask, pixel_mm: Pixel, rng: np.random.Generator
) -> Iterator[tuple[float, int, int, Image]]:
    """Structures, each replaced by the smooth surroundings, whose shape would also fit into the tissue around."""
    labels, count = ndimage.label(tissue.structures)
    other = ndimage.binary_dilation(tissue.structures)  # with the pixels that a structure covers in part
    sigma = [SURROUNDINGS_MM / mm for mm in pixel_mm]
    weight = np.maximum(ndimage.gaussian_filter((~other).astype(np.float64), sigma), 1e-6)
    filled = ndimage.gaussian_filter(np.where(other, 0.0, image), sigma, output=np.float64) / weight
    for label in 1 + rng.permutation(count):
        mask = labels == label
        area_mm2 = float(mask.sum()) * pixel_mm[0] * pixel_mm[1]
        if not STRUCTURE_MM2[0] <= area_mm2 <= STRUCTURE_MM2[1]:
            continue
        grown = ndimage.binary_dilation(mask)
        rows, cols = (np.flatnonzero(grown.any(1 - axis)) for axis in range(2))
        margin = GAP + RING
        top, left = int(rows[0]) - margin, int(cols[0]) - margin
        at = slice(top, int(rows[-1]) + 1 + margin), slice(left, int(cols[-1]) + 1 + margin)
        if (
            top < 0
            or left < 0
            or at[0].stop > image.shape[0]
            or at[1].stop > image.shape[1]
            or not free[_with_ring(grown)].all()
        ):
            continue
        if places(around, _with_ring(grown[at])).any():
            change = np.asarray(np.where(grown, filled - image, 0)[at], np.float32)
            yield 2 * math.sqrt(area_mm2 / math.pi), top, left, change
