"""Export of a training run: a weights file with its card."""

from __future__ import annotations

import hashlib
import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from operators.errors import Diverged, InputError
from recon.priors import diagnose, int8, registry
from recon.priors.card import Card, Data, Familiarity
from recon.priors.network import Denoiser
from recon.priors.noise import SliceNoise
from recon.priors.prior import NetworkPrior
from recon.spec.methods import DEFAULT_PRIOR
from recon.storage.atomic import sync
from recon.training import checkpoint as checkpoints
from recon.training import synthetic
from recon.training.evaluate import SIGMAS, axis_sigma, conditioner, denoising_psnr, judged_factors, with_phase
from recon.training.recipe import Recipe
from recon.training.slices import SliceSet, training_sets, tuning_images, validation_sets
from recon.training.start import data_hash, start_of

INT8_SIGMAS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.5)
"""Noise levels of the images on which the ranges of 8-bit integers are measured, those of the solvers."""
FAMILIAR_SLICES = 12
"""Number of evenly spaced reference slices per subject or file for the familiarity score."""


def export(run: Path, data: Path, command: str, folder: Path) -> Card:
    """Write the averaged weights of a training run as fp16 safetensors, measure them, and write their card.

    Parameters
    ----------
    run
        Folder of the training run.
    data
        Folder of the recipe's files.
    command
        The training command, quoted in the card.
    folder
        Where to put ``NAME.safetensors`` and ``NAME.yaml``.

    Raises
    ------
    InputError
        If there is no checkpoint, the data are not those trained on, or the weights are over 20 MB.
    """
    checkpoint = run / "checkpoint.pt"
    if not checkpoint.is_file():
        raise InputError(
            f"there is no checkpoint.pt in {run}", field="run", remedy="give the --out folder of recon train"
        )
    state, recipe = checkpoints.read(checkpoint, "run")
    sources = training_sets(data, recipe)
    if data_hash(sources) != state["data_hash"]:
        if recipe.synthetic is not None:
            raise InputError(
                f"the run was trained on images of another generator than version {synthetic.VERSION}",
                field="run",
                remedy="export it with the release that it was trained with, or train again",
            )
        raise InputError(
            f"the files in {data} are not those that the run was trained on",
            field="data",
            remedy="give the --data folder of recon train, unchanged",
        )
    tensors = {name: value.to(torch.float16).contiguous() for name, value in state["average"].items()}
    registry.require_small(sum(t.numel() for t in tensors.values()))
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise Diverged("the weights are not finite", remedy="train again with a lower training.learning_rate")
    folder.mkdir(parents=True, exist_ok=True)
    # Measured before anything is replaced: weights and card change together or not at all.
    with TemporaryDirectory(dir=folder, prefix=f".{recipe.name}.") as partial:
        weights = Path(partial) / f"{recipe.name}.safetensors"
        weights.write_bytes(save(tensors))
        card = _card(recipe, state, sources, weights, command)
        prior = NetworkPrior(registry.network(card, weights), card, judged_factors(card))
        card = Card.model_validate(card.model_dump() | _measured(prior, recipe, data, sources))
        card.write(Path(partial) / f"{recipe.name}.yaml")
        finished = (weights, Path(partial) / f"{recipe.name}.yaml")
        for path in finished:
            sync(path)
        for path in finished:
            path.replace(folder / path.name)
        sync(folder)
    return card


def _card(recipe: Recipe, state: dict[str, Any], sources: list[SliceSet], weights: Path, command: str) -> Card:
    """Make the card without the figures that have to be measured."""
    start = start_of(state)
    own = [Data(file=s.source.file, licence=s.source.licence, sha256=s.sha256) for s in sources]
    return Card(
        name=recipe.name,
        modality=recipe.modality,
        complex=recipe.complex,
        intensity_range=recipe.intensity_range,
        largest=recipe.largest,
        sigma_data=recipe.sigma_data,
        channels=recipe.channels,
        blocks=recipe.blocks,
        unshuffle=recipe.unshuffle,
        super_resolution=recipe.super_resolution,
        factors=recipe.factors,
        regression=recipe.regression,
        least_squares=recipe.least_squares,
        weights=weights.name,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        parameters=sum(value.numel() for value in state["average"].values()),
        data=list(dict.fromkeys([*own, *([] if start is None else start.data)])),
        start=recipe.start,
        before=[] if start is None else start.lineage,
        command=command,
        seed=state["seed"],
        steps=state["step"],
        hours=round(state["seconds"] / 3600, 2),
        denoising_psnr={},
        jacobian_asymmetry={},
        familiarity=None,
        judge=DEFAULT_PRIOR[recipe.modality] if recipe.conditional else None,
        limits=recipe.limits,
    )


def _measured(prior: NetworkPrior, recipe: Recipe, data: Path, sources: list[SliceSet]) -> dict[str, Any]:
    images = tuning_images(data, recipe)
    table = {
        sigma: round(
            denoising_psnr(prior.denoise, images, sigma, is_complex=recipe.complex, condition_of=conditioner(recipe)),
            2,
        )
        for sigma in SIGMAS
    }
    # A regression network's estimate does not depend on the noisy image: there is no such Jacobian.
    asymmetry = {} if recipe.regression else _asymmetry(prior.network, recipe, images)
    ranges = int8_ranges(prior, recipe, images)
    found: dict[str, Any] = {"denoising_psnr": table, "jacobian_asymmetry": asymmetry, "int8_ranges": ranges}
    if not recipe.conditional:
        found["familiarity"] = _familiarity(prior, recipe, data, sources)
    return found


def int8_ranges(prior: NetworkPrior, recipe: Recipe, images: Tensor) -> list[tuple[float, float]]:
    """Measure the ranges of the blocks' inputs on noisy images, see `recon.priors.int8`.

    They are the largest magnitudes in an image, averaged over images: smaller steps gain more than is lost where the
    few inputs beyond are clipped.
    """
    condition_of = conditioner(recipe)
    clean = with_phase(images) if recipe.complex else images
    condition = None if condition_of is None else condition_of(clean)
    noise = SliceNoise(2, len(clean)).draw(clean)

    def denoised(index: int) -> Tensor:
        one = slice(index, index + 1)
        level = axis_sigma(INT8_SIGMAS[index % len(INT8_SIGMAS)], is_complex=recipe.complex)
        given = None if condition is None else condition[one]
        return prior.denoise(clean[one] + level * noise[one], level, given)

    engine, prior.network.engine = prior.network.engine, None
    largest = [int8.largest_inputs(prior.network, partial(denoised, index)) for index in range(len(clean))]
    prior.network.engine = engine
    mean = torch.stack(largest).mean(dim=0).clamp(min=1e-6)
    return [(round(first, 6), round(second, 6)) for first, second in mean.tolist()]


def _asymmetry(network: Denoiser, recipe: Recipe, images: Tensor) -> dict[float, float]:
    """Measure the asymmetry in float32 on parts of four slices: bfloat16 would round the difference away."""
    exact = registry.new_network(recipe)
    exact.load_state_dict(network.state_dict())
    few = images[:: max(len(images) // 4, 1)][:4]
    multiple = math.lcm(exact.multiple, recipe.super_resolution or 1)
    rows, cols = (n // multiple * multiple for n in few.shape[1:])
    few = with_phase(few[:, :rows, :cols]) if recipe.complex else few[:, :rows, :cols]
    condition_of, factors = conditioner(recipe), judged_factors(recipe)
    condition = None if condition_of is None else condition_of(few)
    found = {}
    for sigma in diagnose.ASYMMETRY_SIGMAS:
        level = axis_sigma(sigma, is_complex=recipe.complex)
        asymmetry = diagnose.jacobian_asymmetry(exact.eval(), few, level, condition=condition, factors=factors)
        found[sigma] = round(asymmetry, 4)
    return found


def _familiarity(prior: NetworkPrior, recipe: Recipe, data: Path, sources: list[SliceSet]) -> Familiarity | None:
    """Compute residuals on tuning and training slices, grouped by subject if the file names the subjects."""
    features, names = [], []
    for one in [*validation_sets(data, recipe), *sources]:
        if one.source.unknown_from is not None:
            continue  # saturated pixels have no residual
        for label, indices in one.subjects().items():
            places = np.linspace(0, len(indices) - 1, min(FAMILIAR_SLICES, len(indices))).round().astype(int)
            chosen = [indices[place] for place in places]
            features.append(torch.cat([diagnose.residuals(prior.denoise, one.whole(i, recipe)) for i in chosen]))
            names.append(f"{one.source.file} {label}".strip())
    return diagnose.familiarity(features, names)
