"""Benchmark of the familiarity score: each prior on images like those it was trained on, and on others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.errors import InputError
from recon.defaults import lookup
from recon.formats import nifti, reader
from recon.pipeline.chosen_prior import chosen_prior
from recon.priors import registry
from recon.priors.card import Card
from recon.problem import inverse_problem
from recon.problem.problem import run
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.spec.job import JobSpec
from recon.spec.methods import CGLS, CGSense, Method, REDDiff
from recon.training import tables
from recon.training.recipe import Recipe
from recon.training.slices import AIR_HU, BRIGHT_PERCENTILE, tuning_images

AT_MOST = 12
"""Number of evenly spaced slices of a volume that are judged."""


@dataclass(frozen=True)
class Row:
    """Familiarity of one object's slices: percentiles among slices of the kind the prior was trained on."""

    prior: str
    images: str
    known: bool | None
    """Whether the prior was trained on such anatomy; None for a volume of the user's."""
    slices: int
    lowest: float
    median: float
    highest: float


def familiarity(volumes: list[Path]) -> Iterator[Row]:
    """Judge the samples, and volumes of one's own (CT in HU, MRI in any magnitude), by both modalities' priors."""
    for name, modality in (("ct", "ct"), ("brain-mri", "mri")):
        prior = registry.load(name)
        own = [(path.name, None, _volume(path, modality)) for path in volumes]
        for label, known, images in [*_samples(modality, prior.card), *own]:
            chosen = images[np.linspace(0, len(images) - 1, min(AT_MOST, len(images))).round().astype(int)]
            found = prior.familiarity(chosen.to(torch.complex64) if prior.complex else chosen.float())
            found = found[found.isfinite()]
            if not len(found):
                raise InputError(f"{label} holds empty slices only", field="volumes", remedy="give another")
            low, middle, high = (round(float(v), 1) for v in (found.min(), found.median(), found.max()))
            yield Row(name, label, known, len(found), low, middle, high)


def _samples(modality: str, card: Card) -> list[tuple[str, bool | None, Tensor]]:
    chest, brain = (tuning_images(SAMPLES, Recipe.named(name)) for name in ("ct", "brain-mri"))
    body = nifti.read(SAMPLES / "ct_body.nii.gz")[0]
    if modality == "mri":
        scan = {"input": str(SAMPLES / "mri_brain_8coil.npy"), "acquisition": "mri-cartesian", "method": "cg-sense"}
        return [
            ("brain, tuning slices", True, brain),
            ("measured brain, CG-SENSE", None, reconstructed(scan, card, CGSense())),
            ("measured brain, RED-Diff", True, reconstructed(scan, card, REDDiff())),
            ("chest CT as a magnitude", False, (chest + 1) / 2),
            ("body CT as a magnitude", False, (_hounsfield(body) + 1) / 2),
        ]
    tooth = {
        "input": {"path": str(SAMPLES / "ct_tooth.h5"), "format": "dxchange", "slices": [0, 1]},
        "acquisition": {"kind": "ct-parallel", "detector_mm": 0.01, "rotation_center_column": 296},
        "method": "cgls",
    }
    disc = {
        "input": {"path": str(SAMPLES / "ct_htc2022.npz"), "format": "htc", "scan": "solid_disc_subsample73"},
        "acquisition": {"kind": "ct-fan", "rows": 512},
        "method": "cgls",
    }
    return [
        ("chest CT, tuning slices", True, chest),
        ("body CT", True, _hounsfield(body)),
        ("brain MRI", False, 2 * brain - 1),
        ("head CT made of brain MRI", False, head_ct(brain)),
        ("measured tooth, CGLS", False, reconstructed(tooth, card, CGLS())),
        ("measured acrylic disc, CGLS", False, reconstructed(disc, card, CGLS())),
    ]


def head_ct(brain: Tensor) -> Tensor:
    """Imitate head CT from brain MRI ``(slices, rows, cols)``, on the scale of CT priors.

    Brain of 20 to 45 HU, a skull of 1100 HU around it, a scalp, and noise: no head CT is at hand.
    """
    head = _grown(_grown((brain > HEAD_ABOVE).float(), CLOSED), -CLOSED)
    skull, inside = _grown(head, -SCALP), _grown(head, -SCALP - SKULL)
    values = torch.where(head > 0, 30.0, -1000.0)
    values = torch.where(skull > 0, 1100.0, values)
    values = torch.where(inside > 0, 20 + 25 * brain.clamp(0, 1), values)
    noise = 5 * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return _hounsfield((values + noise).numpy())


def furnished_heads(brain: Tensor, pixel_mm: float) -> NDArray[np.float32]:
    """Imitate head CT in HU, as `head_ct` does, in clean air and each on a holder or a table of its own."""
    scale = Recipe.named("ct").intensity_range
    heads = (head_ct(brain).numpy() + 1) / 2 * (scale.high - scale.low) + scale.low
    heads = np.where(heads < tables.EMPTY_HU, tables.AIR_HU, heads)
    found = [tables.furnished(head, np.random.default_rng(i), pixel_mm) for i, head in enumerate(heads)]
    return np.stack(found).astype(np.float32)


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """Dilate or erode a mask ``(slices, rows, cols)`` by a number of pixels."""
    sign = 1 if pixels > 0 else -1
    size = 2 * abs(pixels) + 1
    return sign * torch.nn.functional.max_pool2d(sign * mask[:, None], size, stride=1, padding=abs(pixels))[:, 0]


HEAD_ABOVE, CLOSED, SCALP, SKULL = 0.08, 8, 4, 6
"""Threshold of the head in MRI; pixels: size of gaps to close, thickness of scalp and skull."""


def _hounsfield(volume: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    recipe = Recipe.named("ct")
    span = recipe.intensity_range.high - recipe.intensity_range.low
    return (torch.from_numpy(volume).clamp(min=recipe.intensity_range.low) - recipe.intensity_range.low) / span * 2 - 1


def _volume(path: Path, modality: str) -> Tensor:
    """Convert images to the prior's scale; CT to magnitudes for an MRI prior, MRI to the CT scale, by brightness."""
    values = nifti.read(path)[0]
    scanned = "ct" if values.min() < AIR_HU else "mri"
    if scanned == "ct":
        density = _hounsfield(values)
        return density if modality == "ct" else (density + 1) / 2
    magnitude = torch.from_numpy(values / (np.percentile(values, BRIGHT_PERCENTILE) or 1.0))
    return magnitude if modality == "mri" else 2 * magnitude - 1


def reconstructed(value: dict[str, Any], card: Card, method: Method) -> Tensor:
    """Reconstruct a measured sample by a method with its defaults, on the prior's scale."""
    spec = JobSpec.parse(value)
    files = {field: Path(str(file.path)) for field, file in spec.files().items()}
    measurement = reader.read(spec, files)
    model = inverse_problem.build(measurement)
    settings = lookup.resolved(method, measurement.acquisition.kind, model.problem)
    prior, intensity = chosen_prior(settings, model)
    volume = run(solvers.start(model.problem, settings, prior=prior, intensity=intensity))
    return model.intensity_map(card).to_prior(volume)
