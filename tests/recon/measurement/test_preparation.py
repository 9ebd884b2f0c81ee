"""Preparation of counts: what is broken is found, mended and counted; what is not is left alone, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from operators.errors import ReconError
from recon.formats import reader
from recon.measurement.counts import Counts
from recon.measurement.measurement import Measurement
from recon.measurement.preparation import drift, fields, zingers
from recon.pipeline.reconstruct import run
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.job import local_files
from recon.spec.preparation import Preparation
from recon.spec.report import Report, Step
from tests.conftest import SAMPLES
from tests.recon.measurement import scans
from tests.recon.measurement.scans import DARK, PITCH_MM, VIEWS, Change, Frames

EVERY = ("data", "data_white", "data_dark")
OFF = {"bad_elements": False, "lost_frames": False, "zingers": False, "beam_drift": False}


def step(found: Measurement | Report, name: str) -> Step:
    steps = found.preparation.steps if isinstance(found, Measurement) and found.preparation else found.preparation
    assert isinstance(steps, list)
    return next(one for one in steps if one.name == name)


def set_element(value: int, *names: str) -> Change:
    """One detector element, in all frames of some kinds."""

    def change(found: Frames) -> None:
        for name in names:
            found[name][:, 1, 40] = value

    return change


def spot(found: Frames) -> None:
    found["data"][50, 1, 30] = 65535


def wide_spot(found: Frames) -> None:
    found["data"][50, 1, 30:32] = 65535, 40000


def no_count(found: Frames) -> None:
    found["data"][50, 1, 48] = 0


def drifting(found: Frames) -> None:
    found["data"] = (found["data"] * np.linspace(1, 0.8, VIEWS)[:, None, None]).astype(int)


def failing(found: Frames) -> None:
    found["data"][30] = np.random.default_rng(2).poisson(DARK, found["data"][30].shape)  # the shutter was closed
    found["data"][60] = 0
    found["data"][120] = found["data"][119]


CASES: dict[str, tuple[Change, str, dict[str, Any]]] = {
    "dead": (set_element(DARK, "data", "data_white"), "bad_elements", {"dead": 1}),
    "dead, zero": (set_element(0, *EVERY), "bad_elements", {"dead": 1}),
    "hot": (set_element(65535, *EVERY), "bad_elements", {"hot": 1}),
    "stuck": (set_element(9000, "data"), "bad_elements", {"stuck": 1}),
    "zinger": (spot, "zingers", {"bright": 1, "lost": 0, "views": 1}),
    "zinger of two elements": (wide_spot, "zingers", {"bright": 2, "lost": 0, "views": 1}),
    "lost sample": (no_count, "zingers", {"bright": 0, "lost": 1, "views": 1}),
    "drift": (drifting, "beam_drift", {}),
    "lost frames": (failing, "lost_frames", {"dark": [30], "blank": [60], "repeated": [120]}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_defect_is_mended_counted_and_leaves_the_right_values(case: str, tmp_path: Path) -> None:
    change, name, numbers = CASES[case]
    path = scans.write(tmp_path / "scan.h5", scans.frames(change))
    spec = scans.job(path, output={"format": "numpy", "montage": False, "baselines": []})
    report = run(spec, local_files(spec), tmp_path / "out")
    found = step(report, name)
    assert found.changed and found.text in report.notes
    assert numbers.items() <= found.numbers.items()
    assert [one.name for one in report.preparation if one.changed] in ([name], ["flat_field", name])
    volume = np.load(tmp_path / "out" / "volume.npy")[1]
    y, x = (np.arange(96) - 47.5)[:, None] * -PITCH_MM, (np.arange(96) - 47.5) * PITCH_MM
    for at, radius, value in (((-8, -8), 5, 0.02), ((10, 5), 3.5, 0.05), ((0, 25), 2, 0.0)):
        inside = np.hypot(x - at[0], y - at[1]) <= radius
        assert volume[inside].mean() == pytest.approx(value, abs=4e-4)
    # The defect leaves no trace: the noise is that of a scan without.
    assert volume[np.hypot(x + 8, y + 8) <= 5].std() < 0.0011


def test_a_scan_without_defects_comes_through_bit_by_bit(tmp_path: Path) -> None:
    found, plain = scans.read(tmp_path), scans.read(tmp_path, preparation=OFF)
    assert np.array_equal(found.data, plain.data)
    assert found.notes == [] == plain.notes
    assert found.preparation is not None
    assert [one.name for one in found.preparation.steps] == [
        "flat_field", "bad_elements", "lost_frames", "zingers", "smallest_transmission", "beam_drift",
        "rotation_center_column",
    ]  # fmt: skip
    assert not any(one.changed or one.warning for one in found.preparation.steps)


@pytest.mark.parametrize("views", [15, 60, 360])
def test_sharp_objects_without_noise_have_no_zingers(views: int) -> None:
    angles = np.arange(views) * np.pi / views
    sinogram = scans.sinogram(angles).astype(np.float32)[None]
    for columns in (1, 2, 3):  # a pin, and a gap between two plates
        pinned = sinogram.copy()
        for view, angle in enumerate(angles):
            place = int(47.5 + 30 * np.cos(angle))
            pinned[:, view, place : place + columns] += 4.0
        kept = pinned.copy()
        assert not zingers.remove(pinned, np.arange(views)).changed
        assert np.array_equal(pinned, kept)


def test_the_measured_samples_hardly_change() -> None:
    spec = scans.job(SAMPLES / "ct_tooth.h5")
    found = reader.read(spec, local_files(spec))
    plain = scans.job(SAMPLES / "ct_tooth.h5", OFF)
    assert (found.data != reader.read(plain, local_files(plain)).data).sum() == 1  # one zinger, 24 times the noise


def test_excluded_views_go_with_their_angles(tmp_path: Path) -> None:
    path = scans.write(tmp_path / "scan.h5", scans.frames(failing))
    spec = scans.job(path, {"exclude_views": [0, 30, 179], "lost_frames": False})
    found = reader.read(spec, local_files(spec))
    assert isinstance(found.acquisition, CTParallel)
    assert found.data.shape == (scans.ROWS, VIEWS - 3, scans.COLUMNS)
    left = np.rad2deg(found.acquisition.angles() or ())
    assert left == pytest.approx(np.setdiff1d(np.arange(VIEWS), [0, 30, 179]))
    assert step(found, "exclude_views").numbers == {"views": [0, 30, 179]}
    with pytest.raises(ReconError, match="view 180, the input has 180"):
        wrong = scans.job(path, {"exclude_views": [180]})
        reader.check(wrong, local_files(wrong))


def test_what_was_found_prepares_other_rows_alike(tmp_path: Path) -> None:
    def change(found: Frames) -> None:
        drifting(found)
        failing(found)
        spot(found)

    path = scans.write(tmp_path / "scan.h5", scans.frames(change))
    spec = scans.job(path, {"beam_hardening": {"coefficients": [0.05]}}, acquisition={"rotation_center_column": "auto"})
    whole = reader.read(spec, local_files(spec))
    head = reader.apart(spec, local_files(spec))
    assert head is not None and whole.preparation is not None
    sample = reader.read_sample(spec, local_files(spec), head)
    assert sample.preparation is not None
    assert np.array_equal(sample.data, whole.data) and sample.acquisition == whole.acquisition
    assert reader.as_sampled(head, sample).shape == whole.data.shape == (scans.ROWS, VIEWS - 3, scans.COLUMNS)
    for index in range(scans.ROWS):
        part = reader.read_part(spec, local_files(spec), index, index + 1, sample.preparation.scan)
        assert np.array_equal(part.data, whole.data[index : index + 1])
        assert part.acquisition == whole.acquisition


@pytest.mark.parametrize("shape", [(scans.COLUMNS,), (scans.ROWS, scans.COLUMNS)])
def test_a_mask_names_bad_elements_of_counts_and_of_line_integrals(tmp_path: Path, shape: tuple[int, ...]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[..., 40:42] = 1
    np.save(tmp_path / "mask.npy", mask)
    wrong = set_element(3000, "data")
    path = scans.write(tmp_path / "scan.h5", scans.frames(wrong))
    spec = scans.job(path, {"mask": str(tmp_path / "mask.npy"), "bad_elements": False}, input={"slices": [1, 2]})
    found = reader.read(spec, local_files(spec))
    assert step(found, "bad_elements").numbers["given"] == 2
    clean = np.asarray(scans.read(tmp_path).data[1:2], np.float32)
    line = clean[..., 39:40] + (clean[..., 42:43] - clean[..., 39:40]) * np.array([1, 2], np.float32) / 3
    assert found.data[..., 40:42] == pytest.approx(line, abs=1e-6)
    np.save(tmp_path / "sinogram.npy", scans.read(tmp_path, wrong).data[1])
    np.save(tmp_path / "mask.npy", mask.reshape(-1, scans.COLUMNS)[-1])
    acquisition = {"angles_rad": {"count": VIEWS}}
    spec = scans.job(
        tmp_path / "sinogram.npy",
        {"mask": str(tmp_path / "mask.npy")},
        input={"format": "numpy"},
        acquisition=acquisition,
    )
    assert reader.read(spec, local_files(spec)).data[..., 40:42] == pytest.approx(line, abs=1e-6)


def test_a_mask_is_a_file_of_the_job(tmp_path: Path) -> None:
    spec = scans.job(tmp_path / "scan.h5", {"mask": "bad.npy"}).with_base(tmp_path)
    assert {name: file.path for name, file in spec.files().items()} == {
        "input": str(tmp_path / "scan.h5"),
        "acquisition.preparation.mask": str(tmp_path / "bad.npy"),
    }


def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = scans.write(tmp_path / "scan.h5", scans.frames())
    for mask, says in (
        (np.zeros(95), "the detector has (3, 96)"),
        (np.full(96, 2), "only 0 and 1"),
        (np.ones(96), "bad"),
    ):
        np.save(tmp_path / "mask.npy", mask)
        spec = scans.job(path, {"mask": str(tmp_path / "mask.npy")})
        with pytest.raises(ReconError) as error:
            reader.check(spec, local_files(spec))
        assert says in error.value.message and error.value.remedy


def counts(levels: list[float], times: list[float], zinger: bool = False) -> Counts:
    """Projections at times 1 to 8 in a beam that fades from 20000 to 12000, and flats at `times`."""
    beam = np.interp(np.arange(10), [0, 9], [20000, 11000]).astype(np.float32)
    flats = np.array(levels, np.float32)[:, None, None] * np.ones((1, 2, 40), np.float32)
    if zinger:
        flats[1, 0, 7] = 60000
    data = beam[1:9, None, None] * np.full((8, 2, 40), 0.5, np.float32)
    return Counts(data, flats, None, np.arange(1.0, 9.0), np.array(times), np.array([]))


def test_flat_fields_before_and_after_are_interpolated_in_time() -> None:
    before_and_after = counts([20000, 20000, 20000, 11000, 11000, 11000], [-2, -1, 0, 9, 10, 11])
    found = fields.line_integrals(before_and_after, Preparation())
    # Each set lies in the middle of its frames, from -1 to 10.
    right = (
        0.5 * np.interp(np.arange(1, 9), [0, 9], [20000, 11000]) / np.interp(np.arange(1, 9), [-1, 10], [20000, 11000])
    )
    assert found.data[1, :, 3] == pytest.approx(-np.log(right), rel=1e-5)
    assert found.steps[0].numbers["flat_sets"] == 2
    assert found.steps[0].numbers["change_between_sets"] == pytest.approx(0.45)


@pytest.mark.parametrize("average", ["median", "mean"])
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_zingers_in_flat_fields_do_not_enter(average: str, frames: int) -> None:
    settings = Preparation.model_validate({"flat_field": average})
    found = fields.line_integrals(counts([20000] * frames, [0] * frames, zinger=True), settings)
    assert found.steps[0].numbers["zingers"] == 1
    assert np.array_equal(found.data[0, :, 7], found.data[0, :, 8])


@pytest.mark.parametrize("average", ["median", "mean"])
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_zingers_in_dark_fields_do_not_enter(average: str, frames: int) -> None:
    raw = counts([20000] * 3, [0] * 3)
    darks = np.full((frames, 2, 40), 200, np.float32)
    clean = replace(raw, darks=darks.copy(), dark_times=np.zeros(frames))
    darks[1, 0, 7] = 60000
    settings = Preparation.model_validate({"flat_field": average})
    hit = fields.line_integrals(replace(clean, darks=darks), settings)
    assert hit.steps[0].numbers["zingers"] == 1
    assert np.array_equal(hit.data, fields.line_integrals(clean, settings).data)


def test_a_beam_whose_shape_changes_is_followed_by_principal_components(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    u = np.arange(scans.COLUMNS)
    shapes = np.stack([np.sin(2 * np.pi * u / 7.3), np.sin(2 * np.pi * u / 19 + 1)])

    def change(found: Frames) -> None:
        for name in ("data", "data_white"):
            amounts = generator.normal(0, 0.05, (len(found[name]), 2))
            found[name] = found[name] * np.exp(amounts @ shapes)[:, None, :]

    right = scans.sinogram(np.arange(VIEWS) * np.pi / VIEWS)
    errors = {}
    for way in ("median", "principal-components"):
        found = scans.read(tmp_path, change, {"flat_field": way})
        errors[way] = float(np.sqrt(np.square(np.asarray(found.data, np.float32) - right).mean()))
    noise = float(np.sqrt(np.mean(np.exp(right)) / scans.PHOTONS))
    assert errors["median"] > 4 * noise and errors["principal-components"] < 1.6 * noise
    assert step(found, "flat_field").numbers["components"] == 2
    plain = scans.read(tmp_path, preparation={"flat_field": "principal-components"})
    assert step(plain, "flat_field").numbers["components"] == 0  # where the beam keeps its shape


def test_noise_follows_from_flats_of_any_scale() -> None:
    generator = np.random.default_rng(3)
    photons = generator.poisson(np.full((60, 4, 50), 1e4)).astype(np.float32)
    seen = generator.poisson(np.full((30, 4, 50), 2e3)).astype(np.float32)
    for scale in (1.0, 1e-4):  # counts, or divided by the white level already
        found = fields.line_integrals(Counts(seen * scale, photons * scale), Preparation())
        assert found.noise_std == pytest.approx(1 / np.sqrt(2e3), rel=0.1)
        assert found.photons_per_ray == pytest.approx(1e4, rel=0.1)


def test_photons_that_the_flats_show_weight_the_rays_unless_the_noise_is_given(tmp_path: Path) -> None:
    path = scans.write(tmp_path / "scan.h5", scans.frames())
    for given, photons in (({}, scans.PHOTONS), ({"noise_std": 0.01}, None), ({"photons_per_ray": 500.0}, 500.0)):
        spec = scans.job(path, acquisition=given)
        found = reader.read(spec, local_files(spec))
        assert isinstance(found.acquisition, CTParallel) and found.noise_std is None
        assert found.acquisition.photons_per_ray == (None if photons is None else pytest.approx(photons, rel=0.1))
    binned = scans.job(path, {"binning": {"columns": 2}})
    found = reader.read(binned, local_files(binned))
    assert isinstance(found.acquisition, CTParallel)
    assert found.acquisition.photons_per_ray == pytest.approx(2 * scans.PHOTONS, rel=0.1)


def test_air_that_is_not_at_zero_is_corrected_only_where_it_is_air() -> None:
    angles = np.arange(90) * np.pi / 90
    air = scans.sinogram(angles).astype(np.float32)[None]
    wide = air[..., 24:72]  # the object is larger than this detector
    fading = np.linspace(0, 0.1, 90, dtype=np.float32)[None, :, None]
    tilting = fading * np.linspace(0, 1, scans.COLUMNS, dtype=np.float32)
    for change, right in ((fading, True), (tilting, True), (np.float32(0.01), False), (np.float32(0.1), False)):
        changed = air + change
        said, found = drift.found(changed, counted=False)
        assert said.changed == (found is not None) == right
        if found is not None:
            assert changed - found == pytest.approx(air, abs=2e-3)
    assert drift.found(wide + fading, counted=True)[1] is None
    assert drift.found(air + np.float32(0.01), counted=True)[0].changed


def test_a_picture_shows_a_sinogram_before_and_after(tmp_path: Path) -> None:
    def change(found: Frames) -> None:
        failing(found)
        spot(found)
        set_element(DARK, "data", "data_white")(found)

    path = scans.write(tmp_path / "scan.h5", scans.frames(change))
    spec = scans.job(path)
    record = reader.read(spec, local_files(spec)).preparation
    assert record is not None
    assert record.before.shape == (VIEWS, scans.COLUMNS) and record.after.shape == (VIEWS - 3, scans.COLUMNS)
    assert record.before[:, 40].min() > 5 and record.before[50, 30] < -1 and record.before[60].min() > 5
    assert record.after.min() > -0.1 and record.after.max() < 1.3
    run(spec, local_files(spec), tmp_path / "out")
    picture = image.imread(tmp_path / "out" / "preparation.png")
    assert picture.shape[:2] == (600, 1000)
    left, right = picture[30:400, 60:440, 0], picture[30:400, 500:880, 0]
    assert (left == 1).mean() > (right == 1).mean() + 0.01  # the lost frames and the dead element, in white
