"""Training: the same numbers for the same seed and data, resumed bit by bit; recipes; a user's own volumes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from operators.errors import InputError
from operators.resolution import SlabAverage, ThickSlices, Truncation
from recon.measurement import random_fields
from recon.priors import precision, registry
from recon.priors.card import Card
from recon.priors.mirrored import continued, cut_back
from recon.training import augment
from recon.training.export import export
from recon.training.optimizer import Optimizer
from recon.training.recipe import Recipe
from recon.training.slices import Crops, SliceSet, tuning_images
from recon.training.training import Trainer, learning_rate


def tiny(tmp_path: Path, **changes: Any) -> Recipe:
    generator = np.random.default_rng(0)
    images = (generator.random((6, 40, 40)) * 200).astype(np.uint8)
    images[:, :5, :5] = 255
    np.savez(tmp_path / "train.npz", images=images, subject=np.array(list("aabbcc")))
    source = {"file": "train.npz", "slope": 1 / 255, "intercept": 0.0, "unknown_from": 255}
    whole = {**source, "unknown_from": None}
    return Recipe.model_validate(
        {
            "name": "tiny", "modality": "mri", "complex": True, "sigma_data": 0.3, "channels": [16, 32], "blocks": 1,
            "intensity_range": {"unit": "-", "low": -1.0, "high": 1.0}, "largest": 2.0, "sources": [source, whole],
            "validation": [whole], "limits": ["a test"],
            "training": {"batch": 2, "crop": 16, "steps": 6, "learning_rate": 1e-3, "log_sigma_mean": -1.5,
                         "log_sigma_std": 1.0, "halve": 0.5, "rotate": 0.5},
            **changes,
        }
    )  # fmt: skip


def trained(recipe: Recipe, data: Path, out: Path) -> Trainer:
    trainer = Trainer(recipe, data, out, seed=0)
    for _ in trainer.run():
        pass
    return trainer


def stir(trainer: Trainer) -> None:
    """Give every weight of a run a say: after a few steps most are still zero, and would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for value in trainer.average.values():
        value += torch.randn(value.shape, generator=generator) * 0.08
    trainer.save()


STACKS = {"factors": [2.0, 4.0]}
"""Changes that make a recipe one for super-resolution by any factor."""


@pytest.mark.parametrize(
    "changes",
    [{"complex": False}, {"complex": True}, {"super_resolution": 2}, STACKS, {**STACKS, "regression": True}],
)
def test_training_resumes_bit_by_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = tiny(tmp_path, **changes)
    straight = Trainer(recipe, tmp_path, tmp_path / "straight", seed=3)
    losses = [p.loss for p in straight.run()]
    first = Trainer(recipe, tmp_path, tmp_path / "broken", seed=3)
    for progress in first.run():
        if progress.step == 3:
            first.save()
            break
    resumed = Trainer(recipe, tmp_path, tmp_path / "broken", seed=3)
    assert resumed.step == 3
    assert [p.loss for p in resumed.run()] == losses[3:]
    for name, value in straight.average.items():
        assert torch.equal(value, resumed.average[name])
    assert set(straight.validate()) == {0.05, 0.1, 0.25, 0.5}
    with pytest.raises(InputError, match="seed"):
        Trainer(recipe, tmp_path, tmp_path / "broken", seed=4)
    with pytest.raises(InputError, match=r"recipe\.training"):
        Trainer(recipe.with_settings(["training.learning_rate=1e-4"]), tmp_path, tmp_path / "broken", seed=3)
    np.savez(tmp_path / "train.npz", images=np.random.default_rng(1).random((6, 40, 40)))
    with pytest.raises(InputError, match="data_hash"):
        Trainer(recipe, tmp_path, tmp_path / "broken", seed=3)


def test_training_learns(tmp_path: Path) -> None:
    """Some steps on discs: the averaged weights denoise better than the untrained network."""
    rows, cols = np.mgrid[-1:1:32j, -1:1:32j]
    discs = [np.where((rows - a) ** 2 + (cols - b) ** 2 < 0.3, 200, 20) for a in (-0.3, 0.3) for b in (-0.3, 0, 0.3)]
    recipe = tiny(tmp_path, complex=False)
    np.savez(tmp_path / "train.npz", images=np.stack(discs).astype(np.uint8))
    settings = recipe.training.model_copy(update={"steps": 40, "batch": 8, "halve": 0.0, "learning_rate": 5e-3})
    trainer = Trainer(recipe.model_copy(update={"training": settings}), tmp_path, tmp_path / "run")
    before = trainer.validate()
    for _ in trainer.run():
        pass
    after = trainer.validate()
    assert all(after[sigma] > before[sigma] + 1.0 for sigma in (0.25, 0.5))


def test_the_optimiser_updates_the_network_in_place_and_resumes() -> None:
    """Muon works on matrices that share the kernels' memory: were they copies, nothing would be learnt."""

    def one_step(network: torch.nn.Module, optimizer: Optimizer) -> None:
        network(torch.ones(1, 4, 8, 8)).square().mean().backward()
        optimizer.step(1e-2)

    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3), torch.nn.ConvTranspose2d(6, 4, 2, stride=2))
        layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return layers

    a, b = network(), network()
    first, second = Optimizer(a, 1e-2), Optimizer(b, 1e-2)
    before = [p.detach().clone() for p in a.parameters()]
    one_step(a, first)
    assert all(not torch.equal(x, y) for x, y in zip(before, a.parameters(), strict=True))
    b.load_state_dict(a.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    one_step(a, first)
    one_step(b, second)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("changes", [{}, {"super_resolution": 2}, STACKS, {**STACKS, "regression": True}])
def test_a_trained_prior_is_exported_and_loaded(tmp_path: Path, changes: dict[str, Any]) -> None:
    trainer = trained(tiny(tmp_path, **changes), tmp_path, tmp_path / "run")
    stir(trainer)
    card = export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    factors = (3.0, 1.0) if "factors" in changes else None
    prior = registry.load(str(tmp_path / "tiny.yaml")).at(factors)
    assert prior.card == card and card.steps == 6 and card.parameters > 1000
    x = torch.randn(1, 16, 16, dtype=torch.complex64)
    condition = torch.randn(1, 16, 16, dtype=torch.complex64) if changes else None
    expected = trainer.model.eval()
    expected.load_state_dict(trainer.average)
    channels = [torch.view_as_real(v).movedim(-1, 1) for v in (x, condition) if v is not None]
    seen = [continued(v) if changes else v for v in channels]
    with torch.inference_mode():
        told = None if factors is None else torch.tensor([factors])
        reference = expected(seen[0], torch.tensor([0.2]), seen[1] if changes else None, told)
    reference = cut_back(reference) if changes else reference
    found = torch.view_as_real(prior.denoise(x, 0.2, condition)).movedim(-1, 1)
    c_skip = 0.3**2 / (0.3**2 + 0.2**2)
    share = (reference - (0.5 * channels[1] if changes.get("regression") else c_skip * channels[0])).abs()
    assert float(share.mean()) > 0.1  # so that a network that says nothing would be noticed
    tolerance = {torch.bfloat16: 0.05, torch.float32: 0.005}[precision.compute_dtype()]  # the weights are fp16
    assert float((found - reference).abs().max()) < tolerance * float(share.max())
    if changes:
        with pytest.raises(InputError, match="conditional"):
            prior.denoise(x, 0.2)
        if factors is not None:
            with pytest.raises(InputError, match="told the super-resolution factors"):
                registry.load(str(tmp_path / "tiny.yaml")).denoise(x, 0.2, condition)
            other = registry.load(str(tmp_path / "tiny.yaml")).at((1.0, 3.0))
            assert float((prior.denoise(x, 0.2, condition) - other.denoise(x, 0.2, condition)).abs().max()) > 1e-3
        if changes.get("regression"):
            assert torch.equal(prior.denoise(x, 0.2, condition), prior.denoise(0 * x, 0.5, condition))
    else:
        assert card.familiarity is not None and len(card.familiarity.reference) == 6
        assert bool((prior.familiarity(x * 0.1) >= 0).all())


def test_stacks_are_drawn_as_scanners_give_them(tmp_path: Path) -> None:
    """Every kind is among them, at factors within the range, and a step draws the same whenever it is drawn."""
    generator = torch.Generator().manual_seed(0)
    drawn = [augment.stack_scan(48, 40, (2.0, 6.0), generator) for _ in range(300)]
    factors = torch.tensor([lower.factors for lower in drawn])
    both = (factors > 1).all(1)
    assert 0.4 < float(both.float().mean()) < 0.6
    assert float(factors[both].min()) >= 2 and float(factors.max()) <= 6
    assert min(int(((factors > 1) == torch.tensor(axes)).all(1).sum()) for axes in ((True, False), (False, True))) > 40
    halves = (2 * factors.max(1).values) % 1 == 0
    assert 0.4 < float(halves.float().mean()) < 0.6
    assert {type(lower) for lower in drawn} == {Truncation, SlabAverage, ThickSlices}

    recipe = tiny(tmp_path, **STACKS)
    crops = Crops([SliceSet.read(tmp_path, source) for source in recipe.sources], recipe, 0)
    batch, again = crops.batch(3), crops.batch(3)
    assert batch.condition is not None and batch.factors is not None and again.factors is not None
    assert batch.images.shape == batch.condition.shape == (2, 2, 16, 16) and batch.factors.shape == (2, 2)
    assert torch.equal(batch.images, again.images) and torch.equal(batch.factors, again.factors)
    # Magnitudes have no phase, and are the same image at less resolution.
    assert float(batch.images[:, 1].abs().max()) == 0 and float(batch.images[:, 0].min()) >= 0
    assert 0 < float((batch.images - batch.condition).abs().mean()) < float(batch.images.mean())


def test_the_floor_of_the_noise_is_in_a_magnitude_stack() -> None:
    """Complex noise of standard deviation s in an empty image becomes a Rayleigh magnitude of mean s sqrt(pi / 2)."""
    lower, empty = SlabAverage(256, 256, 2, complex=True), torch.zeros(256, 256, dtype=torch.complex64)
    levels = []
    for seed in range(40):
        stack = augment.measured_stack(empty, lower, torch.Generator().manual_seed(seed))
        assert float(stack.imag.abs().max()) == 0
        if float(stack.real.max()) > 0:
            mean, square = float(stack.real.mean()), float(stack.real.square().mean())
            assert mean**2 / square == pytest.approx(math.pi / 4, rel=0.02)
            levels.append(square**0.5 / 2**0.5)
    assert 20 <= len(levels) < 40 and 0.0025 < min(levels) < 0.01 < max(levels) < 0.07


def test_training_starts_from_a_prior(tmp_path: Path) -> None:
    """A condition added to a trained prior begins without effect: the first estimates are those of the start."""
    stir(trained(tiny(tmp_path), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    start = str(tmp_path / "tiny.yaml")
    child = Trainer(tiny(tmp_path, start=start, super_resolution=2), tmp_path, tmp_path / "child")
    assert child.start == registry.load(start).card
    x, given = torch.randn(1, 2, 16, 16), torch.randn(1, 2, 16, 16)
    parent = registry.load(start).network.float()
    with torch.inference_mode():
        # Only the phase that both are relieved of comes from elsewhere: take it from the same image.
        found, expected = child.model(x, torch.tensor([0.2]), x), parent(x, torch.tensor([0.2]))
        other = child.model(x, torch.tensor([0.2]), given)
    c_skip = 0.3**2 / (0.3**2 + 0.2**2)
    assert float((expected - c_skip * x).abs().mean()) > 0.1
    assert float((found - expected).abs().max()) < 0.05 * float((expected - c_skip * x).abs().max())
    assert other.shape == x.shape
    told = Trainer(tiny(tmp_path, start=start, **STACKS), tmp_path, tmp_path / "told")
    with torch.inference_mode():
        # Nor have the factors a say before they are learnt.
        assert torch.allclose(told.model(x, torch.tensor([0.2]), x, torch.tensor([[2.0, 1.0]])), found, atol=1e-4)
    with pytest.raises(InputError, match="do not fit"):
        Trainer(tiny(tmp_path, start=start, channels=[16, 48]), tmp_path, tmp_path / "other")


def test_a_card_tells_all_runs_that_led_to_its_weights(tmp_path: Path) -> None:
    """Also where a run was resumed, and the weights that it started from have been replaced since."""
    trained(tiny(tmp_path), tmp_path, tmp_path / "run")
    first = export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    start = str(tmp_path / "tiny.yaml")
    again = tiny(tmp_path, start=start, sources=[{"file": "more.npz", "slope": 1 / 255}])
    np.savez(tmp_path / "more.npz", images=np.load(tmp_path / "train.npz")["images"][:4])
    begun = Trainer(again, tmp_path, tmp_path / "again")
    begun.save()
    for path in tmp_path.glob("tiny.*"):
        path.unlink()
    trained(again, tmp_path, tmp_path / "again")
    second = export(tmp_path / "again", tmp_path, "recon train tiny again", tmp_path)
    assert second.sha256 != first.sha256 and first.before == [] and first.judge is None
    assert [(run.sha256, run.command) for run in second.lineage] == [
        (first.sha256, "recon train tiny"),
        (second.sha256, "recon train tiny again"),
    ]
    assert [one.file for one in second.data] == ["more.npz", "train.npz"]
    assert registry.card_of(start) == second


def test_a_run_begun_in_older_names_is_resumed(tmp_path: Path) -> None:
    """Names of recipes and cards change; hours of training do not begin again for that."""
    stir(trained(tiny(tmp_path), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    recipe = tiny(tmp_path, start=str(tmp_path / "tiny.yaml"), super_resolution=2)
    begun = Trainer(recipe, tmp_path, tmp_path / "child")
    begun.save()
    path = tmp_path / "child" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for model, part in ((Recipe, "recipe"), (Card, "start")):
        old = {new: name for name, new in model.renamed().items()}
        assert old.keys() & state[part].keys()
        state[part] = {old.get(name, name): value for name, value in state[part].items()}
    torch.save(state, path)
    resumed = Trainer(recipe, tmp_path, tmp_path / "child")
    assert begun.start is not None and resumed.start is not None and resumed.recipe == recipe
    assert resumed.start.model_dump(exclude={"familiarity"}) == begun.start.model_dump(exclude={"familiarity"})


def test_saturated_pixels_do_not_count(tmp_path: Path) -> None:
    recipe = tiny(tmp_path, complex=False)
    crops = Crops([SliceSet.read(tmp_path, recipe.sources[0])], recipe, 0)
    batches = [crops.batch(step) for step in range(50)]
    assert any((b.weights == 0).any() for b in batches)
    assert all((b.images[b.weights == 1] < 200 / 255 + 1e-3).all() for b in batches)  # not even mixed with one


def test_slices_smaller_than_a_crop_are_padded_without_weight(tmp_path: Path) -> None:
    recipe = tiny(tmp_path, complex=False)
    np.savez(tmp_path / "train.npz", images=np.random.default_rng(0).integers(1, 99, (3, 12, 20)))
    settings = recipe.training.model_copy(update={"rotate": 0.0})
    recipe = recipe.model_copy(update={"training": settings})
    batch = Crops([SliceSet.read(tmp_path, recipe.sources[0])], recipe, 0).batch(0)
    assert batch.images.shape == (2, 1, 16, 16)
    assert float(batch.weights.mean()) == pytest.approx(12 / 16)


def test_a_turned_window_without_turn_is_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resampling grid has no half-pixel shift: at no turn and unit scale it returns the pixels themselves."""
    image = torch.rand(1, 40, 30, generator=torch.Generator().manual_seed(0))

    class Still(torch.Generator):
        pass

    drawn = iter([0.0, 0.0, 20.0, 15.0])
    monkeypatch.setattr(augment, "uniform", lambda generator, low=0.0, high=1.0: next(drawn))
    found = augment.turned_window(image, 16, Still())
    assert torch.allclose(found, image[:, 12:28, 7:23], atol=1e-5)


def test_measured_like_images_have_phase_and_sometimes_noise() -> None:
    magnitude = torch.zeros(64, 64)
    magnitude[16:48, 16:48] = 0.5
    images = [augment.measured_like(magnitude, torch.Generator().manual_seed(s)) for s in range(30)]
    noisy = [bool((image[:8].abs() > 0).any()) for image in images]
    assert 2 < sum(noisy) < 20
    levels = np.array([float(image[24:40, 24:40].abs().mean()) for image in images])
    assert 0.35 < np.exp(np.log(levels).mean()) < 0.6 and levels.min() > 0.1 and levels.max() < 2
    means = torch.stack([image.mean() / image.mean().abs() for image in images])
    assert float(means.mean().abs()) < 0.5  # every global phase occurs


def test_phase_is_smooth_and_covers_the_circle() -> None:
    phases = [random_fields.smooth_phase(64, 64, torch.Generator().manual_seed(s)) for s in range(40)]
    assert max(float(p.diff(dim=0).abs().max()) for p in phases) < 1.8
    turned = torch.stack([torch.polar(torch.tensor(1.0), p.mean()) for p in phases])
    assert float(turned.mean().abs()) < 0.5


def test_learning_rate_warms_up_and_cools_down() -> None:
    rates = [learning_rate(s, 4000, 1e-3) for s in range(4000)]
    assert rates[0] < 1e-5 and max(rates) == rates[200] == rates[799] == 1e-3
    assert rates[2400] == pytest.approx(0.5e-3) and rates[-1] < 1e-6
    assert learning_rate(10, 100, 1e-3) == 1e-3  # a short run does not warm up all the time


def test_missing_training_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ct_hu.npz does not exist.*--data"):
        Trainer(Recipe.named("ct"), tmp_path, tmp_path / "run")


def write_volume(path: Path, values: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), path)


def volumes(folder: Path, count: int = 3) -> None:
    generator = np.random.default_rng(0)
    for index in range(count):
        values = generator.random((40, 36, 5)) * 3000
        values[..., 0] = 0.0
        write_volume(folder / f"head-{index}.nii.gz", values)


def test_a_user_trains_on_nifti_volumes(tmp_path: Path) -> None:
    volumes(tmp_path)
    small = ["channels=[16, 32]", "blocks=1", "training.crop=16", "training.batch=2", "training.steps=2"]
    recipe = Recipe.for_volumes("knees", "mri", tmp_path).with_settings(small)
    assert [s.file for s in recipe.sources] == ["head-0.nii.gz", "head-1.nii.gz"]
    assert [s.file for s in recipe.validation] == ["head-2.nii.gz"]
    one = SliceSet.read(tmp_path, recipe.sources[0])
    assert len(one) == 4  # the empty slice is left out
    assert float(tuning_images(tmp_path, recipe).quantile(0.99)) == pytest.approx(1.0, abs=0.05)
    trained(recipe, tmp_path, tmp_path / "run")
    card = export(tmp_path / "run", tmp_path, "recon train knees", tmp_path / "mine")
    assert registry.load(str(tmp_path / "mine" / "knees.yaml")).card == card


def test_unusable_volumes_and_recipes_are_named(tmp_path: Path) -> None:
    volumes(tmp_path, 1)
    with pytest.raises(InputError, match=r"1 NIfTI volumes.*at least 2"):
        Recipe.for_volumes("knees", "mri", tmp_path)
    with pytest.raises(InputError, match="'pet' is not one of ct, mri"):
        Recipe.for_volumes("knees", "pet", tmp_path)
    with pytest.raises(InputError, match="no name for files"):
        Recipe.for_volumes("../knees", "mri", tmp_path)
    broken = np.zeros((8, 8, 3))
    broken[1, 2, 1] = np.nan
    write_volume(tmp_path / "head-1.nii.gz", broken)
    with pytest.raises(InputError, match="not finite"):
        SliceSet.read(tmp_path, Recipe.for_volumes("knees", "ct", tmp_path).validation[0])
    write_volume(tmp_path / "head-1.nii.gz", np.ones((8, 8, 3)))
    with pytest.raises(InputError, match="empty slices only"):
        SliceSet.read(tmp_path, Recipe.for_volumes("knees", "ct", tmp_path).validation[0])
    recipe = tiny(tmp_path)
    for setting in ("training.nothing=3", "crop", "training.crop.deep=1"):
        with pytest.raises(InputError, match="does not set anything"):
            recipe.with_settings([setting])
    with pytest.raises(InputError, match="is not YAML"):
        recipe.with_settings(["channels=[16"])
    with pytest.raises(InputError, match="no multiple of the factor 3"):
        recipe.with_settings(["super_resolution=3"])
    for setting in ("sources=[]", "sigma_data=.inf", "name=../x"):
        field = setting.partition("=")[0]
        with pytest.raises(InputError, match=rf"^set: {field}=.*: {field}: [A-Z][^\n]*$"):  # one line, and which
            recipe.with_settings([setting])
    with pytest.raises(InputError, match="multiple of 16"):
        recipe.with_settings(["training.crop=18"])
    with pytest.raises(InputError, match="for complex priors only"):
        recipe.with_settings(["complex=false", "super_resolution=2"])
    for settings, says in (
        (["factors=[2, 4]", "super_resolution=2"], "no single factor"),
        (["factors=[4, 2]"], "no rising range"),
        (["regression=true"], "give factors"),
    ):
        with pytest.raises(InputError, match=says):
            recipe.with_settings(settings)
    np.savez(tmp_path / "train.npz", pictures=np.ones((2, 8, 8)))
    with pytest.raises(InputError, match=r"not an \.npz with an array images"):
        SliceSet.read(tmp_path, recipe.sources[0])
    np.savez(tmp_path / "train.npz", images=np.full((2, 8, 8), np.nan))
    with pytest.raises(InputError, match="not finite"):
        SliceSet.read(tmp_path, recipe.sources[0])
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"name": "x"}))
    with pytest.raises(InputError, match="is not a recipe"):
        Recipe.named(str(tmp_path / "bad.yaml"))
    with pytest.raises(InputError, match=r"no checkpoint\.pt"):
        export(tmp_path / "nowhere", tmp_path, "recon train", tmp_path)


@pytest.mark.parametrize(
    ("modality", "slope", "intercept", "says"),
    [("ct", 1.0, 0.0, "not CT in HU"), ("mri", 1.0, -100.0, "no magnitudes")],
)
def test_the_wrong_modality_is_refused(
    tmp_path: Path, modality: str, slope: float, intercept: float, says: str
) -> None:
    recipe = tiny(tmp_path)
    source = recipe.sources[1].model_copy(update={"slope": slope, "intercept": intercept})
    window = recipe.intensity_range.model_copy(update={"unit": "HU" if modality == "ct" else "-"})
    wrong = recipe.model_copy(update={"modality": modality, "intensity_range": window})
    for place in ("sources", "validation"):
        with pytest.raises(InputError, match=says):
            Trainer(wrong.model_copy(update={place: [source]}), tmp_path, tmp_path / "run")


def test_a_network_too_large_to_ship_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"channels: the weights take .* MB"):
        Trainer(tiny(tmp_path, channels=[256, 512], blocks=2), tmp_path, tmp_path / "run")


@pytest.mark.parametrize("damage", ["cut", "old", "other", "recipe"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path: Path, damage: str) -> None:
    recipe, out = tiny(tmp_path), tmp_path / "run"
    trained(recipe, tmp_path, out)
    path = out / "checkpoint.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "old":
        torch.save({"model": {}, "step": 3}, path)
    elif damage == "recipe":
        torch.save(torch.load(path, weights_only=True) | {"recipe": {"name": "tiny"}}, path)
    else:
        path.write_text("no checkpoint at all")
    with pytest.raises(InputError, match=r"out: the checkpoint .* cannot be read"):
        Trainer(recipe, tmp_path, out)
    with pytest.raises(InputError, match=r"run: the checkpoint .* cannot be read"):
        export(out, tmp_path, "recon train", tmp_path)


def test_recipes_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    recipe = tiny(tmp_path)
    for setting, says in (
        ("intensity_range.low=2", "must be below high"),
        ("sources.0.share=-1", "greater than or equal to 0"),
    ):
        with pytest.raises(InputError, match=says):
            recipe.with_settings([setting])
    with pytest.raises(InputError, match="every share is 0"):
        recipe.with_settings(["sources.0.share=0", "sources.1.share=0"])


def test_a_volume_of_next_to_nothing_has_no_brightness(tmp_path: Path) -> None:
    volume = np.zeros((4, 24, 24), np.float32)
    volume[2, 3, 3] = 900.0
    nib.save(nib.Nifti1Image(volume.transpose(2, 1, 0), np.eye(4)), tmp_path / "speck.nii.gz")
    source = tiny(tmp_path).sources[1].model_copy(update={"file": "speck.nii.gz", "slope": 1.0, "scaled": True})
    with pytest.raises(
        InputError, match=r"sources\.file: fewer than 0\.2 % of the voxels of speck\.nii\.gz have content"
    ):
        SliceSet.read(tmp_path, source)
