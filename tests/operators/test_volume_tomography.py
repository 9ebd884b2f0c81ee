"""Projectors of volumes: exact adjoints, exact line integrals, the same bits with any number of threads, refusals."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest
import torch

from operators import compiled
from operators.errors import BackendUnavailable, GeometryError
from operators.geometry import ParallelBeam
from operators.linear import dot_product_error
from operators.tomography import Tomography
from operators.volume_geometry import VolumeBeam, circular, helical, parallel
from operators.volume_tomography import VolumeTomography
from tests.operators.bodies import Ellipsoid, line_integrals, voxelised

DISTANCES: dict[str, float] = {"source_origin_mm": 400.0, "origin_detector_mm": 400.0}
BODIES = [
    Ellipsoid((0, 0, 0), (50, 42, 46), 0.02),
    Ellipsoid((12, -8, 6), (14, 20, 10), 0.01),
    Ellipsoid((-18, 10, -12), (8, 8, 8), -0.012),
]


def turn(views: int, span_rad: float = 2 * math.pi) -> tuple[float, ...]:
    return tuple(np.linspace(0, span_rad, views, endpoint=False).tolist())


def jittered(vectors: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Vectors of a real machine: every number a little off."""
    generator = np.random.default_rng(3)
    spread = np.repeat([4.0, 4.0, 0.02, 0.02], 3)
    moved: np.ndarray[Any, np.dtype[np.float64]] = vectors + spread * generator.standard_normal(vectors.shape)
    return moved


def scans(size: int, views: int) -> dict[str, Callable[[], VolumeBeam]]:
    """Scans of a cube of 128 mm with a detector as wide as its shadow."""
    step = 256 / size
    panel = {"column_mm": step, "row_mm": step}
    flat = {"column_mm": step / 2, "row_mm": step / 2}

    def cone(angles: tuple[float, ...] = turn(views), **more: float) -> VolumeBeam:
        return made(circular(angles, **DISTANCES, **panel, **more), "cone")

    def made(vectors: Any, beam: Any) -> VolumeBeam:
        return VolumeBeam(size, size, size, 128 / size, 128 / size, vectors, size, size, beam)

    return {
        "full turn": cone,
        "short scan": lambda: cone(turn(views, math.radians(215))),
        "detector to the side": lambda: cone(column_shift_mm=40.0),
        "detector up": lambda: cone(row_shift_mm=25.0),
        "source to the side and up": lambda: cone(source_shift_mm=7.0, source_rise_mm=-5.0),
        "roll": lambda: cone(roll_rad=0.2),
        "tilt": lambda: cone(tilt_rad=0.2, slant_rad=-0.1),
        "vertical shift": lambda: cone(rise_mm=9.0),
        "helix": lambda: made(helical(turns=2, views=views, pitch_mm=40.0, **DISTANCES, **panel), "cone"),
        "vectors of a real machine": lambda: made(jittered(circular(turn(views), **DISTANCES, **panel)), "cone"),
        "parallel": lambda: made(parallel(turn(views, math.pi), **flat), "parallel"),
        "parallel, tilted axis": lambda: made(
            parallel(turn(views, math.pi), **flat, axis_tilt_rad=0.05, roll_rad=0.03), "parallel"
        ),
        "laminography": lambda: made(parallel(turn(views), **flat, axis_tilt_rad=math.radians(30)), "parallel"),
    }


SMALL = scans(32, 13)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", SMALL)
def test_adjoint_belongs_to_forward(name: str) -> None:
    assert dot_product_error(VolumeTomography(SMALL[name]()), slices=1) < 1e-5


def test_adjoint_belongs_to_forward_with_voxels_and_panels_that_are_not_square() -> None:
    vectors = circular(turn(7), **DISTANCES, column_mm=3.0, row_mm=2.0, roll_rad=0.1)
    g = VolumeBeam(20, 33, 29, 1.5, 2.5, vectors, 37, 41)
    assert dot_product_error(VolumeTomography(g), slices=2) < 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_agrees_with_exact_line_integrals(name: str) -> None:
    assert deviation(scans(64, 12)[name]()) < 0.021


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_agrees_with_exact_line_integrals_within_a_percent(name: str) -> None:
    assert deviation(scans(128, 24)[name]()) < 0.01


def deviation(g: VolumeBeam) -> float:
    """Relative root mean square deviation of projections from exact line integrals."""
    found = VolumeTomography(g).forward(torch.from_numpy(voxelised(BODIES, g))[None])[0].numpy()
    exact = line_integrals(BODIES, g)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("name", ["full turn", "tilt", "laminography"])
def test_has_the_same_bits_with_any_number_of_threads(name: str, threads: Callable[[int], None]) -> None:
    operator = VolumeTomography(scans(48, 8)[name]())
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, *space.shape, generator=generator) for space in (operator.domain, operator.range))
    found = []
    for count in (1, 2, 3, 5):
        threads(count)
        found.append((operator.forward(x), operator.adjoint(y)))
    for projected, back in found[1:]:
        assert torch.equal(projected, found[0][0]) and torch.equal(back, found[0][1])


def test_a_source_far_away_projects_as_a_parallel_beam_slice_by_slice() -> None:
    size, angles = 48, turn(20, math.pi)
    vectors = circular(angles, source_origin_mm=1e7, origin_detector_mm=200.0, column_mm=0.9, row_mm=0.7)
    volume = VolumeBeam(8, size, size, 0.7, 0.7, vectors, 8, 60)
    flat = ParallelBeam(size, size, 0.7, angles, 60, 0.9)
    x = torch.rand(8, size, size, generator=torch.Generator().manual_seed(0))
    found = VolumeTomography(volume).forward(x[None])[0].transpose(0, 1)
    expected = Tomography(flat).forward(x)
    assert torch.linalg.vector_norm(found - expected) < 1e-3 * torch.linalg.vector_norm(expected)


def test_a_preset_of_parallel_rays_is_the_parallel_operator_slice_by_slice() -> None:
    angles = turn(20, math.pi)
    vectors = parallel(angles, column_mm=0.9, row_mm=0.7, column_shift_mm=2.0)
    volume = VolumeBeam(5, 40, 48, 0.7, 0.7, vectors, 5, 60, "parallel")
    flat = ParallelBeam(40, 48, 0.7, angles, 60, 0.9, detector_shift_mm=2.0)
    x = torch.rand(5, 40, 48, generator=torch.Generator().manual_seed(0))
    found = VolumeTomography(volume).forward(x[None])[0].transpose(0, 1)
    expected = Tomography(flat).forward(x)
    assert torch.linalg.vector_norm(found - expected) < 1e-3 * torch.linalg.vector_norm(expected)


def test_nan_is_not_taken_for_a_number() -> None:
    operator = VolumeTomography(SMALL["full turn"]())
    x = torch.full((1, *operator.domain.shape), math.nan)
    y = torch.full((1, *operator.range.shape), math.nan)
    assert operator.forward(x).isnan().any() and operator.adjoint(y).isnan().any()


def test_double_precision_in_and_out() -> None:
    operator = VolumeTomography(SMALL["full turn"]())
    x = torch.rand(1, *operator.domain.shape, dtype=torch.float64)
    assert operator.forward(x).dtype == torch.float64


IN_LAYERS = ["full turn", "short scan", "detector to the side", "detector up", "source to the side and up",
             "vertical shift", "parallel"]  # fmt: skip


@pytest.mark.parametrize("name", IN_LAYERS)
@pytest.mark.parametrize("slices", [9, 14])
def test_some_slices_alone_give_the_rays_that_stay_among_them(name: str, slices: int) -> None:
    operator = VolumeTomography(SMALL[name]())
    x = torch.rand(1, *operator.domain.shape, generator=torch.Generator().manual_seed(5))
    excerpt = operator.middle(slices)
    part = excerpt.operator(x[:, excerpt.slices])
    assert excerpt.slices.stop - excerpt.slices.start == slices == excerpt.operator.domain.shape[0]
    rows = part.shape[-2]
    assert slices / 2 < rows <= slices and excerpt.samples(operator(x)).shape == part.shape
    assert torch.allclose(part, excerpt.samples(operator(x)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(SMALL) - set(IN_LAYERS)))
def test_where_every_ray_crosses_many_slices_all_of_them_stand_for_the_volume(name: str) -> None:
    operator = VolumeTomography(SMALL[name]())
    excerpt = operator.middle(9)
    assert excerpt.operator is operator and excerpt.slices == slice(0, 32)


def test_points_project_where_the_projector_puts_them() -> None:
    g = SMALL["tilt"]()
    volume = torch.zeros(1, *g.volume_shape)
    k, i, j = 20, 9, 25
    volume[0, k, i, j] = 1.0
    point = np.array([[(j - 15.5) * 4, (15.5 - i) * 4, (k - 15.5) * 4]])
    column, row = g.project(point)
    shadow = VolumeTomography(g).forward(volume)[0]
    for view in range(g.views):
        at = (shadow[view] > 0.05 * shadow[view].max()).nonzero().double()
        weights = shadow[view][shadow[view] > 0.05 * shadow[view].max()].double()
        middle = (at * weights[:, None]).sum(0) / weights.sum()
        assert abs(float(middle[0]) - row[view, 0]) < 0.3 and abs(float(middle[1]) - column[view, 0]) < 0.3


def test_long_compilation_is_announced(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "SLOW_S", 0.01)
    with caplog.at_level(logging.WARNING), compiled.announced():
        time.sleep(0.1)
    assert "once per installation" in caplog.text
    caplog.clear()
    monkeypatch.setattr(compiled, "SLOW_S", 60.0)
    with compiled.announced():
        pass
    assert not caplog.text


def test_without_a_place_for_compiled_functions_they_are_compiled_anew(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = numba.njit

    def njit(*, cache: bool = False, **more: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available")
        return plain(**more)

    with monkeypatch.context() as patch:
        patch.setattr(numba, "njit", njit)
        double = compiled.compiled(lambda x: x + x)
    assert double(2.0) == 4.0 and "NUMBA_CACHE_DIR" in caplog.text


def test_a_gpu_that_is_not_there_is_said() -> None:
    import astra

    if astra.use_cuda():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendUnavailable, match="no CUDA device"):
        VolumeTomography(SMALL["full turn"](), "cuda")


def beam(vectors: Any, **more: Any) -> VolumeBeam:
    return VolumeBeam(**{"slices": 8, "rows": 8, "cols": 8, "pixel_mm": 1.0, "slice_mm": 1.0, "vectors": vectors,
                         "detector_rows": 8, "detector_columns": 8, **more})  # fmt: skip


ROUND = {"source_origin_mm": 100.0, "origin_detector_mm": 50.0, "column_mm": 1.0, "row_mm": 1.0}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: beam(np.zeros((5, 6))), r"shape \(5, 6\), one row of 12 numbers per view"),
        (lambda: beam(np.full((2, 12), math.nan)), "row 0 is not finite"),
        (lambda: beam(np.ones((2, 12))), "which makes no detector"),
        (lambda: beam(circular(turn(4), **{**ROUND, "source_origin_mm": 3.0})), "view 0 at .* lies inside the volume"),
        (lambda: beam(circular((0.5,), **{**ROUND, "source_origin_mm": 5.0})), "reaches behind the source"),
        (lambda: beam(circular(turn(4), **{**ROUND, "origin_detector_mm": -20.0})), "magnification of 0.8"),
        (lambda: beam(circular(turn(4), **ROUND, row_shift_mm=30.0)), "misses the detector in every view"),
        (lambda: beam(circular(turn(4), **ROUND) * 1000), "seems to be in another unit"),
        (lambda: beam(circular(turn(4), **ROUND), pixel_mm=-1.0), "not a positive length"),
        (lambda: beam(circular((0.0, 90.0, 180.0), **ROUND)), "look like degrees"),
    ],
    ids=[
        "shape",
        "nan",
        "no detector",
        "source inside",
        "behind",
        "magnification",
        "misses",
        "unit",
        "size",
        "degrees",
    ],
)
def test_impossible_geometries_are_refused_in_a_sentence(make: Callable[[], VolumeBeam], says: str) -> None:
    with pytest.raises(GeometryError, match=says):
        make()
