"""Coils of a scan: those that are dead, noise that differs or is shared between them, and more than are needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.spec.preparation import CoilPreparation
from recon.spec.report import Step

Data = NDArray[np.complex64]
"""Samples ``(slices, coils, ...)``."""
Matrix = NDArray[np.complex128]
LOUD = 3.0
"""Noise of a coil over the median of all from which coils are weighted where their covariance is not known."""
FLAT = 0.8
"""Least ratio of a coil's outermost to its next samples where both are noise and not signal."""
SIGNAL = 1.25
"""Largest power of the next over that of the outermost samples in any combination of coils, beyond what chance makes
of it, where both are noise."""
ALIKE = 1.15
"""Largest correlation of neighbouring samples in any combination of coils, over what chance makes of it, where both are
noise."""
UNEQUAL = 1.25
"""Largest over smallest power of noise in any combination of coils, beyond what chance makes of it, up to which the
noise counts as white."""
LEAST_SAMPLES = 20
"""Samples per coil that tell a covariance: that of fewer costs more than a fifth of a decibel."""
OUTERMOST, NEXT = (0.85, 1.0), (0.7, 0.85)
"""Distances from the centre of k-space, relative to the largest that was sampled."""
COMPRESSED = 12
"""Number of coils up to which none are left out."""


@dataclass(frozen=True)
class Coils:
    """Samples of all coils with what belongs to them.

    Parameters
    ----------
    data
        ``(slices, coils, ...)``; zero in every coil where nothing was measured.
    maps
        Coil sensitivities ``([slices,] coils, rows, cols)``, if they are given.
    covariance
        Of the coils' noise, ``(coils, coils)``, per real channel, if it was measured.
    noise_std
        Of each coil, per real channel, if it is the same in every one and known.
    mixing, unmixing
        Combination ``(coils, measured coils)`` that these coils are of the measured ones, and the one that leads back,
        ``(measured coils, coils)``; None if they are the measured ones.
    notes, steps
        Remarks, and steps of the preparation, for the report.
    """

    data: Data
    maps: NDArray[np.complex64] | None = None
    covariance: Matrix | None = None
    noise_std: float | None = None
    mixing: Matrix | None = field(default=None, kw_only=True)
    unmixing: Matrix | None = field(default=None, kw_only=True)
    notes: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of coils."""
        return int(self.data.shape[1])

    def mixed(self, matrix: Matrix, step: Step, **more: Any) -> Coils:
        """Coils that are combined by ``(new, coils)``, data and maps alike."""
        small = matrix.astype(np.complex64)
        maps = None if self.maps is None else np.einsum("vc,...crx->...vrx", small, self.maps, optimize=True)
        flat = self.data.reshape(*self.data.shape[:2], -1)
        # One slice at a time; zeros in every coil stay exactly so.
        mixed = np.stack([small @ one for one in flat]).reshape(len(flat), len(small), *self.data.shape[2:])
        kept = replace(self, data=mixed, maps=None if maps is None else maps.astype(np.complex64), **more)
        back = np.linalg.pinv(matrix).astype(np.complex128)
        mixing = matrix if self.mixing is None else matrix @ self.mixing
        return replace(kept, mixing=mixing, unmixing=back if self.unmixing is None else self.unmixing @ back).noted(
            step
        )

    def noted(self, step: Step) -> Coils:
        """Add a step; one that changed something, or warns, is among the notes as well."""
        notes = [*self.notes, step.text] if step.changed or step.warning else self.notes
        return replace(self, notes=notes, steps=[*self.steps, step])


def covariance_of(noise: NDArray[Any]) -> Matrix:
    """Covariance ``(coils, coils)`` per real channel of noise ``(..., coils, samples)``: ``E[n n^H] / 2``."""
    coils = noise.shape[-2]
    flat = np.moveaxis(noise, -2, 0).reshape(coils, -1).astype(np.complex128)
    found: Matrix = flat @ flat.conj().T / (2 * flat.shape[1])
    # Fewer samples than tell how coils belong together still tell how loud each is.
    return found if flat.shape[1] >= LEAST_SAMPLES * coils else np.diag(np.diag(found))


def level_of(covariance: Matrix) -> float:
    """Root mean square standard deviation of the coils' noise, per real channel."""
    return math.sqrt(float(np.diag(covariance).real.mean()))


def described(covariance: Matrix) -> str:
    """Noise of coils by its covariance ``(coils, coils)``, in words: what differs between them, and what they share."""
    std = np.sqrt(np.diag(covariance).real.clip(0))
    usual = float(np.median(std))
    if usual <= 0 or len(std) < 2:
        return f"noise of {len(std)} coil{'s' * (len(std) > 1)}: {level_of(covariance):.3g} per real channel"
    return (
        f"noise of {len(std)} coils: {usual:.3g} per real channel of the usual one, others {std.min() / usual:.3g} to"
        f" {std.max() / usual:.3g} times that, correlated by up to {_correlation(covariance):.2f}; condition of the"
        f" covariance {_spread(covariance):.3g}"
    )


def whitening(covariance: Matrix) -> tuple[Matrix, float]:
    """Matrix ``(coils, coils)`` that makes noise white, and the standard deviation per real channel that it then has.

    It is the inverse of the covariance's Cholesky factor, scaled so that the usual coil keeps its noise.

    References
    ----------
    Pruessmann et al. 2001, Magn. Reson. Med. 46, 638-651, appendix B (noise decorrelation).
    """
    usual = math.sqrt(float(np.median(np.diag(covariance).real)))
    factor = np.linalg.cholesky(covariance / usual**2)
    return np.linalg.inv(factor).astype(np.complex128), usual


def prepared(found: Coils, radius: NDArray[np.floating[Any]], settings: CoilPreparation, *, noise_known: bool) -> Coils:
    """Leave out dead coils, make the noise white, and combine more coils than are needed.

    Parameters
    ----------
    found
        What was measured.
    radius
        Distance of each sample from the centre of k-space, in the shape of the data without slices and coils, in any
        unit.
    settings
        Steps that are wanted.
    noise_known
        Whether the noise is known to be white, as where it was simulated.
    """
    found = _alive(found)
    if found.count > 1:
        found = _whitened(found, radius, settings, noise_known=noise_known)
    return _compressed(found, settings)


def _alive(found: Coils) -> Coils:
    """Leave out coils that are zero everywhere."""
    alive: NDArray[np.bool_] = np.any(found.data, axis=tuple(axis for axis in range(found.data.ndim) if axis != 1))
    if alive.all() or not alive.any():
        return found
    dead = ", ".join(str(i) for i in np.flatnonzero(~alive))
    return replace(
        found,
        mixing=np.eye(len(alive), dtype=np.complex128)[alive],
        unmixing=np.eye(len(alive), dtype=np.complex128)[:, alive],
        data=np.compress(alive, found.data, axis=1),
        maps=None if found.maps is None else np.compress(alive, found.maps, axis=-3),
        covariance=None if found.covariance is None else found.covariance[np.ix_(alive, alive)],
        notes=[*found.notes, f"coil {dead} is zero everywhere: left out"],
    )


def _whitened(
    found: Coils, radius: NDArray[np.floating[Any]], settings: CoilPreparation, *, noise_known: bool
) -> Coils:
    """Make the noise white, by its measured covariance, or by that of the outermost samples if these are noise."""
    if not settings.whitening:
        return found.noted(_step("whitening", "noise of the coils is left as it is", changed=False))
    if found.covariance is not None:
        return _by_covariance(found, found.covariance, "noise scan")
    if noise_known:
        return found
    edges = _quiet(found.data, radius)
    covariance = edges.covariance()
    if covariance is not None:
        ratio = _spread(covariance)
        if ratio <= UNEQUAL * edges.by_chance(found.count):
            text = "noise of the coils is white, as the outermost samples say"
            known = replace(found, noise_std=math.sqrt(float(np.median(np.diag(covariance).real))))
            return known.noted(_step("whitening", text, changed=False, ratio=ratio))
        return _by_covariance(found, covariance, "outermost samples")
    loud = edges.loud()
    if not loud.any():
        text = "the outermost samples do not tell the covariance of the coils' noise: it is taken for white"
        return found.noted(_step("whitening", text, changed=False))
    usual = float(np.median(edges.noise))
    weights = np.where(loud, usual / np.maximum(edges.noise, 1e-38), 1.0)
    listed = ", ".join(f"{i} ({edges.noise[i] / usual:.0f} times)" for i in np.flatnonzero(loud))
    text = f"coils noisier than the others are weighted by their noise: {listed}"
    step = _step("whitening", text, changed=True, coils=np.flatnonzero(loud).tolist())
    return found.mixed(np.diag(weights).astype(np.complex128), step)


def _by_covariance(found: Coils, covariance: Matrix, source: str) -> Coils:
    """Whiten by a covariance."""
    std = np.sqrt(np.diag(covariance).real.clip(0))
    # A coil without any noise cannot be: it counts as one that has a hundredth of the usual.
    floor = (1e-2 * float(np.median(std))) ** 2
    covariance = covariance + np.diag(np.where(std**2 < floor, floor, 0))
    if floor <= 0 or _spread(covariance) > 1e12:
        text = f"the {source} tells no noise of most coils: they are not whitened"
        return found.noted(_step("whitening", text, changed=False, warning=True))
    matrix, usual = whitening(covariance)
    correlated = _correlation(covariance)
    loudest = float(std.max() / np.median(std))
    text = (
        f"noise of the coils made white by its covariance from the {source}: correlated by up to {correlated:.2f}, the"
        f" noisiest coil {loudest:.3g} times the usual one"
    )
    step = _step("whitening", text, changed=True, largest_correlation=correlated, noisiest=loudest)
    return found.mixed(matrix, step, covariance=None, noise_std=usual)


def _correlation(covariance: Matrix) -> float:
    """Largest correlation between two coils, 0 to 1."""
    std = np.sqrt(np.diag(covariance).real)
    relative = np.abs(covariance) / np.maximum(np.outer(std, std), 1e-38)
    return float((relative * (1 - np.eye(len(std)))).max())


def _spread(covariance: Matrix) -> float:
    """Largest over smallest eigenvalue."""
    values = np.linalg.eigvalsh(covariance)
    return float(values[-1] / max(values[0], 1e-38))


@dataclass(frozen=True)
class _Edges:
    """Outermost samples of k-space, those next to them, ``(coils, n)``, and neighbours among the outermost by axis."""

    outermost: Data
    next_: Data
    neighbours: list[tuple[Data, Data]]

    @classmethod
    def of(cls, data: Data, radius: NDArray[np.floating[Any]]) -> _Edges:
        """Find them among the samples that are not zero in every coil."""
        sampled = (data != 0).any(1)
        reach = float(radius[sampled.any(0)].max(initial=0.0)) or 1.0
        outermost, next_ = (
            sampled & (radius > low * reach) & (radius <= high * reach) for low, high in (OUTERMOST, NEXT)
        )
        neighbours = []
        for axis in range(1, outermost.ndim):
            before, after = (np.roll(outermost, shift, axis) for shift in (0, -1))
            both = before & after
            both[(slice(None),) * axis + (-1,)] = False  # the last has none after it
            neighbours.append((_chosen(data, both), _chosen(np.roll(data, -1, axis + 1), both)))
        return cls(_chosen(data, outermost), _chosen(data, next_), neighbours)

    @property
    def noise(self) -> NDArray[np.float64]:
        """Noise of each coil, per real channel, if most of its outermost samples are noise."""
        return _medians(self.outermost) / math.sqrt(2 * math.log(2))

    def loud(self) -> NDArray[np.bool_]:
        """Which coils are far noisier than the others, and hold noise alone."""
        noise = self.noise
        flat = _medians(self.outermost) > FLAT * _medians(self.next_)
        return np.asarray((noise > LOUD * float(np.median(noise))) & flat & (float(np.median(noise)) > 0))

    def by_chance(self, coils: int) -> float:
        """Largest over smallest eigenvalue that chance makes of the covariance of white noise.

        References
        ----------
        Marchenko and Pastur 1967, Math. USSR Sbornik 1, 457-483.
        """
        share = math.sqrt(coils / self.outermost.shape[1])
        return ((1 + share) / (1 - share)) ** 2

    def covariance(self) -> Matrix | None:
        """Covariance of the noise; None unless the samples are noise, in every combination of coils, and enough.

        Noise is as strong next to the outermost samples, and differs from sample to sample; what an object sends does
        not, unless it fills the field of view.
        """
        coils, count = self.outermost.shape
        if min(count, self.next_.shape[1]) < LEAST_SAMPLES * coils:
            return None
        found = covariance_of(self.outermost)
        if not np.diag(found).real.min() > 0 or _spread(found) > 1e10:
            return None
        matrix, usual = whitening(found)
        next_ = matrix @ covariance_of(self.next_) @ matrix.conj().T / usual**2
        chance = (1 + math.sqrt(coils / self.next_.shape[1])) / (1 - math.sqrt(coils / count))
        if float(np.linalg.eigvalsh(next_)[-1]) > SIGNAL * chance**2:
            return None
        told = [pair for pair in self.neighbours if pair[0].shape[1] >= LEAST_SAMPLES * coils]
        for one, other in told:
            n = one.shape[1]
            shared = matrix @ (one @ other.conj().T) @ matrix.conj().T / (2 * n * usual**2)
            if float(np.linalg.norm(shared, 2)) > ALIKE * 2 * math.sqrt(coils / n):
                return None
        return found if told else None


def _quiet(data: Data, radius: NDArray[np.floating[Any]]) -> _Edges:
    """Edges of the slices whose outermost samples are noise; of all slices if there is none.

    The noise is the same in every slice, and one of strong signal shall not hide what a weak one tells.
    """
    quiet = [i for i in range(len(data)) if _Edges.of(data[i : i + 1], radius).covariance() is not None]
    return _Edges.of(data[quiet] if quiet else data, radius)


def _chosen(data: Data, samples: NDArray[np.bool_]) -> Data:
    """Samples ``(coils, n)`` that are chosen by slice."""
    return np.concatenate([one[:, chosen] for one, chosen in zip(data, samples, strict=True)], axis=1)


def _medians(samples: Data) -> NDArray[np.float64]:
    return np.median(np.abs(samples), axis=1).astype(np.float64) if samples.shape[1] else np.zeros(len(samples))


def _compressed(found: Coils, settings: CoilPreparation) -> Coils:
    """Combine many coils to the fewest that keep the energy of what is not noise.

    References
    ----------
    Buehrer et al. 2007, Magn. Reson. Med. 57, 1131-1139; Huang et al. 2008, Magn. Reson. Imaging 26, 133-141.
    """
    coils = found.count
    if coils <= COMPRESSED or settings.kept_energy >= 1:
        return found
    gram = np.zeros((coils, coils), np.complex128)
    for one in found.data:
        flat = one.reshape(coils, -1)
        gram += flat @ flat.conj().T
    values, vectors = np.linalg.eigh(gram)
    if found.noise_std is not None:
        # White noise has the same energy in every combination of coils.
        samples = int((found.data != 0).any(1).sum())
        values = (values - 2 * found.noise_std**2 * samples).clip(0)
    kept = np.cumsum(values[::-1]) / max(float(values.sum()), 1e-38)
    count = max(int(np.searchsorted(kept, settings.kept_energy)) + 1, COMPRESSED)
    if count >= coils:
        text = f"all of the {coils} coils are needed to keep {100 * settings.kept_energy:g} % of their energy"
        return found.noted(_step("kept_energy", text, changed=False, coils=coils))
    basis: Matrix = vectors[:, ::-1][:, :count].conj().T
    text = f"{coils} coils combined to {count} that keep {100 * kept[count - 1]:.2f} % of their energy"
    step = _step("kept_energy", text, changed=True, coils=coils, combined=count, kept=float(kept[count - 1]))
    return found.mixed(basis, step)


def _step(name: str, text: str, *, changed: bool, warning: bool = False, **numbers: float | list[int]) -> Step:
    rounded = {k: v if isinstance(v, int | list) else round(float(v), 4) for k, v in numbers.items()}
    return Step(name=name, changed=changed, warning=warning, text=text, numbers=rounded)
