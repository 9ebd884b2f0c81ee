"""Benchmark of the 90 % intervals: how many of an object's voxels they hold, and how wide they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from recon.bench.auto import BODY, CHEST, T1, T2, Case, Volume, chosen, ct_cases, mri_cases
from recon.bench.solving import method_of
from recon.defaults import lookup
from recon.defaults.errors import ErrorTable, Fitted
from recon.formats import nifti
from recon.pipeline import uncertainty
from recon.pipeline.chosen_prior import chosen_prior
from recon.pipeline.uncertainty import Clues
from recon.pipeline.undetermined import undetermined
from recon.problem import inverse_problem
from recon.problem.problem import Problem, run
from recon.quality import body
from recon.solvers import registry as solvers
from recon.spec.acquisitions import methods_of
from recon.spec.methods import Method
from recon.training.recipe import Recipe
from recon.training.slices import SliceSet
from recon.tuning import fit_errors
from recon.tuning.fit_errors import Sample

if TYPE_CHECKING:
    from operators.geometry import SamplingPattern

SLICES = 1
"""Slices of each test volume, in every scan."""
TUNING_MM, COARSER = 1.4, 2
"""Pixel of the tuning slices in CT, and that of coarser ones in units of it, which keep every such pixel only."""
TUNED_ON, COARSE_ON = {"ct": (5, 36), "brain-mri": (5, 20, 36)}, (20, 60)
"""Slices of the tuning sets, by prior (of MRI FLAIR alone), and those with coarser pixels."""
ALIKE = 1.6
"""Ratio of the undersampling of two scans up to which they share a row of the table."""
STEEP = 0.8
"""Quantile of the gradient of the truth from which a voxel of the object counts as an edge."""
METHODS = ("red-diff", "tv", "fbp", "cg-sense")
"""Methods that tables of errors are fitted on, one of each kind and modality; those that fit a scan are run."""
CLASSES = ("all", "edge", "flat")


class Observed(NamedTuple):
    """Errors of a method in the object of a case, and the clues to them: ``(voxels,)``, clues ``(clues, voxels)``."""

    method: str
    clues: NDArray[np.float32]
    error: NDArray[np.float32]
    edge: NDArray[np.bool_]
    modality: str
    errors_like: str
    pattern: str
    undersampling: float

    def half_widths(self) -> NDArray[np.float32]:
        """Half widths of the intervals."""
        clues = Clues(*torch.from_numpy(self.clues))
        sampling = cast("SamplingPattern", self.pattern), self.undersampling
        return uncertainty.errors(clues, self.errors_like, self.modality, *sampling).half_widths.numpy()


@dataclass(frozen=True)
class Row:
    """Intervals of one method in one class of an object's voxels.

    Parameters
    ----------
    voxels
        ``all``, ``edge`` or ``flat``: of the truth, not of the result.
    coverage
        Fraction of them whose error is within the interval.
    width
        Mean width of the intervals, in HU or as a fraction of the largest image value.
    width_over_tv
        The same over that of TV's intervals; None without.
    """

    case: str
    method: str
    voxels: str
    coverage: float
    width: float
    width_over_tv: float | None


def cases(data: Path) -> list[Case]:
    """Scans of the test volumes, which no table was fitted on."""
    found = []
    for name, file, pixel_mm in (("chest", CHEST, 1.4), ("body", BODY, 3.0)):
        found += ct_cases(name, "anatomy", pixel_mm, lambda file=file: chosen(nifti.read(data / file)[0], SLICES))  # type: ignore[misc]
    for name, file in (("T1", T1), ("T2", T2)):
        found += mri_cases(name, lambda file=file: chosen(nifti.read(data / file)[0], SLICES))  # type: ignore[misc]
    return found


def tuning_cases(data: Path) -> list[Case]:
    """Scans of the tuning slices, which tables are fitted on."""
    ct = ct_cases("tuning", "anatomy", TUNING_MM, lambda: _tuning(data, "ct", TUNED_ON["ct"]))
    # Single pixels are kept, not means: slices of thick pixels are as noisy and as sharp as those of thin ones.
    coarse = ct_cases(
        "coarse tuning", "anatomy", TUNING_MM * COARSER, lambda: _tuning(data, "ct", COARSE_ON)[:, ::COARSER, ::COARSER]
    )
    return ct + coarse + mri_cases("tuning", lambda: _tuning(data, "brain-mri", TUNED_ON["brain-mri"]))


def _tuning(data: Path, prior: str, numbers: Sequence[int]) -> Volume:
    source = Recipe.named(prior).validation[0]
    stored = SliceSet.read(data, source).stored
    images = np.stack([stored[index] for index in numbers]).astype(np.float32)
    return np.asarray(images * source.slope + source.intercept, np.float32)


def observe(case: Case, methods: Sequence[str], replicates: int) -> Iterator[Observed]:
    """Reconstruct a case, and gather the errors of each method in the object and the clues to them."""
    measurement = case.measured()
    model, kind, truth = inverse_problem.build(measurement), measurement.acquisition.kind, measurement.truth
    assert truth is not None
    inside = body.inside(truth)
    edge = steep(truth, inside)
    for name in methods:
        if name not in methods_of(measurement.acquisition):
            continue
        method = lookup.resolved(method_of({"name": name}), kind, model.problem)
        volume, clues = _clues(model, method, replicates)
        error = model.display(model.arranged(volume)) - truth
        found = np.stack([clue.numpy()[inside] for clue in clues])
        operator = model.problem.operator
        scan = (model.modality, method.ERRORS_LIKE, operator.sampling_pattern, round(operator.undersampling, 3))
        yield Observed(name, found, np.abs(error[inside]), edge[inside], *scan)


def kept(folder: Path, case: Case, methods: Sequence[str], replicates: int) -> list[Observed]:
    """Observe methods on a case, or read what was observed before from a folder of ``.npz`` files, one for each run."""
    found: list[Observed] = []
    told = f"{case.name}, {replicates} replicates, {' '.join(methods)}"
    path = folder / (re.sub(r"[^a-z0-9]+", "-", told.lower()) + ".npz")
    if not path.exists():
        found += observe(case, methods, replicates)
        folder.mkdir(parents=True, exist_ok=True)
        values = {f"{n}.{field}": value for n, one in enumerate(found) for field, value in one._asdict().items()}
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **values)
        partial.replace(path)
        return found
    with np.load(path) as stored:
        count = len(stored.files) // len(Observed._fields)
        for n in range(count):
            values = {name: stored[f"{n}.{name}"] for name in Observed._fields}
            found.append(Observed(**{name: v if v.ndim else v.item() for name, v in values.items()}))
    return found


def _clues(model: inverse_problem.InverseProblem, method: Method, replicates: int) -> tuple[Tensor, Clues]:
    prior, intensity = chosen_prior(method, model)

    def solve(problem: Problem, seed: int) -> Tensor:
        return run(solvers.start(problem, method, prior=prior, intensity=intensity, seed=seed))

    def shown(volume: Tensor) -> Tensor:
        return torch.from_numpy(model.display(model.arranged(volume)))

    volume = solve(model.problem, 0)
    power = torch.zeros_like(shown(volume))
    for index in range(replicates):
        again = solve(uncertainty.replicate(model, volume, index, 0), 1 + index)
        power += (shown(again) - shown(volume)).square() / replicates
    return volume, Clues.of(shown(volume), power, undetermined(model, volume)[0])


def steep(truth: Volume, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of the edges of an object: where its truth changes most."""
    gradient = np.stack([ndimage.gaussian_gradient_magnitude(one, 1.0) for one in truth])
    return np.asarray(gradient >= np.quantile(gradient[inside], STEEP))


def rows_of(case: str, observed: Sequence[Observed]) -> list[Row]:
    """Rows of all methods of a case."""
    widths: dict[tuple[str, str], float] = {}
    found: list[dict[str, Any]] = []
    for one in observed:
        half = one.half_widths()
        for voxels in CLASSES:
            chosen_ones = of_class(one, voxels)
            widths[one.method, voxels] = 2 * float(half[chosen_ones].mean())
            covered = float((one.error <= half)[chosen_ones].mean())
            found.append({"method": one.method, "voxels": voxels, "coverage": round(covered, 3)})
    return [
        Row(
            case=case,
            width=float(f"{widths[one['method'], one['voxels']]:.4g}"),
            width_over_tv=_over(widths, one["method"], one["voxels"]),
            **one,
        )
        for one in found
    ]


def table(observed: Sequence[Observed], command: str) -> ErrorTable:
    """Fit the shares of each modality, kind of method and scan, edges with as much weight as what is flat.

    Scans with nearly the same undersampling, such as more views of more pixels, share a row at its geometric mean.
    """
    fitted = []
    for alike in _alike(observed):
        samples = []
        for one in alike:
            for voxels in CLASSES[1:]:
                mask = of_class(one, voxels)
                sample = Sample(one.clues[:, mask].astype(np.float64), one.error[mask].astype(np.float64))
                samples.append(sample.thinned())
        first = alike[0]
        found = Fitted(
            modality=first.modality,
            errors_like=first.errors_like,
            pattern=cast("SamplingPattern", first.pattern),
            undersampling=round(float(np.exp(np.mean([np.log(one.undersampling) for one in alike]))), 3),
            expected=fit_errors.expected(samples),
            interval=fit_errors.interval(samples),
        )
        fitted.append(found)
    return ErrorTable(command=command, fitted=fitted)


def _alike(observed: Sequence[Observed]) -> list[list[Observed]]:
    """Groups of one modality, kind of method and pattern, whose undersampling differs by at most `ALIKE`."""

    def scan(one: Observed) -> tuple[str, str, str]:
        return one.modality, one.errors_like, one.pattern

    groups: list[list[Observed]] = []
    for one in sorted(observed, key=lambda each: (*scan(each), each.undersampling)):
        first = groups[-1][0] if groups else None
        if first is not None and scan(first) == scan(one) and one.undersampling <= ALIKE * first.undersampling:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def of_class(observed: Observed, voxels: str) -> NDArray[np.bool_]:
    """Mask of a class of voxels."""
    return {"all": np.ones_like(observed.edge), "edge": observed.edge, "flat": ~observed.edge}[voxels]


def _over(widths: dict[tuple[str, str], float], method: str, voxels: str) -> float | None:
    of_tv = widths.get(("tv", voxels))
    return None if of_tv is None else round(widths[method, voxels] / of_tv, 3)
