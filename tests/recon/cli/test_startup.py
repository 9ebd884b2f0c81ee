"""A command imports what it needs: a refused job no torch, a job of one method nothing of the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from recon.samples import SAMPLES

CODE = """
import sys
from pathlib import Path
from recon.cli.main import main
try:
    main()
finally:
    Path("modules").write_text(" ".join(sys.modules))
"""
CT = {"kind": "ct-parallel", "angles_rad": {"count": 60}, "detector_mm": 1.0}
FBP: dict[str, Any] = {"input": "scan.npy", "acquisition": CT, "method": "fbp", "output": {"montage": False}}
NOT_BY_FBP = {
    "monai",
    "sigpy",
    "numba",
    "scipy.signal",
    "scipy.stats",
    "scipy.interpolate",
    "openvino",
    "celery",
    "httpx",
    "fastapi",
}
HEAVY = NOT_BY_FBP | {"torch", "astra", "scipy.sparse", "matplotlib"}


def imported(folder: Path, *arguments: str, status: int = 0, says: str = "") -> set[str]:
    """Modules of a fresh process that has run a command."""
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, cwd=folder)
    assert done.returncode == status and says in done.stdout + done.stderr, done.stderr
    return set((folder / "modules").read_text().split())


def run(folder: Path, job: dict[str, Any], **expected: Any) -> set[str]:
    scan = np.ones((2, 60, 64), np.float32)
    scan[..., :8], scan[..., -8:] = 0.0, 0.0  # air beside the object, as in a scan that sees it whole
    np.save(folder / "scan.npy", scan)
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return imported(folder, "run", "job.yaml", "--out", "out", **expected)


def test_help_imports_nothing_that_computes(tmp_path: Path) -> None:
    assert not imported(tmp_path, "--help", says="Reconstruct one job") & (HEAVY | {"nibabel", "h5py"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input": "missing.npy"}, "there is no file missing.npy"),
        ({"acquisition": {**CT, "angles_rad": {"count": 50}}}, "50 angles for a sinogram of shape (2, 60, 64)"),
        ({"method": "magic"}, "'magic'"),
    ],
    ids=["no such file", "wrong shape", "unknown method"],
)
def test_a_job_is_refused_before_torch_is_imported(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    assert not run(tmp_path, {**FBP, **change}, status=2, says=says) & HEAVY


def test_results_that_exist_and_memory_that_is_short_are_refused_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("RECON_MAX_JOB_BYTES", "1000")
        assert not run(tmp_path, FBP, status=2, says="RECON_MAX_JOB_BYTES") & HEAVY
    (tmp_path / "out").mkdir()
    assert not run(tmp_path, FBP, status=2, says="out exists already") & HEAVY


def test_an_mri_job_imports_nothing_of_ct_and_of_simulation(tmp_path: Path) -> None:
    scan = {"input": str(SAMPLES / "mri_brain_8coil.npy"), "acquisition": "mri-cartesian"}
    job = {**scan, "method": "cg-sense", "output": {"montage": False}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    modules = imported(tmp_path, "run", "job.yaml", "--out", "out", says="misfit")
    assert "torch" in modules and not modules & {
        "astra",
        "scipy.ndimage",
        "scipy.interpolate",
        "scipy.spatial",
        "numba",
    }


def test_a_job_imports_nothing_of_other_methods(tmp_path: Path) -> None:
    plain = run(tmp_path, FBP, says="misfit")
    assert "torch" in plain and not plain & (NOT_BY_FBP | {"matplotlib"})
    (tmp_path / "out").rename(tmp_path / "before")
    drawn = run(tmp_path, {**FBP, "output": {"montage": True}}, says="misfit")
    assert "matplotlib" in drawn and not drawn & (NOT_BY_FBP | {"matplotlib.pyplot"})


@pytest.mark.parametrize("entry", ["recon.cli.main", "workers.app"])
@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["nothing", "spins", "policy"],
)
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(
    entry: str, given: dict[str, str], spins: str
) -> None:
    """Set before torch is imported, since its OpenMP reads it once."""
    code = f"import os, sys, {entry}; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env={**clean, **given}, capture_output=True, text=True)
    assert done.stdout.split() == ["False", spins], done.stderr
