"""Training slices: read a recipe's data and cut augmented crops."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from operators.errors import InputError
from recon.formats import nifti
from recon.formats.safety import check_finite, real
from recon.measurement import random_fields
from recon.training import augment, few_views, solved, synthetic, tables
from recon.training.recipe import Recipe, Source

UNKNOWN_MARGIN = 3
"""Margin in pixels around an unknown one that is left out of the loss too, since resampling has mixed them."""
AIR_HU = -200.0
"""Upper bound in HU on the lowest value of a body scan, which has air around it, or fat and gas inside."""
NEGATIVE_SHARE = 0.05
"""Fraction of the largest value by which interpolation may leave a magnitude volume below zero."""
MADE = 2**40
"""Number of synthetic training images, so many that none is likely to be drawn twice."""
JUDGED, JUDGED_SIZE = 96, 256
"""Number of synthetic validation images, and their rows and columns."""
BRIGHT_PERCENTILE = 99.8
"""Percentile of a magnitude volume that becomes 1 on the prior's scale."""


@dataclass(frozen=True)
class SliceSet:
    """Slices of one source as stored, ``(rows, cols)`` each, converted per crop."""

    stored: Sequence[NDArray[np.generic]]
    labels: Sequence[str]
    """Subject of each slice; empty if the file does not name them."""
    source: Source
    sha256: str

    @classmethod
    def read(cls, folder: Path, source: Source) -> SliceSet:
        """Read an ``.npz`` with an array ``images (n, rows, cols)``, or a NIfTI volume.

        Slices that hold one value only are left out. A magnitude volume (``scaled``) is divided by its 99.8th
        percentile.

        Raises
        ------
        InputError
            If the file is missing or unreadable, or has values that are not finite, or nothing in it.
        """
        path = folder / source.file
        if not path.is_file():
            raise InputError(
                f"training data {path} does not exist",
                field="sources.file",
                remedy="give the folder that holds the files of the recipe with --data",
            )
        if path.suffix == ".npz":
            images, subjects = _archive(path)
        else:
            images = nifti.read(path, "sources.file")[0]
            subjects = np.full(len(images), "")
            if source.scaled:
                images = images / _brightness(images, path.name)
        kept = [index for index, image in enumerate(images) if image.min() < image.max()]
        if not kept:
            raise InputError(f"{path.name} holds empty slices only", field="sources.file")
        labels = [str(subjects[index]) for index in kept]
        return cls([images[index] for index in kept], labels, source, hashlib.sha256(path.read_bytes()).hexdigest())

    @classmethod
    def made(cls, seed: int, images: int, size: int, labels: Sequence[str] = ()) -> SliceSet:
        """Make the synthetic images of a seed; their hash is that of generator, version and seed."""
        name = f"synthetic images, generator version {synthetic.VERSION}, seed {seed}"
        source = Source(file=name, licence="none needed: made by recon/training/synthetic.py")
        return cls(synthetic.Made(seed, images, size), labels, source, hashlib.sha256(name.encode()).hexdigest())

    def __len__(self) -> int:
        return len(self.stored)

    def require(self, recipe: Recipe) -> None:
        """Raise `InputError` unless the values are plausible for the recipe: HU with air somewhere, or magnitudes."""
        stored = [float(value) for image in self.stored for value in (image.min(), image.max())]
        ends = [value * self.source.slope + self.source.intercept for value in (min(stored), max(stored))]
        lowest, highest = min(ends), max(ends)
        if recipe.intensity_range.unit == "HU" and lowest > AIR_HU:
            reason = f"no value is below {AIR_HU:g} HU, the lowest is {lowest:g}: these are not CT in HU"
        elif recipe.modality == "mri" and lowest < -NEGATIVE_SHARE * abs(highest):
            reason = f"values down to {lowest:g} are no magnitudes"
        else:
            return
        raise InputError(
            f"{self.source.file}: {reason}",
            field="sources.file",
            remedy="give volumes of the modality, or set the source's slope and intercept",
        )

    def subjects(self) -> dict[str, list[int]]:
        """Indices of each subject's slices."""
        found: dict[str, list[int]] = {}
        for index, label in enumerate(self.labels):
            found.setdefault(label, []).append(index)
        return found

    def whole(self, index: int, recipe: Recipe) -> Tensor:
        """Slice `index` as the prior takes it, ``(1, rows, cols)``; complex with zero phase for a complex prior."""
        image = self.planes(index, recipe)[:1]
        return image.to(torch.complex64) if recipe.complex else image

    def planes(self, index: int, recipe: Recipe) -> Tensor:
        """Slice `index` on the prior's scale, and its mask, 1 where known, 0 where saturated: ``(2, rows, cols)``."""
        stored = torch.from_numpy(np.asarray(self.stored[index], dtype=np.float32))
        known = torch.ones_like(stored)
        if self.source.unknown_from is not None:
            unknown = (stored >= self.source.unknown_from).float()[None]
            size = 2 * UNKNOWN_MARGIN + 1
            known = 1 - functional.max_pool2d(unknown, size, stride=1, padding=UNKNOWN_MARGIN)[0]
        physical = stored * self.source.slope + self.source.intercept
        if recipe.modality == "ct":
            # Below air, scanners pad with arbitrary values.
            physical = physical.clamp(min=recipe.intensity_range.low)
        image = (physical - recipe.intensity_range.low) / (
            recipe.intensity_range.high - recipe.intensity_range.low
        ) * 2 - 1
        return torch.stack([image, known])


def training_sets(folder: Path, recipe: Recipe) -> list[SliceSet]:
    """Load the training data of a recipe: its files in a folder, or synthetic images of the size of a crop."""
    if recipe.synthetic is not None:
        return [SliceSet.made(recipe.synthetic.seed, MADE, recipe.training.crop)]
    return [SliceSet.read(folder, source) for source in recipe.sources]


def validation_sets(folder: Path, recipe: Recipe) -> list[SliceSet]:
    """Load the validation data of a recipe: its files in a folder, or larger synthetic images labelled by kind."""
    if recipe.synthetic is not None:
        seed = recipe.synthetic.validation_seed
        kinds = [synthetic.kind_of(seed, index) for index in range(JUDGED)]
        return [SliceSet.made(seed, JUDGED, JUDGED_SIZE, kinds)]
    return [SliceSet.read(folder, source) for source in recipe.validation]


def _archive(path: Path) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Read images and their subjects from an ``.npz``."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            images = archive["images"]
            subjects = archive["subject"] if "subject" in archive else np.full(len(images), "")
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name} is not an .npz with an array images: {error}", field="sources.file") from error
    if images.ndim != 3 or len(subjects) != len(images):
        raise InputError(
            f"{path.name} holds images {images.shape} and {len(subjects)} subjects, expected (n, rows, cols) and n",
            field="sources.file",
        )
    check_finite(real(images, "sources.file"), "sources.file")
    return images, subjects


@dataclass(frozen=True)
class Batch:
    """Training batch: images, the weight of each pixel, and the condition of a conditional prior."""

    images: Tensor
    weights: Tensor
    condition: Tensor | None
    factors: Tensor | None = None
    """Super-resolution factors along rows and columns, ``(batch, 2)``, for a prior that is told them."""
    iterates: Tensor | None = None
    """Iterates of a solver, to be denoised in place of noisy images."""
    sigma: float = 0.0
    """Noise level of the solver's next step."""


REUSED = 6
"""Number of steps that share the same scanned slices: a scan takes as long as three steps."""


class Crops:
    """Sampler of random training crops; step `s` depends on ``(seed, s)`` alone, so a resumed run repeats it."""

    def __init__(self, sets: list[SliceSet], recipe: Recipe, seed: int, denoise: solved.Denoise | None = None) -> None:
        self.sets, self.recipe, self.seed, self.denoise = sets, recipe, seed, denoise
        self.shares = torch.tensor([s.source.share for s in sets])
        fills = [min(one.stored[0].shape) >= 2 * recipe.training.crop for one in sets]
        self._filling = self.shares * torch.tensor(fills)
        """Sampling probabilities of the sets whose slices fill the field of a scan at full size."""
        self._scanned: tuple[int, Tensor, float] | None = None

    def batch(self, step: int) -> Batch:
        """Make the batch of one step, ``(batch, channels, crop, crop)`` float32 each."""
        if self.recipe.scanned:
            return self._scanned_batch(step)
        if self.recipe.factors is not None:
            return self._stack_batch(step, self.recipe.factors)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        channels = 2 if self.recipe.complex else 1
        planes = torch.stack([self._crop(generator) for _ in range(self.recipe.training.batch)])
        images, weights = planes[:, :channels], planes[:, channels : channels + 1]
        rest = planes[:, channels + 1 :].contiguous() if planes.shape[1] > channels + 1 else None
        return Batch(images, weights.expand_as(images), rest)

    def _crop(self, generator: torch.Generator) -> Tensor:
        """Planes ``(channels + 1 + more, crop, crop)``: image, weight, then the condition if there is one."""
        settings = self.recipe.training
        chosen = self.sets[int(torch.multinomial(self.shares, 1, generator=generator))]
        index = random_fields.integer(generator, len(chosen))
        planes = self._furnished(chosen.planes(index, self.recipe), generator)
        if min(planes.shape[1:]) >= 2 * settings.crop and random_fields.uniform(generator) < settings.halve:
            # Half resolution shows the network whole organs inside one crop.
            planes = functional.avg_pool2d(planes, 2)
        cut = augment.turned_window if random_fields.uniform(generator) < settings.rotate else augment.window
        planes = cut(self._padded(planes), settings.crop, generator)
        planes = augment.dihedral(planes, generator)
        # A pixel that resampling mixed with an unknown one is unknown.
        image, known = planes[0], (planes[-1] > 0.999).float()
        if not self.recipe.complex:
            gain = random_fields.uniform(generator, 1 - settings.intensity, 1 + settings.intensity)
            return torch.stack([(image + 1) * gain - 1, known])
        return torch.cat(self._complex(image, known, generator))

    def _stack_batch(self, step: int, factors: tuple[float, float]) -> Batch:
        """Cut crops from slices and the stacks that a scanner makes of them, both magnitudes of zero phase."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        crop = self.recipe.training.crop
        crops, told = [], []
        for _ in range(self.recipe.training.batch):
            planes = augment.dihedral(self._field(generator), generator)
            image = augment.without_noise(planes[0].contiguous(), generator)
            lower = augment.stack_scan(image.shape[0], image.shape[1], factors, generator)
            condition = lower.upsample(augment.measured_stack(image, lower, generator))[0]
            drawn = torch.stack([image.abs(), (planes[-1] > 0.999).float(), condition.real])
            crops.append(augment.window(drawn, crop, generator))
            told.append(lower.factors)
        image, known, condition = (part.contiguous() for part in torch.stack(crops).split(1, 1))
        real = [torch.cat([part, torch.zeros_like(part)], 1) for part in (image, condition)]
        return Batch(real[0], known.expand_as(real[0]), real[1], torch.tensor(told))

    def _field(self, generator: torch.Generator) -> Tensor:
        """Cut a field of view from a slice, at most an eighth smaller each way: image and mask ``(2, rows, cols)``."""
        settings = self.recipe.training
        chosen = self.sets[int(torch.multinomial(self.shares, 1, generator=generator))]
        planes = self._padded(chosen.planes(random_fields.integer(generator, len(chosen)), self.recipe))
        if random_fields.uniform(generator) < settings.rotate:
            planes = augment.turned_window(planes, min(planes.shape[1:]), generator)
        rows, cols = (max(n - random_fields.integer(generator, n // 8 + 1), settings.crop) for n in planes.shape[1:])
        return augment.window(planes, (rows, cols), generator)

    def _scanned_batch(self, step: int) -> Batch:
        """Cut crops from slices of twice their size, with the same crops of the scan's condition and iterate."""
        used = step // REUSED
        if self._scanned is None or self._scanned[0] != used:
            self._scanned = used, *self._scan(torch.Generator().manual_seed(self.seed * 1_000_003 + used))
        _, scanned, sigma = self._scanned
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step + 250_000_000)
        crop = self.recipe.training.crop
        planes = torch.stack([augment.dihedral(augment.window(one, crop, generator), generator) for one in scanned])
        image, condition, iterate, known = (part.contiguous() for part in planes.split(1, 1))
        given = condition if self.recipe.least_squares else None
        return Batch(image, (known > 0.999).float().expand_as(image), given, iterates=iterate, sigma=sigma)

    def _scan(self, generator: torch.Generator) -> tuple[Tensor, float]:
        """Scan slices: images, conditions, iterates and masks ``(batch, 4, size, size)``, and the noise level."""
        assert self.denoise is not None
        settings = self.recipe.training
        halved = random_fields.uniform(generator) < settings.halve
        shares = self.shares if halved or not bool(self._filling.any()) else self._filling
        drawn = []
        for _ in range(settings.batch):
            chosen = self.sets[int(torch.multinomial(shares, 1, generator=generator))]
            planes = chosen.planes(random_fields.integer(generator, len(chosen)), self.recipe)
            planes = self._furnished(planes, generator)
            cut = augment.turned_window if random_fields.uniform(generator) < settings.rotate else augment.window
            # A slice that is small already fills the field of a halved one as it is.
            pooled = halved and min(planes.shape[1:]) > settings.crop
            field = settings.crop if halved and not pooled else 2 * settings.crop
            planes = augment.dihedral(cut(self._padded(planes, field), field, generator), generator)
            drawn.append(functional.avg_pool2d(planes, 2) if pooled else planes)
        whole = torch.stack(drawn)
        images, known = whole[:, 0].contiguous(), whole[:, 1]
        scan = few_views.scanned(images, self.recipe.intensity_range, generator)
        found = solved.solved(*scan, generator, self.denoise)
        return torch.stack([images, found.condition, found.iterate, known], 1), found.sigma

    def _furnished(self, planes: Tensor, generator: torch.Generator) -> Tensor:
        """Add a patient table or the like to some slices ``(2, rows, cols)``, as many as the recipe says."""
        share = self.recipe.training.tables
        if share == 0 or random_fields.uniform(generator) >= share:
            return planes
        low, high = self.recipe.intensity_range.low, self.recipe.intensity_range.high
        rng = np.random.default_rng(random_fields.integer(generator, 2**31))
        hu = tables.furnished(((planes[0] + 1) / 2 * (high - low) + low).numpy(), rng)
        return torch.stack([(torch.from_numpy(hu) - low) / (high - low) * 2 - 1, planes[1]])

    def _padded(self, planes: Tensor, size: int | None = None) -> Tensor:
        """Pad slices smaller than a crop by repeating their edge, without weight in the loss."""
        below, right = (max((size or self.recipe.training.crop) - n, 0) for n in planes.shape[1:])
        if not below and not right:
            return planes
        images = functional.pad(planes[None, :-1], (0, right, 0, below), mode="replicate")[0]
        return torch.cat([images, functional.pad(planes[-1:], (0, right, 0, below))])

    def _complex(self, magnitude: Tensor, known: Tensor, generator: torch.Generator) -> list[Tensor]:
        image = augment.measured_like(magnitude, generator)
        planes = [_parts(image), known[None]]
        if self.recipe.super_resolution is not None:
            crop = self.recipe.training.crop
            lower = augment.low_resolution(crop, crop, self.recipe.super_resolution, generator)
            low = lower(image[None])
            noise = torch.complex(*(torch.randn(low.shape, generator=generator) for _ in range(2)))
            low = low + max(0.0, random_fields.uniform(generator, -0.01, 0.02)) * noise
            planes.append(_parts(lower.upsample(low)[0]))
        return planes


def _brightness(images: NDArray[np.float32], name: str) -> float:
    """Value of a magnitude volume that becomes 1 on the prior's scale."""
    found = float(np.percentile(images, BRIGHT_PERCENTILE))
    if not found > 0:
        raise InputError(
            f"fewer than {100 - BRIGHT_PERCENTILE:.1f} % of the voxels of {name} have content: too few to scale by",
            field="sources.file",
            remedy="crop the volume to the object",
        )
    return found


def _parts(image: Tensor) -> Tensor:
    return torch.stack([image.real, image.imag])


def tuning_images(folder: Path, recipe: Recipe, count: int = 16) -> Tensor:
    """Select evenly spaced whole slices of the tuning set on the prior's scale, ``(count, rows, cols)``."""
    sets = validation_sets(folder, recipe)
    each = count // len(sets) or 1
    chosen = [(one, int(i)) for one in sets for i in np.linspace(0, len(one) - 1, each).round().astype(int)]
    images = [one.planes(index, recipe)[0] for one, index in chosen]
    multiple = recipe.super_resolution or 1
    rows, cols = (min(x.shape[axis] for x in images) // multiple * multiple for axis in (0, 1))
    return torch.stack([x[:rows, :cols] for x in images])
