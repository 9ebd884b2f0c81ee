"""What it brings to know the air beside a patient: whole slices, the inside of the body, and what is beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon.bench.familiarity import furnished_heads
from recon.bench.solving import label, solved
from recon.formats import nifti
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.quality import body, metrics
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.simulation import Simulation
from recon.training import tables
from recon.training.recipe import Recipe
from recon.training.slices import BRIGHT_PERCENTILE, SliceSet, tuning_images

Volume = NDArray[np.float32]
FAR_MM = 1e6
"""Slice distance in mm of slices that are no neighbours."""
CHEST_MM, HEAD_MM = 1.4, 0.9
"""Pixel sizes of the objects."""
CHEST, BRAIN = "test/ct_chest_nsclc_r01-001.nii.gz", "test/mri_t1_fnndsc_adi.nii.gz"
SIDE = 256
"""Rows and columns of the heads of the test volume."""


@dataclass(frozen=True)
class Row:
    """Means over an object's slices, each measured and reconstructed alone; PSNR in dB of each slice's range."""

    object: str
    views: int
    method: str
    support: str
    slices: int
    psnr: float
    psnr_inside: float
    psnr_beside: float
    """PSNR of all pixels that are not inside the body."""
    known_air: float
    """Fraction of the pixels that was known to be air."""
    cut_off: int
    """Pixels above -900 HU among these, in all slices."""
    seconds: float


def objects(data: Path, *, test: bool, slices: int) -> dict[str, tuple[Volume, float]]:
    """Slices in HU and their pixel size in mm: chests as they are, and heads with tables and holders added.

    Heads are made of brain MRI, see `head_ct`, in clean air. Those of the tuning set are for choosing, those of the
    test set for figures.
    """
    if test:
        chests = nifti.read(data / CHEST)[0]
        brain = nifti.read(data / BRAIN)[0]
        brain = brain[len(brain) // 3 : 3 * len(brain) // 4] / np.percentile(brain, BRIGHT_PERCENTILE)
        brains = torch.from_numpy(_fitted(brain))
    else:
        source = Recipe.named("ct").validation[0]
        chests = np.stack(SliceSet.read(data, source).stored).astype(np.float32) * source.slope + source.intercept
        brains = tuning_images(data, Recipe.named("brain-mri"))
    return {
        "chest": (_evenly(chests, slices).clip(min=tables.AIR_HU), CHEST_MM),
        "head on a holder or table": (furnished_heads(_evenly(brains, slices), HEAD_MM), HEAD_MM),
    }


def _evenly(images: Any, count: int) -> Any:
    return images[np.linspace(len(images) / 4, 3 * len(images) / 4, count).astype(int)]


def _fitted(images: Volume) -> Volume:
    """Cut or pad images to `SIDE` x `SIDE` pixels around their middle."""
    found = np.zeros((len(images), SIDE, SIDE), np.float32)
    rows, cols = (min(size, SIDE) for size in images.shape[1:])
    top, left = ((size - n) // 2 for size, n in zip(images.shape[1:], (rows, cols), strict=True))
    down, right = (SIDE - rows) // 2, (SIDE - cols) // 2
    found[:, down : down + rows, right : right + cols] = images[:, top : top + rows, left : left + cols]
    return found


def compare(
    data: Path,
    methods: Sequence[dict[str, Any]],
    views: Sequence[int],
    photons: float | None,
    slices: int,
    *,
    test: bool,
) -> Iterator[Row]:
    """Reconstruct the objects with and without their support."""
    for name, (volume, pixel_mm) in objects(data, test=test, slices=slices).items():
        for count in views:
            for given in methods:
                for support in ("none", "auto"):
                    found = [_one(given, one[None], pixel_mm, count, photons, support) for one in volume]
                    whole, within, beside, known, cut, seconds = np.mean(found, axis=0).tolist()
                    yield Row(
                        object=name,
                        views=count,
                        method=label(given),
                        support=support,
                        slices=len(volume),
                        psnr=round(whole, 2),
                        psnr_inside=round(within, 2),
                        psnr_beside=round(beside, 2),
                        known_air=round(known, 3),
                        cut_off=round(cut * len(volume)),
                        seconds=round(seconds, 1),
                    )


def _one(
    given: dict[str, Any], image: Volume, pixel_mm: float, views: int, photons: float | None, support: str
) -> tuple[float, ...]:
    acquisition = CTParallel.model_validate({"support": support})
    settings = Simulation(views=views, photons_per_ray=photons)
    measurement = simulate(image, np.diag([pixel_mm, pixel_mm, FAR_MM, 1.0]), acquisition, settings)
    truth = measurement.truth
    assert truth is not None
    model = inverse_problem.build(measurement)
    _ = model.problem.whitened.operator.norms  # outside the clock
    found = solved(given, model, acquisition.kind)
    shown = model.display(model.arranged(found.volume))
    inside = body.inside(truth)
    known = model.problem.support
    air = np.zeros(truth.shape, bool) if known is None else ~known.numpy()
    return (
        metrics.psnr(shown, truth), metrics.psnr(shown, truth, inside), metrics.psnr(shown, truth, ~inside),
        float(air.mean()), int((truth[air] > tables.EMPTY_HU).sum()), found.seconds,
    )  # fmt: skip
