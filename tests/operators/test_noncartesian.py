"""Fourier transform along a trajectory: the exact sum, the Cartesian case, its convolution, densities, calibration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.coils import acs_width
from operators.errors import GeometryError, InputError
from operators.fourier import CartesianMRI, fourier
from operators.linear import conjugate_gradient, dot_product_error, random_element
from operators.noncartesian import NonCartesianMRI, cell_areas, central_kspace
from operators.preconditioner import normal_inverse
from recon.problem.mri_cartesian import birdcage_maps
from recon.problem.mri_noncartesian import radial
from tests.conftest import disc


def scattered(rows: int, cols: int, samples: int = 400) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return (torch.rand(samples, 2, generator=generator, dtype=torch.float64) - 0.5) * torch.tensor([rows, cols])


def operator(trajectory: Tensor, rows: int, cols: int, coils: int = 3, slices: int | None = None) -> NonCartesianMRI:
    generator = torch.Generator().manual_seed(1)
    shape = (coils, rows, cols) if slices is None else (slices, coils, rows, cols)
    maps = torch.randn(shape, dtype=torch.complex64, generator=generator)
    return NonCartesianMRI(trajectory, maps, torch.rand(len(trajectory), generator=generator) + 0.1)


def spiral(size: int, turns: int, samples: int) -> Tensor:
    share = torch.linspace(0, 1, samples, dtype=torch.float64).sqrt()
    angle = 2 * math.pi * turns * share
    return torch.stack([angle.sin() * share, angle.cos() * share], 1) * (size / 2 - 0.01)


def error(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


@pytest.mark.parametrize(("rows", "cols"), [(20, 24), (21, 17)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_the_transform_is_the_sum_that_it_stands_for(rows: int, cols: int, dtype: torch.dtype) -> None:
    trajectory = scattered(rows, cols)
    made = operator(trajectory, rows, cols)
    x = random_element(made.domain, 2, torch.Generator().manual_seed(0)).to(dtype)
    y = (torch.arange(rows).double() - rows // 2)[:, None] / rows
    z = (torch.arange(cols).double() - cols // 2)[None, :] / cols
    phase = trajectory[:, 0, None, None] * y + trajectory[:, 1, None, None] * z
    waves = torch.exp(-2j * math.pi * phase) / math.sqrt(rows * cols)
    exact = torch.einsum("srx,bcrx->bcs", waves, (made.maps * x[:, None]).to(torch.complex128))
    assert error(made.forward(x), exact) < (1e-4 if dtype == torch.complex64 else 1e-8)


@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("slices", [None, 2])
def test_adjoint_and_convolution_belong_to_it(slices: int | None, compensated: bool) -> None:
    made = operator(scattered(20, 24), 20, 24, slices=slices)
    made = made.compensated() if compensated else made
    assert dot_product_error(made) < 1e-5
    x = random_element(made.domain, 2, torch.Generator().manual_seed(0))
    twice = made.adjoint(made.forward(x.to(torch.complex128)))
    assert error(made.normal(x), twice) < 1e-5
    if slices:
        part = made.part(1, 2)
        assert error(part.forward(x[1:]), made.forward(x)[1:]) < 1e-6 and torch.equal(part.norms, made.norms[1:])
        assert torch.equal(part.normal(x[1:]), made.normal(x)[1:])
        with pytest.raises(InputError, match="1 slices, the coil maps have 2"):
            made.forward(x[1:])


@pytest.mark.parametrize(
    ("rows", "cols"), [(slice(7, 30), slice(3, 36)), (slice(33, 47), slice(0, 1)), (slice(0), slice(0))]
)
def test_pixels_that_no_coil_sees_take_no_part_in_the_convolution(rows: slice, cols: slice) -> None:
    maps = torch.zeros(2, 3, 47, 40, dtype=torch.complex64)
    maps[1, :, rows, cols] = operator(scattered(47, 40), 47, 40).maps[0, :, rows, cols]
    maps[0, :, 5:12] = 1
    made = NonCartesianMRI(scattered(47, 40), maps, torch.ones(400))
    x = random_element(made.domain, 2, torch.Generator().manual_seed(0))
    twice = made.adjoint(made.forward(x.to(torch.complex128)))
    assert error(made.normal(x), twice) < 1e-5
    assert torch.equal(made.part(1, 2).normal(x[1:]), made.normal(x)[1:])


@pytest.mark.parametrize("compensated", [False, True])
def test_every_coil_by_itself_is_what_the_coils_see(compensated: bool) -> None:
    made = operator(scattered(20, 24), 20, 24, slices=2)
    made = made.compensated() if compensated else made
    each = made.of_coils()
    assert dot_product_error(each) < 1e-5
    x = random_element(made.domain, 2, torch.Generator().manual_seed(0))
    seen = made.maps * x[:, None]
    assert error(each.forward(seen), made.forward(x)) < 1e-6
    assert error((made.maps.conj() * each.normal(seen)).sum(1), made.normal(x)) < 1e-6
    ratio = each.normal(seen).norm() / seen.norm()
    assert float(ratio.sqrt()) < float(each.norms) * 1.001 and float(each.norms) < float(made.norms.max())


@pytest.mark.parametrize(("rows", "cols"), [(16, 20), (17, 15)])
def test_along_cartesian_lines_it_is_the_cartesian_operator(rows: int, cols: int) -> None:
    maps = operator(scattered(rows, cols), rows, cols).maps[0]
    y, x = torch.meshgrid(torch.arange(rows) - rows // 2, torch.arange(cols) - cols // 2, indexing="ij")
    trajectory = torch.stack([y.flatten(), x.flatten()], 1).double()
    made = NonCartesianMRI(trajectory, maps, cell_areas(trajectory, "voronoi"))
    cartesian = CartesianMRI(torch.ones(rows, cols, dtype=torch.bool), maps)
    image = random_element(made.domain, 1, torch.Generator().manual_seed(0))
    assert error(made.forward(image), cartesian.forward(image).flatten(2)) < 1e-4
    assert float((made.density - 1).abs().max()) < 1e-9
    assert made.undersampling == 1.0 and float((made.spectrum() - 1).abs().max()) < 1e-4


@pytest.mark.parametrize(("trajectory", "rule"), [("radial", "ramp"), ("radial", "voronoi"), ("spiral", "voronoi")])
def test_gridding_gives_the_image_back(trajectory: str, rule: str) -> None:
    """Fully sampled: the density makes the adjoint an inverse, for the right brightness."""
    size = 48
    points = radial(size, size, 0.7) if trajectory == "radial" else spiral(size, size, 12_000)
    made = NonCartesianMRI(points, torch.ones(1, size, size, dtype=torch.complex64), cell_areas(points, rule))  # type: ignore[arg-type]
    assert float(made.density.sum()) == pytest.approx(math.pi * (size / 2) ** 2, rel=0.06)
    image = disc(size, 1.0, 14.0).to(torch.complex64)
    low = made.gridding(made.forward(image))
    assert float(low[0, 20:28, 20:28].real.mean()) == pytest.approx(1.0, abs=0.04)
    assert error(low, image) < 0.2  # the disc's edge has frequencies beyond the circle
    assert error(made.initial_image(made.forward(image)), image) < 0.12


def test_the_preconditioner_saves_iterations() -> None:
    size, points = 64, radial(64, 64, 2.0)
    made = NonCartesianMRI(points, birdcage_maps(4, size, size), cell_areas(points, "ramp")).normalized()
    right, anchor = random_element(made.domain, 1, torch.Generator().manual_seed(0)), 1e-2

    def system(v: Tensor) -> Tensor:
        return made.normal(v) + anchor * v

    exact = conjugate_gradient(system, right, None, 200, tolerance=1e-9)
    plain = conjugate_gradient(system, right, None, 3)
    helped = conjugate_gradient(system, right, None, 3, precondition=normal_inverse(made, anchor))
    assert error(helped, exact) < 0.5 * error(plain, exact)


def test_the_centre_of_k_space_is_found_for_calibration() -> None:
    size, points = 48, radial(48, 48, 3.0)
    image = disc(size, 1.0, 14.0)[0].to(torch.complex64)
    maps = birdcage_maps(4, size, size)
    data = NonCartesianMRI(points, maps, cell_areas(points, "ramp")).forward(image[None])
    kspace, near = central_kspace(points, data, (size, size))
    width = acs_width(near)
    assert width >= 12
    middle = slice(size // 2 - 6, size // 2 + 6)
    assert error(kspace[0, :, middle, middle], fourier(maps * image)[:, middle, middle]) < 0.03


def test_another_scan_turns_the_trajectory_and_stays_on_the_grid() -> None:
    made = operator(scattered(20, 24), 20, 24)
    other = made.another(0)
    assert isinstance(other, NonCartesianMRI) and dot_product_error(other) < 1e-5
    assert bool((other.trajectory.abs() <= torch.tensor([10, 12])).all())
    assert not torch.allclose(other.trajectory, made.trajectory)


def test_what_does_not_fit_is_named() -> None:
    maps, points = torch.ones(2, 8, 8, dtype=torch.complex64), torch.zeros(5, 2)
    with pytest.raises(InputError, match="trajectory"):
        NonCartesianMRI(torch.zeros(5, 3), maps, torch.ones(5))
    with pytest.raises(InputError, match="coil_maps"):
        NonCartesianMRI(points, maps.real, torch.ones(5))
    with pytest.raises(GeometryError, match="4 weights for 5 samples"):
        NonCartesianMRI(points, maps, torch.ones(4))
