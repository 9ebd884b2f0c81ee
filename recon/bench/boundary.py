"""Benchmark of super-resolution: `boundary` at every detail against interpolation, TV, RED-Diff and random noises.

CT has no conditional prior: there it is RED-Diff, DiffPIR and DDS with the prior of images against the first two.

Test volumes are measured as scanners measure stacks. Every plane that is judged is a refined one, by itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from operators.errors import InputError
from recon.bench.auto import CHEST, T1, T2
from recon.defaults import lookup
from recon.formats import nifti
from recon.measurement.simulate import simulate
from recon.pipeline.chosen_prior import chosen_prior
from recon.priors import registry
from recon.problem import inverse_problem
from recon.problem.inverse_problem import InverseProblem
from recon.problem.problem import run
from recon.quality import metrics
from recon.quality.montage import Planes, upright, views
from recon.quality.perceptual import perceptual_distance
from recon.quality.spectrum import decibels, power_ratio, sharpness_ratio
from recon.solvers import registry as solvers
from recon.spec.acquisitions.superresolution import CTSuperResolution, SuperResolution
from recon.spec.affine import Affine
from recon.spec.methods import DDS, TV, Boundary, DiffPIR, Interpolation, Method, REDDiff
from recon.spec.simulation import Simulation
from recon.tuning.stacks import DIRECTIONS, usual_stack

Volume = NDArray[np.float32]

FACTORS = (2.0, 3.0, 4.0)
NOISE_STD = 0.01
"""Noise of the stacks relative to their largest value."""
DETAILS = (0.0, 0.5, 1.0)
FEW_STEPS = (4, 8)
"""Evaluations on the way to the sharp image at which the frozen noise is compared with random ones."""
MANY_STEPS = 100
MEAN = "red-diff and boundary, half each"
FIRST_SEED = 1_000_000
"""First seed of the random noises, far from the candidates of a search."""
NEIGHBOURS = 2
"""Planes on each side that a method which couples planes is given beside the one that is judged."""
RESAMPLES = 10_000
SLAB = 48
"""Planes that are refined for a picture, around the middle."""
MAGNIFIED_MM = 50.0
"""Side of the magnified part of a picture."""


@dataclass(frozen=True)
class Case:
    """Stack measured of a test volume, whose planes that hold the refined direction are judged.

    Parameters
    ----------
    volume
        Reads the volume ``(slices, rows, cols)`` with its affine, turned so that thick slices lie along its slices.
    """

    name: str
    acquisition: SuperResolution
    volume: Callable[[], tuple[Volume, Affine]]

    @property
    def conditional(self) -> bool:
        """Whether `boundary` is for it."""
        return Boundary().name in self.acquisition.METHODS

    def stack(self) -> tuple[InverseProblem, Volume, Affine]:
        """Measure the volume: the inverse problem, the true planes, and the volume's affine."""
        volume, affine = self.volume()
        measurement = simulate(volume, affine, self.acquisition, Simulation(noise_std=NOISE_STD))
        model = inverse_problem.build(measurement)
        return model, model.planes(torch.from_numpy(volume)).numpy(), affine


@dataclass(frozen=True)
class Row:
    """One method on the planes of one task.

    Parameters
    ----------
    detail, steps
        Settings of `boundary`; None for other methods. `steps` are those on the way to the sharp image, or to the
        image to be expected without one.
    psnr, ssim
        In dB and as a mean of the planes; the range is that of the true planes.
    perceptual
        Perceptual distance, mean of the planes; see `recon.quality.perceptual`.
    sharpness_ratio
        Amplitudes relative to the truth's beyond the frequencies that were measured.
    spectrum_db
        Largest difference of the power spectrum from the truth's in any ring up to Nyquist, with its sign.
    spread
        Standard deviation of the PSNR over random noises, in dB; None but for the mean of these.
    nfe, seconds
        Network evaluations and seconds per plane.
    """

    task: str
    method: str
    detail: float | None
    steps: int | None
    psnr: float
    ssim: float
    perceptual: float
    sharpness_ratio: float
    spectrum_db: float
    spread: float | None
    nfe: float
    seconds: float


@dataclass(frozen=True)
class Gain:
    """Gain of the frozen noise over the mean of random ones at `detail` 1, plane by plane; positive is better."""

    task: str
    steps: int
    noise: str
    """Source of the frozen noise; see `recon.defaults.frozen_noise.Noise`."""
    random: int
    psnr: list[float]
    perceptual: list[float]


@dataclass(frozen=True)
class Run:
    """Planes that a method made of a stack, and what they took per plane."""

    planes: Volume
    nfe: float
    seconds: float


def cases(data: Path) -> list[Case]:
    """All cases: a head in plane and through plane in two contrasts, and a chest through plane, by each factor.

    The chest's slices are 4 mm apart: its thick slices are coronal, its refined planes axial, with pixels of 1.4 mm.
    """
    found = []
    for contrast, file in (("T1", T1), ("T2", T2)):
        for direction in DIRECTIONS:
            # The T2 volume has slices of 2.5 mm: its thick slices are coronal, its refined planes axial.
            order = (1, 2, 0) if contrast == "T2" and direction == "slices" else (0, 1, 2)
            where = "in plane" if direction == "plane" else "through plane"
            found += [
                Case(f"{contrast}, x{factor:g} {where}", usual_stack(factor, direction), _turned(data / file, order))
                for factor in FACTORS
            ]
    chest = _turned(data / CHEST, (1, 2, 0))
    found += [
        Case(f"chest, x{factor:g} through plane", CTSuperResolution(factor=factor, profile="gaussian"), chest)
        for factor in FACTORS
    ]
    return found


def _turned(path: Path, order: tuple[int, int, int]) -> Callable[[], tuple[Volume, Affine]]:
    """Reader of a volume with its axes ``(slices, rows, cols)`` in another order."""

    def read() -> tuple[Volume, Affine]:
        volume, affine = nifti.read(path)
        columns = [2 - axis for axis in reversed(order)]  # the affine takes (col, row, slice)
        turned = affine.copy()
        turned[:, :3] = affine[:, columns]
        return np.ascontiguousarray(volume.transpose(order)), turned

    return read


def chosen_planes(planes: Volume, count: int) -> list[int]:
    """Numbers of evenly spaced planes in the middle half of a volume, where the head is large."""
    return [int(i) for i in np.linspace(0.25, 0.75, count) * (len(planes) - 1)]


def solved(model: InverseProblem, method: Method, blocks: Sequence[range], *, seed: int = 0) -> Run:
    """Refine blocks of neighbouring planes, each by itself, with a user's defaults for what `method` leaves open.

    A method that couples planes is given some more on both sides.
    """
    kind = f"{model.modality}-superresolution"
    settings = lookup.resolved(method, kind, model.problem)
    prior, intensity = chosen_prior(settings, model)
    reach = NEIGHBOURS if settings.couples_slices() else 0
    before = 0 if prior is None else prior.evaluations
    began, found = time.perf_counter(), []
    for block in blocks:
        first, last = max(block.start - reach, 0), min(block.stop + reach, model.problem.slices)
        part = None if intensity is None else intensity.part(slice(first, last))
        solver = solvers.start(model.problem.part(first, last), settings, prior=prior, intensity=part, seed=seed)
        found.append(model.display(run(solver))[block.start - first : block.stop - first])
    planes = np.concatenate(found)
    used = 0 if prior is None else prior.evaluations - before
    return Run(planes, used / len(planes), (time.perf_counter() - began) / len(planes))


@dataclass(frozen=True)
class Bench:
    """A case with the planes that are judged.

    Parameters
    ----------
    prior
        Name or card of the conditional prior; the usual one when None.
    """

    case: Case
    model: InverseProblem
    chosen: list[range]
    truth: Volume
    prior: str | None

    @classmethod
    def of(cls, case: Case, planes: int, prior: str | None) -> Bench:
        """Measure the stack of a case."""
        model, truth, _ = case.stack()
        chosen = chosen_planes(truth, planes)
        return cls(case, model, [range(i, i + 1) for i in chosen], truth[chosen], prior)

    def boundary(self, *, detail: float, steps: int | None = None, random: bool = False) -> Boundary:
        """Settings of `boundary`; `steps` are those on the way to the sharp image."""
        more = {} if steps is None else {"detail_steps": steps}
        noise = "random" if random else None
        return Boundary.model_validate({"detail": detail, "prior": self.prior, "frozen_noise": noise, **more})

    def row(self, name: str, method: Method, found: Run) -> Row:
        """Judge the planes that a method made."""
        factors = self.model.problem.operator.factors
        assert factors is not None
        axes = [axis for axis in (0, 1) if factors[axis] > 1]
        rings = decibels(power_ratio(found.planes, self.truth, axes))
        detail = method.detail if isinstance(method, Boundary) else None
        steps = None if not isinstance(method, Boundary) else method.detail_steps if method.detail else method.steps
        return Row(
            task=self.case.name,
            method=name,
            detail=detail,
            steps=steps,
            psnr=round(metrics.psnr(found.planes, self.truth), 2),
            ssim=round(metrics.ssim(found.planes, self.truth), 4),
            perceptual=round(float(np.mean(self.perceptual(found))), 4),
            sharpness_ratio=round(sharpness_ratio(found.planes, self.truth, self.case.acquisition.factor, axes), 3),
            spectrum_db=round(float(rings[np.abs(rings).argmax()]), 2),
            spread=None,
            nfe=round(found.nfe, 1),
            seconds=round(found.seconds, 2),
        )

    def perceptual(self, found: Run) -> list[float]:
        """Perceptual distance of each plane."""
        return [perceptual_distance(a, b) for a, b in zip(found.planes, self.truth, strict=True)]

    def psnr(self, found: Run) -> list[float]:
        """PSNR of each plane, all with the range of the whole truth."""
        whole = np.ones(self.truth.shape, bool)
        where = [np.arange(len(whole))[:, None, None] == i for i in range(len(whole))]
        return [metrics.psnr(found.planes, self.truth, whole & one) for one in where]

    def methods(self, regression: str | None) -> dict[str, Method]:
        """Methods of one run each, by name."""
        found: dict[str, Method] = {"interpolation": Interpolation(), "tv": TV(), "red-diff": REDDiff()}
        if not self.case.conditional:
            return found | {"diffpir": DiffPIR(), "dds": DDS()}
        if regression is not None:
            found["regression"] = Boundary(prior=regression, steps=1, consistency=False)
            found["regression, fitted"] = Boundary(prior=regression, steps=1)
        found |= {f"boundary, detail {detail:g}": self.boundary(detail=detail) for detail in DETAILS}
        fewest = min(FEW_STEPS)
        found[f"boundary, detail 1, {fewest} steps"] = self.boundary(detail=1, steps=fewest)
        found[f"random noise, {MANY_STEPS} steps"] = self.boundary(detail=1, steps=MANY_STEPS, random=True)
        return found

    def rows(self, known: set[str], regression: str | None) -> Iterator[Row]:
        """Rows of the methods that are not known yet."""
        for name, method in self.methods(regression).items():
            if name not in known:
                seed = FIRST_SEED if isinstance(method, Boundary) and method.frozen_noise else 0
                yield self.row(name, method, solved(self.model, method, self.chosen, seed=seed))
        if MEAN not in known and self.case.conditional:
            both = [solved(self.model, method, self.chosen) for method in (REDDiff(), self.boundary(detail=0))]
            yield self.row(MEAN, REDDiff(), mixed(both))

    def against_random(self, steps: int, random: int) -> tuple[list[Row], Gain]:
        """Rows of random noises (their mean, best and worst in PSNR) at `detail` 1, and the frozen noise's gain."""
        method = self.boundary(detail=1, steps=steps, random=True)
        seeds = range(FIRST_SEED, FIRST_SEED + random)
        runs = [solved(self.model, method, self.chosen, seed=seed) for seed in seeds]
        each = sorted((self.row("", method, one) for one in runs), key=lambda row: row.psnr)
        label = f"random noise, {steps} steps"
        rows = [
            replace(mean(each), method=f"{label}, mean"),
            replace(each[-1], method=f"{label}, best"),
            replace(each[0], method=f"{label}, worst"),
        ]
        mine = self.boundary(detail=1, steps=steps)
        frozen = solved(self.model, mine, self.chosen)
        psnr = np.array(self.psnr(frozen)) - np.mean([self.psnr(one) for one in runs], axis=0)
        perceptual = np.mean([self.perceptual(one) for one in runs], axis=0) - np.array(self.perceptual(frozen))
        gain = Gain(
            task=self.case.name,
            steps=steps,
            noise=_source(self.model, mine),
            random=random,
            psnr=[round(float(v), 4) for v in psnr],
            perceptual=[round(float(v), 5) for v in perceptual],
        )
        return rows, gain


def _source(model: InverseProblem, method: Boundary) -> str:
    """Source of the frozen noise."""
    from recon.defaults import frozen_noise

    prior, _ = chosen_prior(method, model)
    found = frozen_noise.of_settings(method, None if prior is None else prior.card, model.problem.operator.scan, 0)
    assert found is not None
    return found.source


def mixed(runs: Sequence[Run]) -> Run:
    """Mean of the planes of several methods."""
    planes = np.mean([one.planes for one in runs], axis=0)
    return Run(planes, sum(one.nfe for one in runs), sum(one.seconds for one in runs))


def mean(rows: Sequence[Row]) -> Row:
    """Mean of the rows of one method with several noises, and their spread in PSNR."""

    def over(values: Sequence[float], digits: int) -> float:
        return round(float(np.mean(values)), digits)

    return replace(
        rows[0],
        psnr=over([row.psnr for row in rows], 2),
        ssim=over([row.ssim for row in rows], 4),
        perceptual=over([row.perceptual for row in rows], 4),
        sharpness_ratio=over([row.sharpness_ratio for row in rows], 3),
        spectrum_db=over([row.spectrum_db for row in rows], 2),
        spread=round(float(np.std([row.psnr for row in rows], ddof=1)), 3),
        seconds=over([row.seconds for row in rows], 2),
    )


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of differences and its 95 % bootstrap interval, over planes, of which a task has those of one head."""
    values = np.asarray(differences)
    draws = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def require_covered(case: Case, prior: str | None) -> None:
    """Raise `InputError` unless a case that needs a conditional prior has one, so that this is known before it runs."""
    from recon.priors import cards

    if not case.conditional:
        return
    factor = case.acquisition.factor
    name = prior or cards.usual(Boundary(), case.acquisition.MODALITY, factor)
    if not registry.card_of(name).for_factor(factor):
        raise InputError(f"{name} does not cover x{factor:g}", field="prior", remedy="choose other cases by only")


def picture(folder: Path, case: Case, prior: str | None) -> Path:
    """Draw a case: the same place by each method and in the truth, in three planes, upright, and a part magnified."""
    model, truth, affine = case.stack()
    count = min(SLAB, len(truth))
    block = range((len(truth) - count) // 2, (len(truth) - count) // 2 + count)
    methods: dict[str, Method] = {"interpolation": Interpolation(), "TV": TV()}
    if case.conditional:
        methods |= {f"detail {detail:g}": Boundary(detail=detail, prior=prior) for detail in DETAILS}
    else:
        methods["RED-Diff"] = REDDiff()
    planes = {name: solved(model, method, [block]).planes for name, method in methods.items()}
    planes["truth"] = truth[block.start : block.stop]
    volumes = {name: model.arranged(torch.from_numpy(one)).numpy() for name, one in planes.items()}
    shape = volumes["truth"].shape
    pictures = {
        name: views(Planes.of([one], (shape[0], shape[1], shape[2]), affine), affine, in_patient=True)
        for name, one in volumes.items()
    }
    low, high = (float(v) for v in np.percentile(truth, [0.5, 99.8]))
    figure = Figure(figsize=(2.7 * len(volumes), 11.0), layout="constrained")
    rows = figure.subplots(4, len(volumes), squeeze=False)
    for column, (name, found) in enumerate(pictures.items()):
        for row, (title, image, aspect) in enumerate(found):
            rows[row][column].imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
            rows[row][column].set_title(f"{name}, {title}", fontsize=8)
        part, aspect = _magnified(planes[name][count // 2], case, affine)
        rows[3][column].imshow(part, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
        rows[3][column].set_title(f"{name}, magnified", fontsize=8)
    for axis in rows.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(case.name, fontsize=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"super-resolution-{re.sub(r'[^a-z0-9]+', '-', case.name.lower()).strip('-')}.png"
    figure.savefig(path, dpi=80, format="png")
    return path


def _magnified(plane: Volume, case: Case, affine: Affine) -> tuple[Volume, float]:
    """Middle of a refined plane, upright, with the aspect ratio of its pixels."""
    # As a volume of one slice, whose slices are the planes: of thick slices (plane, slice, row) are (col, slice, row).
    turned = affine.copy()
    if case.acquisition.direction == "slices":
        turned[:, :3] = affine[:, [1, 2, 0]]
    sides = [round(MAGNIFIED_MM / float(np.linalg.norm(turned[:3, axis]))) for axis in (1, 0)]
    at = [slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(plane.shape, sides, strict=True)]
    return upright(plane[at[0], at[1]], turned, in_patient=True)
