"""Operators: adjoints, units, agreement with ASTRA, every dtype, every refusal."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from operators import coils
from operators.coils import acs_width, calibration_region, espirit_maps, folded_share
from operators.differences import gradient, gradient_adjoint
from operators.errors import BackendUnavailable, GeometryError, InputError
from operators.fourier import CartesianMRI, CoilImagesMRI, MapSetsMRI, fourier, inverse_fourier
from operators.geometry import FanBeam, ParallelBeam, estimated_matrix_bytes
from operators.linear import LinearOperator, Space, conjugate_gradient, dot_product_error, random_element
from operators.resolution import Downsampling, SlabAverage, ThickSlices, Truncation, thick_slices
from operators.stack_set import Stack, StackSet
from operators.stacks import SliceProfile, coarse_size, fine_size
from operators.tomography import Tomography
from recon.problem.mri_cartesian import birdcage_maps
from tests.conftest import disc

pytestmark = pytest.mark.usefixtures("all_cores")  # slices are projected by threads


def half_turn(views: int) -> tuple[float, ...]:
    return tuple(np.linspace(0, math.pi, views, endpoint=False).tolist())


GEOMETRIES = {
    "parallel": ParallelBeam(40, 48, 0.7, half_turn(17), 80, 0.7),
    "parallel shifted": ParallelBeam(48, 40, 0.7, half_turn(17), 96, 0.6, detector_shift_mm=3.3),
    "fan": FanBeam(40, 40, 0.7, half_turn(17), 120, 0.5, source_origin_mm=120, origin_detector_mm=60),
    "fan shifted": FanBeam(
        40, 40, 0.7, half_turn(17), 130, 0.5, detector_shift_mm=2.2, source_origin_mm=120, origin_detector_mm=60
    ),
}


def mri(slices: int | None = None, rows: int = 24, cols: int = 30, coils: int = 3) -> CartesianMRI:
    generator = torch.Generator().manual_seed(1)
    shape = (coils, rows, cols) if slices is None else (slices, coils, rows, cols)
    maps = torch.randn(shape, dtype=torch.complex64, generator=generator)
    return CartesianMRI(torch.rand(rows, cols, generator=generator) < 0.4, maps)


def mri_by_lines(axis: int) -> CartesianMRI:
    mask = torch.zeros(24, 17, dtype=torch.bool)
    mask.transpose(0, axis)[::3] = True
    return CartesianMRI(mask, mri(rows=24, cols=17).maps[0])


GENERATOR = torch.Generator().manual_seed(1)


def oblique(degrees: float = 12.0, shift: float = 0.0) -> StackSet:
    """Two stacks of a volume: the second lies across the first, tilted about all axes, and reaches out of it."""
    turned = np.eye(4)
    across = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]])  # its slices go along the volume's rows
    turned[:3, :3] = Rotation.from_euler("xyz", [degrees, 0.5 * degrees, -degrees], degrees=True).as_matrix() @ across
    shape, second = (24, 20, 18), Stack((5, 24, 18), 4.0, turned, "gaussian", 0.1)
    middle = turned[:3, :3] @ ((np.array(second.fine[::-1]) - 1) / 2)
    turned[:3, 3] = (np.array(shape[::-1]) - 1) / 2 + shift - middle
    return StackSet(shape, Stack((8, 20, 18), 3.0, np.eye(4)), [second])


OPERATORS: dict[str, LinearOperator] = {
    **{
        f"{name}, {backend}": Tomography(g, backend)
        for name, g in GEOMETRIES.items()
        for backend in ("matrix", "astra")
    },
    "mri": mri(),
    "mri, maps a slice": mri(slices=2),
    "mri, odd": mri(rows=23, cols=17),
    "mri, rows": mri_by_lines(0),
    "mri, columns": mri_by_lines(1),
    "mri, two sets of maps": MapSetsMRI(mri().mask[0], torch.stack([mri().maps, mri().maps.flip(1)], 1)),
    "mri, two sets of maps a slice": MapSetsMRI(
        mri().mask[0], torch.stack([mri(slices=2).maps, mri(slices=2).maps.flip(1)], 1)
    ),
    "mri, everything": CartesianMRI(torch.ones(24, 30, dtype=torch.bool), mri().maps[0]),
    "coil images": mri().of_coils(),
    "coil images, a mask a slice": CoilImagesMRI(torch.rand(2, 23, 17, generator=GENERATOR) < 0.4, 3),
    "truncation": Truncation(24, 36, 3),
    "truncation, odd": Truncation(21, 15, 3),
    "slab average, rows": SlabAverage(24, 30, 4),
    "truncation, half a factor, filtered, zero-filled": Truncation(25, 36, 2.5, filter="hann", zero_fill=1.5),
    "thick slices, gaps": ThickSlices(25, 30, 2.5, profile="slr", gap=0.3),
    "thick slices, columns, overlaps": ThickSlices(20, 23, 3, -1, profile="gaussian", gap=-0.5, complex=True),
    "stacks in two orientations": oblique(),
    "slab average, columns, complex": SlabAverage(20, 24, 2, -1, complex=True),
    "scaled": Tomography(GEOMETRIES["parallel"]) * 0.3,
    "normalized": Tomography(GEOMETRIES["fan"]).normalized(),
    "adjoint": Tomography(GEOMETRIES["parallel"]).H,
    "composed": Tomography(GEOMETRIES["parallel"]).H @ Tomography(GEOMETRIES["parallel"]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint_belongs_to_forward(name: str) -> None:
    for seed in range(3):
        assert dot_product_error(OPERATORS[name], seed=seed) < 1e-5


@pytest.mark.parametrize("name", OPERATORS)
def test_the_normal_operator_is_forward_then_adjoint(name: str) -> None:
    operator = OPERATORS[name]
    x = random_element(operator.domain, operator.slices or 2, torch.Generator().manual_seed(6)).requires_grad_()
    expected = operator.adjoint(operator.forward(x))
    assert (operator.normal(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    (slope,) = torch.autograd.grad((operator.normal(x) * x.detach().conj()).real.sum(), x)
    assert (slope - expected).abs().max() <= 1e-5 * expected.abs().max()  # it is its own adjoint


def test_dot_product_test_notices_a_wrong_adjoint() -> None:
    class Wrong(LinearOperator):
        def _forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.roll(1, -1)

        def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
            return y.roll(1, -1)

    assert dot_product_error(Wrong(Space((8, 8)), Space((8, 8)))) > 1e-2


@pytest.mark.parametrize("name", OPERATORS)
def test_linear(name: str) -> None:
    operator = OPERATORS[name]
    generator = torch.Generator().manual_seed(3)
    a, b = (random_element(operator.domain, operator.slices or 2, generator) for _ in range(2))
    combined = operator(2.0 * a - 0.5 * b)
    separate = 2.0 * operator(a) - 0.5 * operator(b)
    assert (combined - separate).abs().max() <= 2e-6 * separate.abs().max() * 10
    assert not operator(torch.zeros_like(a)).any()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    operator = OPERATORS[name]
    x = random_element(operator.domain, operator.slices or 2, torch.Generator().manual_seed(4), dtype)
    y = operator(x)
    assert y.dtype == x.dtype and tuple(y.shape[1:]) == operator.range.shape
    assert operator.adjoint(y).dtype == x.dtype


def test_double_precision_mri_is_adjoint_to_double_precision() -> None:
    operator = CartesianMRI(mri().mask[0], mri().maps[0].to(torch.complex128))
    generator = torch.Generator().manual_seed(5)
    x = random_element(operator.domain, 2, generator, torch.float64)
    y = random_element(operator.range, 2, generator, torch.float64)
    left, right = torch.vdot(operator(x).flatten(), y.flatten()), torch.vdot(x.flatten(), operator.adjoint(y).flatten())
    assert abs(left - right) < 1e-12 * abs(left)


@pytest.mark.parametrize("name", OPERATORS)
def test_wrong_input_is_refused_by_name(name: str) -> None:
    operator = OPERATORS[name]
    x = random_element(operator.domain, operator.slices or 2, torch.Generator())
    with pytest.raises(InputError, match=r"x: shape .* expected"):
        operator(x[..., :-1])
    with pytest.raises(InputError, match="x: dtype"):
        operator(x.real.to(torch.int32))
    with pytest.raises(InputError, match="x: dtype"):
        operator(x.real.clone() if x.is_complex() else x.to(torch.complex64))


@pytest.mark.parametrize("name", ["parallel, matrix", "fan, astra", "mri"])
def test_gradient_is_the_adjoint(name: str) -> None:
    operator = OPERATORS[name]
    generator = torch.Generator().manual_seed(6)
    x = random_element(operator.domain, 2, generator).requires_grad_()
    y = random_element(operator.range, 2, generator)
    residual = operator(x) - y
    (residual.abs().square().sum() / 2).backward()
    expected = operator.adjoint(residual.detach())
    assert x.grad is not None and (x.grad - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("pixel_mm", "detector_mm"), [(0.5, 0.5), (1.0, 0.6), (2.0, 2.4)])
@pytest.mark.parametrize("fan", [False, True])
def test_disc_projects_to_its_diameter(pixel_mm: float, detector_mm: float, fan: bool) -> None:
    size, radius = 96, 30 * pixel_mm
    count = int(2.6 * size * pixel_mm / detector_mm) // 2 * 2 + 1
    angles = (0.0, 0.3, 1.1, 2.0)
    geometry: ParallelBeam = ParallelBeam(size, size, pixel_mm, angles, count, detector_mm)
    if fan:
        geometry = FanBeam(
            size, size, pixel_mm, angles, count, detector_mm, source_origin_mm=1000, origin_detector_mm=500
        )
    middle = Tomography(geometry)(disc(size, pixel_mm, radius))[0, :, count // 2]
    assert middle.numpy() == pytest.approx(2 * radius, rel=0.01)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_matrix_is_astras_own_projector(name: str) -> None:
    matrix, own = Tomography(GEOMETRIES[name], "matrix"), Tomography(GEOMETRIES[name], "astra")
    x = random_element(matrix.domain, 3, torch.Generator().manual_seed(7))
    y = random_element(matrix.range, 3, torch.Generator().manual_seed(8))
    assert (matrix(x) - own(x)).abs().max() < 1e-5 * own(x).abs().max()
    assert (matrix.adjoint(y) - own.adjoint(y)).abs().max() < 1e-5 * own.adjoint(y).abs().max()


def test_a_point_lands_where_the_geometry_says() -> None:
    """x to the right, y up, detector coordinate s = x cos + y sin."""
    geometry = ParallelBeam(65, 65, 1.0, (0.0, math.pi / 2, 0.4), 131, 1.0)
    point = torch.zeros(1, 65, 65)
    point[0, 32 - 10, 32 + 20] = 1.0  # y = +10 mm, x = +20 mm
    landed = Tomography(geometry)(point)[0].argmax(1) - 65
    expected = [20, 10, 20 * math.cos(0.4) + 10 * math.sin(0.4)]
    assert landed.numpy() == pytest.approx(expected, abs=1.0)


def test_a_shifted_detector_shifts_the_sinogram() -> None:
    angles = half_turn(8)
    centred = Tomography(ParallelBeam(33, 33, 1.0, angles, 71, 1.0))
    shifted = Tomography(ParallelBeam(33, 33, 1.0, angles, 71, 1.0, detector_shift_mm=3.0))
    image = disc(33, 1.0, 5.0, x_mm=4.0, y_mm=-6.0)
    assert torch.allclose(shifted(image)[..., :-3], centred(image)[..., 3:], atol=1e-3)


def test_a_slice_has_the_same_bits_in_any_batch() -> None:
    operator = Tomography(GEOMETRIES["parallel"])
    x = random_element(operator.domain, 21, torch.Generator().manual_seed(9))
    whole = operator(x)
    for first, last in ((0, 1), (5, 12), (3, 21)):
        assert torch.equal(operator(x[first:last]), whole[first:last])


def test_norm_is_the_largest_singular_value() -> None:
    geometry = ParallelBeam(12, 12, 1.0, half_turn(5), 21, 1.0)
    operator = Tomography(geometry)
    dense = operator(torch.eye(144).reshape(144, 12, 12)).reshape(144, -1)
    assert float(operator.norms) == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-3)


def test_norms_are_those_of_each_slice_alone() -> None:
    operator = mri(slices=3)
    weak = CartesianMRI(operator.mask, operator.maps * torch.tensor([1.0, 0.3, 0.0]).reshape(3, 1, 1, 1))
    found = weak.norms
    assert torch.equal(weak.part(1, 2).norms, found[1:2]) and torch.equal(weak.part(1, 3).norms, found[1:])
    assert float(found[1]) == pytest.approx(0.3 * float(operator.norms[1]), rel=1e-3)
    assert float(found[2]) == 1.0  # measures nothing, and is divided by
    x = torch.ones(3, *weak.domain.shape, dtype=torch.complex64)
    assert torch.allclose(weak.normalized()(x)[1] * found[1], weak(x)[1], rtol=1e-4)


def test_cuda_is_refused_without_a_gpu() -> None:
    import astra

    if astra.use_cuda():
        return
    with pytest.raises(BackendUnavailable, match="no CUDA device"):
        Tomography(GEOMETRIES["parallel"], "cuda")


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_memory_of_the_matrix_is_foreseen(geometry: ParallelBeam) -> None:
    from operators import system_matrix

    operator = Tomography(geometry, "matrix")
    operator(torch.zeros(1, geometry.rows, geometry.cols))
    held = system_matrix.cache.get(geometry, operator._build_matrix).nbytes
    assert 0.7 < held / estimated_matrix_bytes(geometry) < 1.3


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"angles_rad": (0.0, 30.0, 60.0)}, "angles_rad", "look like degrees"),
        ({"angles_rad": ()}, "angles_rad", "no angles"),
        ({"angles_rad": (0.0, math.nan)}, "angles_rad", "angle 1 is nan"),
        ({"angles_rad": (0.5, 0.5)}, "angles_rad", "all 2 angles"),
        ({"pixel_mm": 0.0}, "pixel_mm", "not a positive length"),
        ({"detector_mm": -1.0}, "detector_mm", "not a positive length"),
        ({"detector_shift_mm": 60.0}, "detector_shift_mm", "no ray passes near the rotation axis"),
        ({"rows": 0}, "rows", "not a positive count"),
    ],
)
def test_impossible_geometry_is_refused(change: dict[str, object], field: str, says: str) -> None:
    good: dict[str, object] = {
        "rows": 40, "cols": 40, "pixel_mm": 1.0, "angles_rad": half_turn(6), "detectors": 60, "detector_mm": 1.0,
    }  # fmt: skip
    with pytest.raises(GeometryError, match=says) as caught:
        ParallelBeam(**{**good, **change})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_source_inside_the_object_is_refused() -> None:
    with pytest.raises(GeometryError, match="inside the image"):
        FanBeam(40, 40, 1.0, half_turn(6), 90, 1.0, source_origin_mm=10, origin_detector_mm=10)


@pytest.mark.parametrize(("rows", "cols"), [(16, 16), (15, 16), (17, 13)])
def test_fourier_transform_is_unitary_and_centred(rows: int, cols: int) -> None:
    x = torch.randn(2, rows, cols, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(inverse_fourier(fourier(x)), x)
    assert torch.linalg.vector_norm(fourier(x)) == pytest.approx(float(torch.linalg.vector_norm(x)))
    flat = fourier(torch.ones(1, rows, cols, dtype=torch.complex128))
    assert flat[0, rows // 2, cols // 2].real == pytest.approx(math.sqrt(rows * cols))


@pytest.mark.parametrize("is_complex", [False, True])
def test_conjugate_gradients_solve_like_a_dense_solver(is_complex: bool) -> None:
    dtype = torch.complex128 if is_complex else torch.float64
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(2, 8, 8, dtype=dtype, generator=generator)
    system = root.mH @ root + 0.1 * torch.eye(8, dtype=dtype)
    right = torch.randn(2, 8, dtype=dtype, generator=generator)
    found = conjugate_gradient(
        lambda v: torch.einsum("bij,bj->bi", system, v), right, torch.zeros_like(right), 40, tolerance=1e-14
    )
    assert torch.allclose(found, torch.linalg.solve(system, right), rtol=1e-7)
    for i in range(2):
        own = partial(torch.matmul, other=system[i].T)
        alone = conjugate_gradient(own, right[i : i + 1], torch.zeros(1, 8, dtype=dtype), 5)
        together = conjugate_gradient(
            lambda v: torch.einsum("bij,bj->bi", system, v), right, torch.zeros_like(right), 5
        )
        assert torch.allclose(alone[0], together[i], rtol=1e-9)
    applied = []

    def counted(v: Tensor) -> Tensor:
        applied.append(1)
        return torch.einsum("bij,bj->bi", system, v)

    def energy(v: Tensor) -> Tensor:
        return torch.einsum("bi,bij,bj->b", v.conj(), system, v).real

    cheap = conjugate_gradient(counted, right, None, 5, energy=energy)
    assert len(applied) == 4 and torch.allclose(cheap, conjugate_gradient(counted, right, None, 5), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7), st.booleans())
def test_gradient_adjoint_for_any_shape(slices: int, rows: int, cols: int, is_complex: bool) -> None:
    dtype = torch.complex128 if is_complex else torch.float64
    generator = torch.Generator().manual_seed(slices + 10 * rows + 100 * cols)
    x = torch.randn(slices, rows, cols, dtype=dtype, generator=generator)
    p = torch.randn(3, slices, rows, cols, dtype=dtype, generator=generator)
    left, right = torch.vdot(gradient(x).flatten(), p.flatten()), torch.vdot(x.flatten(), gradient_adjoint(p).flatten())
    assert abs(left - right) < 1e-10
    assert not gradient(torch.ones(slices, rows, cols)).any()  # Neumann ends: a constant has no slope


@pytest.mark.parametrize("width", [8, 16, 25])
def test_espirit_finds_the_coils_up_to_phase(width: int) -> None:
    maps = birdcage_maps(6, 64, 64)
    image = (disc(64, 1.0, 26.0) + 0.5 * disc(64, 1.0, 10.0, x_mm=8.0)).to(torch.complex64)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[::2] = True
    mask[32 - width // 2 : 32 - width // 2 + width] = True
    kspace = CartesianMRI(mask, maps)(image)
    assert width <= acs_width(mask) <= 32
    found = espirit_maps(kspace, mask, width)[0]
    inside = disc(64, 1.0, 24.0)[0] == 1
    likeness = (found.conj() * maps).sum(0).abs()[inside]
    assert likeness.min() > 0.98


def test_espirit_without_a_calibration_region_says_so() -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[::4] = True
    with pytest.raises(InputError, match="fully sampled centre") as caught:
        espirit_maps(torch.randn(1, 4, 32, 32, dtype=torch.complex64), mask)
    assert "coil_maps" in str(caught.value)


def test_maps_that_miss_the_signal_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """ESPIRiT that finds nothing would give an image of zeros, which must not pass for a result."""
    monkeypatch.setattr(coils, "SUPPORT", 2.0)
    kspace = fourier(disc(64, 1.0, 20.0).to(torch.complex64))[:, None].expand(1, 3, 64, 64)
    with pytest.raises(InputError, match="sensitivities for 0 % of the signal only, from 16 x 16 points"):
        espirit_maps(kspace, torch.ones(64, 64, dtype=torch.bool), 16)


def test_few_lines_calibrate_along_their_whole_length() -> None:
    """Ten lines of 64 tell the coils better than the square of ten; the more so the more coils there are."""
    lines = torch.zeros(64, 64, dtype=torch.bool)
    lines[27:37] = True
    assert calibration_region(lines) == (10, 64)
    assert calibration_region(lines.T) == (64, 10)
    assert calibration_region(lines, 10) == (10, 10)
    assert calibration_region(torch.ones(64, 64, dtype=torch.bool)) == (32, 32)
    short = lines.clone()
    short[:, :20] = short[:, 44:] = False
    assert calibration_region(short) == (10, 24)
    maps = birdcage_maps(8, 64, 64)
    image = (disc(64, 1.0, 26.0) + 0.5 * disc(64, 1.0, 10.0, x_mm=8.0)).to(torch.complex64)
    kspace = CartesianMRI(lines, maps)(image)
    inside = disc(64, 1.0, 24.0)[0] == 1
    wrong = [
        1 - (espirit_maps(kspace, lines, width)[0].conj() * maps).sum(0).abs()[inside].mean() for width in (10, None)
    ]
    assert float(wrong[1]) < 0.5 * float(wrong[0])


def test_maps_of_noisy_lines_are_better_where_the_noise_is_known() -> None:
    """What noise alone would give is no signal, though it is above the threshold."""
    lines = torch.zeros(64, 64, dtype=torch.bool)
    lines[27:37] = True
    maps = birdcage_maps(8, 64, 64)
    image = (disc(64, 1.0, 26.0) + 0.5 * disc(64, 1.0, 10.0, x_mm=8.0)).to(torch.complex64)
    clean = CartesianMRI(lines, maps)(image)
    noise = 0.2 * torch.complex(*torch.randn(2, *clean.shape, generator=torch.Generator().manual_seed(0)))
    inside, beside = disc(64, 1.0, 24.0)[0] == 1, disc(64, 1.0, 29.0)[0] == 0
    unknown, known = (espirit_maps(clean + noise * lines, lines, None, std)[0] for std in (None, torch.tensor([0.2])))
    wrong = [float(1 - (found.conj() * maps).sum(0).abs()[inside].mean()) for found in (unknown, known)]
    assert wrong[1] < 0.5 * wrong[0], wrong
    # Maps of noise would let the image have noise beside the object.
    assert bool((unknown != 0).any(0)[beside].all())
    assert float((known != 0).any(0)[beside].float().mean()) < 0.05


def test_a_slice_of_noise_is_no_reason_to_refuse_the_others() -> None:
    mask = torch.ones(64, 64, dtype=torch.bool)
    clean = CartesianMRI(mask, birdcage_maps(4, 64, 64))(disc(64, 1.0, 26.0).to(torch.complex64))
    noise = 0.1 * torch.complex(*torch.randn(2, 8, 4, 64, 64, generator=torch.Generator().manual_seed(0)))
    noise[0] += clean[0]
    found = espirit_maps(noise, mask, None, torch.full((8,), 0.1))
    assert bool((found[0] != 0).any()) and not bool((found[1:] != 0).any())


def test_a_wide_calibration_square_may_be_given() -> None:
    mask = torch.ones(128, 128, dtype=torch.bool)
    kspace = CartesianMRI(mask, birdcage_maps(4, 128, 128))(disc(128, 1.0, 40.0).to(torch.complex64))
    assert folded_share(kspace, mask, 96, torch.tensor([0.01])) == 0.0


def test_mri_refuses_what_does_not_fit() -> None:
    maps = torch.ones(2, 8, 8, dtype=torch.complex64)
    with pytest.raises(GeometryError, match="no point is sampled"):
        CartesianMRI(torch.zeros(8, 8, dtype=torch.bool), maps)
    with pytest.raises(GeometryError, match="coil maps are"):
        CartesianMRI(torch.ones(8, 9, dtype=torch.bool), maps)
    with pytest.raises(InputError, match="expected complex"):
        CartesianMRI(torch.ones(8, 8, dtype=torch.bool), maps.real)


@pytest.mark.parametrize(
    "operator",
    [
        Truncation(24, 36, 3),
        Truncation(24, 36, 3.7, filter="tukey", zero_fill=2),
        SlabAverage(24, 36, 4),
        SlabAverage(24, 36, 3, -1),
        *(
            ThickSlices(24, 36, factor, -2, profile=profile, gap=gap)
            for factor in (1, 2.5, 5, 6)
            for profile in ("box", "gaussian", "slr")
            for gap in (-0.5, 0.0, 0.4)
        ),
    ],
)
def test_lower_resolution_keeps_intensity(operator: Downsampling) -> None:
    dtype = torch.complex64 if operator.domain.complex else torch.float32
    low = operator(torch.full((2, 24, 36), 0.7, dtype=dtype))
    assert (low - 0.7).abs().max() < 1e-6
    assert (operator.upsample(low) - 0.7).abs().max() < 1e-6


def test_truncation_is_exact_for_band_limited_images_and_keeps_their_place() -> None:
    generator = torch.Generator().manual_seed(7)
    operator = Truncation(32, 48, 2)
    smooth = operator.upsample(torch.randn(2, 16, 24, dtype=torch.complex64, generator=generator))
    low = operator(smooth)
    assert (operator.upsample(low) - smooth).abs().max() < 1e-5
    # Pixel j of the small image is pixel 2 (j - 8) + 16 of the large one, along columns 2 (j - 12) + 24.
    assert (low - smooth[:, ::2, ::2]).abs().max() < 1e-5


def test_slabs_are_means_and_their_interpolation_is_centred() -> None:
    rows = torch.arange(12.0)[:, None].expand(12, 4)[None].contiguous()
    operator = SlabAverage(12, 4, 3)
    low = operator(rows)
    assert low[0, :, 0].tolist() == [1.0, 4.0, 7.0, 10.0]
    # A ramp comes back as the same ramp between the outermost slab centres: no shift by half a slab.
    assert torch.allclose(operator.upsample(low)[0, 1:11], rows[0, 1:11])


def test_ideal_thick_slices_are_slab_averages() -> None:
    assert isinstance(thick_slices(24, 36, 3), SlabAverage)
    assert isinstance(thick_slices(24, 36, 3, -1, profile="slr"), ThickSlices)
    slabs, thick = SlabAverage(24, 36, 4), ThickSlices(24, 36, 4)
    x = torch.randn(2, 24, 36, generator=torch.Generator().manual_seed(0))
    low = slabs(x)
    assert torch.allclose(low, thick(x), atol=1e-6)
    assert torch.allclose(slabs.upsample(low), thick.upsample(low), atol=1e-6)


def response(operator: ThickSlices, slice_: int) -> tuple[float, float]:
    """Centre and standard deviation, in rows, of what a thick slice sees."""
    seen = operator(torch.eye(operator.domain.shape[0])[:, :, None])[:, slice_, 0].double()
    rows = torch.arange(len(seen)) + 0.5
    centre = float((rows * seen).sum())
    return centre, float(((rows - centre).square() * seen).sum().sqrt())


@pytest.mark.parametrize("gap", [-0.5, 0.0, 0.5])
def test_thick_slices_lie_at_their_distance_and_are_as_thick_as_their_gap_leaves(gap: float) -> None:
    factor = 7.5
    thickness = factor / (1 + gap)
    # Of a box, a Gaussian of that full width at half maximum, and a box with edges of a third of its width.
    edge = (1 / 12 - 1 / (2 * math.pi**2)) / 9
    spreads: dict[SliceProfile, float] = {"box": 12**-0.5, "gaussian": 1 / 2.3548, "slr": (1 / 12 + edge) ** 0.5}
    for profile, spread in spreads.items():
        operator = ThickSlices(150, 1, factor, profile=profile, gap=gap)
        for slice_ in (9, 10):
            centre, found = response(operator, slice_)
            assert centre == pytest.approx((slice_ + 0.5) * factor, abs=0.02)
            # A row is itself a box of width 1.
            assert found**2 == pytest.approx((spread * thickness) ** 2 + 1 / 12, rel=0.01)


def test_a_filter_softens_and_zero_filling_interpolates() -> None:
    """Zero filling adds no frequencies, so that fewer measured ones are all that is left of a finer stack."""
    x = torch.randn(1, 48, 48, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    full, filled = Truncation(48, 48, 2), Truncation(48, 48, 2, zero_fill=2)
    coarse = Truncation(48, 48, 4)
    assert torch.allclose(full.upsample(filled(x)), coarse.upsample(coarse(x)), atol=1e-5)
    energies = [float(Truncation(48, 48, 2, filter=name)(x).abs().square().sum()) for name in ("none", "tukey", "hann")]
    assert energies[0] > 1.2 * energies[1] > 1.2 * energies[2]
    # The noise is that of the stack: what was not measured has none, and the rest makes up for it.
    assert filled.noise_passed == pytest.approx(0.5)
    for operator in (filled, Truncation(48, 48, 2, filter="hann"), full):
        noise = operator.noise(400, torch.Generator().manual_seed(1))
        assert float(noise.real.std()) == pytest.approx(1.0, rel=0.02)
        white = inverse_fourier(noise).abs().square().mean(0)
        assert (float(white.min()) < 0.1) == (operator is not full)


def test_stacks_measure_one_volume_each_in_its_place() -> None:
    """A smooth object seen by a tilted stack is what the object is at its voxels, thick slice by thick slice."""
    operator, (stack,) = oblique(), oblique().others

    def bump(col: Tensor, row: Tensor, slice_: Tensor) -> Tensor:
        return torch.exp(-(((col - 9) / 6) ** 2) - ((row - 11) / 7) ** 2 - ((slice_ - 12) / 8) ** 2)

    axes = [torch.arange(n).double() for n in operator.shape]
    slice_, row, col = torch.meshgrid(*axes, indexing="ij")
    volume = bump(col, row, slice_)
    found = operator(operator._tall(volume).to(torch.complex128))[0].real
    fine = torch.meshgrid(*(torch.arange(n).double() for n in stack.fine), indexing="ij")
    voxel = torch.stack([*fine[::-1], torch.ones_like(fine[0])], -1) @ torch.from_numpy(stack.to_volume).T
    there = bump(*voxel[..., :3].unbind(-1))
    thick = ThickSlices(stack.fine[0], stack.fine[1], 4, profile="gaussian", gap=0.1)
    expected = thick(there.permute(2, 0, 1).contiguous()).permute(1, 2, 0)
    (seen,) = operator.seen()
    mine = found[-seen.numel() :].reshape(seen.shape)
    assert 0.3 < float(seen.float().mean()) < 0.9  # its corners reach out
    assert float((mine - expected)[seen].abs().max()) < 0.02 and not mine[~seen].any()
    interpolated = operator.upsample(operator(operator._tall(volume + 0j))).real
    assert float(interpolated.max()) == pytest.approx(float(volume.max()), rel=0.1)
    with pytest.raises(GeometryError, match="stack 2 does not overlap the first: 0 % of it"):
        oblique(shift=40)


@pytest.mark.parametrize("factor", [1, 1.3, 2, 2.2, 2.5, 3, 5.5, 6])
def test_sizes_that_are_no_multiple_are_covered(factor: float) -> None:
    for n in range(1, 60):
        assert coarse_size(fine_size(n, factor), factor) == n
        assert 0 <= fine_size(coarse_size(n, factor), factor) - n <= factor
    for operator in (Truncation(25, 23, factor), thick_slices(25, 23, factor), thick_slices(25, 23, factor, -1)):
        dtype = torch.complex64 if operator.domain.complex else torch.float32
        x = torch.randn(1, 25, 23, dtype=dtype, generator=torch.Generator().manual_seed(0))
        assert operator.upsample(operator(x)).shape == x.shape
        if factor == 1:
            assert torch.allclose(operator.upsample(operator(x)), x, atol=1e-5)


def test_what_no_stack_can_be_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"factor: 0\.5 is below 1.*as 2 or 2\.5"):
        Truncation(24, 24, 0.5)
    with pytest.raises(GeometryError, match=r"factor: nan"):
        ThickSlices(24, 24, math.nan)
    with pytest.raises(GeometryError, match="gap: -1 of the thickness"):
        ThickSlices(24, 24, 2, gap=-1)
    with pytest.raises(InputError, match=r"profile: there is no profile 'sinc' \(choose box"):
        ThickSlices(24, 24, 2, profile=cast(Any, "sinc"))
    with pytest.raises(InputError, match="filter: there is no filter 'fermi'"):
        Truncation(24, 24, 2, filter=cast(Any, "fermi"))
    with pytest.raises(GeometryError, match=r"cols: 24 is no multiple of the factor 5 \(use ThickSlices"):
        SlabAverage(25, 24, 5, -1)
