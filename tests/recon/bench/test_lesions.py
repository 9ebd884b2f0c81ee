"""Lesions are judged in closed form: by methods that keep, blur, invent or draw back what is in a known slice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from scipy import ndimage
from typer.testing import CliRunner

from operators.errors import InputError
from recon.bench.auto import CHEST
from recon.bench.inserted import covered
from recon.bench.lesions import Case, Row, Scan, cases, compare, judged, left_out, picture, rows_of, smallest_kept
from recon.cli.main import app
from recon.spec.acquisitions.ct import CTParallel
from recon.spec.acquisitions.mri_cartesian import MRICartesian
from recon.spec.acquisitions.superresolution import CTSuperResolution
from recon.spec.simulation import Simulation
from tests.recon.bench.bodies import PIXEL_MM, SIDE, body, head

AFFINE = np.diag([-PIXEL_MM, -PIXEL_MM, 4.0, 1.0])


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan.of(body()[None], AFFINE, CTParallel(), Simulation(views=30, photons_per_ray=1e5))


def rows(scan: Scan, healthy: np.ndarray, diseased: np.ndarray) -> dict[tuple[str, float], Row]:
    found = rows_of("case", scan, judged(scan, "method", healthy, diseased))
    return {(row.lesion, row.diameter_mm): row for row in found}


def test_the_truth_recovers_all_and_invents_nothing(scan: Scan) -> None:
    found = rows(scan, *scan.truths)
    assert len(found) >= 23
    for row in found.values():
        assert row.contrast_recovered == 1.0 and row.false_positives == 0.0 and row.healthy_sites > 0
    assert found["nodule -60 HU in soft tissue", 12.0].contrast == pytest.approx(-55, abs=6)


def test_a_scale_is_read_off_and_anatomy_and_artefacts_cancel_out(scan: Scan) -> None:
    healthy, diseased = scan.truths
    streaks = 200 * np.random.default_rng(0).normal(size=healthy.shape).astype(np.float32)
    found = rows(scan, 0.7 * healthy + streaks, 0.7 * diseased + streaks)
    assert all(row.contrast_recovered == pytest.approx(0.7, abs=0.005) for row in found.values())


def test_blur_costs_contrast_and_small_ones_more(scan: Scan) -> None:
    healthy, diseased = (ndimage.gaussian_filter(v, (0, 1.5, 1.5)) for v in scan.truths)
    found = rows(scan, healthy, diseased)
    for kind, sizes in (
        ("nodule +150 HU in lung", (4.0, 6.0, 8.0, 12.0)), ("nodule -60 HU in soft tissue", (4.0, 6.0, 8.0, 12.0)),
        ("vessel +500 HU in lung", (1.5, 3.0)),
    ):  # fmt: skip
        kept = [found[kind, size].contrast_recovered for size in sizes]
        assert kept == sorted(kept) and kept[0] < kept[-1] - 0.02 and kept[0] < 0.6, kind


def test_an_invented_blob_is_a_false_positive(scan: Scan) -> None:
    healthy, diseased = scan.truths
    share = covered("disc", 12.0, (PIXEL_MM, PIXEL_MM), 0.0)
    middle = slice((SIDE - len(share)) // 2, (SIDE + len(share)) // 2)
    blob = np.zeros_like(healthy)
    blob[0, middle, middle] = share
    rates = {size: rows(scan, healthy + size * blob, diseased + size * blob) for size in (40.0, 100.0, -100.0)}
    bright, dark = ("nodule +150 HU in soft tissue", 12.0), ("nodule -60 HU in soft tissue", 12.0)
    assert rates[40.0][bright].false_positives == 0.0, "less than half of the contrast"
    assert (rates[100.0][bright].false_positives or 0.0) > 0.0
    assert (rates[-100.0][dark].false_positives or 0.0) > (rates[40.0][dark].false_positives or 0.0)
    assert rates[100.0]["nodule +150 HU in lung", 12.0].false_positives == 0.0, "no lung is there"
    assert all(row.contrast_recovered == pytest.approx(1.0, abs=1e-3) for row in rates[100.0].values())


def test_a_structure_drawn_back_recovers_nothing(scan: Scan) -> None:
    healthy, diseased = scan.truths
    missing = next(one for one in scan.lesions if one.kind.shape == "missing")
    restored = diseased.copy()
    restored[missing.at] = healthy[missing.at]
    for (kind, _), row in rows(scan, healthy, restored).items():
        assert row.contrast_recovered == (0.0 if kind == "missing structure" else 1.0)
    invented = healthy.copy()
    patch = tuple(slice((SIDE - n) // 2, (SIDE - n) // 2 + n) for n in missing.change.shape)
    invented[0][patch] -= missing.change
    found = next(row for (kind, _), row in rows(scan, invented, diseased).items() if kind == "missing structure")
    assert (found.false_positives or 0.0) > 0.0, "drawn where there is none"


def test_noise_of_both_scans_is_the_same(scan: Scan) -> None:
    clean = Scan.of(body()[None], AFFINE, CTParallel(), Simulation(views=30))
    changes = [np.subtract(one.diseased.data, one.healthy.data) for one in (scan, clean)]
    noise = np.std(np.subtract(scan.healthy.data, clean.healthy.data))
    assert np.abs(changes[0] - changes[1]).max() < 1e-5 < 0.1 * noise
    assert np.abs(changes[1]).max() > 0.01


def test_methods_run_on_both_scans_and_are_pictured_upright(scan: Scan, tmp_path: Path) -> None:
    found = list(compare(scan, ["fbp", "cgls"]))
    assert [one.method for one in found] == ["fbp", "cgls"]
    table = {(row.lesion, row.diameter_mm): row for row in rows_of("a case, 30 views", scan, found[0])}
    assert 0.75 < table["nodule +150 HU in soft tissue", 12.0].contrast_recovered < 1.15
    path = picture(tmp_path / "new", "A case, 30 views", scan, found)
    assert path.name == "lesions-a-case-30-views.png" and imread(path).std() > 0.1


def test_a_head_is_measured_too() -> None:
    scan = Scan.of(head()[None], AFFINE, MRICartesian(), Simulation(acceleration=4, noise_std=0.005, coils=4))
    assert {one.kind.name for one in scan.lesions} >= {"bright lesion +20 %", "dark lesion -40 %", "missing structure"}
    found = next(compare(scan, ["cg-sense"]))
    table = {(row.lesion, row.diameter_mm): row.contrast_recovered for row in rows_of("head", scan, found)}
    assert 0.6 < table["bright lesion +40 %", 12.0] < 1.2 and 0.6 < table["dark lesion -40 %", 12.0] < 1.2


def test_lesions_of_thick_slices_lie_where_they_were_put() -> None:
    """Thick slices along the rows: interpolation keeps a large nodule, and loses what is as thin as a pixel."""
    thick = CTSuperResolution(factor=4, profile="gaussian")
    scan = Scan.of(body()[None], AFFINE, thick, Simulation(noise_std=0.001))
    assert scan.healthy.data.shape == (SIDE // 4, SIDE, 1) and scan.truths[0].shape == (1, SIDE, SIDE)
    found = next(compare(scan, ["interpolation"]))
    assert found.healthy.shape == (1, SIDE, SIDE)
    table = {(row.lesion, row.diameter_mm): row.contrast_recovered for row in rows_of("thick", scan, found)}
    assert 0.6 < table["nodule +150 HU in soft tissue", 12.0] < 1.1
    assert table["nodule +150 HU in soft tissue", 4.0] < table["nodule +150 HU in soft tissue", 12.0] - 0.1


def test_what_has_no_place_is_named_or_refused(scan: Scan) -> None:
    assert left_out(scan) == []
    few = replace(scan, lesions=[one for one in scan.lesions if one.kind.tissue != "lung"])
    assert len(left_out(few)) == 7 and left_out(few)[0] == "nodule +150 HU in lung, 4 mm"
    with pytest.raises(InputError, match="no healthy tissue"):
        Scan.of(np.full((1, 64, 64), -1000.0, np.float32), AFFINE, CTParallel(), Simulation(views=8))


@pytest.mark.parametrize(
    ("recovered", "smallest"),
    [((0.95, 0.85, 0.92, 0.99), 8.0), ((0.9, 1.2, 0.95, 0.91), 4.0), ((0.99, 0.99, 0.99, 0.89), None)],
)
def test_smallest_kept_counts_only_if_larger_ones_are_kept(
    recovered: tuple[float, ...], smallest: float | None
) -> None:
    given = [
        Row("case", "nodule", size, "tv", 100.0, share, 1, 0.0, 10)
        for size, share in zip((4.0, 6.0, 8.0, 12.0), recovered, strict=True)
    ]
    (found,) = smallest_kept(given)
    assert (found.case, found.lesion, found.method, found.diameter_mm) == ("case", "nodule", "tv", smallest)


def test_cases_cover_the_scans_of_both_modalities() -> None:
    found: list[Case] = cases(Path("nowhere"))
    names = {case.name for case in found}
    assert {"chest, thick slices, x2", "chest, thick slices, x4"} <= names
    assert {f"chest, {views} views" for views in (60, 23, 8)} | {"T1, x4", "T1, x8", "T2, x4", "T2, x8"} <= names
    assert all({"red-diff", "tv"} <= set(case.methods) for case in found)


def test_the_command_writes_rows_and_pictures_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / CHEST
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.repeat(body()[None], 4, axis=0).transpose(2, 1, 0), AFFINE), path)
    out, pictures = tmp_path / "lesions.json", tmp_path / "pictures"
    asked = ["bench", "lesions", "--data", str(tmp_path), "--only", "chest, 8 views", "--out", str(out)]
    done = CliRunner().invoke(app, [*asked, "--methods", "fbp", "--pictures", str(pictures)])
    assert done.exit_code == 0, done.output
    written = json.loads(out.read_text())
    first = written["rows"][0]
    assert {"case", "lesion", "method", "contrast_recovered", "false_positives"} <= set(first)
    assert {row["method"] for row in written["rows"]} == {"fbp"} and written["smallest_kept"]
    assert [one.name for one in pictures.iterdir()] == ["lesions-chest-8-views.png"]
    first["contrast_recovered"] = 0.123
    out.write_text(json.dumps(written))
    path.unlink()  # a case of which nothing is left to do is not read
    again = CliRunner().invoke(app, [*asked, "--methods", "fbp"])
    assert again.exit_code == 0 and "0.12" in again.output
    for wrong, field in (
        (["--only", "knee"], "only"), (["--only", "chest", "--methods", "cg-sense"], "methods"),
    ):  # fmt: skip
        refused = CliRunner().invoke(app, ["bench", "lesions", "--data", str(tmp_path), *wrong])
        assert isinstance(refused.exception, InputError) and refused.exception.field == field
