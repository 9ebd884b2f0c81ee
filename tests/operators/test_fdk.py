"""Feldkamp's back-projection: attenuation right, in place, upright and unmirrored, for every place of the detector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from operators.errors import GeometryError
from operators.fbp import filtered_back_projection
from operators.fdk import feldkamp
from operators.geometry import FanBeam
from operators.linear import conjugate_gradient
from operators.preconditioner import normal_inverse
from operators.volume_geometry import VolumeBeam, circular, parallel
from operators.volume_tomography import VolumeTomography
from tests.operators.bodies import Ellipsoid, line_integrals, voxelised
from tests.operators.test_volume_tomography import DISTANCES, scans, turn

PLACE, RADIUS, VALUE = (20.0, -12.0, 15.0), 24.0, 0.02
BALL = [Ellipsoid(PLACE, (RADIUS,) * 3, VALUE)]
CIRCLES = [
    "full turn", "short scan", "detector to the side", "detector up", "source to the side and up", "roll", "tilt",
    "vertical shift", "parallel", "parallel, tilted axis",
]  # fmt: skip


def middle(volume: NDArray[np.float32], g: VolumeBeam) -> NDArray[np.float64]:
    """Centre of what is brighter than half, as ``(x, y, z)`` in mm."""
    k, i, j = np.nonzero(volume > 0.5 * VALUE)
    index = np.array([j.mean(), -i.mean(), k.mean()])
    rows: NDArray[np.float64] = np.array([g.cols - 1, 1 - g.rows, g.slices - 1]) / 2
    return np.asarray((index - rows) * g.size_mm)


def check_ball(found: NDArray[np.float32], g: VolumeBeam) -> None:
    inner = voxelised([Ellipsoid(PLACE, (0.75 * RADIUS,) * 3, 1.0)], g, 1) > 0.5
    outer = voxelised([Ellipsoid(PLACE, (1.3 * RADIUS,) * 3, 1.0)], g, 1) < 0.5
    assert abs(found[inner].mean() / VALUE - 1) < 0.01
    assert found[inner].std() < 0.01 * VALUE
    assert abs(found[outer].mean()) < 0.005 * VALUE
    assert np.abs(middle(found, g) - PLACE).max() < 0.3 * g.pixel_mm


@pytest.mark.parametrize("name", CIRCLES)
def test_a_ball_comes_out_right_and_in_place(name: str) -> None:
    g = scans(64, 90)[name]()
    check_ball(feldkamp(torch.from_numpy(line_integrals(BALL, g)), g).numpy(), g)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CIRCLES, "helix", "vectors of a real machine"])
def test_a_ball_comes_out_right_by_least_squares_too(name: str) -> None:
    g = scans(64, 60)[name]()
    operator = VolumeTomography(g)
    data = torch.from_numpy(line_integrals(BALL, g))[None]
    found = conjugate_gradient(operator.normal, operator.adjoint(data), None, 15)[0].numpy()
    inner = voxelised([Ellipsoid(PLACE, (0.75 * RADIUS,) * 3, 1.0)], g, 1) > 0.5
    assert abs(found[inner].mean() / VALUE - 1) < 0.01
    assert np.abs(middle(found, g) - PLACE).max() < 0.3 * g.pixel_mm


@pytest.mark.parametrize("tilt_deg", [20, 45])
def test_around_a_tilted_axis_a_ball_lacks_the_double_cone_of_its_spectrum(tilt_deg: float) -> None:
    """Inside, it is the mean of its spectrum over all directions; a share of the cosine of the tilt is seen."""
    tilt_rad = math.radians(tilt_deg)
    vectors = parallel(turn(90), column_mm=2.0, row_mm=2.0, axis_tilt_rad=tilt_rad, roll_rad=0.03)
    g = VolumeBeam(64, 64, 64, 2.0, 2.0, vectors, 97, 95, "parallel")
    found = feldkamp(torch.from_numpy(line_integrals(BALL, g)), g).numpy()
    inner = voxelised([Ellipsoid(PLACE, (0.75 * RADIUS,) * 3, 1.0)], g, 1) > 0.5
    assert found[inner].mean() == pytest.approx(math.cos(tilt_rad) * VALUE, rel=0.005)
    assert found[inner].std() < 0.005 * VALUE
    assert np.abs(middle(found, g) - PLACE).max() < 0.3 * g.pixel_mm
    half = VolumeBeam(64, 64, 64, 2.0, 2.0, vectors[:45], 97, 95, "parallel")
    with pytest.raises(GeometryError, match=f"tilted by {tilt_deg} degrees, and the views cover 180 of the 360"):
        feldkamp(torch.zeros(half.data_shape), half)
    assert VolumeTomography(half).initial_image(torch.zeros(1, *half.data_shape)).shape == (1, 64, 64, 64)


@pytest.mark.parametrize("name", ["full turn", "tilt", "parallel"])
def test_an_object_without_symmetry_is_upright_and_not_mirrored(name: str) -> None:
    g = scans(48, 60)[name]()
    bodies = [
        Ellipsoid((0, 0, 0), (30, 30, 30), 0.01), Ellipsoid((30, 0, 0), (10, 10, 10), 0.02),
        Ellipsoid((0, 26, 0), (10, 10, 10), 0.03), Ellipsoid((0, 0, 24), (10, 10, 10), 0.04),
    ]  # fmt: skip
    truth = voxelised(bodies, g)
    found = feldkamp(torch.from_numpy(line_integrals(bodies, g)), g).numpy()
    fits = {
        axes: np.corrcoef(found.ravel(), np.flip(truth, axes).ravel())[0, 1]
        for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    }
    assert fits[()] > 0.97 and max(value for axes, value in fits.items() if axes) < fits[()] - 0.03


def test_the_plane_of_the_source_is_that_of_a_fan_beam() -> None:
    angles, size = turn(40), 64
    flat = FanBeam(size, size, 1.0, angles, 90, 2.0, source_origin_mm=400, origin_detector_mm=400)
    g = VolumeBeam(1, size, size, 1.0, 1.0, circular(angles, **DISTANCES, column_mm=2.0, row_mm=2.0), 1, 90)
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(1, 40, 90, generator=generator)
    expected = filtered_back_projection(data, flat, "hann")
    found = feldkamp(data.transpose(0, 1), g, "hann")
    assert torch.linalg.vector_norm(found - expected) < 1e-4 * torch.linalg.vector_norm(expected)


def test_has_the_same_bits_with_any_number_of_threads() -> None:
    g = scans(32, 9)["tilt"]()
    data = torch.from_numpy(line_integrals(BALL, g))
    before, found = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append(feldkamp(data, g))
    torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["helix", "vectors of a real machine"])
def test_other_orbits_are_refused_by_name_and_start_from_a_few_iterations(name: str) -> None:
    g = scans(32, 20)[name]()
    data = torch.from_numpy(line_integrals(BALL, g))
    with pytest.raises(GeometryError, match=r"do not lie on a circle .*use sirt, cgls or tv"):
        feldkamp(data, g)
    start = VolumeTomography(g).initial_image(data[None])[0].numpy()
    assert np.abs(middle(start, g) - PLACE).max() < g.pixel_mm


def test_spectrum_preconditions_slice_by_slice() -> None:
    g = scans(32, 40)["full turn"]()
    assert VolumeTomography(g).spectrum().shape == (32, 17)
    operator = VolumeTomography(g).normalized()
    weight, right = 1e-2, operator.normal(torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0)))

    def solved(iterations: int, precondition: Any = None) -> torch.Tensor:
        return conjugate_gradient(
            lambda x: operator.normal(x) + weight * x, right, None, iterations, precondition=precondition
        )

    exact = solved(60)
    plain, better = (
        float(torch.linalg.vector_norm(solved(5, way) - exact) / torch.linalg.vector_norm(exact))
        for way in (None, normal_inverse(operator, weight))
    )
    assert better < 0.3 * plain
