"""What a scan covers: field of view, weights of rays that are measured twice, lists of angles, rows that go on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from operators import continuation, truncation
from operators.errors import GeometryError
from operators.fbp import filtered_back_projection, ray_weights, short_scan_weights, view_weights
from operators.geometry import FanBeam, ParallelBeam, beyond_ends, check_angles, limits
from tests import discs
from tests.discs import Disc

TURN = 2 * math.pi


def steps(count: int, span: float, start: float = 0.0) -> tuple[float, ...]:
    return tuple((start + np.arange(count) * span / count).tolist())


def fan(angles: tuple[float, ...], shift_mm: float = 0.0, detectors: int = 64, side: int = 56) -> FanBeam:
    return FanBeam(side, side, 1.0, angles, detectors, 2.0, shift_mm, source_origin_mm=60.0, origin_detector_mm=60.0)


def parallel(angles: tuple[float, ...], shift_mm: float = 0.0, side: int = 64) -> ParallelBeam:
    return ParallelBeam(side, side, 1.0, angles, 64, 1.0, shift_mm)


def test_the_field_of_view_is_what_a_turn_sees() -> None:
    turn, half = parallel(steps(90, TURN), 20.0), parallel(steps(90, math.pi), 20.0)
    assert turn.field_of_view_mm == half.field_of_view_mm == 24.0
    assert turn.determined_mm == 104.0 and half.determined_mm == 24.0
    moved = fan(steps(90, TURN), 40.0)
    assert moved.determined_mm == pytest.approx(2 * 60 * math.sin(math.atan(104 / 120)))
    assert moved.field_of_view_mm == pytest.approx(2 * 60 * math.sin(math.atan(24 / 120)))
    assert not parallel(steps(90, TURN), 1.0).displaced  # an axis slightly off the middle is ordinary


def test_rays_are_the_lines_that_the_projector_takes() -> None:
    """A point far from the axis is hit by the rays whose lines pass it."""
    from operators.tomography import Tomography

    for geometry in (parallel(steps(16, TURN), 3.0), fan(steps(16, TURN), 5.0)):
        image = torch.zeros(1, geometry.rows, geometry.cols)
        image[0, 20, 35] = 1.0
        x, y = 35 - (geometry.cols - 1) / 2, (geometry.rows - 1) / 2 - 20
        phi, rho = geometry.lines()
        distance = np.abs(rho - x * np.cos(phi) - y * np.sin(phi))
        hit = Tomography(geometry)(image)[0].numpy() > 0
        assert hit.any(axis=1).all() and distance[hit].max() < 1.5
        low, high = geometry.edges_mm
        assert low < rho.min() < rho.max() < high


@pytest.mark.parametrize("degrees", [100, 180, 200, 236, 300, 355])
def test_both_rays_along_a_line_share_a_weight_of_one_in_a_short_scan(degrees: float) -> None:
    length = math.radians(degrees)
    axes = (torch.linspace(0, length, 301), torch.linspace(-0.49, 0.49, 98))
    past, fan_rad = torch.meshgrid(*(axis.double() for axis in axes), indexing="ij")
    weights = short_scan_weights(past, fan_rad, length)
    assert float(weights.min()) >= 0 and float(weights.max()) <= 1
    sums, measured = weights.clone(), torch.zeros_like(past, dtype=torch.bool)
    for twin in (past + math.pi + 2 * fan_rad, past - math.pi + 2 * fan_rad):
        inside = (twin >= 0) & (twin <= length)
        sums += torch.where(inside, short_scan_weights(twin, -fan_rad, length), 0.0)
        measured |= inside
    assert (sums - 1).abs().max() < 1e-9
    assert (weights[~measured] == 1).all()


def test_both_rays_along_a_line_share_a_weight_of_one_with_a_displaced_detector() -> None:
    for geometry in (fan(steps(120, TURN), 40.0, side=80), parallel(steps(120, TURN), -20.0, side=100)):
        weights = ray_weights(geometry)
        assert weights is not None
        outward = geometry.positions_mm * np.sign(geometry.detector_shift_mm)
        order = np.argsort(outward)
        there, back = (
            np.interp(side * outward, outward[order], weights[0].numpy()[order], left=0.0) for side in (1, -1)
        )
        assert there + back == pytest.approx(1.0, abs=0.01)


def test_short_scans_of_a_fan_by_parkers_weights() -> None:
    """At the central ray Parker's weight is a squared sine over the part that is measured twice."""
    arc = math.pi + 2 * math.atan(64 / 120)
    geometry = fan(steps(400, arc), detectors=65)
    weights = ray_weights(geometry)
    assert weights is not None
    margin = arc - math.pi
    past = np.asarray(geometry.angles_rad) + arc / 800
    expected = np.where(past < margin, np.sin(math.pi / 2 * past / margin) ** 2, 1.0)
    expected = np.where(past > math.pi, np.cos(math.pi / 2 * (past - math.pi) / margin) ** 2, expected)
    assert weights[:, 32].numpy() == pytest.approx(expected, abs=1e-3)
    assert ray_weights(fan(steps(400, TURN))) is None


SPOTS = ((0.0, 0.0), (-8.0, -8.0), (-14.0, 0.0), (0.0, 14.0), (0.0, -14.0), (8.0, -8.0))
RNG = np.random.default_rng(0)
ANGLES = {
    "a turn": steps(180, TURN),
    "both ends measured": tuple(np.linspace(0, TURN, 181).tolist()),
    "short scan": steps(140, math.pi + 2 * math.atan(64 / 120)),
    "short scan from elsewhere": steps(140, math.pi + 2 * math.atan(64 / 120), start=5.0),
    "longer than the shortest": steps(160, 1.6 * math.pi),
    "three turns": steps(540, 3 * TURN),
    "interlaced": tuple((np.arange(4)[:, None] * TURN / 180 + np.arange(45) * TURN / 45).ravel().tolist()),
    "interlaced short scan": tuple(RNG.permutation(steps(140, math.pi + 2 * math.atan(64 / 120))).tolist()),
    "golden angle": tuple((np.arange(180) * math.radians(111.246) % TURN).tolist()),
}


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES)
@pytest.mark.parametrize("beam", ["fan", "parallel"])
def test_fbp_has_the_right_value_everywhere(angles: tuple[float, ...], beam: str) -> None:
    objects = [Disc(0, 0, 20, 0.02), Disc(10, 5, 5, 0.03)]
    geometry = fan(angles) if beam == "fan" else parallel(angles)
    data = torch.from_numpy(discs.sinogram(objects, geometry))
    image = filtered_back_projection(data, geometry)[0].numpy()
    for x, y in SPOTS:
        assert discs.mean(image, 1.0, x, y, 3.0) == pytest.approx(0.02, abs=4e-4)
    assert discs.mean(image, 1.0, 10, 5, 3.0) == pytest.approx(0.05, abs=1e-3)


def test_half_a_turn_with_both_ends_gives_each_end_half() -> None:
    weights = view_weights(parallel(tuple(np.linspace(0, math.pi, 61).tolist())))
    assert float(weights.sum()) == pytest.approx(math.pi, rel=1e-5)
    assert float(weights[0] + weights[-1]) == pytest.approx(math.pi / 60, rel=1e-5)


@pytest.mark.parametrize("shift", [20.0, -26.0])
def test_fbp_of_a_displaced_detector_over_a_turn(shift: float) -> None:
    parallel_beam = ParallelBeam(100, 100, 1.0, steps(240, TURN), 64, 1.0, shift)
    fan_beam = FanBeam(
        84, 84, 1.0, steps(240, TURN), 64, 2.0, 2 * shift, source_origin_mm=120.0, origin_detector_mm=120.0
    )
    objects = [Disc(0, 0, 38, 0.02), Disc(15, 20, 5, 0.03)]
    for geometry in (parallel_beam, fan_beam):
        image = filtered_back_projection(torch.from_numpy(discs.sinogram(objects, geometry)), geometry)[0].numpy()
        for x, y in ((0, 0), (-30, 0), (0, -30), (20, -20), (30, 5), (0, 9)):
            assert discs.mean(image, 1.0, x, y, 4.0) == pytest.approx(0.02, abs=3e-4)
        assert discs.mean(image, 1.0, 15, 20, 3.0) == pytest.approx(0.05, abs=1e-3)


def test_units_of_angles() -> None:
    """Radians of several turns are taken, degrees are not taken for radians."""
    check_angles(tuple(np.deg2rad(np.arange(540) * 2.0).tolist()))
    check_angles(steps(1000, 8 * TURN))
    for degrees in (np.arange(180), np.arange(0, 1079, 2), np.arange(0, 180, 0.1), np.arange(-60, 61, 3), [0, 30, 60]):
        with pytest.raises(GeometryError, match="look like degrees"):
            check_angles(tuple(float(a) for a in degrees))


def test_limits_are_said() -> None:
    assert limits(parallel(steps(60, math.pi))) == []
    assert limits(parallel(steps(60, TURN))) == []
    assert limits(fan(steps(90, TURN))) == []
    assert limits(fan(steps(90, math.pi + 2 * math.atan(64 / 120)))) == []
    (short,) = limits(fan(steps(90, math.pi)))
    assert "cover 180 degrees of the 180 + 56 for the fan" in short
    (limited,) = limits(parallel(steps(60, 2.0)))
    assert "cover 115 degrees of the 180 that" in limited
    (wide,) = limits(parallel(steps(60, math.pi), side=100))
    assert "beyond 32 mm from the rotation axis" in wide
    assert limits(parallel(steps(60, TURN), 20.0, side=100)) == []


def test_the_end_of_a_displaced_detector_that_a_turn_sees_is_not_continued() -> None:
    assert beyond_ends(parallel(steps(60, math.pi)), 40.0) == (8, 8)
    assert beyond_ends(parallel(steps(60, TURN), 20.0), 56.0) == (0, 4)
    assert beyond_ends(parallel(steps(60, TURN), -20.0), 56.0) == (4, 0)
    assert beyond_ends(parallel(steps(60, TURN), 20.0), 50.0) == (0, 0)


@pytest.mark.parametrize("beam", ["fan", "parallel"])
def test_rows_are_continued_like_the_object(beam: str) -> None:
    """Against the exact rows of a wider detector; an insert does not mislead the fit."""
    geometry = fan(steps(90, TURN), detectors=40) if beam == "fan" else parallel(steps(90, math.pi))
    objects = [Disc(3, -4, 27 if beam == "fan" else 40, 0.02), Disc(8, 5, 4, 0.02)]
    wide = geometry.extended(14, 18)
    exact = discs.sinogram(objects, wide)
    found = continuation.continued(discs.sinogram(objects, geometry), geometry, 14, 18)
    assert found.shape == exact.shape
    assert np.array_equal(found[..., 14:-18], discs.sinogram(objects, geometry))
    assert np.abs(found - exact).max() < 0.08 * exact.max()  # next to the rim, where rows fall steeply
    assert np.abs(found - exact).mean() < 0.003 * exact.max()


INSIDES = {
    "an insert": [Disc(8, 3, 3, 0.02)],
    "a dense core": [Disc(-3, 3, 12, 0.02)],
    "a hollow core": [Disc(0, 0, 12, -0.02)],
    "holes and a bone": [Disc(-10, 0, 7, -0.02), Disc(10, 0, 7, -0.02), Disc(0, 11, 4, 0.02)],
    "nothing": [],
}


@pytest.mark.parametrize("inside", INSIDES.values(), ids=INSIDES)
@pytest.mark.parametrize("beam", ["fan", "parallel"])
def test_what_is_inside_does_not_change_the_level_outside(beam: str, inside: list[Disc]) -> None:
    """A disc of 60 mm on a detector that sees 40 mm; where the detector sees water, it is water."""
    geometry = ParallelBeam(64, 64, 0.625, steps(120, math.pi), 64, 0.625)
    if beam == "fan":
        geometry = FanBeam(64, 64, 0.625, steps(180, TURN), 64, 1.25, source_origin_mm=150.0, origin_detector_mm=150.0)
    data = discs.sinogram([Disc(0, 0, 30, 0.02), *inside], geometry)
    wide = torch.from_numpy(continuation.continued(data, geometry, 44, 44))
    image = filtered_back_projection(wide, geometry.extended(44, 44))[0].numpy()
    for x, y in ((-16, -7), (0, -17), (15, 10), (-12, -12), (12, -11)):
        assert discs.mean(image, 0.625, x, y, 1.5) == pytest.approx(0.02, abs=9e-4)


def noisy(data: np.ndarray, std: float) -> np.ndarray:
    return np.asarray(data + std * np.random.default_rng(1).standard_normal(data.shape), dtype=np.float32)


def test_truncation_is_noticed_and_nothing_else() -> None:
    geometry = parallel(steps(60, math.pi))
    whole, large = [Disc(0, 0, 26, 0.02)], [Disc(0, 0, 45, 0.02)]
    for std in (0.0, 0.02, 0.1):
        data = noisy(discs.sinogram(whole, geometry), std)
        assert truncation.judge(data, geometry, image_given=False) == truncation.Extent()
        found = truncation.judge(noisy(discs.sinogram(large, geometry), std), geometry, image_given=False)
        assert found.truncated is not None and found.object_mm == pytest.approx(92.7, rel=0.04)
        assert found.truncated.views == found.truncated.of == 60
        assert found.truncated.strength == pytest.approx(math.sqrt(1 - (31 / 45) ** 2), abs=0.05)
    for radius in (30.0, 30.5, 31.0):  # a disc that just fits
        fits = discs.sinogram([Disc(0, 0, radius, 0.02)], geometry)
        assert truncation.judge(fits, geometry, image_given=False) == truncation.Extent()
    empty = noisy(np.zeros((1, 60, 64), np.float32), 0.02)
    assert truncation.judge(empty, geometry, image_given=False) == truncation.Extent()
    bad = discs.sinogram(whole, geometry)
    bad[..., 0] = 3.0  # a hot element
    bad[0, 7] = 2.0  # a failed view
    assert truncation.judge(bad, geometry, image_given=False) == truncation.Extent()


def test_an_object_that_some_views_see_whole_is_truncated_in_the_others() -> None:
    geometry = parallel(steps(60, math.pi))
    found = truncation.judge(
        discs.sinogram([Disc(x, 0, 9, 0.02) for x in (-24, -12, 0, 12, 24)], geometry), geometry, image_given=False
    )
    assert found.truncated is not None and 5 < found.truncated.views < 40


def test_air_that_is_not_zero_is_no_object() -> None:
    geometry = parallel(steps(60, math.pi))
    data = noisy(discs.sinogram([Disc(0, 0, 20, 0.02)], geometry) + np.float32(0.05), 0.002)
    found = truncation.judge(data, geometry, image_given=False)
    assert found.object_mm is None and found.level == pytest.approx(0.06, abs=0.01)
