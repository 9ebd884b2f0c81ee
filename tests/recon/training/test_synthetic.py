"""Synthetic images of objects: the same for the same seed, of every kind, anti-aliased; a prior is trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from operators.errors import InputError
from recon.priors import registry
from recon.training import shapes, slices, synthetic
from recon.training.export import export
from recon.training.recipe import Recipe
from recon.training.slices import Crops, training_sets, tuning_images, validation_sets
from recon.training.training import Trainer

SMALL = ["channels=[16, 32]", "blocks=1", "training.crop=32", "training.batch=2", "training.steps=4"]
SEED, COUNT, SIZE = 5, 200, 64


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([synthetic.image(SEED, index, SIZE) for index in range(COUNT)])


def materials(value: float) -> synthetic.Materials:
    return synthetic.Materials(np.array([value], np.float32), np.zeros((SIZE, SIZE), np.float32), varied=0.0)


def test_an_image_depends_on_seed_and_index_alone(images: np.ndarray) -> None:
    for index in (17, 3, 17):
        assert np.array_equal(synthetic.image(SEED, index, SIZE), images[index])
    assert not np.array_equal(synthetic.image(SEED + 1, 3, SIZE), images[3])
    assert len({image.tobytes() for image in images}) >= COUNT - 5  # some show nothing but air


def test_attenuation_is_that_of_an_object_in_air(images: np.ndarray) -> None:
    assert images.dtype == np.float32
    assert np.isfinite(images).all() and images.min() == 0 and images.max() <= synthetic.DENSEST
    brightest = np.quantile(images, 0.998, axis=(1, 2))
    assert np.quantile(brightest, 0.1) < 0.6 and np.quantile(brightest, 0.9) > 0.9  # any grey scale
    air = (images == 0).mean((1, 2))
    assert (air > 0.1).sum() > COUNT / 4  # air around
    assert (air == 0).sum() > COUNT / 20  # and parts of an object's inside


def test_every_kind_occurs_and_has_content(images: np.ndarray) -> None:
    kinds = np.array([synthetic.kind_of(SEED, index) for index in range(COUNT)])
    assert set(kinds) == set(synthetic.KINDS) >= {
        "leaves", "lattice", "foam", "grains", "fibres", "cracks", "pores", "layers",
    }  # fmt: skip
    for kind in synthetic.KINDS:
        assert images[kinds == kind].std((1, 2)).max() > 0.1


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_a_scene_of_each_kind_has_structure_and_no_negative_attenuation(kind: str) -> None:
    rng = np.random.default_rng(0)
    given = synthetic.Materials(np.array([0.2, 0.9], np.float32), np.zeros((SIZE, SIZE), np.float32), varied=0.0)
    scenes = np.stack([synthetic.KINDS[kind](rng, SIZE, given) for _ in range(12)])
    assert scenes.dtype == np.float32 and scenes.min() >= -1e-6
    assert (scenes.std((1, 2)) > 0.01).sum() >= 6


def test_edges_are_anti_aliased() -> None:
    """Coverage sums to the area, wherever the centre lies, and the pixels along the edge are grey."""
    rng = np.random.default_rng(0)
    offsets = np.arange(SIZE, dtype=np.float32)
    for row, col in ((31.0, 31.0), (31.3, 30.6)):
        distance = np.hypot(offsets - col, offsets[:, None] - row) - 12.0
        covered = shapes.inside(distance)
        assert covered.sum() == pytest.approx(np.pi * 12**2, rel=0.003)
        assert 40 < ((covered > 0) & (covered < 1)).sum() < 120
    line = shapes.band(offsets - 30.3, 0.4)  # thinner than a pixel, and as heavy as it is wide
    assert line.max() <= 0.4 + 1e-6 and line.sum() == pytest.approx(0.4, abs=1e-5)
    scene = synthetic.pores(rng, SIZE, materials(1.0))
    assert ((scene > 0.05) & (scene < 0.95)).sum() > 50


def test_sizes_follow_a_power_law() -> None:
    sizes = shapes.power_law(np.random.default_rng(0), 1, 100, 3.0, 20000)
    assert sizes.min() >= 1 and sizes.max() <= 100
    beyond = np.array([(sizes > r).mean() for r in (2, 4, 8)])
    assert beyond == pytest.approx([0.25, 1 / 16, 1 / 64], rel=0.15)  # of a density r**-3
    flat = shapes.power_law(np.random.default_rng(0), 1, 100, 1.0, 20000)
    assert (flat < 10).mean() == pytest.approx(0.5, abs=0.02)  # every decade alike


def test_training_and_validation_images_are_on_the_axis_and_differ() -> None:
    recipe = Recipe.named("objects").with_settings(SMALL)
    nowhere = Path("nowhere")
    crops = Crops(training_sets(nowhere, recipe), recipe, seed=0)
    batch = crops.batch(7)
    assert torch.equal(batch.images, Crops(training_sets(nowhere, recipe), recipe, seed=0).batch(7).images)
    assert batch.images.shape == (2, 1, 32, 32) and bool((batch.weights == 1).all())
    judged = tuning_images(nowhere, recipe)
    assert judged.min() == -1 and judged.max() <= recipe.largest  # air, and what passes the prior
    assert set(validation_sets(nowhere, recipe)[0].subjects()) == set(synthetic.KINDS)
    first = validation_sets(nowhere, recipe)[0]
    assert not np.array_equal(first.stored[0], synthetic.image(recipe.synthetic.seed, 0, 256))  # type: ignore[union-attr]


def test_a_prior_is_trained_on_synthetic_images_resumed_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "JUDGED_SIZE", 48)
    recipe = Recipe.named("objects").with_settings(SMALL)
    losses = [progress.loss for progress in Trainer(recipe, tmp_path / "none", tmp_path / "straight").run()]
    first = Trainer(recipe, tmp_path / "none", tmp_path / "run")
    for progress in first.run():
        if progress.step == 2:
            first.save()
            break
    assert [progress.loss for progress in Trainer(recipe, tmp_path / "none", tmp_path / "run").run()] == losses[2:]
    with pytest.raises(InputError, match="data_hash"):
        Trainer(recipe.with_settings(["synthetic.seed=7"]), tmp_path, tmp_path / "run")
    with monkeypatch.context() as later:
        later.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
        with pytest.raises(InputError, match="data_hash"):
            Trainer(recipe, tmp_path, tmp_path / "run")
        with pytest.raises(InputError, match=r"run: .* another generator than version"):
            export(tmp_path / "run", tmp_path, "recon train objects", tmp_path)
    card = export(tmp_path / "run", tmp_path / "none", "recon train objects", tmp_path / "priors")
    assert registry.load(str(tmp_path / "priors" / "objects.yaml")).card == card
    assert [one.file for one in card.data] == [f"synthetic images, generator version {synthetic.VERSION}, seed 1"]
    assert card.data[0].licence.startswith("none needed")
    assert card.intensity_range.unit != "HU" and card.start is None and "synthetic" in card.limits[0]
    assert card.familiarity is not None and len(card.familiarity.reference) == len(synthetic.KINDS)


def test_a_recipe_has_files_or_a_generator(tmp_path: Path) -> None:
    recipe = Recipe.named("objects")
    for setting, says in (
        ("sources=[{file: a.npz}]", r"synthetic: .*leave out sources and validation"),
        ("synthetic=null", r"sources: Files are needed"),
        ("synthetic.validation_seed=1", r"synthetic\.validation_seed: 1 is the seed of the images trained on"),
        ("synthetic.seed=-1", r"synthetic\.seed: .*greater than or equal to 0"),
        ("solved=true", r"synthetic: .*nothing but the image"),
        ("modality=mri", r"synthetic: .*real CT"),
        ("training.halve=0.5", r"training\.halve: .*set it to 0"),
    ):
        with pytest.raises(InputError, match=says):
            recipe.with_settings([setting])


def test_specimens_are_round_stand_in_air_and_hold_something() -> None:
    found = synthetic.specimens(7, 4, 96)
    assert found.shape == (4, 96, 96) and found.dtype == np.float32
    assert np.array_equal(found[:2], synthetic.specimens(7, 2, 96))
    rows, cols = np.mgrid[:96, :96] - 47.5
    beside = np.hypot(rows, cols) > 47.5 * (synthetic.CORE + 0.12)
    assert np.abs(found[:, beside]).max() < 1e-3
    within = np.hypot(rows, cols) < 47.5 * (synthetic.CORE - 0.1)
    assert found[:, within].std(axis=1).min() > 0.02
