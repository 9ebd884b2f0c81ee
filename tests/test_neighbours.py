"""Priors that see the slices beside the one they denoise: in training, alone, in stacks and among slabs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.errors import InputError
from recon import slabs
from recon.methods import Annealed, REDDiff
from recon.plan import HALO
from recon.priors import registry
from recon.priors.evaluate import denoising_psnr
from recon.priors.export import export
from recon.priors.prior import NetworkPrior, denoise_some, pairs
from recon.priors.recipe import Recipe
from recon.priors.slices import Crops, SliceSet, tuning_images, tuning_neighbours
from recon.solvers import registry as solvers
from recon.solvers.problem import run
from tests.test_slabs import AXIS, ct
from tests.test_training import stir, tiny, trained

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(folder: Path, **changes: Any) -> Recipe:
    return tiny(folder, modality="ct", complex=False, neighbours=1, **changes)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> NetworkPrior:
    folder = tmp_path_factory.mktemp("neighbours")
    stir(trained(recipe(folder), folder, folder / "run"))
    card = export(folder / "run", folder, "recon train tiny", folder)
    assert card.neighbours == 1
    return registry.load(str(folder / "tiny.yaml"))


def stack(count: int) -> Tensor:
    return 0.3 * torch.randn(count, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_slice_is_seen_with_its_neighbours_and_no_others(prior: NetworkPrior) -> None:
    x = stack(11)
    whole = prior.denoise(x, 0.2)
    for changed, touched in ((0, {0, 1}), (5, {4, 5, 6}), (10, {9, 10})):
        other = x.clone()
        other[changed] += 0.5
        found = prior.denoise(other, 0.2)
        assert {i for i in range(11) if not torch.equal(found[i], whole[i])} == touched
    # The same bits in any stack that has the neighbours too, and where only some slices are wanted.
    assert torch.equal(prior.denoise(x[2:8], 0.2)[1:-1], whole[3:7])
    index = torch.tensor([0, 3, 10])
    before = prior.evaluations
    assert torch.equal(prior.denoise(x, 0.2, index=index), whole[index])
    assert torch.equal(denoise_some(prior, x, 0.2, index), whole[index])
    assert prior.evaluations == before + 6


def test_at_the_ends_and_apart_a_slice_stands_for_its_neighbours(prior: NetworkPrior) -> None:
    x = stack(4)
    alone = prior.denoise(x[:1], 0.2)
    assert torch.equal(prior.denoise(x, 0.2, beside=torch.stack([x, x], 1))[:1], alone)
    for wrong, says in (
        (torch.zeros(len(x), 1, *x.shape[1:]), "beside: .*needs"),
        (torch.full((len(x), 2, *x.shape[1:]), torch.nan), "beside: .*not finite"),
    ):
        with pytest.raises(InputError, match=says):
            prior.denoise(x, 0.2, beside=wrong)
    apart = prior.apart()
    assert apart.neighbours == 0 and torch.equal(apart.denoise(x, 0.2)[:1], alone)
    assert torch.equal(pairs(x)[0, 0], x[0]) and torch.equal(pairs(x)[3, 1], x[3])
    # A gradient passes through, as DPS needs it.
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(prior.denoise(given, 0.2)[1].sum(), given)
    assert float(gradient[0].abs().sum()) > 0 and float(gradient[3].abs().sum()) == 0


def test_training_shows_slices_of_the_same_subject(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    images = np.zeros((6, 40, 40), np.uint8)
    for index in range(6):
        images[index] = 10 + 10 * index + np.arange(40, dtype=np.uint8)[:, None] % 2
    np.savez(tmp_path / "train.npz", images=images, subject=np.array(list("aaaabb")))
    settings = made.training.model_copy(update={"batch": 64, "halve": 0.0, "rotate": 0.0})
    made = made.model_copy(update={"training": settings, "sources": made.sources[1:]})
    sets = [SliceSet.read(tmp_path, source) for source in made.sources]
    batch = Crops(sets, made, 0).batch(0)
    assert batch.beside is not None and batch.condition is None and batch.beside.shape == (64, 2, 16, 16)

    def number(plane: Tensor) -> int | None:
        value = float(((plane + 1) / 2 * 2 - 1).amin())
        return None if np.isnan(value) else round((value * 255 - 10) / 10)

    seen = [(number(own[0]), number(a), number(b)) for own, (a, b) in zip(batch.images, batch.beside, strict=True)]
    missing = sum(a is None and b is None for _, a, b in seen)
    assert 2 < missing < 32  # training without neighbours
    subjects = "aaaabb"
    orders = set()
    for own, a, b in seen:
        assert own is not None
        for other in (a, b):
            assert other is None or subjects[other] == subjects[own]
        if a is not None and b is not None:
            assert a - own == own - b
            orders.add(np.sign(b - a))
    assert {-1, 1} <= orders  # either way round


def test_neighbours_begin_without_effect_and_need_a_real_prior(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neighbours"):
        Recipe.named("brain-mri").with_settings(["neighbours=1"])
    made = recipe(tmp_path)
    stir(trained(made.model_copy(update={"neighbours": 0}), tmp_path, tmp_path / "run"))
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    plain = registry.load(str(tmp_path / "tiny.yaml")).network
    plain.engine = None  # in float32
    seeing = registry.new_network(made)
    registry.start_from(seeing, str(tmp_path / "tiny.yaml"))
    x, beside = stack(2)[:, None], torch.randn(2, 2, 32, 32)
    level = torch.tensor([0.2])
    with torch.inference_mode():
        assert torch.allclose(seeing(x, level, None, beside), plain(x, level), atol=1e-5)


def test_the_denoising_table_has_real_neighbours(tmp_path: Path) -> None:
    """Tuning slices are judged among the slices that lie beside them, at the ends of the set with themselves."""
    made = recipe(tmp_path)
    images, beside = tuning_images(tmp_path, made, 6), tuning_neighbours(tmp_path, made, 6)
    assert beside is not None and beside.shape == (6, 2, 40, 40)
    stored = SliceSet.read(tmp_path, made.validation[0])
    assert bool(beside[0, 0].isnan().all()) and torch.equal(beside[0, 1], stored.planes(1, made)[0])
    assert bool(beside[1, 1].isnan().all())  # the next slice is another subject's
    seen: list[Tensor] = []

    def denoise(x: Tensor, _: float, __: Tensor | None, among: Tensor | None) -> Tensor:
        assert among is not None and torch.equal(among[0, 0], x[0])
        seen.append(among)
        return x

    denoising_psnr(denoise, images, 0.1, is_complex=False, beside=beside)
    noise = seen[0][0, 1] - images[1]
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)
    assert tuning_neighbours(tmp_path, made.model_copy(update={"neighbours": 0}), 6) is None


class Blur:
    """A prior that takes the mean of a slice and its neighbours for the truth, more so at high levels."""

    complex = False
    joint = True

    def denoise(self, x: Tensor, sigma: float, *, index: Tensor | None = None) -> Tensor:
        mean = (x + pairs(x).sum(1)) / 3
        found = x + sigma**2 / (sigma**2 + 0.01) * (mean - x)
        return found if index is None else found[index]


def test_slabs_get_halo_slices_for_their_neighbours(tmp_path: Path) -> None:
    problem = ct()
    for method in (Annealed(steps=8, skip=0.0), REDDiff(steps=8, skip=0.3)):
        start = partial(solvers.start, settings=method, prior=Blur(), axis=AXIS)
        assert slabs.halo_of(method) == 0 and slabs.halo_of(method, 1) == HALO
        whole = run(start(problem))
        shelf = slabs.Shelf(tmp_path / method.name)
        steps = slabs.solve(problem, method, start, shelf, "key", 8, neighbours=1)
        cut = _driven(steps)
        span = float(whole.max() - whole.min())
        assert float((cut - whole).abs().max()) < 1e-3 * span
        apart = _driven(slabs.solve(problem, method, start, slabs.Shelf(tmp_path / "apart"), method.name, 8))
        assert float((apart - whole).abs().max()) > 1e-3 * span  # without them it would be seen


def _driven(steps: slabs.Steps[Tensor]) -> Tensor:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        found: Tensor = end.value
        return found
