"""Priors: noise arithmetic, training that resumes bit by bit, weights that are checked, denoising that works."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from operators.errors import InputError
from recon.priors import noise, registry
from recon.priors.recipe import Recipe
from recon.priors.slices import Crops, SliceSet, smooth_phase
from recon.priors.training import Trainer, learning_rate

SHIPPED = {"ct": False, "brain-mri": True}


def test_variance_preserving_view_round_trips() -> None:
    alpha_bar = noise.ddpm_alpha_bar()
    sigma = noise.sigma_from_alpha_bar(alpha_bar)
    assert torch.allclose(noise.alpha_bar_from_sigma(sigma), alpha_bar)
    assert (sigma.diff() > 0).all()
    x0, n = torch.randn(8), torch.randn(8)
    level, abar = float(sigma[500]), float(alpha_bar[500])
    preserving = noise.to_variance_preserving(x0 + level * n, level)
    assert torch.allclose(preserving, abar**0.5 * x0 + (1 - abar) ** 0.5 * n, atol=1e-6)
    assert torch.allclose(noise.to_variance_exploding(preserving, abar), x0 + level * n, atol=1e-5)


def test_geometric_sigmas() -> None:
    sigmas = noise.geometric_sigmas(0.2, 0.01, 30)
    assert float(sigmas[0]) == pytest.approx(0.2) and float(sigmas[-1]) == pytest.approx(0.01)
    assert float((sigmas[1:] / sigmas[:-1]).std()) < 1e-12
    assert noise.geometric_sigmas(0.2, 0.01, 1).tolist() == [0.2]


def test_noise_belongs_to_its_slice() -> None:
    like = torch.zeros(4, 6, 5)
    whole = noise.SliceNoise(3, 4).draw(like)
    slab = noise.SliceNoise(3, 2, first_slice=2).draw(like[:2])
    assert torch.equal(slab, whole[2:])
    assert not torch.equal(noise.SliceNoise(4, 4).draw(like), whole)
    many = noise.SliceNoise(0, 2).draw(torch.zeros(2, 200, 200, dtype=torch.complex64))
    assert float(many.real.std()) == pytest.approx(1.0, abs=0.02)
    assert float(many.imag.std()) == pytest.approx(1.0, abs=0.02)
    assert abs(float((many[0].real * many[1].real).mean())) < 0.02


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_prior_removes_noise(name: str) -> None:
    """On a smooth anatomy-like image, at every noise level the solvers use."""
    prior = registry.load(name)
    assert prior.complex == SHIPPED[name]
    rows, cols = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 80), indexing="ij")
    body = ((rows / 0.8) ** 2 + (cols / 0.7) ** 2 < 1).float()
    clean = (body * 0.8 - 1 if name == "ct" else (0.6 * body).to(torch.complex64))[None]
    for sigma in (0.02, 0.1, 0.3):
        noisy = clean + sigma * noise.SliceNoise(0, 1).draw(clean)
        error = (prior.denoise(noisy, sigma) - clean).abs().square().mean()
        assert error < 0.35 * (noisy - clean).abs().square().mean()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_slice_has_the_same_bits_in_any_batch(name: str) -> None:
    prior = registry.load(name)
    dtype = torch.complex64 if prior.complex else torch.float32
    x = 0.3 * torch.randn(11, 40, 48, dtype=dtype, generator=torch.Generator().manual_seed(0))
    whole = prior.denoise(x, 0.1)
    for first, last in ((0, 1), (1, 4), (3, 11)):
        assert torch.equal(prior.denoise(x[first:last], 0.1), whole[first:last])


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 33, 47), (1, 230, 180)])
def test_any_size_is_padded_and_cropped(shape: tuple[int, ...]) -> None:
    prior = registry.load("ct")
    x = torch.full(shape, -1.0)
    out = prior.denoise(x, 0.05)
    assert out.shape == x.shape
    assert float((out - x).abs().max()) < 0.1  # air stays air up to the edge
    assert prior.evaluations == shape[0]


def test_the_mri_prior_hardly_cares_about_global_phase() -> None:
    """Not exact for a two-channel network, but small beside what it removes."""
    prior = registry.load("brain-mri")
    rows, cols = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 80), indexing="ij")
    body = 0.6 * ((rows / 0.8) ** 2 + (cols / 0.7) ** 2 < 1).float()
    clean = torch.polar(body, smooth_phase(96, 80, torch.Generator().manual_seed(0)))[None]
    noisy = clean + 0.1 * noise.SliceNoise(0, 1).draw(clean)
    plain = prior.denoise(noisy, 0.1)
    for angle in (0.7, 1.9, 3.0):
        turn = torch.polar(torch.tensor(1.0), torch.tensor(angle))
        back = prior.denoise(noisy * turn, 0.1) / turn
        assert float(torch.linalg.vector_norm(back - plain) / torch.linalg.vector_norm(plain)) < 0.1


def test_wrong_input_is_refused() -> None:
    prior = registry.load("ct")
    with pytest.raises(InputError, match="float32"):
        prior.denoise(torch.zeros(1, 16, 16, dtype=torch.complex64), 0.1)
    with pytest.raises(InputError, match="positive noise level"):
        prior.denoise(torch.zeros(1, 16, 16), 0.0)
    with pytest.raises(InputError, match=r"no prior 'nope'.*brain-mri, ct"):
        registry.load("nope")


def test_damaged_weights_are_noticed(tmp_path: Path) -> None:
    for path in registry.WEIGHTS.glob("ct.*"):
        shutil.copy(path, tmp_path)
    weights = tmp_path / "ct.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        registry.load("ct", tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="missing"):
        registry.load("ct", tmp_path)


def tiny(tmp_path: Path, *, is_complex: bool) -> Recipe:
    generator = np.random.default_rng(0)
    images = (generator.random((6, 40, 40)) * 200).astype(np.uint8)
    images[:, :5, :5] = 255
    np.savez(tmp_path / "train.npz", images=images)
    source = {"file": "train.npz", "slope": 1 / 255, "intercept": 0.0, "unknown_from": 255}
    return Recipe.model_validate(
        {
            "name": "tiny", "modality": "mri", "complex": is_complex, "sigma_data": 0.3, "channels": [16, 32],
            "axis": {"unit": "-", "low": -1.0, "high": 1.0}, "sources": [source], "validation": [source],
            "training": {"batch": 2, "crop": 16, "steps": 6, "learning_rate": 1e-3, "log_sigma_mean": -1.5,
                         "log_sigma_std": 1.0, "halve": 0.5},
            "limits": ["a test"],
        }
    )  # fmt: skip


@pytest.mark.parametrize("is_complex", [False, True])
def test_training_resumes_bit_by_bit(tmp_path: Path, is_complex: bool) -> None:
    recipe = tiny(tmp_path, is_complex=is_complex)
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


def test_a_trained_prior_is_exported_and_loaded(tmp_path: Path) -> None:
    trainer = Trainer(tiny(tmp_path, is_complex=True), tmp_path, tmp_path / "run", seed=0)
    for _ in trainer.run():
        pass
    card = registry.export(tmp_path / "run" / "checkpoint.pt", "recon train tiny", tmp_path)
    prior = registry.load("tiny", tmp_path)
    assert prior.card == card and card.steps == 6 and card.parameters > 1000
    x = torch.randn(1, 16, 16, dtype=torch.complex64)
    expected = trainer.model.eval()
    expected.load_state_dict(trainer.average)
    with torch.inference_mode():
        reference = expected(torch.view_as_real(x).movedim(-1, 1), torch.tensor([0.2]))
    found = torch.view_as_real(prior.denoise(x, 0.2)).movedim(-1, 1)
    assert float((found - reference).abs().max()) < 0.02  # fp16 weights, bfloat16 arithmetic


def test_saturated_pixels_do_not_count(tmp_path: Path) -> None:
    recipe = tiny(tmp_path, is_complex=False)
    crops = Crops([SliceSet.read(tmp_path, recipe.sources[0])], recipe, 0)
    image, weight = next((i, w) for s in range(50) for i, w in [crops.batch(s)] if (w == 0).any())
    assert (image[weight == 1] < 1.0).all()


def test_missing_training_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ct_hu.npz does not exist.*--data"):
        Trainer(Recipe.named("ct"), tmp_path, tmp_path / "run")


def test_learning_rate_warms_up_and_cools_down() -> None:
    rates = [learning_rate(s, 1000, 1e-3) for s in range(1000)]
    assert rates[0] < 1e-5 and max(rates) == 1e-3 and rates[500] == 1e-3 and rates[-1] < 1e-5


def test_phase_is_smooth_and_covers_the_circle() -> None:
    phases = [smooth_phase(64, 64, torch.Generator().manual_seed(s)) for s in range(40)]
    assert max(float(p.diff(dim=0).abs().max()) for p in phases) < 1.5
    turned = torch.stack([torch.polar(torch.tensor(1.0), p.mean()) for p in phases])
    assert float(turned.mean().abs()) < 0.5
