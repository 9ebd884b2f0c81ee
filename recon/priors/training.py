"""Training a prior: denoising score matching, checkpointed, resumable, the same numbers for the same seed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.errors import InputError
from recon.priors.network import Denoiser
from recon.priors.recipe import Recipe
from recon.priors.slices import Crops, SliceSet, validation_images

VALIDATION_SIGMAS = (0.05, 0.1, 0.25, 0.5)
WARM_UP = 200
COOL_DOWN = 0.35
"""Share of the run over which the learning rate falls linearly to zero."""
EMA = 0.999


@dataclass(frozen=True)
class TrainingProgress:
    """One line of the log."""

    step: int
    steps: int
    loss: float
    seconds: float
    validation_psnr: dict[float, float] | None = None


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up, hold, and cool down linearly; the hold lets a run be extended from any earlier checkpoint."""
    cool_from = steps * (1 - COOL_DOWN)
    return peak * min(1.0, (step + 1) / WARM_UP, (steps - step) / max(steps - cool_from, 1))


def data_hash(sets: list[SliceSet]) -> str:
    """Identity of the training data: the hash of the files' hashes."""
    return hashlib.sha256("".join(s.sha256 for s in sets).encode()).hexdigest()


@torch.inference_mode()
def denoising_psnr(model: Denoiser, images: Tensor, sigma: float, seed: int = 1) -> float:
    """Denoising PSNR in dB on the [-1, 1] axis (peak 2), mean squared error over all images and channels."""
    generator = torch.Generator().manual_seed(seed)
    noisy = images + sigma * torch.randn(images.shape, generator=generator)
    error = 0.0
    for x, truth in zip(noisy.split(4), images.split(4), strict=True):
        estimate = model(x, torch.full((len(x),), sigma))
        error += float((estimate - truth).square().sum())
    return 10 * math.log10(4.0 / (error / images.numel()))


class Trainer:
    """One training run in one folder: ``checkpoint.pt`` (replaced atomically) and ``log.jsonl``.

    Parameters
    ----------
    recipe
        What to train on and how.
    data
        Folder of the recipe's files.
    out
        Folder of the run; an existing checkpoint in it is resumed.
    seed
        Seed of weights, crops and noise.
    steps
        Overrides the recipe's number of steps.
    """

    def __init__(self, recipe: Recipe, data: Path, out: Path, seed: int = 0, steps: int | None = None) -> None:
        self.recipe, self.out, self.seed = recipe, out, seed
        self.steps = steps or recipe.training.steps
        sets = [SliceSet.read(data, source) for source in recipe.sources]
        self.data_hash = data_hash(sets)
        self.crops = Crops(sets, recipe, seed)
        self.validation = validation_images(data, recipe)
        torch.manual_seed(seed)
        self.model = new_network(recipe)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.training.learning_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """The run's checkpoint file."""
        return self.out / "checkpoint.pt"

    def run(self, *, save_every_s: float = 180.0, validate_every: int = 500) -> Iterator[TrainingProgress]:
        """Train to the last step, yielding a progress record a step."""
        started = saved = time.monotonic()
        before = self.seconds
        while self.step < self.steps:
            loss = self._update()
            self.step += 1
            self.seconds = before + time.monotonic() - started
            validate = self.step % validate_every == 0 or self.step == self.steps
            progress = TrainingProgress(
                self.step, self.steps, loss, self.seconds, self.validate() if validate else None
            )
            if validate or self.step % 20 == 0:
                self._log(progress)
            if time.monotonic() - saved > save_every_s or self.step == self.steps:
                self.save()
                saved = time.monotonic()
            yield progress

    def validate(self) -> dict[float, float]:
        """Denoising PSNR of the averaged weights on the tuning set, by sigma."""
        model = new_network(self.recipe)
        model.load_state_dict(self.average)
        model = model.eval().to(torch.bfloat16)
        return {sigma: denoising_psnr(model, self.validation, sigma) for sigma in VALIDATION_SIGMAS}

    def save(self) -> None:
        """Write the checkpoint beside the old one, then replace it: a crash leaves one whole file."""
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "seed": self.seed,
                "data_hash": self.data_hash,
                "recipe": self.recipe.model_dump(),
            },
            temporary,
        )
        os.replace(temporary, self.checkpoint)

    def _update(self) -> float:
        settings = self.recipe.training
        clean, weight = self.crops.batch(self.step)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step + 500_000_000)
        log_sigma = torch.randn(len(clean), generator=generator) * settings.log_sigma_std + settings.log_sigma_mean
        sigma = log_sigma.exp().reshape(-1, 1, 1, 1)
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, settings.learning_rate)
        with torch.autocast("cpu", torch.bfloat16):
            estimate = self.model(noisy, sigma.flatten())
        variance = self.recipe.sigma_data**2
        edm = (sigma.square() + variance) / (sigma.square() * variance)
        loss = (edm * weight * (estimate - clean).square()).sum() / weight.sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return float(loss.detach())

    def _resume(self) -> None:
        # Our own file, written by `save`; weights_only refuses anything but tensors and plain containers.
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        for key, mine in (("seed", self.seed), ("data_hash", self.data_hash)):
            if state[key] != mine:
                raise InputError(
                    f"the checkpoint in {self.out} has {key} {state[key]}, this run has {mine}",
                    field=key,
                    remedy="use another --out folder, or the same seed and data",
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def _log(self, progress: TrainingProgress) -> None:
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(progress.__dict__) + "\n")


def new_network(recipe: Recipe) -> Denoiser:
    """An untrained network of the recipe's shape, in channels-last layout."""
    network = Denoiser(2 if recipe.complex else 1, recipe.channels, recipe.sigma_data)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def last_validation(run: Path) -> dict[float, float]:
    """The last denoising table in a run's log."""
    for line in reversed((run / "log.jsonl").read_text().splitlines()):
        table = json.loads(line)["validation_psnr"]
        if table:
            return {float(sigma): round(psnr, 2) for sigma, psnr in table.items()}
    raise InputError(f"the run in {run} has not been validated yet", field="checkpoint", remedy="let it run on")
