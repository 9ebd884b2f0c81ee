"""Priors: noise arithmetic, weights that are checked, denoising that works, and a card that says so."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from operators import disk_cache
from operators.disk_cache import DiskCache
from operators.errors import InputError
from operators.geometry import ParallelBeam
from operators.resolution import Truncation
from operators.tomography import Tomography
from recon.bench import familiarity as familiarity_bench
from recon.formats import nifti
from recon.priors import cards, engine, noise, precision, registry
from recon.priors.diagnose import jacobian_asymmetry
from recon.priors.network import Denoiser, turned
from recon.problem.problem import IntensityMap, Problem, run
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.spec import schedules
from recon.spec.methods import Boundary, CGSense, Diffusion, REDDiff
from recon.training.evaluate import conditioner, denoising_psnr, judged_factors, with_phase
from recon.training.recipe import Recipe
from recon.training.slices import tuning_images

SHIPPED = {"ct": False, "brain-mri": True}

pytestmark = pytest.mark.usefixtures("all_cores")


@pytest.fixture(scope="module", autouse=True)
def compiled_anew() -> None:
    """Networks are compiled for a number of threads, which other tests' is not."""
    registry._network.cache_clear()


def test_the_usual_prior_of_a_factor_is_one_that_covers_it(tmp_path: Path) -> None:
    """By the cards alone: a prior of a range of factors is taken as soon as its card is there, for what it covers."""
    shipped = cards.card_of("brain-mri-sr")
    for name, factor in (("double", 2), ("quadruple", 4)):
        single = shipped.model_copy(update={"name": name, "super_resolution": factor, "factors": None})
        single.write(tmp_path / f"{name}.yaml")

    def usual(factor: float | None, method: Diffusion | None = None, modality: str = "mri") -> str:
        return cards.usual(method or Boundary(), modality, factor, tmp_path)

    assert [usual(2), usual(4)] == ["double", "quadruple"]
    with pytest.raises(InputError, match=r"no prior covers .* by x3 .*known: double \(.*x2 less.*, quadruple"):
        usual(3)
    with pytest.raises(InputError, match="no prior covers super-resolution of ct by x2"):
        usual(2, modality="ct")
    told = shipped.model_copy(update={"name": "many", "factors": (2.0, 3.5)})
    for card in (told, told.model_copy(update={"name": "regression", "regression": True, "factors": (1.0, 8.0)})):
        card.write(tmp_path / f"{card.name}.yaml")
    assert [usual(factor) for factor in (2, 2.5, 3.5, 4)] == ["many", "many", "many", "quadruple"]
    assert usual(2, REDDiff()) == usual(None) == "brain-mri"


def test_noise_levels_fall() -> None:
    sigmas = schedules.geometric(0.2, 0.01, 30)
    assert sigmas[0] == pytest.approx(0.2) and sigmas[-1] == pytest.approx(0.01)
    assert all(b / a == pytest.approx(sigmas[1] / sigmas[0]) for a, b in pairwise(sigmas))
    assert schedules.geometric(0.2, 0.01, 1) == [0.2]
    times = schedules.ddpm(50)
    assert len(times) == 50 and times == sorted(times, reverse=True)
    assert times[-1] == pytest.approx((1e-4 / (1 - 1e-4)) ** 0.5)  # time 0


def test_noise_belongs_to_its_slice() -> None:
    like = torch.zeros(4, 6, 5)
    whole = noise.SliceNoise(3, 4).draw(like)
    part = noise.SliceNoise(3, 2, first_slice=2).draw(like[:2])
    assert torch.equal(part, whole[2:])
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


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_no_bfloat16_where_the_processor_would_emulate_it(instructions: str) -> None:
    """The switch that keeps oneDNN, which torch and OpenVINO compute with, from using more of the processor."""
    code = "from recon.priors import precision; print(precision.name(), precision.reason())"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    dtype, reason = done.stdout.strip().split(" ", 1)
    assert dtype == "float32"
    assert reason.endswith((f"ONEDNN_MAX_CPU_ISA={instructions} forbids it", "neither AVX-512 BF16 nor AMX"))


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "dtype"),
    [(False, False, "float32"), (False, True, "bfloat16"), (True, True, "bfloat16")],
)
def test_networks_compute_in_what_the_processor_multiplies(
    amx: bool, avx512_bf16: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN itself takes no bfloat16 here")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(precision, "_chosen", precision._chosen.__wrapped__)
    assert precision.name() == dtype
    assert ("neither" in precision.reason()) == (dtype == "float32")


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


@cache
def brain() -> torch.Tensor:
    """Parts of two tuning slices with a smooth phase and noise, complex64, on the axis of the MRI priors."""
    magnitude = tuning_images(SAMPLES, Recipe.named("brain-mri"))[4:6, 64:192, 64:192]
    clean = with_phase(magnitude)
    return clean + 0.05 * noise.SliceNoise(0, 2).draw(clean)


@cache
def measured_brain() -> torch.Tensor:
    """The shipped 8-coil scan by CG-SENSE, with its own phase and noise."""
    scan = {"input": str(SAMPLES / "mri_brain_8coil.npy"), "acquisition": "mri-cartesian", "method": "cg-sense"}
    return familiarity_bench.reconstructed(scan, registry.load("brain-mri").card, CGSense())


@pytest.mark.parametrize("image", [brain, measured_brain], ids=["simulated phase", "measured phase"])
@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.3])
def test_a_global_phase_passes_through_the_mri_prior(sigma: float, image: Callable[[], torch.Tensor]) -> None:
    noisy = image()
    plain = registry.load("brain-mri").denoise(noisy, sigma)
    for angle in (0.7, 3.0, -2.0):
        turn = torch.polar(torch.tensor(1.0), torch.tensor(angle))
        back = registry.load("brain-mri").denoise(noisy * turn, sigma) / turn
        assert float(torch.linalg.vector_norm(back - plain) / torch.linalg.vector_norm(plain)) < 0.01


@pytest.mark.parametrize("factor", [2, 4])
def test_a_global_phase_passes_through_the_prior_of_super_resolution(factor: int) -> None:
    lower, noisy = Truncation(128, 128, factor), brain()
    prior = registry.load("brain-mri-sr").at(lower.factors)
    low = lower.upsample(lower(brain()))
    plain = prior.denoise(noisy, 0.3, low)
    for angle in (0.7, 3.0, -2.0):
        turn = torch.polar(torch.tensor(1.0), torch.tensor(angle))
        back = prior.denoise(noisy * turn, 0.3, low * turn) / turn
        assert float(torch.linalg.vector_norm(back - plain) / torch.linalg.vector_norm(plain)) < 0.01


@pytest.mark.parametrize("name", registry.names())
def test_the_card_tells_what_the_prior_does(name: str) -> None:
    """The tuning slices shipped, at one level: near the card's figure, and far above the noise."""
    prior = registry.load(name)
    prior = prior.at(judged_factors(prior.card))
    recipe = Recipe.named(name)
    images, condition_of = tuning_images(SAMPLES, recipe), conditioner(prior.card)
    found = denoising_psnr(prior.denoise, images, 0.1, is_complex=prior.complex, condition_of=condition_of)
    assert found == pytest.approx(prior.card.denoising_psnr[0.1], abs=0.15)
    assert found > 26.0 + 7.0  # the noise alone leaves 26.0 dB
    assert set(prior.card.jacobian_asymmetry) == {0.05, 0.1, 0.25}
    assert all(0 < value < 1 for value in prior.card.jacobian_asymmetry.values())
    assert all(part.licence != "not stated" for part in prior.card.data)


def test_metal_passes_unchanged_and_harms_nothing_around_it() -> None:
    """Beyond the window the CT prior has no opinion; it must neither clip nor smear what the data say."""
    prior = registry.load("ct")
    image = tuning_images(SAMPLES, Recipe.named("ct"))[4:5]
    with_metal = image.clone()
    with_metal[0, 100:104, 100:104] = 12.0
    plain, found = prior.denoise(image, 0.05), prior.denoise(with_metal, 0.05)
    assert float((found[0, 100:104, 100:104] - 12.0).abs().max()) < 1.0
    assert float((found - plain)[0, :60].abs().max()) < 0.02


def test_familiarity_separates_what_the_priors_know_from_what_they_do_not() -> None:
    ct, mri = registry.load("ct"), registry.load("brain-mri")
    chest, heads = (tuning_images(SAMPLES, Recipe.named(name))[2:15:6] for name in ("ct", "brain-mri"))
    body = nifti.read(SAMPLES / "ct_body.nii.gz")[0][20:100:30]
    rows, cols = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    disc = torch.where(rows**2 + cols**2 < 0.5, 0.1, -1.0)[None]
    stripes = (0.5 * (torch.sin(30 * rows) > 0)).to(torch.complex64)[None]
    known = float(ct.familiarity(chest).median())
    assert known > 10
    assert float(ct.familiarity(torch.from_numpy(body + 1000) / 1250 - 1).median()) > 1
    assert float(ct.familiarity(2 * heads - 1).median()) < 1
    assert float(ct.familiarity(disc)) < 1
    assert float(mri.familiarity(heads.to(torch.complex64)).median()) > 10
    assert float(mri.familiarity(((chest + 1) / 2).to(torch.complex64)).median()) < 1
    assert float(mri.familiarity(stripes)) < 1
    assert float(ct.familiarity(familiarity_bench.head_ct(heads)).max()) < 1
    assert ct.familiarity(torch.full((1, 64, 64), -1.0)).isnan().all()


@pytest.mark.slow
def test_familiarity_of_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tooth and the acrylic disc are no chest, and a reconstructed brain is one."""
    monkeypatch.setattr(familiarity_bench, "AT_MOST", 2)
    found = {(row.prior, row.images): row for row in familiarity_bench.familiarity([])}
    assert found["ct", "measured tooth, CGLS"].highest < 1
    assert found["ct", "measured acrylic disc, CGLS"].highest < 1
    assert found["brain-mri", "measured brain, RED-Diff"].lowest > 1


def test_wrong_input_is_refused() -> None:
    prior = registry.load("ct")
    with pytest.raises(InputError, match="float32"):
        prior.denoise(torch.zeros(1, 16, 16, dtype=torch.complex64), 0.1)
    with pytest.raises(InputError, match="positive noise level"):
        prior.denoise(torch.zeros(1, 16, 16), 0.0)
    with pytest.raises(InputError, match="not a positive noise level"):
        prior.denoise(torch.zeros(1, 16, 16), float("nan"))
    broken = torch.zeros(1, 16, 16)
    broken[0, 3, 3] = torch.nan
    with pytest.raises(InputError, match=r"x: .*not finite"):
        prior.denoise(broken, 0.1)
    with pytest.raises(InputError, match=r"condition: .*not conditional"):
        prior.denoise(torch.zeros(1, 16, 16), 0.1, torch.zeros(1, 16, 16))
    with pytest.raises(InputError, match=r"no prior 'nope'.*brain-mri.*ct"):
        registry.load("nope")


def test_what_is_below_the_window_or_far_above_it_is_the_datas_to_say() -> None:
    """A narrow window, metal, and values below air: the prior sees them clipped, the data step puts them back."""
    prior = registry.load("ct")
    operator = Tomography(ParallelBeam(48, 48, 1.4, tuple(torch.linspace(0, math.pi, 61)[:60].tolist()), 70, 1.4))
    intensity = IntensityMap(0.025, 0.025)
    image = torch.full((1, 48, 48), 0.0)
    image[0, 12:36, 12:36] = 0.02
    image[0, 20:24, 20:24] = 0.12  # 5000 HU
    image[0, 28:32, 28:32] = -0.02  # no attenuation is, but offsets of a detector may be
    problem = Problem(operator, operator(image))
    found = run(solvers.start(problem, REDDiff(steps=5, min_noise_std=1e-4), prior=prior, intensity=intensity))
    assert float(found[0, 21:23, 21:23].mean()) == pytest.approx(0.12, rel=0.1)
    assert float(found[0, 29:31, 29:31].mean()) == pytest.approx(-0.02, rel=0.25)


@pytest.mark.parametrize("shape", [(1, 17, 33), (2, 50, 31)])
def test_complex_images_of_any_size_and_empty_ones(shape: tuple[int, ...]) -> None:
    prior = registry.load("brain-mri")
    empty = torch.zeros(shape, dtype=torch.complex64)
    assert prior.denoise(empty, 0.05).shape == shape
    assert float(prior.denoise(empty, 0.05).abs().max()) < 0.02
    assert torch.equal(
        prior.denoise((1j * torch.ones(shape)).conj(), 0.05), prior.denoise(-1j * torch.ones(shape), 0.05)
    )
    with pytest.raises(InputError, match="an image without pixels"):
        prior.denoise(empty[:, :0], 0.05)


def test_weights_of_another_shape_than_the_cards(tmp_path: Path) -> None:
    for path in registry.WEIGHTS.glob("ct.*"):
        shutil.copy(path, tmp_path)
    # Ranges for 8-bit integers are of as many blocks as the network has, and would be refused first.
    cards.card_of("ct").model_copy(update={"int8_ranges": None}).write(tmp_path / "ct.yaml")
    card = (tmp_path / "ct.yaml").read_text()
    for before, after, says in (
        ("blocks: 2", "blocks: 1", "do not fit the network of the card"),
        ("blocks: 2", "blocks: 64", "the weights take .* MB, at most 20 MB are allowed"),
        ("sigma_data: ", "sigma_data: -", "not a prior's card: sigma_data: .*greater than 0"),
        ("super_resolution: null", "super_resolution: 2", "not a prior's card: .*for complex priors only"),
    ):
        assert before in card
        (tmp_path / "ct.yaml").write_text(card.replace(before, after))
        with pytest.raises(InputError, match=says):
            registry.load("ct", tmp_path)


def test_a_card_is_read_without_its_weights(tmp_path: Path) -> None:
    shutil.copy(registry.WEIGHTS / "ct.yaml", tmp_path)
    assert registry.card_of("ct", tmp_path).parameters == registry.card_of("ct").parameters
    with pytest.raises(InputError, match=r"the weights ct\.safetensors are missing"):
        registry.load("ct", tmp_path)


@pytest.mark.parametrize("name", registry.names())
def test_cards_tell_where_weights_and_judgement_come_from(name: str) -> None:
    """Every run that led here, on whose data; and a judge for those that cannot judge themselves."""
    card = registry.card_of(name)
    assert (card.start is None) == (not card.before)
    assert card.total_hours == pytest.approx(sum(run.hours for run in card.lineage))
    for earlier_run in card.before:
        if earlier_run.name != name and earlier_run.name in registry.names():  # others are no longer shipped
            earlier = registry.card_of(earlier_run.name)
            # It may have been trained on since.
            weights = {earlier.sha256, *(run.sha256 for run in earlier.before)}
            assert earlier_run.sha256 in weights and {d.file for d in earlier.data} <= {d.file for d in card.data}
    judge = card if card.judge is None else registry.card_of(card.judge)
    assert judge.familiarity is not None and judge.modality == card.modality


def test_damaged_weights_are_noticed(tmp_path: Path) -> None:
    for path in registry.WEIGHTS.glob("ct.*"):
        shutil.copy(path, tmp_path)
    weights = tmp_path / "ct.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    for field in ("method.prior", "start", "name"):  # as whoever loads it knows it
        with pytest.raises(InputError, match=rf"^{field}: .*damaged"):
            registry.load("ct", tmp_path, field=field)
    card = (tmp_path / "ct.yaml").read_text()
    (tmp_path / "ct.yaml").write_text(card.replace("weights: ct.safetensors", "weights: ../ct.safetensors"))
    with pytest.raises(InputError, match=r"not a prior's card: weights: .*pattern"):
        registry.load("ct", tmp_path)
    content[:8] = b"\xff" * 8
    weights.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    changed = card.replace(hashlib.sha256(registry.WEIGHTS.joinpath("ct.safetensors").read_bytes()).hexdigest(), digest)
    (tmp_path / "ct.yaml").write_text(changed)
    with pytest.raises(InputError, match="are not safetensors"):
        registry.load("ct", tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="missing"):
        registry.load("ct", tmp_path)


def untrained(image_channels: int, condition_channels: int = 0) -> Denoiser:
    """A small network in float32 whose every weight has a say."""
    network = Denoiser(image_channels, [16, 32], 0.4, 1, condition_channels)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("condition_channels", [0, 2])
def test_a_complex_network_commutes_with_a_global_phase(condition_channels: int) -> None:
    network = untrained(2, condition_channels)
    generator = torch.Generator().manual_seed(1)
    x, given = (torch.randn(2, 2, 24, 32, generator=generator) for _ in range(2))
    given[:, :, :8] = 0.0  # a background that was cut off
    sigma = torch.tensor([0.3])
    turn = torch.tensor([math.cos(2.2), math.sin(2.2)]).reshape(1, 2, 1, 1)
    condition = [given] if condition_channels else []
    plain = network(x, sigma, *condition)
    found = network(turned(x, turn), sigma, *[turned(c, turn) for c in condition])
    rows = slice(12, None) if condition_channels else slice(None)  # without any phase to follow there is none to keep
    assert float((found - turned(plain, turn))[:, :, rows].abs().max()) < 1e-4
    skip = 0.4**2 / (0.4**2 + 0.3**2)
    assert float((plain - skip * x).abs().mean(dim=(0, 1, 3)).min()) > 1e-3  # the network speaks everywhere


@pytest.mark.parametrize("image_channels", [1, 2])
def test_one_level_for_all_and_one_for_each_are_the_same(image_channels: int) -> None:
    network = untrained(image_channels)
    x = torch.randn(3, image_channels, 16, 24, generator=torch.Generator().manual_seed(1))
    together = network(x, torch.tensor([0.2]))
    assert torch.allclose(network(x, torch.full((3,), 0.2)), together, atol=1e-5)
    apart = torch.cat([network(x[i : i + 1], torch.tensor([s])) for i, s in enumerate((0.1, 0.2, 0.4))])
    assert torch.allclose(network(x, torch.tensor([0.1, 0.2, 0.4])), apart, atol=1e-5)


def test_without_noise_the_image_stays() -> None:
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert float((untrained(1)(x, torch.tensor([1e-5])) - x).abs().max()) < 1e-3


def test_the_compiled_network_is_the_network() -> None:
    network = untrained(1)
    x = torch.randn(2, 1, 40, 24, generator=torch.Generator().manual_seed(1))
    expected = network(x, torch.tensor([0.3]))
    network.engine = engine.compiled(network)
    found = network(x, torch.tensor([0.3]))
    share = float((expected - 0.4**2 / (0.4**2 + 0.3**2) * x).abs().max())
    assert float((found - expected).abs().max()) < 0.03 * share
    assert sys.modules["openvino_telemetry"] is None  # nothing is reported to anybody


@pytest.mark.parametrize("channels", [1, 2])
def test_a_compiled_network_from_disk_gives_the_same_bits(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = untrained(channels)
    x = torch.randn(3, channels, 40, 24, generator=torch.Generator().manual_seed(1))

    def denoised(weights: str | None) -> torch.Tensor:
        network.engine = engine.compiled(network, weights)
        return torch.cat([network(x, torch.tensor([sigma])) for sigma in (0.01, 0.3)])

    none = denoised(None)
    monkeypatch.setattr(disk_cache, "_used", DiskCache(tmp_path, 2**30))
    cold = denoised("these")
    monkeypatch.setattr(engine, "_converted", None)  # it is not called
    warm = denoised("these")
    assert torch.equal(cold, none) and torch.equal(warm, none)
    with pytest.raises(TypeError):
        denoised("others")


def test_bytes_that_openvino_refuses_are_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(disk_cache, "_used", DiskCache(tmp_path, 2**30))
    network = untrained(1)
    x = torch.randn(2, 1, 40, 24, generator=torch.Generator().manual_seed(1))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_exported", lambda _: {"model": np.zeros(1000, np.uint8)})
        network.engine = engine.compiled(network, "these")
    expected = network(x, torch.tensor([0.3]))
    network.engine = engine.compiled(network, "these")
    assert torch.equal(network(x, torch.tensor([0.3])), expected)
    assert caplog.text.count("building it again") == 1


def test_jacobian_asymmetry_of_a_known_jacobian() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(64, 64, generator=generator)

    class Linear(torch.nn.Module):
        def __init__(self, matrix: torch.Tensor) -> None:
            super().__init__()
            self.matrix = matrix

        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return (x.flatten(1) @ self.matrix.T).reshape(x.shape)

    def asymmetry(matrix: torch.Tensor, probes: int = 4) -> float:
        return jacobian_asymmetry(cast(Denoiser, Linear(matrix)), torch.zeros(2, 8, 8), 0.1, probes)

    assert asymmetry(matrix + matrix.T) < 1e-4
    assert asymmetry(matrix - matrix.T) > 0.999
    assert 0.2 < asymmetry(matrix + 0.5 * matrix.T, probes=50) < 0.5  # about a third


def test_the_gradient_is_that_of_the_denoiser() -> None:
    """Against a finite difference of the compiled network, in a direction of the image."""
    prior = registry.load("ct")
    x = torch.from_numpy(np.load(SAMPLES / "tune" / "ct_hu.npz")["images"][:1, 96:160, 96:160].astype("f")) * 4 - 1274
    x = (x / 1250).requires_grad_()
    probe = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((prior.denoise(x, 0.3) * probe).sum(), x)
    with torch.no_grad():
        direction = gradient / gradient.norm()
        ahead, behind = (prior.denoise(x + h * direction, 0.3) for h in (0.5, -0.5))
    assert float(((ahead - behind) * probe).sum()) == pytest.approx(float(gradient.norm()), rel=0.1)
    assert not prior.denoise(x.detach(), 0.3).requires_grad
