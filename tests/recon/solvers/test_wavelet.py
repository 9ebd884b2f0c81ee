"""L1-wavelets: better than least squares where lines are missing, and what the weights do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import recon
from operators.errors import InputError
from operators.fourier import CartesianMRI
from recon.problem import inverse_problem
from recon.problem.problem import run
from recon.quality import metrics
from recon.samples import SAMPLES
from recon.solvers import registry as solvers
from recon.solvers.wavelet import _shrunk
from recon.spec.methods import L1Wavelet


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    images = np.load(SAMPLES / "tune" / "mri_256_ms.npz")["images"][3:5].astype(np.float32)
    small: np.ndarray = images.reshape(2, 64, 4, 64, 4).mean((2, 4))
    small /= small.max()
    return small


def solved(brain: np.ndarray, method: Any, kind: str = "mri-cartesian", **more: Any) -> Any:
    affine = np.diag([3.2, 3.2, 4.0, 1.0])
    measurement = recon.simulate(brain, {"kind": kind}, affine=affine, model="ideal", coils=4, noise_std=0.01, **more)
    return recon.reconstruct(measurement, method=method, progress=False)


@pytest.mark.parametrize("kind", ["mri-cartesian", "mri-noncartesian"])
def test_it_beats_least_squares(brain: np.ndarray, kind: str) -> None:
    found = {m: metrics.psnr(np.abs(solved(brain, m, kind).volume), brain) for m in ("cg-sense", "l1-wavelet")}
    assert found["l1-wavelet"] > found["cg-sense"] + 1.5, found


def test_slices_do_not_know_each_other(brain: np.ndarray) -> None:
    stack = brain * np.array([1.0, 0.2], np.float32)[:, None, None]
    measured = recon.simulate(stack, "mri-cartesian", affine=np.eye(4), model="ideal", coils=4, noise_std=0.01)
    whole = recon.reconstruct(measured, method="l1-wavelet", progress=False).volume
    part = recon.reconstruct(measured, method="l1-wavelet", slices=(1, 2), progress=False).volume
    assert np.abs(whole[1] - part[0]).max() < 1e-5 * np.abs(whole[1]).max()


@pytest.mark.parametrize(("rows", "cols"), [(64, 64), (50, 37), (16, 20)])
def test_shrinking_by_nothing_changes_nothing_and_by_much_leaves_what_is_coarse(rows: int, cols: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, rows, cols, dtype=torch.complex64, generator=generator)
    weight = torch.zeros(2, 1, 1)
    assert float((_shrunk(images, weight + 1e-12) - images).abs().max()) < 1e-5
    flat = torch.full_like(images, 2 - 1j)
    assert float((_shrunk(flat, weight + 10.0) - flat).abs().max()) < 1e-5
    assert float(_shrunk(images, weight + 10.0).abs().square().mean()) < 0.3


def test_a_weight_of_ones_own_excludes_those_that_make_one() -> None:
    with pytest.raises(InputError, match="min_weight has no effect with a weight"):
        solved(np.ones((1, 32, 32), np.float32), {"name": "l1-wavelet", "weight": 0.1, "min_weight": 0.1})


@pytest.mark.parametrize(("weight", "tolerance"), [(1e-4, 0.06), (1e-3, 0.16)])
def test_it_finds_what_sigpy_finds(brain: np.ndarray, weight: float, tolerance: float) -> None:
    """The same problem by another program: its blocks stay in one place, and it shrinks the coarsest image as well."""
    from sigpy.mri.app import L1WaveletRecon

    measured = recon.simulate(brain[:1], "mri-cartesian", affine=np.eye(4), model="ideal", coils=4, noise_std=0.01)
    problem = inverse_problem.build(measured).problem
    operator = problem.operator
    assert isinstance(operator, CartesianMRI)
    scale = float(problem.scales[0])
    found = run(solvers.start(problem, L1Wavelet(weight=weight, iterations=100)))[0].numpy()
    app = L1WaveletRecon(
        problem.data[0].numpy() / scale, operator.maps[0].numpy(), weight * float(operator.norms[0]) ** 2,
        weights=operator.mask[0].numpy().astype(np.float32), max_iter=100, show_pbar=False,
    )  # fmt: skip
    theirs = np.asarray(app.run()) * scale
    assert np.linalg.norm(found - theirs) < tolerance * np.linalg.norm(theirs)
    errors = [np.linalg.norm(np.abs(image) - brain[0]) for image in (found, theirs)]
    assert errors[0] < 1.01 * errors[1]
