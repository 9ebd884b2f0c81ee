"""Frozen noise: choose a solver's starting noise once, on reference slices, and keep it in a file.

Any solver that is deterministic given its seed maps (noise, data) to an image. Its error on slice `i` from noise `j`
is ``a_i + b_j + w_ij``, the slice's share, the noise's, and an interaction. The best of several noises helps on new
slices only as far as `b` varies, so the two-way analysis says in advance whether a search can pay.

Lower starting-noise amplitude always raises fidelity: at zero an ODE converges to roughly the posterior mean. So the
amplitude is searched for beside the noise.
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
METRICS = ("nrmse", "ssim", "features")
Metric = Literal["nrmse", "ssim", "features"]
IGNORED = {"amplitude", "frozen_noise", "prior", "name"}
"""Settings that may differ from those searched with; the method's name is checked separately."""


class Noise(NamedTuple):
    """Frozen noise of a solver: seed and amplitude."""

    seed: int
    amplitude: float = 1.0


USUAL = Noise(0, 0.0)
"""Starting noise where none was searched for: any seed is as good, and none of it is best for the expected image."""


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
    amplitude: float = Field(1.0, ge=0, le=1)
    method: dict[str, Any]
    """Settings of the method."""
    prior: str | None
    prior_sha256: str | None
    scan: str
    """Key of the scan, see `operators.linear.LinearOperator.scan`."""
    task: dict[str, Any]
    """Acquisition and simulation of the reference data."""
    reference: list[str]
    """Files and hashes of the reference slices."""
    slices: int
    metric: Metric
    errors: dict[int, float]
    """Mean error of every candidate on the reference slices, at full amplitude."""
    amplitudes: dict[float, float] = {}
    """Mean error of the best candidate at every amplitude that was tried; empty where there is but one."""
    analysis: Analysis
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
    """Frozen noise that settings ask for: of the job's seed, or of a file made for this method; None if none.

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
        If a file that is named belongs to another prior, other weights, settings or scans.
    """
    if settings.frozen_noise is None and not settings.ALWAYS_FROZEN:
        return None
    own = settings.noise_amplitude
    if settings.frozen_noise == "random":
        return Noise(seed, 1.0 if own is None else own)
    if card is None:
        raise InputError(
            "the prior has no card, so that nothing tells its weights",
            field="method.frozen_noise",
            remedy="set frozen_noise: random",
        )
    if settings.frozen_noise is None and why_usual(settings, card, scan) is not None:
        return USUAL if own is None else Noise(USUAL.seed, own)
    path = settings.paths().get("frozen_noise", shipped(card.name, scan))
    found = NoiseFile.read(path)
    wrong = _mismatch(found, settings, card, scan)
    if wrong is not None:
        raise InputError(
            f"the starting noise {path.name} was searched {wrong}",
            field="method.frozen_noise",
            remedy="use its settings, search again with recon search-noise, or set frozen_noise: random",
        )
    return Noise(found.seed, found.amplitude if own is None else own)


def why_usual(settings: FrozenNoise, card: Card, scan: str) -> str | None:
    """Reason for which a method starts from the usual noise and not from a shipped one; None if it does not."""
    if settings.frozen_noise is not None or not settings.ALWAYS_FROZEN:
        return None
    path = shipped(card.name, scan)
    if not path.is_file():
        return f"none was searched for with prior {card.name!r} and {scan}"
    wrong = _mismatch(NoiseFile.read(path), settings, card, scan)
    return None if wrong is None else f"that of prior {card.name!r} was searched {wrong}"


def _mismatch(found: NoiseFile, settings: FrozenNoise, card: Card, scan: str) -> str | None:
    """Mismatch in words between a noise file and what it is to be used for; None if it fits."""
    fields = type(settings).model_fields
    mine = settings.model_dump(mode="json", exclude=IGNORED)
    different = sorted(k for k in mine if mine[k] != found.method.get(k, fields[k].default))
    if found.method.get("name") != settings.name:
        return f"for {found.method.get('name')}"
    if found.prior_sha256 != card.sha256:
        return f"for other weights of {found.prior!r}"
    if different:
        return f"with another {', '.join(different)}"
    return None if found.scan == scan else f"for {found.scan}, the data are of {scan}"


def shipped(prior: str, direction: str) -> Path:
    """Path of the starting noise shipped with a prior, if there is one."""
    return FOLDER / f"{prior}-{direction}.yaml"


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
