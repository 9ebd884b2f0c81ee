"""Wheels of a release: their size, their content, and that they work without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tools.release import wheels

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow
JOBS = {
    "ct": {
        "input": {"path": "{samples}/ct_body.nii.gz", "slices": [55, 56], "simulate": {"views": 60}},
        "acquisition": "ct-parallel",
        "method": {"name": "red-diff", "steps": 8},
    },
    "mri": {
        "input": {"path": "{samples}/mri_brain_8coil.npy"},
        "acquisition": "mri-cartesian",
        "method": {"name": "red-diff", "steps": 8},
    },
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return wheels.build(tmp_path_factory.mktemp("dist"))


def test_the_code_is_small_and_the_weights_are_beside_it(built: list[Path]) -> None:
    code, *data = built
    assert code.name.startswith("diffusion_recon-") and code.stat().st_size < 12e6
    with zipfile.ZipFile(code) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"diffusion_recon-{wheels.version()}.dist-info/METADATA").decode()
    assert not [
        name for name in names if name.endswith(".safetensors") or name.startswith(("tests", "tools", "examples"))
    ]
    listing = ["git", "ls-files", *wheels.PACKAGES]
    tracked = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)
    shipped = {name for name in tracked.stdout.split() if not name.startswith("recon/priors/weights/")}
    assert shipped <= names, "files that setuptools leaves out"
    inside = set[str]()
    for wheel in data:
        with zipfile.ZipFile(wheel) as archive:
            inside |= {Path(name).name for name in archive.namelist() if name.startswith("recon/priors/weights/")}
    assert inside == {path.name for path in (ROOT / wheels.WEIGHTS).iterdir()}
    for modality in wheels.priors():
        assert f"Requires-Dist: {wheels.data_package(modality)}~={wheels.version()}" in metadata


def test_an_empty_environment_reconstructs_without_the_checkout(built: list[Path], tmp_path: Path) -> None:
    """Needs a package index or a cache of torch and the others; takes some minutes and 2 GB."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    bin_ = place / ("Scripts" if sys.platform == "win32" else "bin")
    command = [bin_ / "python", "-m", "pip", "install", "--quiet", "--find-links", built[0].parent]
    wanted = ["-c", ROOT / "constraints.txt", "diffusion-recon[server]"]
    subprocess.run([str(part) for part in [*command, *wanted]], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RECON"))}

    def told(*arguments: str | Path) -> str:
        done = subprocess.run(arguments, cwd=empty, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    samples = told(bin_ / "python", "-c", "from recon.samples import SAMPLES; print(SAMPLES)")
    assert Path(samples).is_relative_to(place)
    assert told(bin_ / "recon", "--version") == f"recon {wheels.version()}"
    assert "brain-mri-sr" in told(bin_ / "recon", "priors")
    for name, job in JOBS.items():
        (empty / f"{name}.json").write_text(json.dumps(job).replace("{samples}", samples))
        told(bin_ / "recon", "run", f"{name}.json", "-o", name)
        report = json.loads((empty / name / "report.json").read_text())
        assert report["network_evaluations"] > 0 and report["misfit" if "misfit" in report else "data_misfit"]
        assert (empty / name / "volume.nii.gz").is_file() and (empty / name / "montage.png").is_file()
    told(bin_ / "python", "-c", SERVED)


SERVED = """
from pathlib import Path
import recon
from recon.cli.demo_server import server
from recon.samples import SAMPLES
import numpy as np
with server(Path("store")) as url, recon.Client(url) as client:
    kspace = np.load(SAMPLES / "mri_brain_8coil.npy")
    assert client.reconstruct(kspace, {"acquisition": "mri-cartesian", "method": "cg-sense"}).shape == (1, 230, 180)
"""
