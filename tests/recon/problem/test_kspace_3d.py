"""3D k-space with two phase encodings: planes across the readout, the result's orientation, what the prior sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import recon
from operators.errors import GeometryError, InputError
from operators.linear import dot_product_error
from recon.measurement.measurement import Measurement
from recon.priors import equivariant
from recon.priors.across import Across
from recon.problem import inverse_problem
from recon.problem.mri_cartesian import VolumeProblem
from recon.problem.problem import IntensityMap, run
from recon.quality import metrics
from recon.solvers import registry as solvers
from recon.spec.acquisitions.kspace import SOLVED_AXES, across_readout
from recon.spec.methods import REDDiff

SHAPE = (20, 32, 28)
READOUTS = ("slices", "rows", "cols")


def head() -> np.ndarray:
    """An ellipsoid with a dark ball off the middle, as large as the field of view allows."""
    z, y, x = np.meshgrid(*((np.arange(n) - n / 2 + 0.5) / (n / 2) for n in SHAPE), indexing="ij")
    found = 0.8 * (x**2 / 0.7 + y**2 / 0.8 + z**2 / 1.2 < 1) - 0.5 * ((x - 0.3) ** 2 + y**2 + (z + 0.4) ** 2 < 0.1)
    return np.asarray(found, dtype=np.float32)


def simulated(readout: str | None, **settings: Any) -> Measurement:
    wanted = {"model": "ideal", "coils": 4, "center_fraction": 0.5, **settings}
    return recon.simulate(
        head(), {"kind": "mri-cartesian", "readout": readout}, affine=np.diag([2.0, 2, 2, 1]), **wanted
    )


@pytest.mark.parametrize("readout", READOUTS)
def test_planes_across_the_readout_are_2d_problems(readout: str) -> None:
    generator = np.random.default_rng(0)
    coils = generator.normal(size=(2, *SHAPE)) + 1j * generator.normal(size=(2, *SHAPE))
    axes = (1, 2, 3)
    kspace = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(coils, axes), axes=axes, norm="ortho"), axes).swapaxes(0, 1)
    planes = across_readout(kspace.astype(np.complex64), readout)
    expected = np.moveaxis(coils, 0, -1).transpose(*SOLVED_AXES[readout], 3).transpose(0, 3, 1, 2)
    last = (2, 3)
    expected = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(expected, last), axes=last, norm="ortho"), last)
    assert planes.shape == expected.shape and np.abs(planes - expected).max() < 1e-5


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("model", ["ideal", "realistic"])
def test_the_result_stands_as_the_volume_does(readout: str, model: str) -> None:
    found = simulated(readout, model=model, acceleration=1.0)
    result = recon.reconstruct(found, method="cg-sense", progress=False)
    assert found.truth is not None and result.volume.shape == SHAPE
    assert metrics.psnr(np.abs(result.volume), found.truth) > 25
    assert result.affine == pytest.approx(found.affine)


@pytest.mark.parametrize("readout", ["rows", "cols"])
def test_planes_are_one_measurement(readout: str) -> None:
    found = simulated(readout, acceleration=2.0, noise_std=0.01, model="realistic")
    inverse = inverse_problem.build(found)
    problem = inverse.problem
    assert isinstance(inverse, VolumeProblem) and problem.slices == SHAPE[SOLVED_AXES[readout][0]]
    assert dot_product_error(problem.operator) < 1e-5
    for values in (problem.operator.norms, problem.noise, problem.scales):
        assert float(values.min()) == float(values.max())
    assert inverse.arranged(problem.zeros()).shape == SHAPE


class Seen:
    """Prior that keeps what it is given, with the shape of it."""

    complex = True

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.last = torch.empty(0)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        del sigma
        self.shapes.append(tuple(x.shape))
        self.last = x
        return x


@pytest.mark.parametrize("readout", ["rows", "cols"])
def test_the_prior_sees_the_volumes_slices(readout: str) -> None:
    inverse = inverse_problem.build(simulated(readout, acceleration=1.0))
    prior, settings = Seen(), REDDiff(steps=4, skip_threshold=0.1)
    run(solvers.start(inverse.problem, settings, prior=prior, intensity=IntensityMap(1.0, 0.0)))
    assert len(prior.shapes) >= 4
    assert all(sorted(shape) == sorted(SHAPE) and shape[0] == SHAPE[0] for shape in prior.shapes)
    magnitude = prior.last.abs().numpy()
    upright = metrics.psnr(magnitude, head())
    assert upright > 20 and all(upright > 2 + metrics.psnr(np.flip(magnitude, axis), head()) for axis in (0, 2))


def test_a_prior_across_keeps_places_and_turns_inside() -> None:
    x = torch.randn(6, 5, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    inner = Seen()
    prior = Across(inner, (1, 2, 0), (6, 5, 4))
    assert torch.equal(prior.denoise(x, 0.1), x) and torch.equal(inner.last, x.permute(1, 2, 0))
    chosen = torch.tensor([4, 1])
    assert torch.equal(prior.denoise(x, 0.1, index=chosen), x[chosen])
    turned = equivariant.at_step(prior, 2, (5, 4))
    assert isinstance(turned, Across) and torch.equal(turned.denoise(x, 0.1), x)
    assert inner.shapes[-1] == (5, 4, 6)  # not square as the prior sees it: mirrored at most


def test_a_job_with_a_prior_reports_on_the_volume(tmp_path: Path) -> None:
    found = simulated("cols", model="realistic", acceleration=2.0, noise_std=0.01)
    result = recon.reconstruct(found, method={"name": "diffpir", "steps": 3}, progress=False)
    assert tuple(result.report.shape) == SHAPE
    assert result.report.familiarity is not None and result.volume.shape == SHAPE
    assert result.report.against_truth is not None
    saved = result.save(tmp_path / "out")
    assert (saved / "volume.nii.gz").exists() and (saved / "montage.png").exists()


def test_maps_come_in_the_order_of_the_volume() -> None:
    found = simulated("cols", acceleration=1.0)
    maps = np.stack([np.full(SHAPE, 1.0), np.broadcast_to(np.arange(SHAPE[0])[:, None, None], SHAPE)], 1)
    assert isinstance(inverse_problem.build(found), VolumeProblem)
    ordered = found.acquisition.maps_across(maps.astype(np.complex64), SHAPE[0])  # type: ignore[attr-defined]
    assert ordered.shape == (SHAPE[2], 2, SHAPE[0], SHAPE[1])
    assert np.array_equal(ordered[3, 1, :, 5].real, np.arange(SHAPE[0]))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    found = simulated("cols", acceleration=1.0)
    with pytest.raises(InputError, match=r"input\.slices: 3D k-space has no slices to choose from"):
        recon.reconstruct(found, method="cg-sense", slices=(2, 5), progress=False)
    np.save(tmp_path / "k.npy", found.data)
    with pytest.raises(GeometryError, match=r"acquisition\.mask: shape \(32, 28\), k-space is \(20, 32\)"):
        recon.reconstruct(
            tmp_path / "k.npy", {"kind": "mri-cartesian", "readout": "cols"}, method="cg-sense",
            mask=np.ones(SHAPE[1:]), progress=False,
        )  # fmt: skip
    with pytest.raises(InputError, match=r"input\.simulate\.motion_pixels: 3D k-space"):
        simulated("cols", model="realistic", motion_pixels=0.1)
