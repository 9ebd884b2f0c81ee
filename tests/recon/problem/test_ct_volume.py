"""Cone-beam CT from specification to result: sizes, simulation, every method on a whole volume, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import recon
from operators.errors import InputError, ResourceLimit
from operators.geometry import ParallelBeam
from operators.linear import conjugate_gradient
from operators.tomography import Tomography
from operators.volume_geometry import VolumeBeam, circular, helical, parallel
from operators.volume_tomography import VolumeTomography
from recon.formats import hdf5, reader
from recon.measurement.header import Header
from recon.measurement.measurement import Measurement
from recon.pipeline.selection import select
from recon.planning import plan
from recon.problem.ct_volume import build, together
from recon.problem.problem import IntensityMap, Problem, run
from recon.solvers import registry as solvers
from recon.spec.acquisitions.ct_cone import CTCone
from recon.spec.job import JobSpec, local_files
from recon.spec.methods import TV, Auto, Method, method_of
from tests.operators.bodies import Ellipsoid, line_integrals
from tests.recon.problem.refusals import check_refused

TURN = 2 * math.pi
ROUND: dict[str, Any] = {
    "kind": "ct-cone", "angles_rad": {"stop_rad": TURN, "count": 12}, "detector_mm": 2.0, "source_origin_mm": 100.0,
    "origin_detector_mm": 100.0,
}  # fmt: skip


def body(size: int = 24) -> NDArray[np.float32]:
    """An ellipsoid of water with a ball of bone aside, in HU."""
    z, y, x = (np.mgrid[:size, :size, :size] + 0.5) / size - 0.5
    found = np.full((size, size, size), -1000.0, np.float32)
    found[(x / 0.38) ** 2 + (y / 0.32) ** 2 + (z / 0.4) ** 2 < 1] = 0.0
    found[((x - 0.15) / 0.14) ** 2 + ((y - 0.08) / 0.14) ** 2 + ((z - 0.12) / 0.14) ** 2 < 1] = 800.0
    return found


def scan(size: int = 24, acquisition: dict[str, Any] | None = None, **settings: Any) -> Measurement:
    given = {"views": 24, **settings}
    return recon.simulate(
        body(size), {"kind": "ct-cone", **(acquisition or {})}, affine=np.diag([2.0, 2, 2, 1]), **given
    )


def cone(**fields: Any) -> CTCone:
    return CTCone.model_validate({**ROUND, **fields})


def test_sizes_that_are_left_open_follow_from_the_detector() -> None:
    g = cone().volume_geometry((30, 12, 40))
    assert (g.pixel_mm, g.slice_mm) == (1.0, 1.0)
    assert g.volume_shape == (30, 39, 39)  # the fan narrows what is seen of a plane, not of the axis
    assert cone(row_mm=3.0).volume_geometry((30, 12, 40)).slices == 45
    assert cone(slices=7, rows=9, cols=8, slice_mm=2.0).volume_geometry((30, 12, 40)).volume_shape == (7, 9, 8)


def test_vectors_say_the_same_as_the_fields_they_replace() -> None:
    fields = {"detector_shift_mm": 3.0, "row_shift_mm": 1.0, "detector_roll_rad": 0.1, "rows": 20, "cols": 20}
    by_fields = cone(**fields, slices=10, pixel_mm=1.0).volume_geometry((30, 12, 40))
    by_vectors = CTCone(vectors=by_fields.vectors.tolist(), rows=20, cols=20, slices=10, pixel_mm=1.0).volume_geometry(
        (30, 12, 40)
    )
    assert np.array_equal(by_fields.vectors, by_vectors.vectors)


def test_a_helix_climbs_from_turn_to_turn() -> None:
    found = cone(angles_rad={"stop_rad": 2 * TURN, "count": 12}, helix_pitch_mm=20.0).view_vectors(40)
    rises = found[:, 2]
    assert rises == pytest.approx(np.linspace(-1, 1, 12) * 20 * 11 / 12) and found[:, 5] == pytest.approx(rises)


@pytest.mark.parametrize("model", ["ideal", "realistic"])
@pytest.mark.parametrize("acquisition", [{}, {"detector_shift_mm": 20.0}, {"detector_tilt_rad": 0.05}])
def test_simulated_scans_are_reconstructed_in_place(model: str, acquisition: dict[str, Any]) -> None:
    found = scan(24, acquisition, views=48, model=model)
    result = recon.reconstruct(found, method="fbp", progress=False)
    assert found.truth is not None and result.volume.shape == found.truth.shape
    assert np.corrcoef(result.volume.ravel(), found.truth.ravel())[0, 1] > 0.95
    assert result.volume[11:13, 11:13, 11:13].mean() == pytest.approx(0.0, abs=60)


def test_photons_are_counted_view_by_view() -> None:
    clean, noisy, again = (scan(photons_per_ray=n, seed=s) for n, s in ((None, 0), (1e4, 0), (1e4, 0)))
    assert np.array_equal(noisy.data, again.data)
    error, air = np.subtract(noisy.data, clean.data, dtype=np.float32), np.less(clean.data, 0.01)
    spread = error[air].std()
    assert spread == pytest.approx(1e-2, rel=0.1)
    assert not np.array_equal(error[:, 0], error[:, 1])


def test_noise_of_rows_becomes_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    std, inverse = torch.rand(5, generator=generator) + 0.5, torch.rand(5, 4, 6, generator=generator) + 0.5
    whole, relative = together(std, inverse)
    assert relative is not None and relative.shape == (1, 4, 5, 6)
    expected = (std[:, None, None] / inverse).transpose(0, 1)
    assert torch.allclose(whole / relative[0], expected)


def test_a_measurement_with_vectors_is_kept_in_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    g = scan().acquisition
    assert isinstance(g, CTCone)
    vectors = g.view_vectors(40).tolist()
    found = scan(acquisition={"vectors": vectors})
    hdf5.write_measurement(path, found)
    back = hdf5.read_measurement(path)
    assert back.acquisition == found.acquisition and isinstance(back.acquisition, CTCone)
    assert back.acquisition.vectors == vectors
    assert np.array_equal(back.data, found.data) and back.truth is not None and back.truth.shape == (24, 24, 24)


def problem(size: int = 16) -> Problem:
    found: Problem = build(scan(size, views=16, photons_per_ray=1e5)).problem
    return found


class Slices:
    """Prior that smooths and counts the images that it is shown."""

    complex = False

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.seen.append(tuple(x.shape))
        return torch.nn.functional.avg_pool2d(x[:, None], 3, 1, 1)[:, 0] / (1 + sigma**2)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "red-diff", "steps": 4, "skip_threshold": 0.1, "pnp_steps": 2},
        {"name": "red-diff", "steps": 4, "update": "adam"},
        {"name": "dds", "steps": 4},
        {"name": "dds", "steps": 4, "preset": "paper-3d"},
        {"name": "diffpir", "steps": 4, "zeta": 0.5},
        {"name": "diffusion-mbir", "steps": 4},
        {"name": "diffusion-mbir", "steps": 4, "preset": "paper"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_methods_with_a_prior_take_a_volume_and_show_it_slices(settings: dict[str, Any]) -> None:
    whole, prior = problem(), Slices()
    method: Method = method_of(settings)
    scale = float(whole.scales[0])
    found = run(solvers.start(whole, method, prior=prior, intensity=IntensityMap(scale, scale)))
    assert found.shape == (1, 16, 16, 16) and bool(found.isfinite().all())
    assert prior.seen and set(prior.seen) == {(16, 16, 16)}
    assert settings.get("preset") == "paper" or whole.misfit(found) < 0.5  # that one needs many steps


@pytest.mark.parametrize("name", ["fbp", "sirt", "cgls", "tv"])
def test_classical_methods_take_a_volume(name: str) -> None:
    whole = problem()
    found = run(solvers.start(whole, method_of(name)))
    assert found.shape == (1, 16, 16, 16) and whole.misfit(found) < (0.3 if name == "fbp" else 0.05)


def test_least_squares_of_a_volume_are_plain_conjugate_gradients() -> None:
    whole = problem()
    operator = whole.operator
    found = run(solvers.start(whole, method_of({"name": "cgls", "iterations": 6})))
    expected = conjugate_gradient(operator.normal, operator.adjoint(whole.data), None, 6)
    assert torch.linalg.vector_norm(found - expected) < 1e-3 * torch.linalg.vector_norm(expected)


def test_total_variation_of_a_volume_is_that_of_its_stack() -> None:
    """Slices that are alike, so that nothing depends on the scale of one or all, measured by parallel rays."""
    angles = tuple(np.linspace(0, math.pi, 20, endpoint=False).tolist())
    image = torch.zeros(1, 24, 24)
    image[:, 6:17, 8:15] = 0.02
    flat = Tomography(ParallelBeam(24, 24, 1.0, angles, 34, 1.0))
    sinogram = flat.forward(image)
    sinogram = sinogram + 0.01 * torch.randn(sinogram.shape, generator=torch.Generator().manual_seed(0))
    settings = TV(iterations=15, weight=1e-3)
    stack = run(solvers.start(Problem(flat, sinogram.repeat(4, 1, 1), 0.01), settings))
    vectors = parallel(angles, column_mm=1.0, row_mm=1.0)
    volume = VolumeTomography(VolumeBeam(4, 24, 24, 1.0, 1.0, vectors, 4, 34, "parallel"))
    data = sinogram.transpose(0, 1).expand(20, 4, 34)[None].contiguous()
    found = run(solvers.start(Problem(volume, data, 0.01), settings))[0]
    assert torch.linalg.vector_norm(found - stack) < 0.02 * torch.linalg.vector_norm(stack)


def test_auto_judges_a_volume_by_views_that_are_withheld_and_uncertainty_has_other_scans() -> None:
    """Four iterations of SIRT are far from the object: hardly anything of them is taken."""
    measurement = scan(24, views=12, photons_per_ray=1e5)
    candidates: list[Any] = [{"name": "sirt", "iterations": 4}, "tv"]
    result = recon.reconstruct(measurement, method=Auto(candidates=candidates), progress=False, uncertainty=1)
    selection = result.report.selection
    assert selection is not None and selection.folds == 8 and selection.judged_slices == [11]
    assert selection.candidates[0].weight < 0.2 and selection.candidates[0].gain_db < -3
    assert result.report.uncertainty is not None


def test_auto_judges_by_some_slices_of_a_volume_as_by_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    inverse = build(scan(32, views=24, photons_per_ray=1e5))
    candidates: list[Method] = [TV(iterations=40), TV(iterations=40, weight=0.02)]
    some = run(select(inverse, candidates, np.arange(1), 1))
    monkeypatch.setattr("recon.pipeline.selection.judged_together", lambda slices, folds: slices)
    every = run(select(inverse, candidates, np.arange(1), 1))
    gains = [min(one.gain_db for one in found.candidates) for found in (some, every)]
    assert gains[0] == pytest.approx(gains[1], abs=1.0) and gains[1] < -2
    assert [one.weight for one in some.candidates] == [one.weight for one in every.candidates]


def test_views_are_withheld_and_comparable_scans_are_turned() -> None:
    operator = problem().operator
    withheld = operator.withheld(0)
    y = torch.rand(1, *operator.range.shape, generator=torch.Generator().manual_seed(0))
    kept, held = withheld.keep(y), withheld.hold(y)
    assert kept.shape[1] + held.shape[1] == y.shape[1]
    assert kept.shape[1:] == withheld.kept.range.shape and held.shape[1:] == withheld.held.range.shape
    assert withheld.spectra(held).shape[:2] == (1, held.shape[1])
    assert operator.another(0).range == operator.range


def header(**fields: Any) -> Header:
    far = {"source_origin_mm": 1000.0, "origin_detector_mm": 1000.0}
    return Header(acquisition=cone(**far, **fields), shape=(300, 12, 300), source_bytes=10**7)


def test_a_volume_is_planned_in_one_piece_and_refused_with_numbers() -> None:
    spec = JobSpec.parse({"input": "a.npy", "acquisition": ROUND, "method": "tv"})
    planned = plan.make(spec, header(), limit=10**12)
    assert (planned.chunks, planned.at_once) == (1, planned.slices) and planned.slices == 300
    smaller = plan.make(spec, header(pixel_mm=2.0), limit=10**12)
    assert smaller.memory["volumes"] < planned.memory["volumes"] / 6
    with pytest.raises(ResourceLimit, match=r"the job needs about \d+\.\d+ GB .* larger voxels"):
        plan.require_fit(planned, 10**9)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"source_origin_mm": 5.0, "rows": 20, "cols": 20, "pixel_mm": 1.0, "slices": 20}, "lies inside the image"),
        ({"row_shift_mm": 400.0, "slices": 10, "rows": 9, "cols": 9}, "misses the detector in every view"),
        ({"row_shift_mm": 400.0}, "do not see the middle|misses the detector"),
        ({"detector_shift_mm": 400.0}, "no ray passes near the rotation axis"),
        ({"origin_detector_mm": -20.0}, "origin_detector_mm"),
        ({"vectors": [[1.0] * 6]}, "row 0 has 6 numbers, 12 are needed"),
        ({"vectors": []}, "no views"),
        ({"vectors": [[0.0] * 12] * 12}, "has no effect with vectors"),
        ({"rise_mm": [1.0, 2.0]}, "2 heights for 12 views"),
        ({"rise_mm": 1.0, "helix_pitch_mm": 2.0}, "not both"),
        ({"detector_roll_rad": 1.5}, "rows and columns are swapped"),
        ({"angles_rad": {"stop_rad": TURN, "count": 11}}, "11 angles for a sinogram"),
        ({"pixel_mm": 1e-3, "rows": 9, "cols": 9, "slices": 9}, "another unit"),
    ],
    ids=["source inside", "misses", "middle", "axis", "magnification", "short rows", "no rows", "both",
         "heights", "two rises", "swapped", "angles", "unit"],
)  # fmt: skip
def test_bad_input_is_refused_in_a_sentence(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    check_refused(tmp_path, {**ROUND, **fields}, says)


def test_vectors_of_another_number_or_unit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.zeros((20, 12, 40), np.float32))
    angles = np.linspace(0, TURN, 12, endpoint=False).tolist()
    good = circular(angles, source_origin_mm=100, origin_detector_mm=100, column_mm=2.0, row_mm=2.0)

    def check(vectors: NDArray[np.float64], **fields: Any) -> None:
        acquisition = {"kind": "ct-cone", "vectors": vectors.tolist(), **fields}
        job = JobSpec.parse({"input": str(tmp_path / "scan.npy"), "acquisition": acquisition, "method": "fbp"})
        reader.check(job, local_files(job))

    check(good)
    with pytest.raises(InputError, match="11 rows of vectors for data of shape"):
        check(good[:11])
    with pytest.raises(InputError, match="seems to be in another unit"):
        check(good * 1000, pixel_mm=1.0, rows=1, cols=1, slices=1)
    with pytest.raises(InputError, match=r"magnification of 0\.5"):
        check(np.concatenate([good[:, :3], -good[:, 3:6] / 2, good[:, 6:]], axis=1), rows=9, cols=9, slices=9)
    spiral = helical(
        turns=1, views=12, pitch_mm=10, source_origin_mm=100, origin_detector_mm=100, column_mm=2, row_mm=2
    )
    check(spiral)


def test_filtered_back_projection_of_a_helix_says_what_to_use() -> None:
    measurement = scan(16, {"helix_pitch_mm": 16.0, "angles_rad": {"stop_rad": 2 * TURN, "count": 32}})
    with pytest.raises(InputError, match="do not lie on a circle"):
        recon.reconstruct(measurement, method="fbp", progress=False)
    result = recon.reconstruct(measurement, method="cgls", progress=False, baselines=[])
    truth = measurement.truth
    assert truth is not None and np.corrcoef(result.volume[4:12].ravel(), truth[4:12].ravel())[0, 1] > 0.9


def test_slices_of_a_detector_cannot_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    hdf5.write_measurement(path, scan(16))
    job = JobSpec.parse({"input": {"path": str(path), "slices": [0, 4]}, "method": "fbp"})
    with pytest.raises(InputError, match="no slices of the volume"):
        reader.check(job, local_files(job))


def test_an_object_that_goes_on_beyond_the_rows_is_solved_beyond_them() -> None:
    """Slices above and below take what lies there, of which the outermost ones would get most."""
    given = cone(angles_rad={"stop_rad": TURN, "count": 24}, rows=24, cols=24, pixel_mm=1.5, detector_mm=3.0)
    shape = (16, 24, 40)
    g = given.volume_geometry(shape)
    data = line_integrals([Ellipsoid((0, 0, 0), (12, 12, 60), 0.02)], g).transpose(1, 0, 2)
    found, notes = given.completed_from(data)
    assert found.object_goes_on and "goes on beyond the detector's first and last row" in notes[0]
    assert found.result_shape(shape) == (16, 24, 24) and found.solved_shape(shape)[0] > 18
    levels = []
    for acquisition in (found, found.model_copy(update={"object_goes_on": False})):
        inverse = build(Measurement(np.ascontiguousarray(data), acquisition, noise_std=0.0))
        volume = inverse.arranged(run(solvers.start(inverse.problem, method_of("cgls"))))
        assert volume.shape == (16, 24, 24)
        levels.append(float(volume[[0, -1], 9:15, 9:15].mean()) / 0.02)
    assert abs(levels[0] - 1) < 0.5 * abs(levels[1] - 1)


def test_an_object_that_ends_within_the_rows_is_solved_as_it_is() -> None:
    measured = scan(16)
    found, notes = measured.acquisition.completed_from(measured.data)
    assert found == measured.acquisition and not notes


@pytest.mark.parametrize("reverse", [False, True], ids=["columns as usual", "columns the other way round"])
@pytest.mark.parametrize("method", ["fbp", {"name": "tv", "iterations": 40}], ids=["fdk", "tv"])
def test_an_object_wider_than_the_detector_is_solved_whole_and_its_middle_has_the_right_values(
    reverse: bool, method: Any
) -> None:
    """Rows that were cut off raise the grey values towards the rim by hundreds of HU unless they are continued."""
    whole = scan(32, views=48, photons_per_ray=None)
    assert isinstance(whole.acquisition, CTCone) and whole.truth is not None
    columns = whole.data.shape[2]
    cut = slice(columns // 3, columns - columns // 3)
    vectors = whole.acquisition.view_vectors(columns)
    if reverse:
        vectors[:, 6:9] *= -1
    data = whole.data[..., ::-1][..., cut] if reverse else whole.data[..., cut]
    acquisition = CTCone(
        vectors=vectors.tolist(), slices=32, rows=16, cols=16, pixel_mm=2.0, slice_mm=2.0,
        mu_water_per_mm=whole.acquisition.mu_water_per_mm,
    )  # fmt: skip
    found = recon.reconstruct(np.ascontiguousarray(data), acquisition, method=method, baselines=[], progress=False)
    assert found.volume.shape == (32, 16, 16)
    assert any("continued smoothly" in note for note in found.report.notes)
    assert any("solved on" in note for note in found.report.notes)
    truth = whole.truth[:, 8:24, 8:24]
    inner = (slice(13, 19), slice(4, 12), slice(4, 12))
    error = found.volume[inner] - truth[inner]
    assert abs(float(np.median(error))) < 60
    for side in (0, -1):
        rim = found.volume[13:19, 7:9, side] - truth[13:19, 7:9, side]
        assert abs(float(np.median(rim))) < 150


def test_rows_that_end_in_the_object_are_told_where_they_cannot_be_continued() -> None:
    tilted = scan(32, {"detector_tilt_rad": 0.1}, views=24)
    columns = tilted.data.shape[2]
    cut = np.ascontiguousarray(tilted.data[..., columns // 3 : columns - columns // 3])
    acquisition = tilted.acquisition.model_copy(update={"object_goes_on": None, "object_mm": None})
    found = recon.reconstruct(cut, acquisition, method="sirt", baselines=[], progress=False)
    assert any("beyond the detector" in note and "object_mm" in note for note in found.report.notes)


def test_a_size_of_the_object_that_is_given_is_solved_and_not_simulated() -> None:
    measured, as_usual = scan(16, {"object_mm": 60.0}, views=12), scan(16, views=12)
    assert np.array_equal(measured.data, as_usual.data)
    result = recon.reconstruct(measured, method="cgls", baselines=[], progress=False)
    assert result.volume.shape == (16, 16, 16)
    assert any("solved on 30 x 30 pixels" in note for note in result.report.notes)


def test_an_image_smaller_than_the_object_is_solved_on_a_larger_grid() -> None:
    whole = scan(32, views=48)
    acquisition = whole.acquisition.model_copy(update={"rows": 16, "cols": 16, "object_mm": None})
    found = recon.reconstruct(whole.data, acquisition, method="cgls", baselines=[], progress=False)
    assert whole.truth is not None and found.volume.shape == (32, 16, 16)
    error = found.volume[13:19, 4:12, 4:12] - whole.truth[13:19, 12:20, 12:20]
    assert abs(float(np.median(error))) < 40
    assert any("larger than the image" in note for note in found.report.notes)
