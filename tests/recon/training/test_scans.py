"""Training on scans of slices: what is measured of them, what a solver makes of that, and that it repeats itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recon.training import few_views, slices, solved, training
from recon.training.export import export
from recon.training.slices import REUSED, Crops, SliceSet
from recon.training.training import Trainer
from tests.recon.problem.test_conditioning import recipe
from tests.recon.training.test_training import trained


def test_training_scans_slices_and_repeats_itself(tmp_path: Path) -> None:
    settings = recipe(tmp_path)
    sets = [SliceSet.read(tmp_path, source) for source in settings.sources]
    straight, resumed = (Crops(sets, settings, 4, lambda x, sigma, condition: 0.5 * (x + condition)) for _ in range(2))
    batches = [straight.batch(step) for step in range(2 * REUSED)]
    for step in (REUSED + 1, 1):  # in any order, as after a restart
        again = resumed.batch(step)
        before = batches[step]
        assert again.condition is not None and before.condition is not None
        assert torch.equal(again.images, before.images)
        assert torch.equal(again.condition, before.condition)
        assert again.iterates is not None and before.iterates is not None
        assert torch.equal(again.iterates, before.iterates) and again.sigma == before.sigma
    for batch in batches:
        assert batch.condition is not None and batch.images.shape == batch.condition.shape == (2, 1, 16, 16)
        assert batch.weights.shape == batch.images.shape
    assert not torch.equal(batches[0].images, batches[1].images)
    shown, true = (torch.cat([v.flatten() for v in some]) for some in zip(*_pairs(batches), strict=True))
    assert float(torch.corrcoef(torch.stack([shown, true]))[0, 1]) > 0.3  # the same crop, turned alike


def _pairs(batches: list[Any]) -> list[tuple[Tensor, Tensor]]:
    return [
        (b.condition - b.condition.mean((2, 3), keepdim=True), b.images - b.images.mean((2, 3), keepdim=True))
        for b in batches
    ]


def test_saturated_pixels_do_not_count_on_scans_either(tmp_path: Path) -> None:
    settings = recipe(tmp_path)
    saturated = settings.sources[0].model_copy(update={"unknown_from": 200.0})  # the discs
    sets = [SliceSet.read(tmp_path, saturated)]
    crops = Crops(sets, settings, 0, lambda x, sigma, condition: x)
    batches = [crops.batch(step) for step in range(8)]
    known = torch.cat([b.weights for b in batches]) > 0
    values = torch.cat([b.images for b in batches])
    assert 0.05 < float(known.float().mean()) < 0.95
    assert float((values[known] - values.min()).abs().max()) < 1e-3 < float(values.max() - values.min())


def test_a_prior_that_is_given_nothing_learns_from_solved_images_too(tmp_path: Path) -> None:
    settings = recipe(tmp_path, least_squares=False, solved=True)
    trainer = trained(settings, tmp_path, tmp_path / "run")
    batch = trainer.crops.batch(0)
    assert batch.condition is None and batch.iterates is not None
    assert not torch.allclose(batch.iterates, batch.images, atol=1e-2)
    assert not export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path).conditional


def test_training_on_scans_resumes_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scans are solved with the network as it is, so a checkpoint is written between two of them only."""
    for module in (slices, training):
        monkeypatch.setattr(module, "REUSED", 2)
    settings = recipe(tmp_path)
    straight = Trainer(settings, tmp_path, tmp_path / "straight", seed=3)
    losses = [p.loss for p in straight.run()]
    broken = Trainer(settings, tmp_path, tmp_path / "broken", seed=3)
    for progress in broken.run(save_every_s=0.0):
        if progress.step == 5:
            break
    resumed = Trainer(settings, tmp_path, tmp_path / "broken", seed=3)
    assert resumed.step == 4
    assert [p.loss for p in resumed.run()] == losses[4:]
    assert all(torch.equal(value, resumed.average[name]) for name, value in straight.average.items())


def test_a_scan_is_solved_with_the_network_for_some_steps(tmp_path: Path) -> None:
    """With a denoiser that knows the truth the images of later steps are right, and no step is skipped."""
    grid = torch.arange(32) - 15.5
    truth = 0.8 * torch.exp(-(grid[:, None].square() + grid.square()) / 60).repeat(2, 1, 1) - 1
    window = recipe(tmp_path).intensity_range
    seen: set[int] = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        sigmas: list[float] = []

        def knows(x: Tensor, sigma: float, condition: Tensor, sigmas: list[float] = sigmas) -> Tensor:
            sigmas.append(sigma)
            return truth

        found = solved.solved(*few_views.scanned(truth, window, generator), generator, knows)
        assert (*sigmas, found.sigma) == solved.LEVELS[: len(sigmas) + 1]
        if sigmas:
            assert float((found.iterate - truth).abs().max()) < 0.05
        else:
            assert torch.equal(found.iterate, found.condition)
        seen.add(len(sigmas))
    assert len(seen) > 3


def test_scans_of_training_vary() -> None:
    made = [few_views.scan(number, 32).geometry for number in range(12)]
    assert len({g.angles_rad[0] for g in made}) == 12
    views = [len(g.angles_rad) for g in made]
    assert min(views) >= few_views.FEWEST and max(views) <= few_views.MOST and len(set(views)) > 6
