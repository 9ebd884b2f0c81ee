"""A slice alone and in a stack of unlike ones: noise, weights and scales are those of each slice, or it loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from recon.bench.mixed import mixed
from recon.bench.solving import label, method_of, solved
from recon.bench.withheld import withhold
from recon.formats import reader
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.spec.acquisitions.base import Acquisition
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import Auto
from recon.spec.simulation import Simulation

CT, BRAIN = "test/ct_chest_nsclc_r01-001.nii.gz", "raw/mri_brain_8coil_poisson.npy"
SIDE, PIXEL_MM = 256, 1.4
FAR_MM = 1000.0
"""Distance at which slices say nothing of each other: what differs is what was pooled."""
VIEWS, PHOTONS = 60, 1e5
THICK = 1.3
"""Density of the dense slice over that of the others."""
WINDOW_HU = 1000.0
"""Values that are compared: from minus to plus so much."""
WEAK = 0.3
"""Signal of the weak slice of k-space over that of its neighbour."""
METHODS: tuple[dict[str, Any], ...] = tuple(
    {"name": n} for n in ("tv", "diffpir", "red-diff", "dds", "diffusion-mbir", "auto")
)
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One slice, one method: alone, and in the stack. PSNR in dB, or the misfit of samples that no method was given."""

    case: str
    noise: str
    """How the noise is known: ``photons`` are given, or it is ``estimated``."""
    method: str
    alone: float
    stacked: float


def compare(data: Path, methods: Sequence[dict[str, Any]] = METHODS) -> Iterator[Row]:
    """Every method on a dense slice among three thin ones, a thin one among six dense ones, and on measured k-space."""
    for case, stack in _cases(data):
        affine = np.diag([PIXEL_MM, PIXEL_MM, FAR_MM, 1.0])
        whole = simulate(stack, affine, CTParallel(), Simulation(views=VIEWS, photons_per_ray=PHOTONS))
        for noise in ("photons", "estimated"):
            for method in methods:
                alone, stacked = (_psnr(_taken(whole, count, noise), method) for count in (1, len(stack)))
                yield Row(case, noise, label(method), round(alone, 2), round(stacked, 2))
    for method in methods:
        yield Row("brain beside a weak one", "estimated", label(method), *(_misfit(data, method, n) for n in (1, 2)))


def _cases(data: Path) -> Iterator[tuple[str, Image]]:
    """Name and slices in HU, of which the first is judged."""
    image = nib.as_closest_canonical(nib.load(data / CT))
    assert isinstance(image, nib.Nifti1Image)
    volume = np.clip(np.asarray(image.dataobj, np.float32).transpose(2, 1, 0), -WINDOW_HU, WINDOW_HU)
    at = [_fitted(volume[int(len(volume) * share)]) for share in (0.5, 0.4, 0.45, 0.55, 0.6, 0.7)]
    dense = (at[0] + 1000) * THICK - 1000
    thin = [_fitted(ndimage.zoom(one, 0.5, order=1)) for one in at]
    yield "dense among three thin", np.stack([dense, thin[1], thin[4], thin[5]])
    yield "thin among six chests", np.stack([thin[0], *at])


def _fitted(slice_: Image) -> Image:
    """Slice in the middle of one of `SIDE` pixels of air."""
    found = np.full((SIDE, SIDE), -1000.0, np.float32)
    part = slice_[:SIDE, :SIDE]
    row, col = ((SIDE - n) // 2 for n in part.shape)
    found[row : row + part.shape[0], col : col + part.shape[1]] = part
    return found


def _taken(whole: Measurement, count: int, noise: str) -> Measurement:
    """The first slices, whose noise is known by the photons or has to be estimated."""
    acquisition = whole.acquisition
    if noise == "estimated":
        acquisition = acquisition.model_copy(update={"photons_per_ray": None})
    assert whole.truth is not None
    data, truth = whole.data[:count], whole.truth[:count]
    return replace(whole, data=data, truth=truth, acquisition=acquisition, noise_std=None)


def _psnr(measurement: Measurement, method: dict[str, Any]) -> float:
    inverse = inverse_problem.build(measurement)
    volume = _solved(method, inverse, measurement.acquisition)
    assert measurement.truth is not None
    shown, truth = (
        np.clip(v[0], -WINDOW_HU, WINDOW_HU) for v in (inverse.display(inverse.arranged(volume)), measurement.truth)
    )
    return float(10 * np.log10((2 * WINDOW_HU) ** 2 / np.mean((shown - truth) ** 2)))


def _solved(given: dict[str, Any], inverse: inverse_problem.InverseProblem, acquisition: Acquisition) -> Tensor:
    """Volume of a method, or of the automatic choice among methods."""
    if given["name"] == "auto":
        auto = method_of(given)
        assert isinstance(auto, Auto)
        return mixed(auto, acquisition, inverse).volume
    return solved(given, inverse, acquisition.kind).volume


def _misfit(data: Path, method: dict[str, Any], slices: int) -> float:
    """Misfit of the measured brain at points that were withheld, alone or beside itself with a weaker signal."""
    given = {"input": {"path": str(data / BRAIN), "format": "numpy"}, "acquisition": "mri-cartesian", "method": "tv"}
    spec = JobSpec.parse(given)
    measured = reader.read(spec, local_files(spec))
    one, judge = withhold(measured)
    both = np.stack([one.data[0], WEAK * np.asarray(one.data[0], np.complex64)])[:slices]
    inverse = inverse_problem.build(replace(one, data=np.ascontiguousarray(both)))
    volume = _solved(method, inverse, one.acquisition)
    alone = inverse_problem.build(one)
    return round(judge(alone, volume[:1]).misfit, 5)
