"""3D k-space with two phase encodings: the prior in axial slices, whatever was read out, or in planes across that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from operators.errors import InputError
from recon.bench.solving import label, solved
from recon.measurement.measurement import Measurement
from recon.measurement.simulate import simulate
from recon.problem import inverse_problem
from recon.problem.inverse_problem import InverseProblem
from recon.quality import metrics
from recon.spec.acquisitions.kspace import Readout
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.simulation import Simulation

HEAD = "test/mri_t1_fnndsc_adi.nii.gz"
NOISE_STD = 0.01
COILS = 4
PLANES: dict[Readout, str] = {"slices": "axial", "rows": "coronal", "cols": "sagittal"}
"""Planes across each axis of an axial volume."""
METHODS: tuple[dict[str, Any], ...] = ({"name": "red-diff"}, {"name": "l1-wavelet"}, {"name": "tv"})


@dataclass(frozen=True)
class Row:
    """One method on one volume: PSNR in dB, and which planes the method sees one by one."""

    readout: Readout
    method: str
    planes: str
    psnr: float
    seconds: float


def head(data: Path, size: int, binning: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Middle of a head in axial slices, ``(size, size, size)`` of `binning` voxels each, and its affine to RAS."""
    image = nib.as_closest_canonical(nib.load(data / HEAD))
    assert isinstance(image, nib.Nifti1Image)
    # Slices upwards, rows to the back, columns to the left.
    whole = np.asarray(image.dataobj, np.float32).transpose(2, 1, 0)[:, ::-1, ::-1]
    wide = size * binning
    padded = np.zeros((wide,) * 3, np.float32)
    into, out = zip(*(_middle(n, wide) for n in whole.shape), strict=True)
    padded[tuple(into)] = whole[tuple(out)]
    if not padded.any():
        raise InputError(f"{size} voxels hold nothing of the head", field="size", remedy="give more")
    shape = (size, binning) * 3
    x_mm, y_mm, z_mm = (float(n) * binning for n in image.header.get_zooms()[:3])
    return padded.reshape(shape).mean((1, 3, 5)), np.diag([-x_mm, -y_mm, z_mm, 1.0])


def _middle(n: int, wide: int) -> tuple[slice, slice]:
    """Where the middle of `n` voxels goes in `wide` ones, and which these are."""
    count = min(n, wide)
    first, begin = (wide - count) // 2, (n - count) // 2
    return slice(first, first + count), slice(begin, begin + count)


def compare(
    data: Path,
    size: int,
    binning: int,
    readouts: Sequence[Readout],
    acceleration: float,
    methods: Sequence[dict[str, Any]] = METHODS,
) -> Iterator[Row]:
    """Every method on a Poisson disc of both phase encodings, with a prior both ways."""
    volume, affine = head(data, size, binning)
    settings = Simulation(pattern="poisson", acceleration=acceleration, noise_std=NOISE_STD, coils=COILS)
    for readout in readouts:
        measurement = simulate(volume, affine, MRICartesian(readout=readout), settings)
        yield from rows_of(measurement, readout, methods)


def rows_of(measurement: Measurement, readout: Readout, methods: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Every method on a measurement, those with a prior in axial slices and in the planes across the readout."""
    inverse = inverse_problem.build(measurement)
    for method in methods:
        ways = {PLANES[readout]: replace(inverse, problem=replace(inverse.problem, prior_axes=None))}
        if inverse.problem.prior_axes is not None and method["name"] != "tv":
            ways = {"axial": inverse, **ways}
        for planes, way in ways.items():
            yield _row(measurement, inverse, way, readout, method, planes)


def _row(
    measurement: Measurement,
    inverse: InverseProblem,
    way: InverseProblem,
    readout: Readout,
    method: dict[str, Any],
    planes: str,
) -> Row:
    found = solved(method, way, measurement.acquisition.kind)
    assert measurement.truth is not None
    shown = inverse.display(inverse.arranged(found.volume))
    return Row(readout, label(method), planes, metrics.psnr(shown, measurement.truth), found.seconds)
