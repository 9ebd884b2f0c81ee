"""Laminography from specification to result: closed forms, a tilt of zero, half turns, vectors, refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import recon
from operators.errors import InputError
from operators.linear import conjugate_gradient
from operators.volume_geometry import VolumeBeam, parallel
from recon.formats import hdf5, reader
from recon.measurement.header import Header
from recon.measurement.measurement import Measurement
from recon.planning import plan
from recon.problem.ct_volume import build
from recon.problem.problem import IntensityMap, run
from recon.solvers import registry as solvers
from recon.spec.acquisitions.ct_laminography import USUAL_TILT_RAD, CTLaminography
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import Auto, method_of
from tests.operators.bodies import Ellipsoid, line_integrals, voxelised
from tests.recon.problem.refusals import check_refused
from tests.recon.problem.test_ct_volume import Slices, body

TURN = 2 * math.pi
TILT = math.radians(30)
ROUND: dict[str, Any] = {
    "kind": "ct-laminography", "angles_rad": {"stop_rad": TURN, "count": 12}, "detector_mm": 2.0, "axis_tilt_rad": 0.5,
}  # fmt: skip
PLACE, TALL, VALUE = (9.0, -6.0, 2.0), (14.0, 14.0, 28.0), 0.02


def tilted(**fields: Any) -> CTLaminography:
    return CTLaminography.model_validate({**ROUND, **fields})


def scan(size: int = 24, acquisition: dict[str, Any] | None = None, **settings: Any) -> Measurement:
    given = {"views": 32, **settings}
    wanted = {"kind": "ct-laminography", **(acquisition or {})}
    return recon.simulate(body(size), wanted, affine=np.diag([2.0, 2, 2, 1]), **given)


def measured(bodies: list[Ellipsoid], shape: tuple[int, int, int], **fields: Any) -> tuple[Measurement, VolumeBeam]:
    """Exact line integrals of ellipsoids, and their geometry."""
    acquisition = tilted(**fields, angles_rad={"stop_rad": TURN, "count": shape[1]})
    geometry = acquisition.volume_geometry(shape)
    data = np.ascontiguousarray(line_integrals(bodies, geometry).transpose(1, 0, 2))
    return Measurement(data, acquisition, noise_std=0.0), geometry


def test_sizes_that_are_left_open_follow_from_the_detector() -> None:
    g = tilted(axis_tilt_rad=math.radians(60)).volume_geometry((30, 12, 41))
    assert (g.pixel_mm, g.slice_mm, g.beam) == (2.0, 2.0, "parallel")
    assert g.volume_shape == (60, 41, 41)  # a step along the axis is half as long on the detector
    assert tilted(slices=7, rows=9, cols=8).volume_geometry((30, 12, 41)).volume_shape == (7, 9, 8)


@pytest.mark.parametrize("method", ["fbp", "cgls"])
@pytest.mark.parametrize("tilt_rad", [0.1, TILT])
def test_a_tall_ellipsoid_comes_out_right_and_in_place(method: str, tilt_rad: float) -> None:
    """Waves whose direction is within the tilt of the axis are in no view; stretched to a ball, it lacks this cone."""
    grid = {"slices": 40, "rows": 32, "cols": 32, "pixel_mm": 2.0}
    rows = 2 * math.ceil((40 * math.cos(tilt_rad) + 46 * math.sin(tilt_rad)) / 2) + 1
    ellipsoid = [Ellipsoid(PLACE, TALL, VALUE)]
    scanned, g = measured(ellipsoid, (rows, 72, 47), axis_tilt_rad=tilt_rad, **grid)
    found = recon.reconstruct(scanned, method=method, progress=False, baselines=[]).volume
    inner = voxelised([Ellipsoid(PLACE, (10.0, 10.0, 16.0), 1.0)], g, 1) > 0.5
    shown = math.cos(math.atan(TALL[0] / TALL[2] * math.tan(tilt_rad))) if method == "fbp" else 1.0
    assert found[inner].mean() == pytest.approx(shown * VALUE, rel=0.01)
    k, i, j = np.nonzero(found > VALUE / 2)
    middle = np.array([j.mean() - 15.5, 15.5 - i.mean(), k.mean() - 19.5]) * 2.0
    assert middle == pytest.approx(PLACE, abs=0.5)


def test_an_object_without_symmetry_is_upright_and_not_mirrored() -> None:
    bodies = [
        Ellipsoid((0, 0, 0), (15, 15, 18), 0.01), Ellipsoid((15, 0, 0), (5, 5, 8), 0.02),
        Ellipsoid((0, 13, 0), (5, 5, 8), 0.03), Ellipsoid((0, 0, 12), (5, 5, 8), 0.04),
    ]  # fmt: skip
    scanned, g = measured(bodies, (51, 40, 47), slices=32, rows=32, cols=32, pixel_mm=2.0, axis_tilt_rad=TILT)
    found = recon.reconstruct(scanned, method="cgls", progress=False, baselines=[]).volume
    truth = voxelised(bodies, g)
    fits = {
        axes: np.corrcoef(found.ravel(), np.flip(truth, axes).ravel())[0, 1]
        for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    }
    assert fits[()] > 0.96 and max(value for axes, value in fits.items() if axes) < fits[()] - 0.03


def test_a_tilt_of_zero_is_a_parallel_beam_slice_by_slice() -> None:
    settings: dict[str, Any] = {"affine": np.diag([2.0, 2, 2, 1]), "views": 30, "model": "ideal"}
    half = {"angles_rad": {"stop_rad": math.pi, "count": 30}, "detector_mm": 2.0}
    flat = recon.simulate(body(16), {"kind": "ct-parallel", "support": "none", **half}, **settings)
    level = recon.simulate(body(16), {"kind": "ct-laminography", "axis_tilt_rad": 0.0, **half}, **settings)
    more, wider = level.data.shape[0] - 16, level.data.shape[2] - flat.data.shape[2]
    assert more >= 0 and more % 2 == 0 and wider >= 0 and wider % 2 == 0
    middle = np.asarray(level.data[more // 2 : more // 2 + 16], np.float32)
    seen = np.pad(np.asarray(flat.data, np.float32), ((0, 0), (0, 0), (wider // 2,) * 2))
    assert np.linalg.norm(middle - seen) < 0.02 * np.linalg.norm(seen)  # Joseph's rays, and those of the matrix
    for method in ("fbp", "cgls"):
        stack, volume = (
            recon.reconstruct(one, method=method, progress=False, baselines=[]).volume for one in (flat, level)
        )
        assert np.linalg.norm(volume - stack) < 0.05 * np.linalg.norm(stack + 1000)


@pytest.mark.parametrize("model", ["ideal", "realistic"])
@pytest.mark.parametrize("acquisition", [{}, {"axis_tilt_rad": -0.2, "detector_roll_rad": 0.1}, {"row_mm": 1.5}])
def test_simulated_scans_are_reconstructed_in_place(model: str, acquisition: dict[str, Any]) -> None:
    found = scan(24, acquisition, views=40, model=model)
    assert isinstance(found.acquisition, CTLaminography)
    assert found.acquisition.axis_tilt_rad == acquisition.get("axis_tilt_rad", USUAL_TILT_RAD)
    result = recon.reconstruct(found, method="cgls", progress=False)
    assert found.truth is not None and result.volume.shape == found.truth.shape and list(result.baselines) == ["fbp"]
    assert np.corrcoef(result.volume.ravel(), found.truth.ravel())[0, 1] > 0.97
    assert result.volume[11:13, 11:13, 11:13].mean() == pytest.approx(0.0, abs=80)
    assert any("degrees of the plane of the slices are not determined" in note for note in result.report.notes)


def test_a_wrong_tilt_is_noticed_by_the_misfit() -> None:
    right = scan(24, {"axis_tilt_rad": 0.35})
    wrong = replace(right, acquisition=right.acquisition.model_copy(update={"axis_tilt_rad": -0.35}))
    reports = [recon.reconstruct(one, method="cgls", progress=False, baselines=[]).report for one in (right, wrong)]
    assert reports[1].misfit > 4 * reports[0].misfit
    said = [any("the tilt of the axis and its sign" in note for note in report.notes) for report in reports]
    assert said == [False, True]


def test_vectors_say_the_same_as_the_fields_they_replace_and_are_kept_in_hdf5(tmp_path: Path) -> None:
    found = scan(16, {"axis_tilt_rad": 0.4, "detector_roll_rad": 0.05}, views=12)
    shape = found.data.shape
    assert isinstance(found.acquisition, CTLaminography)
    vectors = found.acquisition.view_vectors(shape[2]).tolist()
    again = scan(16, {"vectors": vectors}, views=12)
    assert np.array_equal(again.data, found.data)
    hdf5.write_measurement(tmp_path / "scan.h5", again)
    back = hdf5.read_measurement(tmp_path / "scan.h5")
    assert back.acquisition == again.acquisition and isinstance(back.acquisition, CTLaminography)
    assert back.acquisition.vectors == vectors and np.array_equal(back.data, again.data)


def test_rays_of_any_length_are_the_same_rays() -> None:
    given = np.asarray(tilted().view_vectors(40))
    longer = np.concatenate([given[:, :3] * np.linspace(1, 5, 12)[:, None], given[:, 3:]], axis=1)
    assert tilted().volume_geometry((30, 12, 40)).central() is not None
    g = CTLaminography(vectors=longer.tolist()).volume_geometry((30, 12, 40))
    assert g.central() is not None and g.unfilterable() is None


def test_a_half_turn_around_a_tilted_axis_takes_no_filtered_back_projection() -> None:
    half = scan(16, {"angles_rad": {"stop_rad": math.pi, "count": 24}})
    with pytest.raises(InputError, match="tilted by 30 degrees, and the views cover 180 of the 360 degrees"):
        recon.reconstruct(half, method="fbp", progress=False)
    result = recon.reconstruct(half, method="sirt", progress=False)
    assert list(result.baselines) == ["cgls"] and half.truth is not None
    assert np.corrcoef(result.volume.ravel(), half.truth.ravel())[0, 1] > 0.9
    leaning = scan(16, {"angles_rad": {"stop_rad": math.pi, "count": 24}, "axis_tilt_rad": 0.05})
    assert list(recon.reconstruct(leaning, method="sirt", progress=False).baselines) == ["fbp"]


@pytest.mark.parametrize("name", ["sirt", "cgls", "tv", "red-diff", "dds", "diffpir", "diffusion-mbir"])
def test_every_method_takes_a_volume_around_a_tilted_axis(name: str) -> None:
    whole = build(scan(16, views=16, photons_per_ray=1e5)).problem
    method = method_of({"name": name, **({} if name in ("sirt", "cgls", "tv") else {"steps": 4})})
    scale = float(whole.scales[0])
    found = run(solvers.start(whole, method, prior=Slices(), intensity=IntensityMap(scale, scale)))
    assert found.shape == (1, 16, 16, 16) and whole.misfit(found) < 0.5


def test_auto_judges_it_by_views_that_are_withheld() -> None:
    candidates: list[Any] = [{"name": "sirt", "iterations": 4}, "tv"]
    result = recon.reconstruct(
        scan(16, views=16, photons_per_ray=1e5), method=Auto(candidates=candidates), progress=False
    )
    assert result.report.selection is not None and result.report.selection.candidates[1].weight > 0.5


def test_views_half_a_turn_apart_are_no_twins_around_a_tilted_axis() -> None:
    level, steep = (tilted(axis_tilt_rad=tilt).volume_geometry((30, 12, 40)) for tilt in (0.0, 0.5))
    assert all(len(fold) % 2 == 0 for fold in level.folds)
    assert steep.folds and any(len(fold) % 2 for fold in steep.folds)


def test_rays_that_climb_steeply_cross_slices_one_after_the_other() -> None:
    grid = {"slices": 10, "rows": 40, "cols": 40, "pixel_mm": 1.0}
    steps = [tilted(axis_tilt_rad=tilt, **grid).steps_per_ray((60, 12, 60)) for tilt in (0.2, 1.2)]
    assert steps == [40, 10]


def test_the_axis_is_found_from_the_sum_of_all_rows() -> None:
    found = scan(24, {"axis_tilt_rad": 0.3, "detector_shift_mm": 3.0}, views=48)
    asked = {"detector_shift_mm": None, "rotation_center_column": "auto"}
    result = recon.reconstruct(
        found.data, {**found.acquisition.model_dump(exclude_none=True, exclude={"detector_shift_mm"}), **asked},
        method="fbp", progress=False,
    )  # fmt: skip
    column = result.report.acquisition["rotation_center_column"]
    assert column == pytest.approx((found.data.shape[2] - 1) / 2 - 1.5, abs=0.1)


def test_an_object_that_goes_on_along_the_axis_is_solved_beyond_the_volume() -> None:
    rod = np.full((12, 24, 24), -1000.0, np.float32)
    y, x = (np.mgrid[:24, :24] - 11.5) / 12
    rod[:, x**2 + y**2 < 0.3] = 0.0
    scanned = recon.simulate(rod, ROUND | {"detector_mm": 2.0}, affine=np.diag([2.0, 2, 2, 1]), views=24)
    acquisition = scanned.acquisition
    assert isinstance(acquisition, CTLaminography) and acquisition.object_goes_on
    assert acquisition.solved_shape(scanned.data.shape)[0] > 20
    levels = []
    for goes_on in (True, False):
        one = replace(scanned, acquisition=acquisition.model_copy(update={"object_goes_on": goes_on}))
        inverse = build(one)
        found = inverse.arranged(run(solvers.start(inverse.problem, method_of("cgls"))))
        levels.append(float(found[5:7, 10:14, 10:14].mean()) / 0.02)
    assert abs(levels[0] - 1) < 0.5 * abs(levels[1] - 1)


def test_a_plate_that_fills_the_detector_is_not_taken_to_go_on_along_the_axis() -> None:
    shape = (20, 12, 40)
    grid = {"slices": 8, "rows": 40, "cols": 40}
    plate, _ = measured([Ellipsoid((0, 0, 0), (200, 200, 4), 0.02)], shape, axis_tilt_rad=TILT, **grid)
    found, notes = plate.acquisition.completed_from(plate.data)
    assert found == plate.acquisition and "larger rows and cols if it does to the sides" in notes[0]


def test_it_is_planned_in_one_piece() -> None:
    spec = JobSpec.parse({"input": "a.npy", "acquisition": ROUND, "method": "tv"})
    planned = plan.make(spec, Header(acquisition=tilted(), shape=(60, 12, 60), source_bytes=10**6), limit=10**12)
    assert (planned.chunks, planned.at_once) == (1, planned.slices) and planned.slices == 68


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"axis_tilt_rad": math.pi / 2}, "1.5708 rad is 90 degrees, and at 90 the axis lies along the beam"),
        ({"axis_tilt_rad": -2.0}, r"-2 rad is -114\.6 degrees"),
        ({"axis_tilt_rad": 30.0}, "30 rad is 1719 degrees, .*: give radians"),
        ({"axis_tilt_rad": math.nan}, "finite number"),
        ({"axis_tilt_rad": None}, r"axis_tilt_rad: needed, the file does not carry it \(give it in radians"),
        ({"detector_roll_rad": 1.5}, "rows and columns are swapped"),
        ({"vectors": [[1.0] * 6]}, "row 0 has 6 numbers, 12 are needed"),
        ({"vectors": [[0.0] * 12] * 12}, "axis_tilt_rad|has no effect with vectors"),
        ({"row_shift_mm": 400.0, "slices": 10, "rows": 9, "cols": 9}, "misses the detector in every view"),
        ({"row_shift_mm": 400.0}, "do not see the middle|misses the detector"),
        ({"angles_rad": {"stop_rad": TURN, "count": 11}}, "11 angles for a sinogram"),
        ({"pixel_mm": 1e-3, "rows": 9, "cols": 9, "slices": 9}, "another unit"),
        ({"source_origin_mm": 5.0}, "source_origin_mm"),
    ],
    ids=["90 degrees", "beyond", "in degrees", "nan", "no tilt", "swapped", "short rows", "both", "misses", "middle",
         "angles", "unit", "a source"],
)  # fmt: skip
def test_bad_input_is_refused_in_a_sentence(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    check_refused(tmp_path, {**ROUND, **fields}, says)


def test_vectors_that_make_no_parallel_beam_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.zeros((20, 12, 40), np.float32))
    angles = np.linspace(0, TURN, 12, endpoint=False).tolist()
    good = parallel(angles, column_mm=2.0, row_mm=2.0, axis_tilt_rad=TILT)

    def check(vectors: NDArray[np.float64]) -> None:
        acquisition = {"kind": "ct-laminography", "vectors": vectors.tolist()}
        job = JobSpec.parse({"input": str(tmp_path / "scan.npy"), "acquisition": acquisition, "method": "fbp"})
        reader.check(job, local_files(job))

    check(good)
    with pytest.raises(InputError, match="11 rows of vectors for data of shape"):
        check(good[:11])
    with pytest.raises(InputError, match="direction of the rays is zero in some view"):
        check(np.concatenate([np.zeros((12, 3)), good[:, 3:]], axis=1))
    with pytest.raises(InputError, match="rows and columns are swapped"):
        check(np.concatenate([good[:, :6], good[:, 9:], good[:, 6:9]], axis=1))
    with pytest.raises(InputError, match="parallel or zero in some view"):
        check(np.concatenate([good[:, :9], good[:, 6:9]], axis=1))


def test_least_squares_are_plain_conjugate_gradients() -> None:
    whole = build(scan(16, views=16, photons_per_ray=1e5)).problem
    found = run(solvers.start(whole, method_of({"name": "cgls", "iterations": 6})))
    expected = conjugate_gradient(whole.operator.normal, whole.operator.adjoint(whole.data), None, 6)
    assert torch.linalg.vector_norm(found - expected) < 1e-3 * torch.linalg.vector_norm(expected)
