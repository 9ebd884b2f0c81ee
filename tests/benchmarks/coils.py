"""What noise costs that differs between coils or is shared by them: as measured, and made white."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from operators.errors import InputError
from operators.fourier import fourier
from recon.bench.solving import label, method_of
from recon.defaults import lookup
from recon.measurement.coils import Matrix
from recon.measurement.measurement import Measurement
from recon.measurement.random_fields import smooth_phase
from recon.pipeline.chosen_prior import chosen_prior
from recon.problem import inverse_problem
from recon.problem.mri_cartesian import birdcage_maps, sampling_mask
from recon.problem.problem import run
from recon.solvers import registry as solvers
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.preparation import KSpacePreparation
from recon.spec.simulation import Simulation

COILS, ACCELERATION = 8, 4.0
LOUD = 40.0
"""Noise of the loud coil over that of the others."""
CORRELATION = 0.9
"""Correlation of neighbouring coils' noise; that of coils farther apart is its power."""
SCANNED = 20_000
"""Samples of each coil in the noise scan."""
WAYS = ("as it is", "outermost samples", "noise scan")
METHODS: tuple[dict[str, Any], ...] = (
    {"name": "cg-sense"},
    {"name": "l1-wavelet"},
    {"name": "tv"},
    {"name": "red-diff"},
)
Complex = NDArray[np.complex64]


@dataclass(frozen=True)
class Row:
    """A method on one kind of noise and one way to know it: PSNR in dB, and of the reference of as much information."""

    noise: str
    """``one coil forty times as noisy``, whose reference has no such coil; or ``correlated``, whose reference has
    white noise, and sees with the whitened maps."""
    maps: str
    """``given``, or ``ESPIRiT``."""
    way: str
    method: str
    psnr: float
    reference_psnr: float

    @property
    def loss_db(self) -> float:
        """What the noise costs beyond its information."""
        return self.reference_psnr - self.psnr


@dataclass(frozen=True)
class Scan:
    """Simulated scan: clean samples and unit noise of each coil, and what mixes the coils."""

    image: NDArray[np.complex64]
    maps: Complex
    mask: NDArray[np.bool_]
    std: float

    def measured(self, mix: Matrix, noise: Matrix, *, way: str, given: bool, seed: int = 0) -> Measurement:
        """Measurement of the coils ``mix S x + noise n``.

        Parameters
        ----------
        mix, noise
            Combinations of what the coils see, and of white noise, ``(coils, COILS)``.
        way
            One of `WAYS`: how the noise is known.
        given
            Whether the maps are.
        """
        generator = np.random.default_rng(seed)
        clean = fourier(torch.from_numpy(self.maps * self.image)).numpy()
        seen, maps = (np.einsum("ij,jrc->irc", mix, v).astype(np.complex64) for v in (clean, self.maps))
        mixed = seen + self.std * np.einsum("ij,jrc->irc", noise, _normal(generator, clean.shape)).astype(np.complex64)
        files = {"noise_scan": self.std * (noise @ _normal(generator, (COILS, SCANNED)))[None].astype(np.complex64)}
        settings = KSpacePreparation(whitening=way != "as it is")
        return Measurement(
            (mixed * self.mask)[None],
            MRICartesian(preparation=settings),
            mask=self.mask,
            coil_maps=maps if given else None,
            files=files if way == "noise scan" else {},
        )


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Complex:
    return (generator.normal(size=shape) + 1j * generator.normal(size=shape)).astype(np.complex64)


def scan(volume: NDArray[np.floating[Any]], noise: float, seed: int = 0) -> Scan:
    """Scan of a magnitude image ``(rows, cols)`` with every fourth line, `noise` relative to its largest value."""
    rows, cols = volume.shape
    phase = smooth_phase(rows, cols, torch.Generator().manual_seed(seed)).numpy()
    image = (volume * np.exp(1j * phase)).astype(np.complex64)
    mask = sampling_mask(rows, cols, Simulation(acceleration=ACCELERATION, coils=COILS)).numpy()
    return Scan(image, birdcage_maps(COILS, rows, cols).numpy(), mask, noise * float(volume.max()))


@dataclass(frozen=True)
class _Case:
    """Combinations ``(coils, COILS)`` of what the coils see and of white noise, of a scan and of its reference.

    `told` are the coils whose shading the whitened image has.
    """

    seen: Matrix
    noise: Matrix
    told: Matrix
    seen_before: Matrix
    noise_before: Matrix


def cases() -> dict[str, _Case]:
    """Kinds of noise by name."""
    white = np.eye(COILS, dtype=np.complex128)
    distance = np.abs(np.arange(COILS)[:, None] - np.arange(COILS))
    correlated = np.linalg.cholesky(CORRELATION**distance).astype(np.complex128)
    loud = np.diag(np.where(np.arange(COILS) == COILS - 1, LOUD, 1.0)).astype(np.complex128)
    return {
        "one coil forty times as noisy": _Case(white, loud, white[:-1], white[:-1], white[:-1]),
        "correlated": _Case(white, correlated, white, np.linalg.inv(correlated).astype(np.complex128), white),
    }


def compare(
    data: Path, noise: float, methods: Sequence[dict[str, Any]] = METHODS, size: int = 64, number: int = 0
) -> Iterator[Row]:
    """Every method on a slice of the tuning set that is averaged to ``(size, size)`` pixels."""
    image = np.load(data / "tune" / "mri_256_ms.npz")["images"][number].astype(np.float32)
    if len(image) % size:
        raise InputError(f"{size}, the image has {len(image)} rows", field="size", remedy="give a divisor")
    binned = image.reshape(size, len(image) // size, size, -1).mean((1, 3))
    yield from rows_of(scan(binned, noise), methods)


def rows_of(made: Scan, methods: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Every method on a scan."""
    for (name, case), given, method in product(cases().items(), (True, False), methods):
        before: dict[str, float] = {}
        for way in WAYS:
            # The level of the noise weighs the data: it is known of both scans, or of neither.
            like = way if way == "noise scan" else "as it is"
            if like not in before:
                before[like] = _psnr(made, case, like, method, given=given, before=True)
            found = _psnr(made, case, way, method, given=given)
            yield Row(name, "given" if given else "ESPIRiT", way, label(method), found, before[like])


def _psnr(made: Scan, case: _Case, way: str, method: dict[str, Any], *, given: bool, before: bool = False) -> float:
    """PSNR of a method, with the scale that fits best, in the shading of what the coils of the reference see.

    The image of estimated maps has the shading of the measured coils, without one that is known to be loud. Two images
    of different shading are not to be compared by their errors: where one shades less, its noise is larger. Both are
    brought to the reference's.
    """
    seen, noise = (case.seen_before, case.noise_before) if before else (case.seen, case.noise)
    measurement = made.measured(seen, noise, way=way, given=given)
    inverse = inverse_problem.build(measurement)
    settings = lookup.resolved(method_of(method), "mri-cartesian", inverse.problem)
    prior, intensity = chosen_prior(settings, inverse)
    solver = solvers.start(inverse.problem, settings, prior=prior, intensity=intensity)
    volume = inverse.display(inverse.arranged(run(solver)))[0]
    shading = _shading(made.maps, case.seen_before)
    own = np.ones_like(shading)
    if not given:
        own = _shading(made.maps, seen if before or way == "as it is" else case.told)
    truth = np.abs(made.image) * shading
    volume = volume * shading / own
    scale = float((volume * truth).sum() / (volume**2).sum())
    return float(10 * np.log10(truth.max() ** 2 / np.mean((scale * volume - truth) ** 2)))


def _shading(maps: Complex, mix: Matrix) -> NDArray[np.float64]:
    """Root sum of squares ``(rows, cols)`` of what combined coils see of a uniform object."""
    combined = np.einsum("ij,jrc->irc", mix, maps)
    found: NDArray[np.float64] = np.sqrt((np.abs(combined) ** 2).sum(0))
    return found
