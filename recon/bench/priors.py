"""Benchmark of priors: denoising against BM3D on the tuning slices, and speed against the machine's peak."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from operators.errors import BackendUnavailable
from recon.priors import precision, registry
from recon.priors.noise import SliceNoise
from recon.priors.prior import NetworkPrior
from recon.samples import SAMPLES
from recon.spec.methods import DEFAULT_PRIOR
from recon.training.evaluate import SIGMAS, axis_sigma, conditioner, denoising_psnr, judged_factors, peak_psnr
from recon.training.recipe import Recipe
from recon.training.slices import tuning_images

SIZE, BATCH = 256, 8


@dataclass(frozen=True)
class Row:
    """Score of one prior at one noise level: PSNR in dB over all tuning slices; sigma for images that fill [-1, 1]."""

    prior: str
    sigma: float
    psnr_noisy: float
    psnr_bm3d: float | None
    psnr: float


@dataclass(frozen=True)
class Speed:
    """Speed of a network in batches, and relative to a matrix product of the same data type in the same run."""

    prior: str
    ms_per_slice: float
    gflop_per_slice: float
    gflop_per_s: float
    peak_gflop_per_s: float

    @property
    def share_of_peak(self) -> float:
        """Between 0 and 1."""
        return self.gflop_per_s / self.peak_gflop_per_s


def denoising(names: list[str], data: Path = SAMPLES, *, with_bm3d: bool = True) -> Iterator[Row]:
    """Compute the denoising table: every prior at every level, on whole slices never trained on."""
    reference: dict[tuple[object, ...], float | None] = {}
    for name in names:
        prior = registry.load(name, field="name")
        card = prior.card
        prior = prior.at(judged_factors(card))
        # A user's own prior has no shipped recipe: its modality's tuning slices are what there is to compare on.
        own = card.model_dump(include={"complex", "super_resolution", "factors"}) | {
            "intensity_range": card.intensity_range
        }
        recipe = Recipe.named(DEFAULT_PRIOR[card.modality]).model_copy(update=own)
        images = tuning_images(data, recipe)
        for sigma in SIGMAS:
            level = axis_sigma(sigma, is_complex=card.complex)
            noisy = images + level * SliceNoise(1, len(images)).draw(images)
            key = (
                card.modality,
                card.complex,
                card.intensity_range.low,
                card.intensity_range.high,
                images.shape,
                sigma,
            )
            if key not in reference:
                reference[key] = _bm3d(noisy, images, level, is_complex=card.complex) if with_bm3d else None
            psnr = denoising_psnr(
                prior.denoise,
                images,
                sigma,
                is_complex=card.complex,
                condition_of=conditioner(card),
            )
            psnr_noisy = peak_psnr(noisy, images, is_complex=card.complex)
            yield Row(name, sigma, round(psnr_noisy, 2), reference[key], round(psnr, 2))


def require_bm3d() -> None:
    """Raise `BackendUnavailable` if BM3D is not installed."""
    try:
        import bm3d  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            "the package bm3d is not installed",
            remedy="pip install 'diffusion-recon[bench]', or give --no-bm3d (bm3d is free for research only)",
        ) from error


def _bm3d(noisy: Tensor, images: Tensor, sigma: float, *, is_complex: bool) -> float:
    """BM3D (Dabov et al. 2007) on the real images; a complex prior is compared on its magnitudes."""
    import bm3d

    found = np.stack([bm3d.bm3d(x, sigma) for x in noisy.double().numpy()])
    return round(peak_psnr(torch.from_numpy(found).float(), images, is_complex=is_complex), 2)


def speed(name: str, repeats: int = 10) -> Speed:
    """Time the network on slices of 256 x 256 in full batches, alternating with matrix products."""
    prior = registry.load(name, field="name")
    prior = prior.at(judged_factors(prior.card))
    x = torch.zeros((BATCH, SIZE, SIZE), dtype=torch.complex64 if prior.complex else torch.float32)
    x = SliceNoise(0, BATCH).draw(x)
    condition = x if prior.conditional else None
    compiled, prior.network.engine = prior.network.engine, None
    with FlopCounterMode(display=False) as counter:  # sees torch's operations only, so not the compiled network
        _denoise(prior, x, condition)
    prior.network.engine = compiled
    sizes = (1024, 2048, 4096)
    matrices = {n: torch.randn(n, n, dtype=precision.compute_dtype()) for n in sizes}
    best_network, best_product = math.inf, 0.0
    with torch.inference_mode():
        for _ in range(repeats):
            best_network = min(best_network, _seconds(lambda: _denoise(prior, x, condition)))
            for n, matrix in matrices.items():
                seconds = _seconds(lambda matrix=matrix: matrix @ matrix)  # type: ignore[misc]
                best_product = max(best_product, 2e-9 * n**3 / seconds)
    gflop = counter.get_total_flops() / BATCH / 1e9
    return Speed(name, best_network * 1e3 / BATCH, gflop, gflop * BATCH / best_network, best_product)


def engines(name: str, repeats: int = 10) -> dict[str, float]:
    """Milliseconds per slice of the network's body with each backend, taken in turn; all in the same data type."""
    prior = registry.load(name, field="name")
    found = registry.new_network(prior.card).eval()
    found.load_state_dict(prior.network.state_dict())
    eager = found.to(precision.compute_dtype()).body
    if prior.network.engine is None:
        raise BackendUnavailable("the network is not on a CPU", remedy="hide the GPU with CUDA_VISIBLE_DEVICES=")
    body = prior.network.engine
    generator = torch.Generator().manual_seed(0)
    side = SIZE // found.unshuffle
    x = torch.randn(BATCH, found.stem.in_channels, side, side, generator=generator)
    factors = judged_factors(prior.card)
    features = found.features(torch.tensor([0.1]), None if factors is None else torch.tensor([factors]))
    ways = {"torch": eager, "torch.compile": torch.compile(eager), "OpenVINO": body}
    best = dict.fromkeys(ways, math.inf)
    with torch.inference_mode():
        for _ in range(repeats):
            for way, run in ways.items():
                best[way] = min(best[way], _seconds(partial(run, x, features)))
    return {way: seconds * 1e3 / BATCH for way, seconds in best.items()}


def _denoise(prior: NetworkPrior, x: Tensor, condition: Tensor | None) -> Tensor:
    return prior.denoise(x, 0.1, condition)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
