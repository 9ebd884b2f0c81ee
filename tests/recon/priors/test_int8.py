"""8-bit integers in the blocks of a network: exact where numbers fit, near elsewhere, and told to the user."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from operators.errors import InputError
from recon.pipeline.reconstruct import run
from recon.priors import cards, engine, int8, precision, registry
from recon.priors.card import Card
from recon.priors.network import Block, Denoiser
from recon.samples import SAMPLES
from recon.spec.job import JobSpec, local_files
from recon.training import export
from recon.training.evaluate import denoising_psnr
from recon.training.recipe import Recipe
from recon.training.slices import tuning_images

native = pytest.mark.skipif(precision.lacks_int8() is not None, reason=str(precision.lacks_int8()))


@pytest.fixture
def network() -> Denoiser:
    """A small network in float32 whose every weight has a say."""
    found = Denoiser(1, [16, 32], 0.4, 1)
    generator = torch.Generator().manual_seed(0)
    for parameter in found.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return found.eval().requires_grad_(False)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 1, 40, 24, generator=torch.Generator().manual_seed(1))


def measured(network: Denoiser) -> list[tuple[float, float]]:
    found = int8.largest_inputs(network, lambda: network(images(), torch.tensor([0.3])))
    return [(first, second) for first, second in found.tolist()]


def test_numbers_on_the_levels_are_kept_exactly_and_others_rounded(network: Denoiser) -> None:
    """Weights and inputs that are whole multiples of their steps, the largest of 127."""
    block = cast(Block, network.bottom[0])
    generator = torch.Generator().manual_seed(2)
    convolution = block.first
    whole = torch.randint(-127, 128, convolution.weight.shape, generator=generator).float()
    whole[:, 0, 0, 0] = 127.0
    convolution.weight.data = whole / 1024
    rounding = int8._Convolution(convolution, 127 / 64, positive=False)
    x = torch.randint(-127, 128, (1, 32, 6, 5), generator=generator) / 64
    assert torch.allclose(rounding(x), convolution(x), rtol=1e-6, atol=1e-6)
    assert torch.allclose(rounding(x + 0.4 / 64), convolution(x), rtol=1e-6, atol=1e-6)
    assert torch.allclose(rounding(10 * torch.ones_like(x)), convolution(torch.full_like(x, 127 / 64)), atol=1e-5)


def test_ranges_are_the_largest_inputs_of_each_block(network: Denoiser) -> None:
    found = measured(network)
    assert len(found) == 3
    given = network.stem(nn.functional.pixel_unshuffle(images() / (0.3**2 + 0.4**2) ** 0.5, 2))
    assert found[0][0] == pytest.approx(float(given.abs().max()), rel=1e-5)  # the first block follows the stem
    assert not network.bottom[0]._forward_pre_hooks


def test_integers_are_near_the_network_and_do_not_depend_on_the_batch(network: Denoiser) -> None:
    expected = network(images(), torch.tensor([0.3]))
    network.engine = engine.compiled(network, ranges=measured(network))
    found, again = (network(images(), torch.tensor([0.3])) for _ in range(2))
    skip = 0.4**2 / (0.4**2 + 0.3**2) * images()
    assert 0 < float((found - expected).norm() / (expected - skip).norm()) < 0.03
    assert torch.equal(found, again)
    assert torch.equal(found[1:2], network(images()[1:2], torch.tensor([0.3])))


@native
def test_the_shipped_prior_loses_little() -> None:
    plain, rounded = registry.load("ct"), registry.load("ct", int8=True)
    assert (plain.network.arithmetic, rounded.network.arithmetic) == (
        precision.name(),
        f"{precision.name()}, blocks in int8",
    )
    shown = tuning_images(SAMPLES, Recipe.named("ct"), 2)
    assert not torch.equal(plain.denoise(shown, 0.1), rounded.denoise(shown, 0.1))
    for sigma in (0.03, 0.1, 0.5):
        loss = denoising_psnr(plain.denoise, shown, sigma, is_complex=False) - denoising_psnr(
            rounded.denoise, shown, sigma, is_complex=False
        )
        assert -0.1 < loss < 0.25


def test_ranges_of_the_card_are_those_of_noisy_images() -> None:
    """Two of the sixteen slices that the card's were measured on, each at one level."""
    prior = registry.load("ct")
    compiled = prior.network.engine
    found = export.int8_ranges(prior, Recipe.named("ct"), tuning_images(SAMPLES, Recipe.named("ct"), 2))
    assert prior.network.engine is compiled
    known = prior.card.int8_ranges
    assert known is not None and len(found) == len(known) == 14
    for ours, theirs in zip(found, known, strict=True):
        assert 0.3 < ours[0] / theirs[0] < 3


def test_a_card_without_ranges_and_one_with_too_few_are_refused(tmp_path: Path) -> None:
    shipped = cards.card_of("ct")
    (tmp_path / shipped.weights).symlink_to(cards.WEIGHTS / shipped.weights)
    shipped.model_copy(update={"int8_ranges": None}).write(tmp_path / "ct.yaml")
    with pytest.raises(InputError, match=r"method\.int8: .*no ranges"):
        registry.load("ct", tmp_path, int8=True)
    with pytest.raises(ValidationError, match="1 pairs, the network has 14 blocks"):
        Card.model_validate(shipped.model_dump() | {"int8_ranges": [(1.0, 1.0)]})


@pytest.mark.parametrize(("limit", "allowed"), [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_VNNI", True)])
def test_what_onednn_may_use_is_respected(limit: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert (precision.lacks_int8() is None) == allowed
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    assert precision.lacks_int8() == "the processor has no AVX-512 VNNI"


@pytest.mark.parametrize("lacks", [False, True])
def test_the_report_says_what_computed(lacks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without such instructions the network computes as usual, and the report says so."""
    reason = "the processor has no AVX-512 VNNI"
    monkeypatch.setattr(precision, "lacks_int8", lambda: reason if lacks else None)
    spec = JobSpec.model_validate(
        {
            "input": {"path": str(SAMPLES / "ct_body.nii.gz"), "slices": [50, 51], "simulate": {"views": 8}},
            "acquisition": "ct-parallel",
            "method": {"name": "diffpir", "steps": 2, "int8": True},
            "output": {"baselines": []},
        }
    )
    report = run(spec, local_files(spec), tmp_path / "out")
    assert report.network_arithmetic == precision.name() + ("" if lacks else ", blocks in int8")
    told = f"the network computed in {precision.name()}, not in int8: {reason}"
    assert (told in report.notes) == lacks
    assert report.network_arithmetic in (tmp_path / "out" / "report.html").read_text()
