"""Scans whose object is larger than detector or image, displaced detectors, short arcs: values known in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import recon
from operators import truncation
from operators.errors import GeometryError, InputError
from operators.geometry import FanBeam, ParallelBeam
from operators.tomography import Tomography
from recon.formats import reader
from recon.pipeline import uncertainty
from recon.planning import plan
from recon.problem import inverse_problem
from recon.problem.ct import CTProblem
from recon.spec.acquisitions.ct import CTFan, CTParallel
from recon.spec.job import JobSpec, local_files
from tests import discs
from tests.discs import Disc

TURN = 2 * math.pi
METHODS: dict[str, dict[str, Any]] = {
    "fbp": {"name": "fbp"},
    "sirt": {"name": "sirt", "iterations": 60},
    "cgls": {"name": "cgls"},
    "tv": {"name": "tv", "iterations": 20, "dimensions": 2},
    "red-diff": {"name": "red-diff", "steps": 6},
}


def steps(count: int, span: float) -> tuple[float, ...]:
    return tuple((np.arange(count) * span / count).tolist())


def solved(data: np.ndarray, acquisition: dict[str, Any], method: str, **more: Any) -> recon.Result:
    return recon.reconstruct(data, acquisition, method=METHODS[method], baselines=[], progress=False, **more)


def said(result: recon.Result) -> str:
    return "\n".join(result.report.notes)


LARGE = [Disc(0, 0, 30, 0.02), Disc(8, 3, 3, 0.02)]
"""A water disc of 60 mm, and a bone in it."""
WATER = ((0, 0), (-12, -9), (0, 16), (14, -8), (-17, 0), (0, -17.5))


@pytest.mark.parametrize("method", METHODS)
def test_an_object_larger_than_the_detector_has_its_right_values(method: str) -> None:
    """A disc of 60 mm on a detector of 40 mm: water is 0 HU."""
    geometry = ParallelBeam(64, 64, 0.625, steps(120, math.pi), 64, 0.625)
    acquisition = {
        "kind": "ct-parallel", "angles_rad": {"count": 120}, "detector_mm": 0.625, "mu_water_per_mm": 0.02,
    }  # fmt: skip
    result = solved(discs.sinogram(LARGE, geometry), acquisition, method)
    assert result.volume.shape == (1, 64, 64)
    for x, y in WATER:
        assert discs.mean(result.volume[0], 0.625, x, y, 2.0) == pytest.approx(0.0, abs=15)
    assert discs.mean(result.volume[0], 0.625, 8, 3, 2.0) == pytest.approx(1000, abs=60)
    assert "120 of 120 views end in rays that are not air, at 72 % (median)" in said(result)
    assert "solved on 100 x 100 pixels" in said(result)
    assert result.report.misfit < 0.01
    assert result.report.acquisition["object_mm"] == pytest.approx(61.8, abs=1)
    assert result.affine[:2, 3] == pytest.approx([-31.5 * 0.625, 31.5 * 0.625], abs=1e-3)


@pytest.mark.parametrize("method", ["fbp", "cgls", "red-diff"])
def test_a_fan_on_a_larger_object_has_its_right_values(method: str) -> None:
    geometry = FanBeam(40, 40, 1.0, steps(120, TURN), 40, 2.0, source_origin_mm=100, origin_detector_mm=100)
    acquisition = {
        "kind": "ct-fan", "angles_rad": {"count": 120, "stop_rad": TURN}, "detector_mm": 2.0, "mu_water_per_mm": 0.02,
        "source_origin_mm": 100, "origin_detector_mm": 100,
    }  # fmt: skip
    data = discs.sinogram([Disc(3, -2, 27, 0.02), Disc(8, 3, 4, 0.02)], geometry)
    data += 0.005 * np.random.default_rng(0).standard_normal(data.shape).astype(np.float32)
    result = solved(data, acquisition, method)
    assert result.volume.shape[1:] == (39, 39)
    for x, y in ((0, 0), (-10, -9), (0, 14), (12, -8), (-15, 0)):
        assert discs.mean(result.volume[0], 1.0, x, y, 3.0) == pytest.approx(0.0, abs=20)
    assert "120 of 120 views end in rays that are not air" in said(result)


def test_a_larger_image_than_the_detector_sees_is_solved_and_said() -> None:
    geometry = ParallelBeam(64, 64, 0.625, steps(180, math.pi), 64, 0.625)
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 180}, "detector_mm": 0.625, "rows": 100}
    result = solved(discs.sinogram(LARGE, geometry), acquisition, "cgls")
    assert result.volume.shape == (1, 100, 100)
    assert discs.mean(result.volume[0], 0.625, -12, -9, 2.0) == pytest.approx(0.02, abs=3e-4)
    assert "wider than the 40 mm that are seen in all directions: beyond 20 mm" in said(result)


@pytest.mark.parametrize("method", METHODS)
def test_a_displaced_detector_over_a_turn_sees_all_around(method: str) -> None:
    """64 columns, axis at column 8, 360 views; the object reaches 30 mm, the near end of the detector 5.3 mm."""
    geometry = ParallelBeam(64, 64, 0.625, steps(360, TURN), 64, 0.625, (31.5 - 8) * 0.625)
    acquisition = {
        "kind": "ct-parallel", "angles_rad": {"count": 360, "stop_rad": TURN}, "detector_mm": 0.625,
        "rotation_center_column": 8.0,
    }  # fmt: skip
    result = solved(discs.sinogram([Disc(0, 0, 30, 0.02), Disc(15, 3, 3, 0.02)], geometry), acquisition, method)
    assert result.volume.shape == (1, 111, 111)
    for x, y in ((0, 0), (0, 3), (-20, 12), (5, 25), (26, 0), (-26, 0), (0, -26)):
        assert discs.mean(result.volume[0], 0.625, x, y, 2.0) == pytest.approx(0.02, abs=4e-4)
    assert discs.mean(result.volume[0], 0.625, 15, 3, 1.5) == pytest.approx(0.04, rel=0.05)
    assert discs.mean(result.volume[0], 0.625, 0, 33, 1.0) == pytest.approx(0.0, abs=5e-4)
    assert "together they see 69.38 mm, each of them 10.62 mm" in said(result)
    assert "not air" not in said(result)
    assert result.report.misfit < 0.01


@pytest.mark.parametrize("method", ["fbp", "cgls", "red-diff"])
def test_a_half_fan_over_a_turn_sees_all_around(method: str) -> None:
    geometry = FanBeam(64, 64, 1.0, steps(240, TURN), 64, 2.0, 40.0, source_origin_mm=150, origin_detector_mm=150)
    acquisition = {
        "kind": "ct-fan", "angles_rad": {"count": 240, "stop_rad": TURN}, "detector_mm": 2.0,
        "source_origin_mm": 150, "origin_detector_mm": 150, "detector_shift_mm": 40.0,
    }  # fmt: skip
    result = solved(discs.sinogram([Disc(0, 0, 40, 0.02), Disc(15, 3, 4, 0.02)], geometry), acquisition, method)
    assert result.volume.shape == (1, 98, 98)
    for x, y in ((0, 0), (0, 6), (-25, 12), (5, 30), (33, 0), (-33, 0), (0, -33)):
        assert discs.mean(result.volume[0], 1.0, x, y, 3.0) == pytest.approx(0.02, abs=4e-4)
    assert discs.mean(result.volume[0], 1.0, 15, 3, 2.0) == pytest.approx(0.04, rel=0.05)


def test_a_displaced_detector_whose_object_is_larger_still() -> None:
    geometry = ParallelBeam(64, 64, 1.0, steps(240, TURN), 64, 1.0, 20.0)
    acquisition = {
        "kind": "ct-parallel", "angles_rad": {"count": 240, "stop_rad": TURN}, "detector_mm": 1.0,
        "detector_shift_mm": 20.0,
    }  # fmt: skip
    data = discs.sinogram([Disc(2, 3, 60, 0.02), Disc(15, 3, 6, 0.02)], geometry)
    for method in ("fbp", "cgls"):
        result = solved(data, acquisition, method)
        assert result.volume.shape == (1, 104, 104)
        for x, y in ((0, 0), (-25, 12), (5, 40), (44, 0), (-44, 0), (0, -44)):
            assert discs.mean(result.volume[0], 1.0, x, y, 3.0) == pytest.approx(0.02, abs=6e-4)
        assert "the object reaches beyond the detector: 240 of 240" in said(result)


def test_half_a_turn_is_too_short_for_a_displaced_detector() -> None:
    """Only the middle is determined: it comes back right, and the report says what a turn would see."""
    geometry = ParallelBeam(64, 64, 0.625, steps(180, math.pi), 64, 0.625, 12.5)
    acquisition = {
        "kind": "ct-parallel", "angles_rad": {"count": 180}, "detector_mm": 0.625, "detector_shift_mm": 12.5,
    }  # fmt: skip
    result = solved(discs.sinogram([Disc(0, 0, 30, 0.02)], geometry), acquisition, "cgls")
    assert result.volume.shape == (1, 24, 24)
    assert discs.mean(result.volume[0], 0.625, 0, 0, 5.0) == pytest.approx(0.02, abs=6e-4)
    assert "over a whole turn it would see 65 mm" in said(result)
    with pytest.raises(InputError, match="no ray passes near the rotation axis"):
        solved(discs.sinogram([Disc(0, 0, 30, 0.02)], geometry), {**acquisition, "detector_shift_mm": 30.0}, "cgls")


@pytest.mark.parametrize("method", METHODS)
def test_an_image_inside_the_object_is_cut_from_a_whole_one(method: str) -> None:
    geometry = ParallelBeam(48, 48, 0.7, steps(180, math.pi), 48, 0.7)
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 180}, "detector_mm": 0.7, "rows": 24, "cols": 20}
    result = solved(discs.sinogram([Disc(0, 0, 14, 0.02), Disc(5, 3, 3, 0.02)], geometry), acquisition, method)
    assert result.volume.shape == (1, 24, 20)
    for x, y in ((0, 0), (-5, -6), (-4, 6), (4, -6)):
        assert discs.mean(result.volume[0], 0.7, x, y, 1.5) == pytest.approx(0.02, abs=5e-4)
    assert discs.mean(result.volume[0], 0.7, 5, 3, 1.5) == pytest.approx(0.04, rel=0.05)
    assert "solved on 42 x 42 pixels, from whose middle the image is cut" in said(result)


def test_an_image_that_holds_the_object_is_solved_as_it_is() -> None:
    """Also one that is smaller than the field of view, and not square."""
    acquisition = CTParallel(angles_rad=list(steps(60, math.pi)), detector_mm=1.0, rows=24, cols=40)
    data = discs.sinogram([Disc(x, 0, 9, 0.02) for x in (-8, 0, 8)], acquisition.geometry(64))
    found, notes = acquisition.completed_from(data)
    assert found == acquisition and notes == []
    assert found.covering(64) == found.geometry(64)


def test_a_known_size_of_the_object_is_taken() -> None:
    acquisition = CTParallel(angles_rad=list(steps(60, math.pi)), detector_mm=1.0, object_mm=100.0)
    found, notes = acquisition.completed_from(discs.sinogram([Disc(0, 0, 45, 0.02)], acquisition.geometry(64)))
    assert found.object_mm == 100.0 and any("views end in rays that are not air" in note for note in notes)
    assert found.covering(64).rows == 100 and found.covering(64).field_of_view_mm > 100
    assert found.result_shape((1, 60, 64)) == (1, 64, 64)
    assert found.solved_shape((1, 60, 64)) == (1, 100, 100)


def test_short_scans_of_a_fan_are_uniform() -> None:
    half_fan = math.atan(64 / 120)
    angles = steps(140, math.pi + 2 * half_fan)
    geometry = FanBeam(112, 112, 0.5, angles, 128, 1.0, source_origin_mm=60, origin_detector_mm=60)
    acquisition = {
        "kind": "ct-fan", "angles_rad": list(angles), "detector_mm": 1.0, "source_origin_mm": 60,
        "origin_detector_mm": 60,
    }  # fmt: skip
    objects = [Disc(0, 0, 20, 0.02), Disc(10, 5, 5, 0.03)]
    result = solved(discs.sinogram(objects, geometry), acquisition, "fbp")
    for x, y in ((0, 0), (-8, -8), (-14, 0), (0, 14), (0, -14), (8, -8)):
        assert discs.mean(result.volume[0], 0.5, x, y, 3.0) == pytest.approx(0.02, abs=2e-4)
    assert "degrees" not in said(result)
    short = steps(100, math.pi)
    data = discs.sinogram(objects, FanBeam(**{**vars(geometry), "angles_rad": short}))
    result = solved(data, {**acquisition, "angles_rad": list(short)}, "fbp")
    assert "the views cover 180 degrees of the 180 + 56 for the fan" in said(result)


@pytest.mark.parametrize("unit", ["deg", "rad"])
def test_several_turns_are_taken_in_the_units_of_file_and_specification(tmp_path: Path, unit: str) -> None:
    degrees = np.arange(540) * 2.0
    geometry = ParallelBeam(48, 48, 1.2, tuple(np.deg2rad(degrees).tolist()), 48, 1.2)
    integrals = discs.sinogram([Disc(0, 0, 20, 0.02), Disc(10, 5, 5, 0.03)], geometry)
    path = tmp_path / "turns.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = (2e4 * np.exp(-integrals)).transpose(1, 0, 2).astype(np.float32)
        file["exchange/data_white"] = np.full((3, 1, 48), 2e4, np.float32)
        file["exchange/data_dark"] = np.zeros((3, 1, 48), np.float32)
        file["exchange/theta"] = degrees if unit == "deg" else np.deg2rad(degrees)
        file["exchange/theta"].attrs["units"] = unit
    of_file = recon.reconstruct(
        path, {"kind": "ct-parallel", "detector_mm": 1.2}, format="dxchange", method="fbp", baselines=[], progress=False
    )
    stated = {"kind": "ct-parallel", "detector_mm": 1.2, "angles_rad": np.deg2rad(degrees).tolist()}
    of_specification = solved(integrals, stated, "fbp")
    ranged = {**stated, "angles_rad": {"stop_rad": 3 * TURN, "count": 540}}
    for result in (of_file, of_specification, solved(integrals, ranged, "fbp")):
        assert discs.mean(result.volume[0], 1.2, -8, -8, 4) == pytest.approx(0.02, abs=2e-4)
        assert discs.mean(result.volume[0], 1.2, 10, 5, 3) == pytest.approx(0.05, abs=5e-4)
        assert "degrees" not in said(result)
    with pytest.raises(GeometryError, match="look like degrees") as caught:
        Tomography(ParallelBeam(48, 48, 1.2, tuple(degrees.tolist()), 48, 1.2))
    assert caught.value.field == "angles_rad"


def written(tmp_path: Path, data: np.ndarray, acquisition: dict[str, Any], **more: Any) -> JobSpec:
    np.save(tmp_path / "sinogram.npy", data)
    return JobSpec.parse({"input": str(tmp_path / "sinogram.npy"), "acquisition": acquisition, **more})


def test_the_plan_knows_what_is_solved(tmp_path: Path) -> None:
    geometry = ParallelBeam(64, 64, 0.625, steps(60, math.pi), 64, 0.625)
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 60}, "detector_mm": 0.625}
    plans = []
    for radius in (15, 30):
        spec = written(tmp_path, discs.sinogram([Disc(0, 0, radius, 0.02)], geometry), acquisition, method="red-diff")
        found = reader.check(spec, local_files(spec))
        assert found.result_shape == (1, 64, 64)
        plans.append(plan.make(spec, found))
    assert plans[0].shape == plans[1].shape == (1, 64, 64)
    for part in ("volumes", "operator", "setup", "network"):
        assert plans[1].memory[part] > 2 * plans[0].memory[part] or part == "network"
    inverse = inverse_problem.build(reader.read(spec, local_files(spec)))
    assert inverse.problem.operator.domain.shape == found.solved_shape[1:] == (100, 100)
    assert inverse.arranged(inverse.problem.zeros()).shape == (1, 64, 64)


def test_an_ordinary_scan_is_solved_on_its_own_grid(tmp_path: Path) -> None:
    geometry = ParallelBeam(64, 64, 0.625, steps(60, math.pi), 64, 0.625)
    data = discs.sinogram([Disc(0, 0, 19, 0.02)], geometry)
    spec = written(
        tmp_path, data, {"kind": "ct-parallel", "angles_rad": {"count": 60}, "detector_mm": 0.625}, method="fbp"
    )
    measurement = reader.read(spec, local_files(spec))
    assert isinstance(measurement.acquisition, CTParallel)
    inverse = inverse_problem.build(measurement)
    operator = inverse.problem.operator
    assert isinstance(operator, Tomography)
    angles = measurement.acquisition.angles() or ()
    assert operator.geometry == ParallelBeam(64, 64, 0.625, angles, 64, 0.625)
    assert inverse.problem.inverse_std is None and torch.equal(inverse.problem.data, torch.from_numpy(data))
    assert not any("larger" in note or "wider" in note for note in inverse.notes)


@pytest.mark.parametrize("photons", [None, 1e5])
def test_another_scan_is_truncated_alike(tmp_path: Path, photons: float | None) -> None:
    geometry = ParallelBeam(64, 64, 0.625, steps(60, math.pi), 64, 0.625)
    rng = np.random.default_rng(0)
    data = discs.sinogram(LARGE, geometry)
    data += np.exp(data / 2) * 1e5**-0.5 * rng.standard_normal(data.shape).astype(np.float32)
    acquisition: dict[str, Any] = {"kind": "ct-parallel", "angles_rad": {"count": 60}, "detector_mm": 0.625}
    if photons is not None:
        acquisition["photons_per_ray"] = photons
    spec = written(tmp_path, data, acquisition, method="fbp")
    inverse = inverse_problem.build(reader.read(spec, local_files(spec)))
    assert isinstance(inverse, CTProblem)
    problem = inverse.problem
    disc = torch.zeros(1, 100, 100)
    rows, cols = torch.meshgrid(torch.arange(100) - 49.5, torch.arange(100) - 49.5, indexing="ij")
    disc[0, torch.hypot(rows, cols) < 48] = 0.02
    other = uncertainty.replicate(inverse, disc, 0, 3)
    assert other.data.shape == problem.data.shape and other.continued == problem.continued
    assert other.inverse_std is not None and problem.inverse_std is not None
    before, after = other.continued
    assert before > 0 and after > 0
    exact = other.operator.forward(disc)
    beyond = (other.data - exact)[..., :before]
    # Continued from noisy ends, not known: off a little, and smooth.
    assert 0 < float(beyond.abs().max()) < 0.15 * float(exact.max())
    assert other.inverse_std[..., 0].max() < 0.5 * other.inverse_std[..., before].min()
    whole, part = problem.misfit(disc), problem.part(0, 1).misfit(disc)
    assert whole == part < 0.05  # it lacks the bone


def test_a_fan_of_a_source_near_the_object() -> None:
    """The whole object may not reach the source."""
    acquisition = CTFan(
        angles_rad=list(steps(90, TURN)), detector_mm=1.0, source_origin_mm=40.0, origin_detector_mm=20.0
    )
    found, _ = acquisition.completed_from(discs.sinogram([Disc(0, 0, 36, 0.02)], acquisition.geometry(64)))
    assert found.object_mm is not None and found.covering(64).rows * found.covering(64).pixel_mm < 80


@pytest.mark.parametrize("shift", [0.0, 3.0, 12.0])
def test_a_simulated_detector_sees_the_whole_volume(shift: float) -> None:
    """Over half a turn it is as wide as it has to be; over a whole one the other half is seen from behind."""
    volume = np.full((1, 32, 32), -1000.0, np.float32)
    volume[:, 4:28, 4:28] = 0.0
    for angles in ({"count": 60}, {"count": 120, "stop_rad": TURN}):
        acquisition = {"kind": "ct-parallel", "detector_shift_mm": shift, "angles_rad": angles}
        measurement = recon.simulate(volume, acquisition)
        result = recon.reconstruct(measurement, method="fbp", baselines=[], progress=False)
        assert result.volume.shape == volume.shape and not any("larger" in note for note in result.report.notes)
        assert float(result.volume[0, 8:24, 8:24].mean()) == pytest.approx(0.0, abs=15)
    assert measurement.data.shape[2] == 48  # as wide as without the shift
    with pytest.raises(GeometryError, match="sees the whole volume"):
        recon.simulate(volume, {"kind": "ct-parallel", "rotation_center_column": 4.0, "angles_rad": {"count": 60}})


def test_a_truncated_slice_does_not_depend_on_its_stack() -> None:
    geometry = ParallelBeam(64, 64, 0.625, steps(90, math.pi), 64, 0.625)
    slices = [discs.sinogram(objects, geometry) for objects in (LARGE, [Disc(0, 0, 45, 0.02)], [Disc(0, 0, 12, 0.02)])]
    acquisition = {
        "kind": "ct-parallel", "angles_rad": {"count": 90}, "detector_mm": 0.625, "mu_water_per_mm": 0.02,
    }  # fmt: skip
    stack = solved(np.concatenate(slices), acquisition, "fbp")
    alone = solved(slices[0], acquisition, "fbp")
    assert np.abs(stack.volume[0] - alone.volume[0]).max() < 1.0
    assert discs.mean(stack.volume[1], 0.625, -8, 0, 3) == pytest.approx(0.0, abs=15)
    assert discs.mean(stack.volume[2], 0.625, 0, 0, 6) == pytest.approx(0.0, abs=10)
    assert "180 of 270 views" in said(stack)


@pytest.mark.parametrize("level", [0.0, -0.01])
def test_a_stack_of_air_has_no_object_that_is_too_large(level: float) -> None:
    geometry = ParallelBeam(32, 32, 1.0, tuple(i * math.pi / 20 for i in range(20)), 48, 1.0)
    air = np.full((3, 20, 48), level, np.float32)
    assert truncation.judge(air, geometry, image_given=True) == truncation.Extent()


def test_noise_in_a_slice_of_air_is_no_object_beside_the_image() -> None:
    """Its largest rays exceed what the noise of the ends lets one expect; the object in the next slice does not."""
    geometry = ParallelBeam(32, 32, 1.0, tuple(i * math.pi / 20 for i in range(20)), 64, 1.0)
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 0.01, (2, 20, 64)).astype(np.float32)
    rows[0, :, 24:40] += 2.0
    rows[1, 3, 5:12] += 0.06
    assert truncation.judge(rows, geometry, image_given=True) == truncation.Extent()
    assert truncation.judge(rows[1:], geometry, image_given=True).object_mm is not None
