"""Training slices: reading the arrays a recipe names, cropping and augmenting them, random smooth phase."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from recon.priors.recipe import Recipe, Source

UNKNOWN_MARGIN = 3
"""Pixels around an unknown one that are left out of the loss too: resampling has mixed them."""


@dataclass(frozen=True)
class SliceSet:
    """Slices of one source on the prior's axis, ``values (n, rows, cols)`` as stored, converted per crop."""

    stored: NDArray[np.generic]
    source: Source
    sha256: str

    @classmethod
    def read(cls, folder: Path, source: Source) -> SliceSet:
        """Read one ``.npz`` with an array ``images (n, rows, cols)``."""
        path = folder / source.file
        if not path.is_file():
            raise InputError(
                f"training data {path} does not exist",
                field="sources.file",
                remedy="give the folder that holds the files of the recipe with --data",
            )
        with np.load(path, allow_pickle=False) as archive:
            stored = archive["images"]
        return cls(stored, source, hashlib.sha256(path.read_bytes()).hexdigest())

    def __len__(self) -> int:
        return len(self.stored)


def _to_axis(images: Tensor, source: Source, recipe: Recipe) -> Tensor:
    """Stored numbers to the prior's axis; CT is cut below air, where scanners pad with arbitrary values."""
    physical = images * source.slope + source.intercept
    if recipe.modality == "ct":
        physical = physical.clamp(min=recipe.axis.low)
    return (physical - recipe.axis.low) / (recipe.axis.high - recipe.axis.low) * 2 - 1


def smooth_phase(rows: int, cols: int, generator: torch.Generator) -> Tensor:
    """A random smooth phase map in radians, ``(rows, cols)``, with a uniform global phase.

    Measured phase is smooth where the field is (coils, shim) and rotates fast near air. A low-resolution
    Gaussian field of random roughness and strength, interpolated, covers both.
    """
    knots = int(torch.randint(2, 9, (1,), generator=generator))
    strength = float(torch.rand(1, generator=generator)) * 2.5
    field = torch.randn(1, 1, knots, knots, generator=generator) * strength
    smooth = functional.interpolate(field, size=(rows, cols), mode="bicubic", align_corners=True)[0, 0]
    return smooth + float(torch.rand(1, generator=generator)) * 2 * math.pi


class Crops:
    """Random training crops; crop `i` of step `s` depends on ``(seed, s, i)`` alone, so a resumed run repeats it."""

    def __init__(self, sets: list[SliceSet], recipe: Recipe, seed: int) -> None:
        self.sets, self.recipe, self.seed = sets, recipe, seed
        self.shares = torch.tensor([s.source.share for s in sets])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images and loss weights of one step, both ``(batch, channels, crop, crop)`` float32."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        pairs = [self._crop(generator) for _ in range(self.recipe.training.batch)]
        return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])

    def _crop(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        crop = self.recipe.training.crop
        chosen = self.sets[int(torch.multinomial(self.shares, 1, generator=generator))]
        stored = chosen.stored[int(torch.randint(len(chosen), (1,), generator=generator))]
        image = torch.from_numpy(stored.astype(np.float32))
        known = torch.ones_like(image)
        if chosen.source.unknown_from is not None:
            unknown = (image >= chosen.source.unknown_from).float()[None, None]
            size = 2 * UNKNOWN_MARGIN + 1
            known = 1 - functional.max_pool2d(unknown, size, stride=1, padding=UNKNOWN_MARGIN)[0, 0]
        image = _to_axis(image, chosen.source, self.recipe)
        if min(image.shape) >= 2 * crop and float(torch.rand(1, generator=generator)) < self.recipe.training.halve:
            # Half resolution shows the network whole organs inside one crop.
            image = functional.avg_pool2d(image[None], 2)[0]
            known = 1 - functional.max_pool2d(1 - known[None], 2)[0]
        top = int(torch.randint(image.shape[0] - crop + 1, (1,), generator=generator))
        left = int(torch.randint(image.shape[1] - crop + 1, (1,), generator=generator))
        window = (slice(top, top + crop), slice(left, left + crop))
        image, known = _dihedral(image[window], known[window], int(torch.randint(8, (1,), generator=generator)))
        if not self.recipe.complex:
            return image[None].contiguous(), known[None].contiguous()
        gain = 0.7 + 0.6 * float(torch.rand(1, generator=generator))
        rotated = torch.polar(image * gain, smooth_phase(crop, crop, generator))
        return torch.stack([rotated.real, rotated.imag]), known[None].expand(2, -1, -1).contiguous()


def _dihedral(image: Tensor, known: Tensor, which: int) -> tuple[Tensor, Tensor]:
    """One of the eight flips and quarter turns: volumes reach us in every orientation."""
    pair = torch.stack([image, known])
    pair = torch.rot90(pair, which % 4, dims=(1, 2))
    if which >= 4:
        pair = pair.flip(2)
    return pair[0], pair[1]


def validation_images(folder: Path, recipe: Recipe, count: int = 16) -> Tensor:
    """Evenly spaced whole slices of the tuning set, ``(count, channels, rows, cols)``, the same at every call."""
    parts = []
    for source in recipe.validation:
        stored = SliceSet.read(folder, source).stored
        index = np.linspace(0, len(stored) - 1, count).round().astype(int)
        parts.append(_to_axis(torch.from_numpy(stored[index].astype(np.float32)), source, recipe))
    images = torch.cat(parts)[:, None]
    if not recipe.complex:
        return images
    generator = torch.Generator().manual_seed(0)
    phase = torch.stack([smooth_phase(images.shape[2], images.shape[3], generator) for _ in images])[:, None]
    return torch.cat([images * phase.cos(), images * phase.sin()], dim=1)
