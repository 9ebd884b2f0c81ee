"""Benchmark of the automatic choice: what it gives beside its candidates, on many kinds of scans."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from recon.bench.familiarity import furnished_heads
from recon.bench.mixed import mixed
from recon.bench.solving import solved
from recon.bench.withheld import withhold
from recon.formats import nifti, reader
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.pipeline.selection import named, weights_along
from recon.problem import inverse_problem
from recon.quality import body, metrics
from recon.spec.acquisitions.base import Acquisition
from recon.spec.acquisitions.ct import AngleRange, CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import Auto, Diffusion
from recon.spec.simulation import Simulation
from recon.training import synthetic
from recon.training.slices import BRIGHT_PERCENTILE

Volume = NDArray[np.float32]
SLICES = 1
"""Slices of each case: none makes up for another."""
RIVALS = {"ct": ("fbp", "sirt"), "mri": ("cg-sense",)}
"""Classical methods that are no candidates, by modality."""
DISCS = ("ta_subsample73", "tc_subsample", "td_subsample", "solid_disc_subsample73")
TOOTH_MM, TOOTH_CENTRE = 0.01, 296.0
"""Scans of discs; of the tooth the pitch, on which only the unit depends, and the rotation centre."""
SIDE, OBJECT_SIDE, FAR_MM, HEAD_MM = 256, 192, 1e6, 0.9
CHEST, BODY = "test/ct_chest_nsclc_r01-001.nii.gz", "test/ct_body_totalsegmentator_example.nii.gz"
T1, T2 = "test/mri_t1_fnndsc_adi.nii.gz", "test/mri_t2_fnndsc_adi.nii.gz"
SPECIMENS = 10_000
"""Seed of the first synthetic object; priors are trained, and their settings tuned, on others."""
DENSITY_HU = 500.0
"""Mean of what synthetic objects are made of, above air as water is: plastics and light metals."""


@dataclass(frozen=True)
class Case:
    """Scan of known slices."""

    name: str
    kind: str
    """Kind of the scanned object: ``anatomy``, ``object``, ``mri``, or anything that was ``measured``."""
    measured: Callable[[], Measurement]
    every: int = 10
    """Samples of measured data that no method is given; see `recon.bench.withheld.withhold`."""


@dataclass(frozen=True)
class Row:
    """One case and metric, in dB: PSNR of the whole slices or of the inside of the object, mean of the slices.

    Measured data have ``withheld``: samples that no method was given over their error, as it counts for the image.
    """

    case: str
    kind: str
    metric: str
    best_classical: float
    best_single: float
    auto: float
    chosen: str
    """Weights of the candidates in the object and beside it."""
    overhead: float
    """Seconds of judging over those of the candidates on the slices themselves."""


CT_SCANS: dict[str, tuple[dict[str, Any], AngleRange | None]] = {
    "180 views, 2e4 photons": ({"views": 180, "photons_per_ray": 2e4}, None),
    "60 views, 1e5 photons": ({"views": 60, "photons_per_ray": 1e5}, None),
    "60 views, 1e4 photons": ({"views": 60, "photons_per_ray": 1e4}, None),
    "23 views, 1e5 photons": ({"views": 23, "photons_per_ray": 1e5}, None),
    "8 views, 1e5 photons": ({"views": 8, "photons_per_ray": 1e5}, None),
    "90 of 180 degrees, 1e5 photons": ({"photons_per_ray": 1e5}, AngleRange(stop_rad=math.pi / 2, count=90)),
}
"""Simulated CT scans: settings of the simulation, and angles that are not spread over half a turn."""
MRI_SCANS = {
    f"{pattern} x{acceleration}": {
        "pattern": pattern,
        "acceleration": acceleration,
        "noise_std": 0.01,
        "center_fraction": 0.08 if acceleration <= 4 else 0.04,
    }
    for pattern, acceleration in (("equispaced", 4), ("equispaced", 8), ("poisson", 8))
}
"""Simulated MRI scans: settings of the simulation."""


def cases(data: Path) -> list[Case]:
    """All cases: test volumes, heads on tables, and synthetic objects that nothing was tuned on."""
    found = []
    objects: dict[str, tuple[str, float, Callable[[], Volume]]] = {
        "chest": ("anatomy", 1.4, lambda: chosen(nifti.read(data / CHEST)[0], SLICES)),
        "body": ("anatomy", 3.0, lambda: chosen(nifti.read(data / BODY)[0], SLICES)),
        "head on a table": ("anatomy", HEAD_MM, lambda: _heads(data)),
        **{f"object {seed}": ("object", 1.0, partial(_objects, seed)) for seed in range(3)},
    }
    for name, (kind, pixel_mm, volume) in objects.items():
        found += ct_cases(name, kind, pixel_mm, volume)
    for name, file in (("T1", T1), ("T2", T2)):
        found += mri_cases(name, lambda file=file: chosen(nifti.read(data / file)[0], SLICES))  # type: ignore[misc]
    return found + measured_cases(data)


def measured_cases(data: Path) -> list[Case]:
    """Cases that were measured, each without some of its samples, by which results are judged."""
    tooth = {"path": str(data / "raw/ct_tooth_aps.h5"), "format": "dxchange", "slices": [0, 1]}
    parallel = {"kind": "ct-parallel", "detector_mm": TOOTH_MM, "rotation_center_column": TOOTH_CENTRE}
    disc = {"path": str(data / "raw/ct_htc2022_limited_angle.npz"), "format": "htc"}
    brain = {"path": str(data / "raw/mri_brain_8coil_poisson.npy"), "format": "numpy"}
    jobs: list[tuple[str, dict[str, Any], int]] = [
        ("tooth, 163 of 181 views", {"input": tooth, "acquisition": parallel}, 10),
        ("tooth, 61 of 181 views", {"input": tooth, "acquisition": parallel}, -3),
        ("tooth, 23 of 181 views", {"input": tooth, "acquisition": parallel}, -8),
        *(
            (f"disc {scan}, 30 degrees", {"input": {**disc, "scan": scan}, "acquisition": "ct-fan"}, 10)
            for scan in DISCS
        ),
        ("brain, 11 % of k-space", {"input": brain, "acquisition": "mri-cartesian"}, 10),
    ]
    return [Case(f"measured {name}", "measured", _read(job), every) for name, job, every in jobs]


def _read(job: dict[str, Any]) -> Callable[[], Measurement]:
    def read() -> Measurement:
        spec = JobSpec.parse({**job, "method": "tv"})
        return reader.read(spec, local_files(spec))

    return read


def ct_cases(name: str, kind: str, pixel_mm: float, volume: Callable[[], Volume]) -> list[Case]:
    """Cases of the `CT_SCANS` of slices ``(slices, rows, cols)`` in HU."""
    found = []
    for scan, (settings, angles) in CT_SCANS.items():
        acquisition = CTParallel() if angles is None else CTParallel(angles_rad=angles)
        simulation = Simulation.model_validate(settings)
        found.append(Case(f"{name}, {scan}", kind, _scan(volume, pixel_mm, acquisition, simulation)))
    return found


def mri_cases(name: str, volume: Callable[[], Volume]) -> list[Case]:
    """Cases of the `MRI_SCANS` of magnitude images ``(slices, rows, cols)``."""
    return [
        Case(f"{name}, {scan}", "mri", _scan(volume, 1.0, MRICartesian(), Simulation.model_validate(settings)))
        for scan, settings in MRI_SCANS.items()
    ]


def _scan(
    volume: Callable[[], Volume], pixel_mm: float, acquisition: Acquisition, settings: Simulation
) -> Callable[[], Measurement]:
    affine = np.diag([pixel_mm, pixel_mm, FAR_MM, 1.0])
    return lambda: simulate(volume(), affine, acquisition, settings)


def chosen(volume: Volume, count: int) -> Volume:
    """Evenly spaced slices of a volume, without its ends, padded."""
    return padded(volume[np.linspace(0, len(volume), count + 2)[1:-1].astype(int)])


def padded(slices: Volume) -> Volume:
    """Pad slices ``(slices, rows, cols)`` with their least value to sides that are divisible by 8."""
    rows, cols = (-size % 8 for size in slices.shape[1:])
    found = np.pad(slices, ((0, 0), (0, rows), (0, cols)), constant_values=float(slices.min()))
    return np.asarray(found, np.float32)


def _heads(data: Path) -> Volume:
    brain = chosen(nifti.read(data / T1)[0], SLICES)
    square = np.zeros((len(brain), SIDE, SIDE), np.float32)
    square[:, : brain.shape[1], : brain.shape[2]] = brain / np.percentile(brain, BRIGHT_PERCENTILE)
    return furnished_heads(torch.from_numpy(square), HEAD_MM)


def _objects(number: int) -> Volume:
    """Synthetic specimens in HU."""
    relative = synthetic.specimens(SPECIMENS + number, SLICES, OBJECT_SIDE)
    return np.asarray(relative * (1000 + DENSITY_HU) - 1000, np.float32)


@dataclass(frozen=True)
class Compared:
    """Results of a case: rows, and the first slice of the truth, if it is known, and of each result, by name."""

    rows: list[Row]
    slices: dict[str, Volume]


def compare(case: Case, auto: Auto) -> Compared:
    """Run a case: every candidate by itself on all samples, what is chosen, and their mixture."""
    measurement, judge = case.measured(), None
    truth = measurement.truth
    if truth is None:
        measurement, judge = withhold(measurement, every=case.every)
    model, kind = inverse_problem.build(measurement), measurement.acquisition.kind
    found = mixed(auto, measurement.acquisition, model)
    selection, candidates = found.selection, found.candidates
    rivals = [solved({"name": name}, model, kind).volume for name in RIVALS[model.modality]]
    told = weights_along(selection, model.problem.slices).mean(-1)
    chosen = ", ".join(
        f"{named(c.method)} {' and '.join(f'{w:.2f}' for w in of.tolist())}"
        for c, of in zip(selection.candidates, told, strict=True)
    )
    every = [*rivals, *found.volumes, found.volume]
    judged: dict[str, list[float]] = {}
    if judge is not None:
        judged["withheld"] = [-20 * math.log10(judge(model, volume).error) for volume in every]
    if truth is not None:
        judged["psnr"] = [_psnr(model, volume, truth, inside=False) for volume in every]
        judged["psnr_inside"] = [_psnr(model, volume, truth, inside=True) for volume in every]
    overhead = round(found.judging_s / found.solving_s, 2)
    rows = []
    for metric, scores in judged.items():
        alone = scores[len(rivals) : -1]
        classical = [s for s, m in zip(alone, candidates, strict=True) if not isinstance(m, Diffusion)]
        classical += scores[: len(rivals)]
        best, single, own = (round(v, 2) for v in (max(classical), max(alone), scores[-1]))
        rows.append(Row(case.name, case.kind, metric, best, single, own, chosen, overhead))
    names = [*RIVALS[model.modality], *(named(c.method) for c in selection.candidates), "auto"]
    slices = {} if truth is None else {"truth": truth[0]}
    slices |= {name: model.display(model.arranged(volume))[0] for name, volume in zip(names, every, strict=True)}
    return Compared(rows, slices)


def picture(folder: Path, case: str, slices: dict[str, Volume]) -> Path:
    """Draw the results of a case beside each other, upright, in the grey window of the first."""
    low, high = (float(v) for v in np.percentile(next(iter(slices.values())), [1, 99.5]))
    figure = Figure(figsize=(3.0 * len(slices), 3.2), layout="constrained")
    for axis, (name, values) in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices.items(), strict=True):
        axis.imshow(values[::-1], cmap="gray", vmin=low, vmax=max(high, low + 1e-12))
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.suptitle(case, fontsize=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"auto-{re.sub(r'[^a-z0-9]+', '-', case.lower()).strip('-')}.png"
    figure.savefig(path, dpi=70, format="png")
    return path


def _psnr(model: inverse_problem.InverseProblem, volume: Tensor, truth: Volume, *, inside: bool) -> float:
    """Mean of the slices' PSNR, each with its own range."""
    shown = model.display(model.arranged(volume))
    mask = body.inside(truth)
    each = [metrics.psnr(s, t, m if inside else None) for s, t, m in zip(shown, truth, mask, strict=True)]
    return float(np.mean(each))


def verdict(rows: Sequence[Row]) -> str:
    """Summary in a sentence: the worst loss against the best classical method, and the mean to the best candidate."""
    worst = min(rows, key=lambda row: row.auto - row.best_classical)
    short = float(np.mean([row.best_single - row.auto for row in rows]))
    count = len({row.case for row in rows})
    return (
        f"{count} cases: at worst {worst.auto - worst.best_classical:+.2f} dB against the best"
        f" classical method ({worst.case}, {worst.metric}); on average {short:.2f} dB short of the best candidate"
    )
