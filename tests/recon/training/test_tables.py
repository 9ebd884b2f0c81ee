"""Tables and head holders lie around the patient, never in him, and are the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from operators.errors import InputError
from recon.training.recipe import Recipe
from recon.training.slices import Crops, SliceSet
from recon.training.tables import Place, furnished


def slice_of(half_width: float, half_height: float, size: int = 128) -> np.ndarray:
    """A patient of 40 HU in air, in pixels of 3 mm, somewhat above the middle."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = (x / half_width) ** 2 + ((y + 15) / half_height) ** 2 < 1
    return np.where(inside, 40.0, -1000.0).astype(np.float32)


@pytest.mark.parametrize("size", [(50, 30), (28, 34)], ids=["chest", "head"])
def test_what_is_added_lies_beside_the_patient(size: tuple[float, float]) -> None:
    image = slice_of(*size)
    inside = image > 0
    below = 0
    for seed in range(40):
        found = furnished(image, np.random.default_rng(seed), pixel_mm=3.0)
        assert found.dtype == np.float32
        assert found.shape == image.shape
        assert np.array_equal(found[inside], image[inside])
        assert found.min() >= -1000.0
        added = found > -990
        assert float((~added).mean()) > 0.3  # most of the rest stays air
        lowest = np.nonzero(inside.any(1))[0][-1]
        below += bool(added[lowest + 1 :].any())
    assert below > 30  # nearly all lie on something


def test_the_same_seed_furnishes_alike_and_another_does_not() -> None:
    image = slice_of(50, 30)
    first, again, other = (furnished(image, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_layers_thinner_than_a_pixel_have_their_attenuation() -> None:
    place = Place.of(slice_of(28, 34), 3.0)
    assert place is not None
    place.layer(np.broadcast_to(place.y - 100.3, place.added.shape), 0.75, 200.0, None)
    across = (place.added + 1000).sum(0) * 3.0
    assert across == pytest.approx(0.75 * 1200, rel=1e-3)


def test_a_slice_without_a_patient_is_left_alone() -> None:
    air = np.full((32, 32), -1000.0, np.float32)
    assert np.array_equal(furnished(air, np.random.default_rng(0)), air)


def test_the_recipes_of_patients_add_them_and_training_repeats_itself(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=np.stack([slice_of(50, 30), slice_of(28, 34)]))
    source = {"file": "train.npz"}
    shipped = Recipe.named("ct")
    assert shipped.training.tables > 0
    assert Recipe.named("ct-sparse").training.tables > 0
    settings = shipped.training.model_dump() | {"batch": 4, "crop": 64, "halve": 0.0, "rotate": 0.0, "tables": 1.0}
    recipe = Recipe.model_validate(
        shipped.model_dump() | {"sources": [source], "validation": [source], "training": settings}
    )
    sets = [SliceSet.read(tmp_path, recipe.sources[0])]
    batch = Crops(sets, recipe, 3).batch(5)
    assert torch.equal(batch.images, Crops(sets, recipe, 3).batch(5).images)
    # There were air and patient only.
    between = (batch.images > -0.99) & (batch.images < -0.2)
    assert bool(between.any())
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"tables": 0.0})})
    assert Crops(sets, plain, 3).batch(5).images.unique().tolist() == pytest.approx([-1.0, -0.168])


def test_magnitudes_have_no_tables() -> None:
    with pytest.raises(InputError, match="tables"):
        Recipe.named("brain-mri").with_settings(["training.tables=0.5"])
