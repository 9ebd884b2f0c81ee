"""Benchmark of super-resolution: planes in their place, rows and gains that say what they measure, upright pictures."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from operators.errors import InputError
from recon.bench import boundary as bench
from recon.bench.auto import CHEST, T1, T2
from recon.cli.main import app
from recon.formats import nifti
from recon.priors import cards
from recon.training.export import export
from tests.recon.training.test_training import tiny, trained

AFFINE = np.diag([-1.0, 1.2, 1.5, 1.0])
AFFINE[:3, 3] = 20, -30, 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Test volumes that are small, and a prior of all factors."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 28, 26)), indexing="ij")
    head = (sum(g**2 for g in grid) < 0.8) * (1 + 0.3 * np.sin(9 * grid[0]) * np.cos(8 * grid[1]) * np.sin(7 * grid[2]))
    (tmp_path / "test").mkdir()
    for name in (T1, T2):
        nifti.write(tmp_path / name, (100 * head).astype(np.float32), AFFINE, "test")
    trained(tiny(tmp_path, factors=(2.0, 4.0)), tmp_path, tmp_path / "run")
    export(tmp_path / "run", tmp_path, "recon train tiny", tmp_path)
    return tmp_path


def test_volumes_are_turned_with_their_affine(data: Path) -> None:
    """Whatever the order of the axes, a voxel stays where it is in the patient."""
    volume, affine = nifti.read(data / T2)
    case = next(c for c in bench.cases(data) if c.name == "T2, x2 through plane")
    turned, moved = case.volume()
    assert turned.shape == (28, 26, 24)  # thick slices are coronal: along the rows of the file
    s, r, c = 7, 11, 5
    assert turned[r, c, s] == volume[s, r, c]
    assert np.allclose(moved @ [s, c, r, 1], affine @ [c, r, s, 1])
    _, truth, _ = case.stack()
    assert np.array_equal(truth, volume)  # the refined planes are axial


def test_rows_and_gains(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FEW_STEPS", (2,))
    monkeypatch.setattr(bench, "MANY_STEPS", 3)
    out, prior = data / "rows.json", str(data / "tiny.yaml")
    asked = ["bench", "boundary", "--data", str(data), "--prior", prior, "--only", "T1, x2 in plane", "--planes", "2"]
    for _ in range(2):  # the second time all of it is known
        done = CliRunner().invoke(app, [*asked, "--random", "2", "--out", str(out)])
        assert done.exit_code == 0, done.output
    assert "T1, x2 in plane, 2 steps, usual noise gains, PSNR in dB" in done.output.replace("\n", " ")
    written = json.loads(out.read_text())
    rows = {row["method"]: row for row in written["rows"]}
    assert len(rows) == len(written["rows"]) == 12
    assert [rows[f"boundary, detail {d}"]["nfe"] for d in ("0", "0.5", "1")] == [5, 13, 8]
    assert rows["interpolation"]["detail"] is None and rows["interpolation"]["sharpness_ratio"] < 0.5
    worst, mean, best = (rows[f"random noise, 2 steps, {which}"]["psnr"] for which in ("worst", "mean", "best"))
    assert worst <= mean <= best and rows["random noise, 2 steps, mean"]["spread"] is not None
    (gain,) = written["gains"]
    assert gain["noise"] == "usual" and gain["random"] == 2 and len(gain["psnr"]) == len(gain["perceptual"]) == 2


def test_thick_slices_of_a_chest_are_judged_in_hu(data: Path) -> None:
    head = nifti.read(data / T1)[0]
    nifti.write(data / CHEST, (10 * head - 1000).astype(np.float32), AFFINE, "HU")
    case = next(c for c in bench.cases(data) if c.name == "chest, x2 through plane")
    bench.require_covered(case, None)
    chest = bench.Bench.of(case, 2, None)
    assert chest.truth.min() < -990 and chest.truth.max() > 0
    rows = {row.method: row for row in chest.rows({"diffpir", "dds"}, None)}
    assert set(rows) == {"interpolation", "tv", "red-diff"}
    assert rows["tv"].psnr > rows["interpolation"].psnr and rows["red-diff"].nfe > 8
    assert rows["interpolation"].sharpness_ratio < 0.5 and rows["red-diff"].detail is None


def test_a_factor_without_a_prior_is_known_before_anything_runs(data: Path) -> None:
    case = bench.cases(data)[1]
    assert case.acquisition.factor == 3
    single = {"name": "double", "factors": None, "super_resolution": 2}
    cards.card_of(str(data / "tiny.yaml")).model_copy(update=single).write(data / "double.yaml")
    bench.require_covered(case, str(data / "tiny.yaml"))
    with pytest.raises(InputError, match=r"double\.yaml does not cover x3"):
        bench.require_covered(case, str(data / "double.yaml"))


def test_an_interval_holds_its_mean() -> None:
    mean, low, high = bench.interval([0.1, 0.2, 0.4, 0.1, 0.3])
    assert mean == pytest.approx(0.22) and 0.1 < low < mean < high < 0.4


def test_pictures_are_upright(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is bright on top is so in the picture's coronal planes."""
    volume, affine = nifti.read(data / T1)
    volume[12:] *= 3  # slices grow upwards
    nifti.write(data / T1, volume, affine, "test")
    case = next(c for c in bench.cases(data) if c.name == "T1, x2 through plane")
    image = imread(bench.picture(data / "pictures", case, str(data / "tiny.yaml")))[..., 0]
    height = image.shape[0]
    # Second row of four: coronal; last column: the truth.
    coronal = image[int(0.27 * height) : int(0.49 * height), -int(image.shape[1] / 6.5) :]
    dark = np.where(coronal > 0.98, 0, coronal)  # paper is white
    half = len(dark) // 2
    assert dark[:half].sum() > 1.2 * dark[half:].sum()
    assert nib.aff2axcodes(affine)[2] == "S"
