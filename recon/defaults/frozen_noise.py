"""Frozen noise: choose a solver's starting noise once, on reference slices, and keep it in a file.

Any solver that is deterministic given its seed maps (noise, data) to an image. Its error on slice `i` from noise `j`
is ``a_i + b_j + w_ij``, the slice's share, the noise's, and an interaction. The best of several noises helps on new
slices only as far as `b` varies, so the two-way analysis says in advance whether a search can pay.

A noise that was found is used for every number of steps, factor and direction: that it serves whatever the input is
the claim of the method (Ma et al. 2024, arXiv 2305.15357), and any other noise would be as random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from operators.errors import InputError
from recon.priors.card import Card
from recon.spec.methods import FrozenNoise
from recon.spec.validation import read_yaml

FOLDER = Path(__file__).parent.parent / "priors" / "starting_noise"
METRICS = ("sight", "nrmse", "ssim", "perceptual", "sharpness")
Metric = Literal["sight", "nrmse", "ssim", "perceptual", "sharpness"]
"""Measure by which noises are judged: `sight` is the mean of `SIGHT`, each relative to the quick classical image's."""
SIGHT = ("nrmse", "perceptual", "sharpness")
"""Measures of what a user sees: error, perceptual distance, and the spectral error in dB."""
USUAL = 0
"""Seed of the starting noise where none was searched for."""


class Noise(NamedTuple):
    """Frozen noise of a solver."""

    seed: int
    source: str
    """``shipped``, ``usual``, ``random`` (the job's seed), or the file's name."""
    note: str | None = None
    """Remark for the report."""


class Analysis(BaseModel):
    """Result of the two-way analysis of errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise_std: float
    """Standard deviation of `b`, the part of the error that depends on the noise alone."""
    interaction_std: float
    """Standard deviation of `w`, the interaction of noise and slice."""
    share: float
    """Fraction ``b^2 / (b^2 + w^2)``; below 0.1 a search is hardly worth its time."""
    expected_gain: float
    """Expected reduction of the mean error on new slices by the best candidate."""


class NoiseFile(BaseModel):
    """File of frozen noise in YAML, with the settings and data it was searched with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(ge=0, lt=2**32)
    method: dict[str, Any]
    """Settings of the method."""
    prior: str | None
    prior_sha256: str | None
    scans: list[str]
    """Keys of the scans searched on, see `operators.linear.LinearOperator.scan`."""
    tasks: list[dict[str, Any]]
    """Acquisitions and simulation of the reference data."""
    reference: list[str]
    """Files and hashes of the reference slices."""
    slices: int
    metric: Metric
    errors: dict[int, float]
    """Mean error of every candidate on the reference slices."""
    analysis: Analysis
    parts: dict[str, Analysis] = {}
    """Analyses of what the metric is made of, where it is the mean of several."""
    command: str

    @classmethod
    def read(cls, path: Path) -> NoiseFile:
        """Read a noise file; raises `InputError`."""
        return read_yaml(
            cls,
            path,
            "a file of starting noise",
            field="method.frozen_noise",
            remedy="give a file that `recon search-noise` wrote",
        )

    def write(self, path: Path) -> None:
        """Write the noise file."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, width=120))


def of_settings(settings: FrozenNoise, card: Card | None, scan: str, seed: int) -> Noise | None:
    """Frozen noise that settings ask for: of the job's seed, of a file, or the usual one; None if none.

    A file that was searched with other settings or scans is used, and the note says so. One for another method or other
    weights tells nothing: then it is the usual noise, with a note.

    Parameters
    ----------
    settings
        Settings of the method, complete.
    card
        Card of the prior, which names the file that was shipped with it; None for a prior without.
    scan
        Key of the scan, see `operators.linear.LinearOperator.scan`.
    seed
        Seed of the job.

    Raises
    ------
    InputError
        If a file that is named cannot be read.
    """
    if settings.frozen_noise is None and not settings.ALWAYS_FROZEN:
        return None
    if settings.frozen_noise == "random":
        return Noise(seed, "random")
    named = settings.paths().get("frozen_noise")
    if named is None and (card is None or not shipped(card.name).is_file()):
        prior = "this prior" if card is None else f"prior {card.name!r}"
        return _usual(f"none was searched for with {prior}")
    path = named or shipped(card.name)  # type: ignore[union-attr]  # without a card there is a name
    found = NoiseFile.read(path)
    if found.method.get("name") != settings.name:
        return _usual(f"that of {path.name} was searched for {found.method.get('name')}")
    if card is None or found.prior_sha256 != card.sha256:
        return _usual(f"that of {path.name} was searched for other weights of {found.prior!r}")
    unlike = _unlike(found, settings, scan)
    note = None if unlike is None else f"the starting noise of {path.name} was searched {unlike}"
    return Noise(found.seed, "shipped" if named is None else str(settings.frozen_noise), note)


def _usual(reason: str) -> Noise:
    return Noise(USUAL, "usual", f"the starting noise is the usual one: {reason}")


def _unlike(found: NoiseFile, settings: FrozenNoise, scan: str) -> str | None:
    """Difference in words between how a noise was searched and how it is used; None if there is none."""
    fields = type(settings).model_fields
    mine = settings.model_dump(mode="json", exclude=set(settings.BESIDE_NOISE))
    different = sorted(k for k in mine if mine[k] != found.method.get(k, fields[k].default))
    if different:
        return f"with another {', '.join(different)}"
    return None if scan in found.scans else f"for {', '.join(found.scans)}; the data are of {scan}"


def shipped(prior: str) -> Path:
    """Path of the starting noise shipped with a prior, if there is one."""
    return FOLDER / f"{prior}.yaml"


def search(errors_of: Callable[[int], Sequence[float]], seeds: Sequence[int]) -> tuple[int, NDArray[np.float64]]:
    """Search the seed with the least mean error; also returns all errors ``(seeds, slices)``.

    Parameters
    ----------
    errors_of
        Reconstructs the reference slices from a seed's noise and returns each slice's error.
    seeds
        Candidates.
    """
    errors = np.array([errors_of(seed) for seed in seeds], dtype=np.float64)
    return int(seeds[int(errors.mean(axis=1).argmin())]), errors


def analyse(errors: NDArray[np.float64]) -> Analysis:
    """Analyse errors ``(seeds, slices)`` in two ways, without replication, and predict the gain on new slices.

    With standard deviations `b` and `w` of noise and interaction, the best of `n` candidates on `r` slices gains
    ``E[max of n normals] b^2 / sqrt(b^2 + w^2 / r)`` on slices outside the reference.
    """
    seeds, slices = errors.shape
    if seeds < 2 or slices < 2:
        raise InputError(f"{seeds} seeds on {slices} slices, the analysis needs two of each", field="candidates")
    by_seed, by_slice = errors.mean(axis=1, keepdims=True), errors.mean(axis=0, keepdims=True)
    rest = errors - by_seed - by_slice + errors.mean()
    interaction = float((rest**2).sum()) / ((seeds - 1) * (slices - 1))
    noise = max(0.0, float(by_seed.var(ddof=1)) - interaction / slices)
    spread = (noise + interaction / slices) ** 0.5
    return Analysis(
        noise_std=noise**0.5,
        interaction_std=interaction**0.5,
        share=noise / (noise + interaction) if noise + interaction > 0 else 0.0,
        expected_gain=expected_maximum(seeds) * noise / spread if spread > 0 else 0.0,
    )


def expected_maximum(count: int) -> float:
    """Expectation of the largest of `count` standard normal numbers."""
    normal = NormalDist()
    x = np.linspace(-8, 8, 4001)
    below = np.array([normal.cdf(v) for v in x]) ** count
    # E[X] = integral of 1 - F over the positive axis less that of F over the negative one.
    upper, lower = x >= 0, x <= 0
    return float(np.trapezoid(1 - below[upper], x[upper]) - np.trapezoid(below[lower], x[lower]))
