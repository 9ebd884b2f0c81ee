"""Benchmark of lesions: how much of their contrast each method recovers, and how often it draws one where none is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from operators.errors import InputError
from recon.bench.auto import BODY, CHEST, FAR_MM, T1, T2, padded
from recon.bench.inserted import CT_KINDS, MRI_KINDS, Kind, Lesion, Pixel, Tissues, insert, lay_out
from recon.bench.solving import solved
from recon.formats import nifti
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.quality.montage import upright
from recon.spec.acquisitions.base import Acquisition
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.acquisitions.superresolution import CTSuperResolution
from recon.spec.affine import voxel_size
from recon.spec.simulation import Simulation

Volume = NDArray[np.float32]
Slices = dict[str, tuple[str, Sequence[float]]]
"""Files by name, and slices as fractions of the volume."""
CT_METHODS = ("red-diff", "dds", "tv", "fbp")
MRI_METHODS = ("red-diff", "dds", "tv", "cg-sense", "zero-filled")
STACK_METHODS = ("red-diff", "diffpir", "tv", "interpolation")
PHOTONS, NOISE_STD = 1e5, 0.01
HALF = 0.5
"""Fraction of a lesion's contrast from which an error of a healthy image would be taken for it."""
KEPT = 0.9
"""Fraction of the contrast that is kept of a lesion that counts as seen whole."""
CROP_MM = 72.0
"""Side of the pictures around a lesion."""
PICTURED = 4
"""Lesions in a picture, the missing structure among them."""


@dataclass(frozen=True)
class Scan:
    """Slices without and with lesions, and the same scan of both.

    Parameters
    ----------
    healthy, diseased
        Measurements of the slices without and with lesions, with the same noise and the slices as truths.
    affine
        Affine of the volume in the patient, for pictures.
    order
        Order in which the measured volume has the axes ``(slices, rows, cols)``: thick slices lie along the rows.
    """

    lesions: list[Lesion]
    tissues: list[Tissues]
    healthy: Measurement
    diseased: Measurement
    affine: NDArray[np.float64]
    order: tuple[int, int, int]

    @classmethod
    def of(cls, volume: Volume, affine: NDArray[np.float64], acquisition: Acquisition, settings: Simulation) -> Scan:
        """Insert lesions into slices ``(slices, rows, cols)``, which are far from each other, and measure both.

        The noise of both is the same, sample by sample: what the lesions change, measured without noise, is added to
        the noisy scan of the healthy slices. Photons would otherwise be drawn anew, and the noise of two scans
        would be taken for the contrast of a lesion. (A nodule of 12 mm and 150 HU would change
        the noise of its rays by 2 %, a vessel in the lung seen end to end by 8 %.)

        Raises
        ------
        InputError
            If no lesion finds a place.
        """
        col_mm, row_mm, _ = voxel_size(affine)
        pixel_mm: Pixel = (row_mm, col_mm)
        ct = acquisition.MODALITY == "ct"
        tissues = [Tissues.of_ct(one) if ct else Tissues.of_brain(one, pixel_mm) for one in volume]
        lesions = lay_out(volume, tissues, kinds_of(acquisition), pixel_mm)
        if not lesions:
            raise InputError(
                f"{len(volume)} slices of {volume.shape[1]} x {volume.shape[2]} pixels have no healthy tissue with room"
                " for a lesion",
                field="data",
                remedy="give slices of a body in HU, or of a head",
            )
        order = (1, 2, 0) if isinstance(acquisition, CTSuperResolution) else (0, 1, 2)
        sides_mm = [(FAR_MM, row_mm, col_mm)[axis] for axis in order]
        apart = np.diag([*reversed(sides_mm), 1.0])
        without, with_them = (one.transpose(order) for one in (volume, insert(volume, lesions)))
        quiet = settings.model_copy(update={"photons_per_ray": None, "noise_std": 0.0})
        clean, changed = (simulate(one, apart, acquisition, quiet) for one in (without, with_them))
        healthy = simulate(without, apart, acquisition, settings)
        measured: NDArray[Any] = healthy.data
        diseased = replace(healthy, data=measured + np.subtract(changed.data, clean.data), truth=changed.truth)
        return cls(lesions, tissues, healthy, diseased, affine, order)

    @property
    def truths(self) -> tuple[Volume, Volume]:
        """The slices without and with lesions."""
        assert self.healthy.truth is not None and self.diseased.truth is not None
        return self.slices(self.healthy.truth), self.slices(self.diseased.truth)

    def slices(self, volume: Volume) -> Volume:
        """Turn a volume as it was measured into the slices ``(slices, rows, cols)``."""
        return volume.transpose(np.argsort(self.order))


@dataclass(frozen=True)
class Case:
    """Scan with lesions, and the methods that are compared on it."""

    name: str
    methods: tuple[str, ...]
    scan: Callable[[], Scan]


@dataclass(frozen=True)
class Row:
    """One method on the lesions of one kind and size in one case.

    Parameters
    ----------
    lesion, diameter_mm
        Kind, and diameter of a disc, long axis of an ellipse, width of a line; of a missing structure that of a disc
        of its area, mean over the slices.
    contrast
        True contrast as `Lesion.contrast` reads it off, mean: in HU, or in the unit of the image.
    contrast_recovered
        Contrast in the reconstruction with lesions minus the one without, over the true one; mean. 1 is perfect: the
        anatomy, its artefacts and the noise cancel out, and what is left is what the method made of the lesion. Below 1
        it is blurred or taken for noise, above 1 exaggerated. Of a missing structure: 0 if it is drawn
        all the same.
    sites
        Lesions that this is the mean of.
    false_positives
        Fraction of the healthy sites at which the reconstruction without lesions has an error that would pass for the
        lesion: with its sign (of a missing structure: of the structure), and at least half of its contrast by the same
        filter. The truth has nothing there. None if its shape fits nowhere.
    healthy_sites
        Sites looked at: all at which the shape fits into healthy tissue of the lesion's kind, in every slice.
        Neighbours overlap.
    """

    case: str
    lesion: str
    diameter_mm: float
    method: str
    contrast: float
    contrast_recovered: float
    sites: int
    false_positives: float | None
    healthy_sites: int


@dataclass(frozen=True)
class Found:
    """Results of a method on a scan: volumes in the truth's unit, and the recovered share of each lesion's contrast."""

    method: str
    healthy: Volume
    diseased: Volume
    recovered: list[float]


def kinds_of(acquisition: Acquisition) -> tuple[Kind, ...]:
    """Kinds of lesions that are inserted for a kind of acquisition."""
    return CT_KINDS if acquisition.MODALITY == "ct" else MRI_KINDS


def cases(data: Path) -> list[Case]:
    """All cases: slices of the test volumes by 60, 23 and 8 views, as thick slices, and with less of k-space."""
    found = []
    # Slices that are apart, and of the head those with brain.
    ct: Slices = {"chest": (CHEST, (0.2, 0.4, 0.6, 0.8)), "body": (BODY, (0.2, 0.4, 0.6, 0.8))}
    mri: Slices = {"T1": (T1, (0.5, 0.6, 0.7)), "T2": (T2, (0.5, 0.6, 0.7))}
    for name, (file, where) in ct.items():
        for views in (60, 23, 8):
            settings = Simulation(views=views, photons_per_ray=PHOTONS)
            scan = _scan(data / file, where, CTParallel(), settings)
            found.append(Case(f"{name}, {views} views", CT_METHODS, scan))
    for factor in (2.0, 4.0):
        thick = CTSuperResolution(factor=factor, profile="gaussian")
        scan = _scan(data / CHEST, ct["chest"][1], thick, Simulation(noise_std=NOISE_STD))
        found.append(Case(f"chest, thick slices, x{factor:g}", STACK_METHODS, scan))
    for name, (file, where) in mri.items():
        for acceleration in (4, 8):
            centre = 0.08 if acceleration == 4 else 0.04
            settings = Simulation(acceleration=acceleration, center_fraction=centre, noise_std=NOISE_STD)
            scan = _scan(data / file, where, MRICartesian(), settings)
            found.append(Case(f"{name}, x{acceleration}", MRI_METHODS, scan))
    return found


def _scan(path: Path, where: Sequence[float], acquisition: Acquisition, settings: Simulation) -> Callable[[], Scan]:
    def scan() -> Scan:
        volume, affine = nifti.read(path)
        return Scan.of(padded(volume[[int(len(volume) * at) for at in where]]), affine, acquisition, settings)

    return scan


def compare(scan: Scan, methods: Sequence[str]) -> Iterator[Found]:
    """Run methods on a scan, with and without its lesions, with the defaults that a user gets."""
    models = [inverse_problem.build(one) for one in (scan.healthy, scan.diseased)]
    for method in methods:
        kind = scan.healthy.acquisition.kind
        volumes = [scan.slices(_shown({"name": method}, model, kind)) for model in models]
        yield judged(scan, method, *volumes)


def _shown(given: dict[str, Any], model: inverse_problem.InverseProblem, kind: str) -> Volume:
    return model.display(model.arranged(solved(given, model, kind).volume))


def judged(scan: Scan, method: str, healthy: Volume, diseased: Volume) -> Found:
    """Read off what the reconstructions without and with lesions ``(slices, rows, cols)`` recover of each lesion."""
    true, seen = np.subtract(*reversed(scan.truths)), diseased - healthy
    return Found(method, healthy, diseased, [one.contrast(seen) / one.contrast(true) for one in scan.lesions])


def rows_of(case: str, scan: Scan, found: Found) -> list[Row]:
    """Rows of a method, kind by kind and size by size."""
    error = found.healthy - scan.truths[0]
    true = np.subtract(*reversed(scan.truths))
    groups: dict[tuple[str, float], list[int]] = {}
    for number, lesion in enumerate(scan.lesions):
        groups.setdefault((lesion.kind.name, 0.0 if lesion.kind.shape == "missing" else lesion.size_mm), []).append(
            number
        )
    rows = []
    for (kind, _), numbers in sorted(groups.items()):
        lesions = [scan.lesions[number] for number in numbers]
        contrasts = [lesion.contrast(true) for lesion in lesions]
        passed = np.concatenate(
            [_taken_for(one, abs(c), error, scan.tissues) for one, c in zip(lesions, contrasts, strict=True)]
        )
        rows.append(
            Row(
                case=case,
                lesion=kind,
                diameter_mm=round(float(np.mean([lesion.size_mm for lesion in lesions])), 1),
                method=found.method,
                contrast=round(float(np.mean(contrasts)), 2),
                contrast_recovered=round(float(np.mean([found.recovered[number] for number in numbers])), 3),
                sites=len(lesions),
                false_positives=round(float(passed.mean()), 5) if len(passed) else None,
                healthy_sites=len(passed),
            )
        )
    return rows


def _taken_for(lesion: Lesion, contrast: float, error: Volume, tissues: Sequence[Tissues]) -> NDArray[np.bool_]:
    """Test at every healthy site of all slices whether the error there passes for a lesion of this contrast."""
    responses = [
        lesion.responses(one, tissue.masks[lesion.kind.tissue]) for one, tissue in zip(error, tissues, strict=True)
    ]
    return np.asarray(lesion.invented_sign * np.concatenate(responses) >= HALF * contrast)


@dataclass(frozen=True)
class Smallest:
    """Smallest diameter in mm from which the contrast of a kind of lesion is kept; None if the largest loses it."""

    case: str
    lesion: str
    method: str
    diameter_mm: float | None


def smallest_kept(rows: Sequence[Row]) -> list[Smallest]:
    """Find the smallest diameter at which the contrast is kept, and at every larger one, by case, kind and method."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.case, row.lesion, row.method), []).append(row)
    found = []
    for (case, lesion, method), group in groups.items():
        smallest = None
        for row in sorted(group, key=lambda one: -one.diameter_mm):
            if row.contrast_recovered < KEPT:
                break
            smallest = row.diameter_mm
        found.append(Smallest(case, lesion, method, smallest))
    return found


def left_out(scan: Scan) -> list[str]:
    """Kinds, with their sizes, that found no place in any slice."""
    placed = {(one.kind.name, one.size_mm) for one in scan.lesions}
    named = {name for name, _ in placed}
    return [
        kind.name if kind.shape == "missing" else f"{kind.name}, {size:g} mm"
        for kind in kinds_of(scan.healthy.acquisition)
        for size in kind.sizes_mm
        if (kind.name not in named if kind.shape == "missing" else (kind.name, size) not in placed)
    ]


def picture(folder: Path, case: str, scan: Scan, found: Sequence[Found]) -> Path:
    """Draw lesions as the truth and each method show them, upright, each row in one grey window, of the truth there.

    The missing structure is one of them; of the others those at which the first method is farthest ahead of the best
    of the other ones and farthest behind it, judged by the distance of the recovered contrast from 1.
    """
    chosen = _pictured(scan, found)
    col_mm, row_mm, _ = voxel_size(scan.affine)
    columns = [*scan.truths, *(one.diseased for one in found)]
    figure = Figure(figsize=(2.6 * len(columns), 2.9 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), len(columns), squeeze=False)
    for line, number in zip(axes, chosen, strict=True):
        lesion = scan.lesions[number]
        at = _crop(lesion, scan, (row_mm, col_mm))
        low, high = _window(lesion, scan.truths)
        titles = ["without the lesion", "with it", *(f"{one.method}: {one.recovered[number]:.2f}" for one in found)]
        for axis, title, volume in zip(line, titles, columns, strict=True):
            image, aspect = upright(volume[at], scan.affine, in_patient=True)
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
        outline = np.zeros(scan.truths[0].shape, np.float32)
        outline[lesion.at] = lesion.surroundings
        line[1].contour(upright(outline[at], scan.affine, in_patient=True)[0], [0.5], colors="yellow", linewidths=0.7)
        line[0].set_ylabel(f"{lesion.kind.name}, {lesion.size_mm:g} mm", fontsize=7)
    figure.suptitle(f"{case}: lesions (outlined), and the share of their contrast that is recovered", fontsize=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lesions-{re.sub(r'[^a-z0-9]+', '-', case.lower()).strip('-')}.png"
    figure.savefig(path, dpi=70, format="png")
    return path


def _pictured(scan: Scan, found: Sequence[Found]) -> list[int]:
    """Numbers of the lesions to draw: missing structure, then from the first method's best to its worst."""
    off = np.abs(np.array([one.recovered for one in found]) - 1)
    ahead = (off[1:].min(0) if len(found) > 1 else 0.0) - off[0]
    missing = [n for n, one in enumerate(scan.lesions) if one.kind.shape == "missing"][:1]
    ranked = [int(n) for n in np.argsort(-ahead, kind="stable") if scan.lesions[n].kind.shape != "missing"]
    worst = PICTURED - len(missing) - 1
    return [*missing, *ranked[:1], *ranked[1:][-worst:]]


def _window(lesion: Lesion, truths: Sequence[Volume]) -> tuple[float, float]:
    """Grey window of a lesion and its surroundings without and with it, wider by twice its contrast on both sides."""
    low, high = np.percentile(np.stack([truth[lesion.at] for truth in truths]), [2, 98])
    margin = 2 * float(np.abs(lesion.change).max())
    return float(low) - margin, float(high) + margin


def _crop(lesion: Lesion, scan: Scan, pixel_mm: Pixel) -> tuple[int, slice, slice]:
    """Square around a lesion, moved into the image where it would reach out of it."""
    shape = scan.truths[0].shape[1:]
    spans = []
    for span, size, mm in zip(lesion.at[1:], shape, pixel_mm, strict=True):
        side = min(round(CROP_MM / mm), size)
        first = min(max((span.start + span.stop - side) // 2, 0), size - side)
        spans.append(slice(first, first + side))
    return lesion.index, spans[0], spans[1]
