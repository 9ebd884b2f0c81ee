"""Training of priors by denoising score matching: checkpointed, resumable, deterministic for a seed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from operators.errors import Diverged, InputError
from recon.priors import precision, prior, registry
from recon.priors.network import as_channels, from_channels
from recon.training import checkpoint as checkpoints
from recon.training.evaluate import SIGMAS, conditioner, denoising_psnr, judged_factors
from recon.training.optimizer import Optimizer
from recon.training.recipe import Recipe
from recon.training.slices import (
    REUSED,
    Crops,
    training_sets,
    tuning_images,
    validation_sets,
)
from recon.training.start import data_hash, start_from, start_of

WARM_UP = 200
SPREAD = 0.4
"""Standard deviation of the logarithm of the noise level around that of a solver's next step."""
COOL_DOWN = 0.8
"""Fraction of the run over which the learning rate falls linearly to zero."""


@dataclass(frozen=True)
class TrainingProgress:
    """Line of the training log."""

    step: int
    steps: int
    loss: float
    seconds: float
    validation_psnr: dict[float, float] | None = None


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Learning rate schedule: warm up, hold, fall linearly to zero over most of the run, where most gain is made."""
    cool_from = steps * (1 - COOL_DOWN)
    warm_up = max(min(WARM_UP, steps // 10), 1)
    return peak * min(1.0, (step + 1) / warm_up, (steps - step) / max(steps - cool_from, 1))


class Trainer:
    """Training run in a folder: ``checkpoint.pt`` (replaced atomically) and ``log.jsonl``.

    Parameters
    ----------
    recipe
        Recipe of the prior.
    data
        Folder of the recipe's files; synthetic images need none.
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
        sets = training_sets(data, recipe)
        if recipe.synthetic is None:
            for one in [*sets, *validation_sets(data, recipe)]:
                one.require(recipe)
        self.data_hash = data_hash(sets)
        self.crops = Crops(sets, recipe, seed, self._denoise)
        self.validation = tuning_images(data, recipe)
        torch.manual_seed(seed)
        self.model = registry.new_network(recipe)
        registry.require_small(sum(value.numel() for value in self.model.state_dict().values()))
        resumed = self.checkpoint.exists()  # then the weights are in it, whatever became of those it started from
        self.start = None if recipe.start is None or resumed else start_from(self.model, recipe.start)
        self.optimizer = Optimizer(self.model, recipe.training.learning_rate, muon=recipe.training.optimizer == "muon")
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """Path of the run's checkpoint."""
        return self.out / "checkpoint.pt"

    def run(self, *, save_every_s: float = 180.0, validate_every: int = 500) -> Iterator[TrainingProgress]:
        """Train to the last step, yielding one progress record per step."""
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
            # Between two scans of slices, which the next steps would need, and which depend on the weights.
            if self.step == self.steps or (time.monotonic() - saved > save_every_s and self.step % REUSED == 0):
                self.save()
                saved = time.monotonic()
            yield progress

    def validate(self) -> dict[float, float]:
        """Evaluate the denoising PSNR of the averaged weights on the tuning set, by sigma."""
        model = registry.new_network(self.recipe)
        model.load_state_dict(self.average)
        model.eval().to(precision.compute_dtype())
        return {
            sigma: denoising_psnr(
                partial(prior.apply, model, factors=judged_factors(self.recipe)),
                self.validation,
                sigma,
                is_complex=self.recipe.complex,
                condition_of=conditioner(self.recipe),
            )
            for sigma in SIGMAS
        }

    def save(self) -> None:
        """Replace the checkpoint."""
        checkpoints.write(
            self.checkpoint,
            {
                "model": self.model.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "seed": self.seed,
                "data_hash": self.data_hash,
                "start": None if self.start is None else self.start.model_dump(exclude={"familiarity"}),
                "recipe": self.recipe.model_dump(),
            },
        )

    def _update(self) -> float:
        settings = self.recipe.training
        batch = self.crops.batch(self.step)
        clean, weight = batch.images, batch.weights
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step + 500_000_000)
        log_sigma = torch.randn(len(clean), generator=generator) * settings.log_sigma_std + settings.log_sigma_mean
        start = clean
        if self.recipe.regression:
            log_sigma = torch.full_like(log_sigma, math.log(self.recipe.sigma_data))  # it sees no noise: equal weights
        if batch.iterates is not None:
            # Half of the images are the solver's; the others keep the network a denoiser.
            own = len(clean) // 2
            log_sigma[:own] = math.log(batch.sigma) + SPREAD * torch.randn(own, generator=generator)
            start = torch.cat([batch.iterates[:own], clean[own:]])
        sigma = log_sigma.exp().reshape(-1, 1, 1, 1)
        noisy = start + sigma * torch.randn(clean.shape, generator=generator)
        with precision.autocast():
            estimate = self.model(noisy, sigma.flatten(), batch.condition, batch.factors)
        variance = self.recipe.sigma_data**2
        # What is to be taken out of a solver's image is more than the noise.
        error = (weight * (start - clean).square()).sum((1, 2, 3), keepdim=True)
        power = sigma.square() + error / weight.sum((1, 2, 3), keepdim=True).clamp(min=1)
        edm = (power + variance) / (power * variance)
        loss = (edm * weight * (estimate - clean).square()).sum() / weight.sum().clamp(min=1)
        if not bool(loss.isfinite()):
            raise Diverged(f"the loss is {float(loss)} at step {self.step}", remedy="lower training.learning_rate")
        loss.backward()
        self.optimizer.step(learning_rate(self.step, self.steps, settings.learning_rate))
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return float(loss.detach())

    def _denoise(self, x: Tensor, sigma: float, condition: Tensor) -> Tensor:
        """Denoise slices ``(slices, rows, cols)`` with the current network."""
        with torch.no_grad(), precision.autocast():
            given = as_channels(condition) if self.recipe.conditional else None
            return from_channels(self.model(as_channels(x), torch.tensor([sigma]), given))

    def _resume(self) -> None:
        state, recipe = checkpoints.read(self.checkpoint, "out")
        mine_and_theirs = {
            "seed": (self.seed, state["seed"]),
            "data_hash": (self.data_hash, state["data_hash"]),
            **_changed(self.recipe, recipe),
        }
        for key, (mine, theirs) in mine_and_theirs.items():
            if mine != theirs:
                raise InputError(
                    f"the checkpoint in {self.out} has {key} {theirs}, this run has {mine}",
                    field=key,
                    remedy="use another --out folder, or the same seed, data and recipe; only the steps may change",
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
        self.start = start_of(state)  # with the weights there were then

    def _log(self, progress: TrainingProgress) -> None:
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(progress.__dict__) + "\n")


def _changed(mine: Recipe, theirs: Recipe) -> dict[str, tuple[object, object]]:
    """Compare the settings that a resumed run must share with its recipe; data files are compared by content."""
    a, b = (
        recipe.model_dump(
            exclude={"training": {"steps"}, "limits": True, "sources": {"__all__": {"licence"}}, "validation": True}
        )
        for recipe in (mine, theirs)
    )
    return {f"recipe.{key}": (a[key], b[key]) for key in a}
