"""What noise costs that differs between coils or is shared by them: as measured, and made white."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from operators.fourier import fourier
from recon.bench.solving import label
from recon.defaults import lookup
from recon.measurement.coils import Matrix, covariance_of, whitening
from recon.measurement.measurement import Measurement
from recon.measurement.random_fields import smooth_phase
from recon.pipeline.prepare import chosen_prior
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
    """``one coil forty times as noisy``, whose reference has no such coil; or ``correlated``, whose reference is the
    same scan before its coils were mixed."""
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

    def measured(self, mix: Matrix, *, way: str, given: bool, seed: int = 0) -> tuple[Measurement, Complex]:
        """Measurement of the coils ``mix (S x + n)``, and its true maps.

        Parameters
        ----------
        mix
            Combination of the coils and their noise, ``(coils, coils)``.
        way
            One of `WAYS`: how the noise is known.
        given
            Whether the maps are.
        """
        generator = np.random.default_rng(seed)
        clean = fourier(torch.from_numpy(self.maps * self.image)).numpy()
        samples = clean + self.std * _normal(generator, clean.shape)
        mixed, maps = (np.einsum("ij,jrc->irc", mix, v).astype(np.complex64) for v in (samples, self.maps))
        files = {"noise_scan": self.std * (mix @ _normal(generator, (COILS, SCANNED)))[None]}
        settings = KSpacePreparation(whitening=way != "as it is")
        found = Measurement(
            (mixed * self.mask)[None],
            MRICartesian(preparation=settings),
            mask=self.mask,
            coil_maps=maps if given else None,
            files=files if way == "noise scan" else {},
        )
        return found, maps


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Complex:
    return (generator.normal(size=shape) + 1j * generator.normal(size=shape)).astype(np.complex64)


def scan(volume: NDArray[np.floating[Any]], noise: float, seed: int = 0) -> Scan:
    """Scan of a magnitude image ``(rows, cols)`` with every fourth line, `noise` relative to its largest value."""
    rows, cols = volume.shape
    phase = smooth_phase(rows, cols, torch.Generator().manual_seed(seed)).numpy()
    image = (volume * np.exp(1j * phase)).astype(np.complex64)
    mask = sampling_mask(rows, cols, Simulation(acceleration=ACCELERATION, coils=COILS)).numpy()
    return Scan(image, birdcage_maps(COILS, rows, cols).numpy(), mask, noise * float(volume.max()))


def mixes() -> dict[str, tuple[Matrix, Matrix]]:
    """Combinations of coils by the name of their noise, and those of their references."""
    white = np.eye(COILS, dtype=np.complex128)
    distance = np.abs(np.arange(COILS)[:, None] - np.arange(COILS))
    correlated = np.linalg.cholesky(CORRELATION**distance).astype(np.complex128)
    return {"one coil forty times as noisy": (white, white[:-1]), "correlated": (correlated, white)}


def compare(data: Path, noise: float, methods: Sequence[dict[str, Any]] = METHODS, number: int = 0) -> Iterator[Row]:
    """Every method on a slice of the tuning set, with pixels of twice their size."""
    image = np.load(data / "tune" / "mri_256_ms.npz")["images"][number].astype(np.float32)
    halved = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean((1, 3))
    yield from rows_of(scan(halved, noise), methods)


def rows_of(made: Scan, methods: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Every method on a scan."""
    for name, (mix, before) in mixes().items():
        for given in (True, False):
            for method in methods:
                for way in WAYS:
                    # What is known of the noise's level weighs the data: it is known of both, or of neither.
                    like = way if way == "noise scan" else "as it is"
                    reference = _psnr(made, before, like, method, given=given, loud=False)
                    found = _psnr(made, mix, way, method, given=given, loud=name.startswith("one"))
                    yield Row(name, "given" if given else "ESPIRiT", way, label(method), found, reference)


def _psnr(made: Scan, mix: Matrix, way: str, method: dict[str, Any], *, given: bool, loud: bool) -> float:
    """PSNR of a method, with the scale that fits best, against what its coils make of the image."""
    measurement, maps = made.measured(mix, way=way, given=given)
    if loud:
        more = LOUD * made.std * _normal(np.random.default_rng(9), measurement.data.shape[-2:])
        measurement.data[0, -1] += more * made.mask
        if "noise_scan" in measurement.files:
            noise = measurement.files["noise_scan"]
            noise[:, -1] += LOUD * made.std * _normal(np.random.default_rng(8), noise[:, -1].shape)
    inverse = inverse_problem.build(measurement)
    settings = lookup.resolved(method_of(method), "mri-cartesian", inverse.problem)
    prior, intensity = chosen_prior(settings, inverse)
    volume = run(solvers.start(inverse.problem, settings, prior=prior, intensity=intensity))[0].abs().numpy()
    truth = np.abs(made.image)
    if not given:
        # Estimated maps have unit norm over the coils that the problem is solved with.
        covariance = mix @ mix.conj().T * made.std**2
        if loud:
            covariance[-1, -1] += (LOUD * made.std) ** 2
        white = whitening(covariance)[0] if way != "as it is" else np.eye(len(mix))
        truth = truth * np.sqrt((np.abs(np.einsum("ij,jrc->irc", white, maps)) ** 2).sum(0))
    scale = float((volume * truth).sum() / (volume**2).sum())
    return float(10 * np.log10(truth.max() ** 2 / np.mean((scale * volume - truth) ** 2)))


def sampling_error(made: Scan, mix: Matrix) -> float:
    """Largest deviation of the covariance that a noise scan's own matrix whitens from the identity."""
    measurement, _ = made.measured(mix, way="noise scan", given=False)
    matrix, std = whitening(covariance_of(measurement.files["noise_scan"]))
    true = mix @ mix.conj().T * made.std**2
    return float(np.abs(matrix @ true @ matrix.conj().T / std**2 - np.eye(len(true))).max())
