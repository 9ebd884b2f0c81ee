"""What rays through air say: nothing that is there is ever cut off, whatever the noise and the faults of a scan."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators.geometry import FanBeam, ParallelBeam, within_view
from operators.linear import conjugate_gradient
from operators.preconditioner import normal_inverse
from operators.support import Supported, reach, support
from operators.tomography import Tomography
from operators.weighted import Weighted
from tests.conftest import disc

SIZE, PIXEL_MM = 96, 2.0
WATER = 0.02


def turn(views: int, span: float = math.pi) -> tuple[float, ...]:
    return tuple(span * k / views for k in range(views))


def parallel(views: int, detectors: int = 140, **given: float) -> ParallelBeam:
    return ParallelBeam(SIZE, SIZE, PIXEL_MM, turn(views), detectors, PIXEL_MM, **given)


def fan(views: int) -> FanBeam:
    return FanBeam(SIZE, SIZE, PIXEL_MM, turn(views, 2 * math.pi), 180, 3.2, 0.0, 400.0, 400.0)


def counted(clean: Tensor, photons: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(photons * torch.exp(-clean.double()), generator=generator).clamp(min=1.0)
    return -torch.log(counts / photons).float()


def patient(seed: int) -> Tensor:
    """A slice ``(rows, cols)`` in 1/mm: body and arms on a table of two thin shells with foam; a needle and a drop."""
    rng = np.random.default_rng(seed)
    y, x = _grid()
    image = torch.zeros(SIZE, SIZE)
    body_x, body_y = rng.uniform(16, 30), rng.uniform(10, 18)
    middle = rng.uniform(-6, 0)
    image[(x / body_x) ** 2 + ((y - middle) / body_y) ** 2 < 1] = WATER
    for _ in range(int(rng.integers(0, 3))):
        at_x, at_y, radius = rng.choice([-1, 1]) * rng.uniform(30, 38), rng.uniform(-10, 15), rng.uniform(2, 5)
        image[(x - at_x) ** 2 + (y - at_y) ** 2 < radius**2] = WATER * rng.uniform(0.9, 1.1)
    top, thick, wide = middle + body_y + 1, rng.uniform(6, 12), rng.uniform(25, 40)
    bend = rng.uniform(0, 0.004) * x**2  # the table curves upwards at its ends
    depth = y - top + bend
    image[(depth > 0) & (depth < thick) & (x.abs() < wide)] = 0.05 * WATER
    for at in (0.0, thick - 1):
        image[(depth >= at) & (depth < at + 1) & (x.abs() < wide)] = 0.35 * WATER
    needle = (int(rng.integers(8, 20)), int(rng.integers(20, 70)))
    image[needle] = 0.3
    at_x, at_y = rng.uniform(-30, 30), rng.uniform(-40, -30)
    image[(x - at_x) ** 2 + (y - at_y) ** 2 < 9] = 0.5 * WATER
    return image


def _grid() -> tuple[Tensor, Tensor]:
    offsets = torch.arange(SIZE) - (SIZE - 1) / 2
    return offsets[:, None], offsets[None, :]


PATIENTS = torch.stack([patient(seed) for seed in range(16)])


@pytest.mark.parametrize("geometry", [parallel(60), parallel(8), fan(60)], ids=["60 views", "8 views", "fan"])
def test_beside_a_disc_everything_is_air(geometry: ParallelBeam) -> None:
    operator = Tomography(geometry)
    image = WATER * disc(SIZE, PIXEL_MM, 50.0)
    found = support(operator, operator(image))
    assert not found.contradicted.any()
    inside = found.inside[0]
    assert bool(inside[image[0] > 0].all())
    y, x = _grid()
    views = len(geometry.angles_rad)
    # Views leave a polygon around the disc, whose corners are the farthest; rays keep their distance from its shadow.
    between = math.pi / views * (1 if isinstance(geometry, FanBeam) else 0.5)
    farthest = (50.0 + (reach(geometry) + 3) * geometry.detector_mm) / math.cos(between)
    assert not inside[torch.hypot(x, y) * PIXEL_MM > farthest].any()


@pytest.mark.parametrize("photons", [None, 1e6, 1e5, 1e4, 1e3])
@pytest.mark.parametrize("geometry", [parallel(8), parallel(60), parallel(180), fan(23)], ids=["8", "60", "180", "fan"])
def test_patients_tables_needles_and_drops_are_kept(geometry: ParallelBeam, photons: float | None) -> None:
    operator = Tomography(geometry)
    clean = operator(PATIENTS)
    for seed in range(1 if photons is None else 3):
        data = clean if photons is None else counted(clean, photons, seed)
        found = support(operator, data)
        cut = (PATIENTS > 0) & ~found.inside
        # What a thousand photons cannot show may be lost: less than a line integral of eight standard errors of nine.
        least = 0 if photons is None or photons > 1e3 else 0.6 * WATER
        assert not (cut & (least < PATIENTS)).any()
        assert not found.contradicted.any()
        if photons is None or photons > 1e3:
            assert float(found.inside.float().mean()) < 0.8


def test_air_that_reads_below_zero_cuts_nothing_off() -> None:
    operator = Tomography(parallel(23))
    clean = operator(PATIENTS)
    drift = -0.03 * torch.linspace(0, 1, 23)[None, :, None]  # a beam that grows brighter
    found = support(operator, counted(clean, 1e5, 0) + drift)
    assert not ((PATIENTS > 0) & ~found.inside).any()
    assert float(found.inside.float().mean()) < 0.8


def test_air_that_reads_above_zero_is_not_believed() -> None:
    operator = Tomography(parallel(23))
    found = support(operator, counted(operator(PATIENTS), 1e5, 0) + 0.05)
    assert found.inside.all()


def test_truncated_rows_say_nothing() -> None:
    whole = Tomography(parallel(60))
    operator = Tomography(replace(parallel(60), rows=40, cols=40, detectors=40))
    image = WATER * disc(SIZE, PIXEL_MM, 70.0)
    data = whole(image)[:, :, 50:90].contiguous()
    inside = support(operator, counted(data, 1e5, 0)).inside
    seen = operator.adjoint(torch.ones_like(data)) > 0
    assert torch.equal(inside, seen)  # the corners are seen by few views, but seen


def test_rays_that_only_continue_a_row_say_nothing() -> None:
    measured = replace(parallel(60), detectors=40)
    image = WATER * disc(SIZE, PIXEL_MM, 60.0)
    whole = Tomography(parallel(60))
    data = counted(whole(image)[:, :, 50:90].contiguous(), 1e5, 0)
    # As `recon.problem.ct` continues truncated rows: smoothly to zero.
    fade = torch.linspace(1, 0, 21)[:-1]
    continued = torch.cat([data[..., :1] * fade.flip(0), data, data[..., -1:] * fade], dim=2)
    operator = Tomography(measured.extended(20, 20))
    assert support(operator, continued, (20, 20)).inside.all()


def test_what_no_ray_sees_is_outside() -> None:
    geometry = replace(parallel(60), detectors=98)
    operator = Tomography(geometry)
    inside = support(operator, counted(operator(WATER * disc(SIZE, PIXEL_MM, 70.0)), 1e5, 0)).inside[0]
    y, x = _grid()
    assert not inside[torch.hypot(x, y) > 53].any()
    assert bool(inside[torch.hypot(x, y) < 35].all())


@pytest.mark.parametrize("shift_mm", [0.0, 9.0])
@pytest.mark.parametrize("source_mm", [None, 300.0])
def test_within_view_is_where_every_view_casts_its_shadow(shift_mm: float, source_mm: float | None) -> None:
    angles = tuple(np.linspace(0.1, 2.2, 9))
    sizes: dict[str, Any] = {"rows": 25, "cols": 40, "pixel_mm": PIXEL_MM, "angles_rad": angles, "detectors": 30}
    if source_mm is None:
        geometry = ParallelBeam(**sizes, detector_mm=PIXEL_MM, detector_shift_mm=shift_mm)
    else:
        geometry = FanBeam(
            **sizes, detector_mm=2 * PIXEL_MM, detector_shift_mm=2 * shift_mm,
            source_origin_mm=source_mm, origin_detector_mm=source_mm,
        )  # fmt: skip
    found = within_view(geometry)
    wide = Tomography(geometry.extended(60, 60))
    for row, col in np.ndindex(25, 40):
        pixel = torch.zeros(1, 25, 40)
        pixel[0, row, col] = 1.0
        shadow = wide.forward(pixel)[0]
        middle = (shadow * torch.arange(150)).sum(1) / shadow.sum(1)
        distance = (middle - (150 - 1) / 2).abs() - 15  # to the detector's edge, in elements
        if float(distance.abs().min()) > 0.6:
            assert found[row, col] == bool((distance < 0).all())
    assert 0.2 < found.mean() < 0.9


def test_of_a_displaced_detector_the_farther_edge_counts() -> None:
    geometry = ParallelBeam(SIZE, SIZE, PIXEL_MM, turn(90, 2 * math.pi), 60, PIXEL_MM, 20 * PIXEL_MM)
    y, x = _grid()
    radius = torch.hypot(x, y).numpy()
    found = within_view(geometry)
    assert found[radius < 49.9].all()  # 30 elements and the shift of 20
    assert not found[radius > 50.1].any()


def test_dead_elements_that_read_air_cut_nothing_off() -> None:
    operator = Tomography(parallel(60))
    data = operator(PATIENTS)
    data[:, :, 60:64] = 0.0
    data[:, 7, 80] = -3.0  # a zinger
    data[:, 11] = 0.0  # a frame without the object
    assert not ((PATIENTS > 0) & ~support(operator, data).inside).any()


def test_views_that_contradict_each_other_are_not_believed() -> None:
    operator = Tomography(parallel(23))
    data = operator(PATIENTS)
    wrong = Tomography(replace(parallel(23), detector_shift_mm=12 * PIXEL_MM))
    found = support(wrong, data)
    assert found.contradicted.all()
    assert found.inside.all()
    data[:, 5] = 0.0  # one of eight views without the object says that there is none
    few = support(Tomography(parallel(8)), data[:, :8])
    assert few.contradicted.all()


def test_a_slice_is_the_same_alone_and_in_a_stack() -> None:
    operator = Tomography(parallel(23))
    data = counted(operator(torch.cat([PATIENTS, 3 * PATIENTS])), 1e5, 0)
    whole = support(operator, data).inside
    for index in (0, 7, 20):
        assert torch.equal(support(operator, data[index : index + 1]).inside[0], whole[index])


def test_empty_data_and_few_elements_leave_everything_open() -> None:
    operator = Tomography(replace(parallel(8), rows=3, cols=3, detectors=4))
    assert support(operator, torch.rand(2, 8, 4)).inside.all()
    nothing = support(Tomography(parallel(8)), torch.zeros(1, 8, 140))
    assert not nothing.contradicted.any()


def test_a_masked_operator_keeps_the_norm_and_the_speed_of_the_whole_one() -> None:
    whole = Tomography(parallel(23))
    inside = support(whole, whole(PATIENTS)).inside
    weights = 0.5 + torch.rand(16, 23, 140, generator=torch.Generator().manual_seed(0))
    masked = Supported(Weighted(whole, weights), inside)
    assert torch.equal(masked.norms, masked.operator.norms)
    part = masked.part(4, 6)
    assert torch.equal(part.norms, masked.norms[4:6])
    x = torch.randn(16, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    assert torch.equal(part(x[4:6]), masked(x)[4:6])

    # Preconditioned or not, the solution is that of the masked normal equations, and zero outside.
    operator = masked.normalized()
    anchor = 1e-2
    right = operator.adjoint(operator(PATIENTS))

    def system(v: Tensor) -> Tensor:
        return operator.normal(v) + anchor * v

    exact = conjugate_gradient(system, right, None, 300, tolerance=1e-7)
    inverse = normal_inverse(operator, anchor)
    assert inverse is not None
    sooner = conjugate_gradient(system, right, None, 6, precondition=inverse)
    plain = conjugate_gradient(system, right, None, 6)
    assert not sooner[~inside].any()
    assert not exact[~inside].any()
    assert (sooner - exact).norm() < 0.75 * (plain - exact).norm()
