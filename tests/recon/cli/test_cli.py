"""The command line as its user runs it: exit status, one line an error, nothing lost."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydicom import dcmread

from recon.cli import main
from recon.formats import nifti
from recon.priors import precision
from tests.conftest import SAMPLES, voxels
from tests.recon.formats import hostile_files

BODY = SAMPLES / "ct_body.nii.gz"


def recon(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recon.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def spec_file(folder: Path, name: str, **value: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"acquisition": "ct-parallel", "method": "fbp", **value}))
    return path


def test_simulate_then_run(tmp_path: Path, ct_file: Path) -> None:
    made = recon(
        "simulate", ct_file.name, "-o", "m.h5", "--views", 40, "--photons-per-ray", 1e5, "--slices", "1:3", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert "(2, 40, " in made.stdout
    spec = yaml.safe_load((tmp_path / "m.yaml").read_text())
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({**spec, "method": "fbp"}))
    done = recon("run", "m.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "misfit" in done.stdout and "PSNR" in done.stdout
    assert (tmp_path / "results" / "m" / "montage.png").stat().st_size > 5000
    report = json.loads((tmp_path / "results" / "m" / "report.json").read_text())
    assert any("as a scanner would measure it" in note for note in report["notes"])


@pytest.mark.parametrize(("kind", "alike"), [("ct-cone", 0.9), ("ct-laminography", 0.85)])
def test_a_whole_volume_is_simulated_and_run(tmp_path: Path, kind: str, alike: float) -> None:
    """A cube of 32 voxels by FDK and TV: the volume comes in one piece, its affine is that of the file."""
    volume = np.full((32, 32, 32), -1000.0, np.float32)
    volume[8:20, 6:22, 10:26] = 0.0
    nifti.write(tmp_path / "cube.nii.gz", volume, np.diag([2.0, 2.0, 2.0, 1.0]), "test")
    made = recon("simulate", "cube.nii.gz", "-o", "m.h5", "--kind", kind, "--views", 24, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    spec = yaml.safe_load((tmp_path / "m.yaml").read_text())
    method = {"name": "tv", "iterations": 10}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({**spec, "method": method, "output": {"montage": False}}))
    done = recon("run", "m.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "m"
    for name in ("volume", "baseline-fbp"):
        found = voxels(folder / f"{name}.nii.gz")
        assert found.shape == (32, 32, 32) and np.corrcoef(found.ravel(), volume.ravel())[0, 1] > alike
    report = json.loads((folder / "report.json").read_text())
    assert report["acquisition"]["kind"] == kind and report["shape"] == [32, 32, 32]
    assert not list(tmp_path.glob("results/.*"))


def test_run_writes_dicom_and_refuses_what_dicom_has_not(tmp_path: Path, ct_file: Path) -> None:
    output = {"format": "dicom-enhanced", "baselines": [], "montage": False}
    spec_file(tmp_path, "good", input=ct_file.name, output=output)
    done = recon("run", "good.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = dcmread(tmp_path / "results" / "good" / "volume.dcm")
    assert found.Modality == "CT" and "fbp" in found.DerivationDescription and found.pixel_array.ndim == 3
    mri = {"acquisition": "mri-cartesian", "method": "cg-sense"}
    for name, says, value in (
        ("complex", "dicom holds no complex numbers", {**mri, "output": {"format": "dicom", "parts": ["complex"]}}),
        ("unknown", "'dcm' is not one of", {"output": {"format": "dcm"}}),
        ("other", "ismrmrd holds no volumes of ct-parallel", {"output": {"format": "ismrmrd"}}),
    ):
        spec_file(tmp_path, name, input=ct_file.name, **value)
        refused = recon("run", f"{name}.yaml", cwd=tmp_path)
        assert refused.returncode == 2 and says in refused.stderr
        assert refused.stderr.startswith("error: output") and refused.stderr.count("\n") == 1


def test_simulate_takes_a_scanner_and_refuses_half_of_one(tmp_path: Path, ct_file: Path) -> None:
    scanner = ["--photons-per-ray", 1e5, "--tube-voltage-kv", 120, "--scatter", 0.01, "--gain-std", 0.002, "--rings", 2]
    args = ["simulate", ct_file.name, "--views", 10, *scanner, "--electronic-noise", 5, "--view-motion-rad", 0.01]
    done = recon(*args, "--ring-gain", 0.05, "-o", "m.h5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = recon(*args, "--model", "ideal", "-o", "other.h5", cwd=tmp_path)
    assert refused.returncode == 2 and "an ideal simulation has no view_motion_rad" in refused.stderr
    assert "Traceback" not in refused.stderr and not (tmp_path / "other.h5").exists()


def test_batch_goes_on_after_a_failure_and_resumes(tmp_path: Path, ct_file: Path) -> None:
    good = spec_file(tmp_path, "good", input=ct_file.name)
    bad = spec_file(tmp_path, "bad", input="missing.nii.gz")
    last = spec_file(tmp_path, "last", input=ct_file.name, method="sirt", output={"baselines": []})
    done = recon("batch", bad, good, last, "--out", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "2 of 3 jobs done" in done.stdout and "missing.nii.gz" in done.stdout
    assert "Traceback" not in done.stderr
    before = (tmp_path / "out" / "good" / "volume.nii.gz").stat().st_mtime_ns
    assert recon("batch", good, "--out", "out", cwd=tmp_path).returncode == 1  # never overwritten unasked
    again = recon("batch", good, last, "--out", "out", "--resume", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.count("done before") == 2
    assert (tmp_path / "out" / "good" / "volume.nii.gz").stat().st_mtime_ns == before
    spec_file(tmp_path, "good", input=ct_file.name, seed=1)
    changed = recon("batch", good, "--out", "out", "--resume", cwd=tmp_path)
    assert changed.returncode == 1 and "another" in changed.stdout


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"input": "missing.npy"}, ["input.path", "missing.npy"]),
        ({"input": "x.npy", "method": "magic"}, ["method", "magic"]),
        ({"input": "x.npy", "acquisition": {"kind": "ct-parallel", "angles_rad": [0, 90]}}, ["angles_rad", "degrees"]),
        ({"input": {"upload": "a" * 26}}, ["input", "server"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, value: dict[str, Any], says: list[str]) -> None:
    done = recon("run", spec_file(tmp_path, "job", **value), cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
    for text in says:
        assert text in done.stderr
    assert not (tmp_path / "results").exists()


def test_no_server_is_status_3(tmp_path: Path, ct_file: Path) -> None:
    done = recon("submit", spec_file(tmp_path, "job", input=ct_file.name), "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 3 and "recon serve" in done.stderr and "Traceback" not in done.stderr


def test_remote_commands(tmp_path: Path, ct_file: Path, service: tuple[str, Path]) -> None:
    url = ["--url", service[0]]
    job_id = recon("submit", spec_file(tmp_path, "job", input=ct_file.name), *url, cwd=tmp_path).stdout.strip()
    watched = recon("watch", job_id, *url, cwd=tmp_path)
    assert watched.returncode == 0 and "succeeded" in watched.stdout, watched.stderr
    fetched = recon("fetch", job_id, "-o", "got", *url, cwd=tmp_path)
    assert fetched.returncode == 0 and (tmp_path / "got" / "report.json").exists()
    listed = recon("list", "--json", *url, cwd=tmp_path)
    assert job_id in [j["id"] for j in json.loads(listed.stdout)]
    assert "succeeded" in recon("cancel", job_id, *url, cwd=tmp_path).stdout
    failed = recon("submit", spec_file(tmp_path, "bad", input=ct_file.name, method={"name": "diffpir", "prior": "zz"}),
                   "--wait", *url, cwd=tmp_path)  # fmt: skip
    assert failed.returncode == 1 and "no prior 'zz'" in failed.stderr


def test_doctor(tmp_path: Path) -> None:
    done = recon("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    for text in ("parallel beam", "fan beam", "Cartesian MRI", "adjoint error", "GPU", "torch", "all is well"):
        assert text in done.stdout
    assert f"compute in {precision.name()}" in " ".join(done.stdout.split())


def test_priors_are_listed(tmp_path: Path) -> None:
    done = recon("priors", cwd=tmp_path)
    assert done.returncode == 0 and "brain-mri" in done.stdout and "ct" in done.stdout


def test_a_priors_card_is_printed(tmp_path: Path) -> None:
    done = recon("priors", "ct", cwd=tmp_path)
    card = yaml.safe_load(done.stdout)
    assert done.returncode == 0 and card["name"] == "ct" and card["data"][0]["licence"]
    assert set(card["denoising_psnr"]) == {0.05, 0.1, 0.25, 0.5}
    missing = recon("priors", "nope", cwd=tmp_path)
    assert missing.returncode == 2 and "no prior 'nope'" in missing.stderr


def test_train_export_and_use_a_prior_of_ones_own(
    tmp_path: Path, ct_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From NIfTI volumes to a job that uses the weights, each step as a user would type it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # small arrays are not worth the threads' waiting for each other
    (tmp_path / "data").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        shutil.copy(ct_file, tmp_path / "data" / name)
    small = ["channels=[16, 32]", "blocks=1", "training.crop=32", "training.batch=2"]
    sets = [part for setting in small for part in ("--set", setting)]
    train = ["train", "mine", "--modality", "ct", "--data", "data", "--steps", 3, *sets]
    done = recon(*train, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step 3" in done.stdout
    done = recon("export", "runs/mine", "--data", "data", "--command", "recon train", "--out", "own", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    method = {"name": "diffpir", "prior": "own/mine.yaml", "steps": 2, "start": "classical"}
    job = spec_file(tmp_path, "job", input=ct_file.name, method=method, output={"baselines": []})
    done = recon("run", job, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results" / "job" / "report.json").read_text())
    assert report["prior"]["name"] == "mine" and 0 <= report["familiarity"]["lowest"] <= 100
    none = recon("train", "zz", "--data", "data", cwd=tmp_path)
    assert none.returncode == 2 and "no recipe 'zz'" in none.stderr


def test_bench_priors_prints_and_writes(tmp_path: Path) -> None:
    """On parts of the tuning slices."""
    (tmp_path / "tune").mkdir()
    shipped = np.load(SAMPLES / "tune" / "ct_hu.npz")
    np.savez(tmp_path / "tune" / "ct_hu.npz", images=shipped["images"][:, 64:192, 64:192], subject=shipped["subject"])
    asked = ["ct", "--no-bm3d", "--data", ".", "--repeats", 1, "--json", "p.json"]
    done = recon("bench", "priors", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"batches of 8, {precision.name()};" in " ".join(done.stdout.split())
    found = json.loads((tmp_path / "p.json").read_text())
    assert [r["sigma"] for r in found["rows"]] == [0.05, 0.1, 0.25, 0.5]
    for row in found["rows"]:
        assert row["prior"] == "ct" and row["psnr_bm3d"] is None
        assert row["psnr_noisy"] == pytest.approx(20 * math.log10(2 / row["sigma"]), abs=0.1)
        assert row["psnr"] > row["psnr_noisy"] + 6
    assert found["speed"][0]["ms_per_slice"] > 0 and found["speed"][0]["share_of_peak"] > 0


def test_bench_mri_judges_held_out_samples_and_a_volume(tmp_path: Path) -> None:
    methods = (
        '[{"name": "zero-filled"}, {"name": "cg-sense"}, {"name": "l1-wavelet", "weight": 3e-3, "iterations": 30}]'
    )
    done = recon("bench", "mri", "--methods", methods, "--json", "m.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert [r["method"].split()[0] for r in rows] == ["zero-filled", "cg-sense", "l1-wavelet"]
    assert rows[0]["held_out_misfit"] > rows[2]["held_out_misfit"] > 0.2  # noise alone keeps it above
    args = [SAMPLES / "tune" / "mri_256_ms.npz", "--slices", "5:6", "--methods", "zero-filled,cg-sense"]
    done = recon("bench", "mri", *args, "--json", "v.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    poor, good = json.loads((tmp_path / "v.json").read_text())["rows"]
    assert good["psnr"] > poor["psnr"] + 3 and good["held_out_misfit"] is None
    done = recon("bench", "mri", args[0], "--slices", "5:400", "--methods", "cg-sense", cwd=tmp_path)
    assert done.returncode == 2 and "slices: 5:400, mri_256_ms.npz has " in done.stderr, done.stderr


@pytest.mark.parametrize("command", ["auto", "lesions", "coverage"])
def test_a_benchmark_of_no_case_says_so(tmp_path: Path, command: str) -> None:
    done = recon("bench", command, "--data", tmp_path, "--only", "knee", cwd=tmp_path)
    assert done.returncode == 2 and "only: 'knee' is in the name of no case" in done.stderr, done.stderr


def test_bench_operators_prints_and_writes(tmp_path: Path) -> None:
    args = ["--size", 32, "--views", 12, "--slices", 4, "--repeats", 1, "--json", "b.json"]
    done = recon("bench", "operators", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "b.json").read_text())
    rows, normal = found["rows"], found["normal"]
    assert normal["coils"] == 8 and normal["ratio"] == normal["radial_ms"] / normal["cartesian_ms"] > 0
    assert [r["direction"] for r in rows] == ["forward", "adjoint"]
    assert all(r["largest_difference"] < 1e-5 for r in rows)


def test_bench_solvers_judges_against_the_volume(tmp_path: Path) -> None:
    args = [SAMPLES / "ct_body.nii.gz", "--slices", "50:51", "--views", "20,60", "--methods", "fbp"]
    done = recon("bench", "solvers", *args, "--json", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    few, many = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert many["psnr"] > few["psnr"] + 3
    done = recon("bench", "solvers", *args, "--degrees", "60", "--json", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    limited = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert limited[1]["psnr"] < many["psnr"] - 3  # as many views of a third of the angles


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench", "solvers", BODY, "--slices", "0:1", "--views", "60,x"], "views: 'x' is no positive whole number"),
        (["bench", "solvers", BODY, "--slices", "0:1", "--methods", "magic"], "methods: "),
        (["tune", "--data", SAMPLES, "--out", "t.yaml", "--methods", "dds", "--only", "60 views"], "data: "),
        (["tune", "--data", SAMPLES, "--out", "t.yaml", "--methods", "dds", "--only", "equispaced x4"], "data: "),
        (["tune", "--data", SAMPLES, "--out", "t.yaml", "--methods", "low-rank", "--only", "60 views"],
         "only: low-rank fits the kind of scan of none of these tasks"),
        (["tune", "--data", SAMPLES, "--out", "t.yaml", "--methods", "low-rank", "--prior", "ct"],
         "methods: low-rank has no prior"),
    ],
)  # fmt: skip
def test_wrong_options_of_experiments_are_named(arguments: list[Any], says: str, tmp_path: Path) -> None:
    done = recon(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def one_line(done: subprocess.CompletedProcess[str], *says: str) -> None:
    """An error of the user's: status 2, one line that says so."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: "), done.stderr
    for text in says:
        assert text in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["run", "job.yaml", "-o"],
        ["batch", "job.yaml", "-o"],
        ["simulate", "volume.nii.gz", "--views", 8, "-o"],
        ["inspect", "volume.nii.gz", "-o"],
        ["plan", "--measure"],
        ["bench", "operators", "--json"],
        ["search-noise", "brain-mri-sr", "-o"],
    ],
    ids=lambda command: str(command[0]),
)
def test_an_output_that_cannot_be_made_is_one_line(
    tmp_path: Path,
    ct_file: Path,
    command: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ended(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["recon", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main.main()
        printed = capsys.readouterr()
        one_line(subprocess.CompletedProcess([], int(end.value.code or 0), printed.out, printed.err), "out")

    monkeypatch.chdir(tmp_path)
    spec_file(tmp_path, "job", input=ct_file.name)
    ending = {"simulate": ".h5"}.get(str(command[0]), ".yaml")
    (tmp_path / "file").write_text("mine")
    ended(*command, f"file/out{ending}")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / f"out{ending}").symlink_to(tmp_path / "nowhere" / "at all")
    ended(*command, f"out{ending}")
    assert not (tmp_path / "nowhere").exists()


def test_simulate_overwrites_nothing_unasked(tmp_path: Path, ct_file: Path) -> None:
    simulate = ["simulate", ct_file.name, "--views", 8, "--slices", "0:1", "-o"]
    (tmp_path / "scan.yaml").write_text("# written by hand\n")
    one_line(recon(*simulate, "scan.h5", cwd=tmp_path), "scan.yaml exists already", "--force")
    assert (tmp_path / "scan.yaml").read_text() == "# written by hand\n" and not (tmp_path / "scan.h5").exists()
    one_line(recon(*simulate, "b.yaml", cwd=tmp_path), "name it .h5")
    assert recon(*simulate, "m.h5", cwd=tmp_path).returncode == 0
    before = (tmp_path / "m.h5").read_bytes()
    one_line(recon(*simulate, "m.h5", "--seed", 1, cwd=tmp_path), "m.h5 exists already", "--force")
    assert (tmp_path / "m.h5").read_bytes() == before
    assert recon(*simulate, "m.h5", "--seed", 1, "--force", cwd=tmp_path).returncode == 0


def test_plan_measure_takes_no_specification_for_a_table(tmp_path: Path, ct_file: Path) -> None:
    job = spec_file(tmp_path, "job", input=ct_file.name)
    before = job.read_text()
    one_line(recon("plan", "--measure", job, cwd=tmp_path), "job.yaml exists already")
    assert job.read_text() == before


def test_a_specification_may_begin_with_a_byte_order_mark(tmp_path: Path, ct_file: Path) -> None:
    """As editors on Windows write it; the API takes it too."""
    value = {"input": ct_file.name, "acquisition": "ct-parallel", "method": "fbp"}
    for name, text in (("job.json", json.dumps(value)), ("job.yaml", yaml.safe_dump(value))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert recon("plan", name, cwd=tmp_path).returncode == 0


def test_a_file_that_is_not_there_is_named_with_the_folder_that_was_searched(tmp_path: Path) -> None:
    done = recon("run", spec_file(tmp_path, "job", input="data/missing.npy"), cwd=tmp_path)
    one_line(done, f"there is no file missing.npy in {(tmp_path / 'data').resolve()}")


def test_inspect_shows_what_is_there_and_writes_a_specification_that_runs(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    shutil.copy(SAMPLES / "ct_tooth.h5", tmp_path / "scans" / "tooth.h5")
    shown = recon("inspect", "scans", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for text in (
        "scans/tooth.h5: dxchange, told by what it holds", "181 x 2 x 640", "2 slices x 181 views x 640 detectors",
        "angles: 181, from 0 to 179.006 degrees", "missing: acquisition.detector_mm", "detector_mm: null  # FILL IN",
        "values in slice 1: ",
    ):  # fmt: skip
        assert text in shown.stdout, shown.stdout
    as_json = json.loads(recon("inspect", "scans", "--json", cwd=tmp_path).stdout)
    assert as_json["shape"] == [2, 181, 640] and as_json["file"] == "tooth.h5"
    one_line(recon("run", "scans", cwd=tmp_path), "acquisition.detector_mm", "recon inspect scans -o job.yaml")
    done = recon("inspect", "scans", "-o", "jobs/job.yaml", "--slices", "0:1", cwd=tmp_path)
    assert "job.yaml: fill in acquisition.detector_mm, then reconstruct it with: recon run jobs/job.yaml" in done.stdout
    text = (tmp_path / "jobs" / "job.yaml").read_text()
    assert "path: ../scans" in text and "slices: [0, 1]" in text
    text = text.replace("detector_mm: null", "detector_mm: 0.01").replace("method: auto", "method: fbp")
    (tmp_path / "jobs" / "job.yaml").write_text(text)
    done = recon("run", "jobs/job.yaml", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one_line(recon("inspect", "scans", "-o", "jobs/job.yaml", cwd=tmp_path), "exists already")
    one_line(recon("inspect", "nothing", cwd=tmp_path), "there is no file nothing")


def test_data_that_say_it_all_need_no_specification(tmp_path: Path, ct_file: Path) -> None:
    assert recon("simulate", ct_file.name, "-o", "m.h5", "--views", 40, cwd=tmp_path).returncode == 0
    done = recon("plan", "m.h5", cwd=tmp_path)
    assert done.returncode == 0 and "auto" in done.stdout


def test_memory_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.report_errors(lambda: np.ones(2**60, np.uint8))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "more memory than there is" in said and said.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "inspect"])
def test_an_archive_that_promises_40_tb_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "a.npz").write_bytes(
        hostile_files.challenge(a__sino=hostile_files.claims("(10000000, 1000000)"))(tmp_path)
    )
    job = spec_file(tmp_path, "job", input={"path": "a.npz"}, acquisition=None)
    ended = recon(command, job.name if command == "run" else "a.npz", cwd=tmp_path)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "40000.0 GB" in ended.stderr
