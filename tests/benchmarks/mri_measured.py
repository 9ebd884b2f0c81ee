"""MRI methods on measured k-space: judged by samples that no method was given, or by the fully sampled scan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.fourier import inverse_fourier
from recon.bench.solving import label, solved
from recon.bench.withheld import withhold
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.problem import inverse_problem
from recon.problem.mri_cartesian import sampling_mask
from recon.quality import metrics
from recon.spec.job import JobSpec, local_files
from recon.spec.simulation import Simulation

CENTRE = 24
"""Side of the square of k-space that is kept where lines are taken away: what coil maps are estimated from."""
METHODS = ("zero-filled", "cg-sense", "l1-wavelet", "low-rank", "tv", "diffpir", "dds", "red-diff")


@dataclass(frozen=True)
class Case:
    """Measured scan, and what of it the methods are given."""

    data: str
    pattern: str
    job: dict[str, Any]
    every: int | None = None
    """Step at which measured columns are kept, the others withheld; None keeps all."""
    simulated: Simulation | None = None
    """Sampling of a fully sampled scan, which then is the truth."""


@dataclass(frozen=True)
class Row:
    """One method on one scan.

    Attributes
    ----------
    judged_by
        ``withheld samples``: their energy over that of the residuals; ``withheld samples, less noise``: the same with
        the energy that the noise adds to both taken away; ``fully sampled scan``: PSNR of the magnitude, the scan's own
        noise included.
    value
        In dB; None where the residuals are not larger than the noise.
    """

    data: str
    pattern: str
    method: str
    judged_by: str
    value: float | None


def cases(data: Path) -> list[Case]:
    """Scans of heads and phantoms; the first is shipped, the others are files of their formats."""
    brain = {"path": str(data / "raw/mri_brain_8coil_poisson.npy"), "format": "numpy"}
    head = {"path": str(data / "formats/bart-smallfov/smallfov.cfl"), "format": "bart"}
    bottle = {"path": str(data / "formats/twix-gre/gre.dat"), "format": "twix"}
    localizer = {"path": str(data / "formats/bruker-raw"), "format": "bruker", "slices": [0, 1]}
    lines, points = (Simulation.model_validate({"pattern": p, "acceleration": 2}) for p in ("equispaced", "poisson"))
    found = [
        Case("brain, 8 coils", "Poisson-disc x8", {"input": brain}),
        Case("head in a small field of view, 8 coils", "lines x2", {"input": head}),
        Case("head in a small field of view, 8 coils", "lines x4", {"input": head}, every=2),
        Case("phantom, 2 coils", "lines x2", {"input": bottle}, simulated=lines),
        Case("phantom, 2 coils", "Poisson-disc x2", {"input": bottle}, simulated=points),
        Case("localizer, 1 coil", "Poisson-disc x2", {"input": localizer}, simulated=points),
    ]
    return [case for case in found if Path(case.job["input"]["path"]).exists()]


def compare(case: Case, methods: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Judge methods on a scan; one that does not fit it has no row."""
    spec = JobSpec.parse({**case.job, "acquisition": "mri-cartesian", "method": "tv"})
    scan = reader.read(spec, local_files(spec))
    if case.simulated is not None:
        yield from _against_scan(case, scan, case.simulated, methods)
        return
    given, judge = withhold(scan, chosen=None if case.every is None else _columns_taken(scan, case.every))
    model = inverse_problem.build(given)
    for method in methods:
        volume = _volume(method, model)
        if volume is None:
            continue
        misfit, noise, _ = judge(model, volume)
        row = Row(case.data, case.pattern, label(method), "withheld samples", _decibels(misfit**2))
        yield row
        less = (misfit**2 - noise**2) / (1 - noise**2)  # both without what noise adds
        yield replace(row, judged_by="withheld samples, less noise", value=_decibels(less) if less > 0 else None)


def _against_scan(
    case: Case, scan: Measurement, sampling: Simulation, methods: Sequence[dict[str, Any]]
) -> Iterator[Row]:
    truth = _root_sum_of_squares(scan)
    mask = sampling_mask(scan.data.shape[2], scan.data.shape[3], sampling).numpy()
    model = inverse_problem.build(replace(scan, data=scan.data * mask, mask=mask))
    for method in methods:
        volume = _volume(method, model)
        if volume is not None:
            shown = model.display(model.arranged(volume))
            yield Row(
                case.data, case.pattern, label(method), "fully sampled scan", round(metrics.psnr(shown, truth), 2)
            )


def _volume(method: dict[str, Any], model: inverse_problem.InverseProblem) -> Tensor | None:
    if method["name"] == "low-rank" and model.problem.data.shape[1] == 1:
        return None  # one coil's image is no matrix
    return solved(method, model, "mri-cartesian").volume


def _root_sum_of_squares(scan: Measurement) -> NDArray[np.float32]:
    images = inverse_fourier(torch.from_numpy(scan.data.astype(np.complex64)))
    found: NDArray[np.float32] = torch.linalg.vector_norm(images, dim=1).numpy()
    return found


def _columns_taken(scan: Measurement, every: int) -> NDArray[np.bool_]:
    """Mask ``(rows, cols)`` of what is withheld: measured columns beside every so many, the centre excepted."""
    sampled = (scan.data != 0).any((0, 1))
    rows, cols = sampled.shape
    columns = np.flatnonzero(sampled.mean(0) > 0.5)
    taken = np.zeros_like(sampled)
    taken[:, np.setdiff1d(columns, columns[::every])] = True
    taken[rows // 2 - CENTRE // 2 : rows // 2 + CENTRE // 2, cols // 2 - CENTRE // 2 : cols // 2 + CENTRE // 2] = False
    return np.asarray(taken & sampled)


def _decibels(relative: float) -> float:
    return round(-10 * math.log10(relative), 2)
