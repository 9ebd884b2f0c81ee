"""The demonstration: two jobs through a real service, told stage by stage, with pictures at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recon.cli import demo, demo_server
from recon.samples import SAMPLES
from recon.spec.report import Report


@pytest.mark.slow
def test_the_demonstration_ends_with_pictures_and_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recon.cli.main", "demo"]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "ct: red-diff" in lines and "mri: red-diff" in lines and done.stderr == ""
    told = [line.strip() for line in lines[-4:]]
    assert told[:3] == [f"demo/{picture}" for picture in demo.PICTURES] and "http://127.0.0.1:8000/" in told[3]
    for picture in demo.PICTURES:
        assert (tmp_path / "demo" / picture).read_bytes().startswith(b"\x89PNG")
    ct, mri = (Report.read(tmp_path / "demo" / name / "report.json") for name in ("ct", "mri"))
    assert ct.against_truth is not None
    diffusion, classical = (ct.against_truth[method].psnr for method in ("red-diff", "tv"))
    assert diffusion is not None and classical is not None and diffusion > classical
    assert mri.misfit < 0.06


def test_the_demonstration_needs_nothing_but_shipped_samples() -> None:
    for spec in demo_server.jobs().values():
        assert Path(str(spec.input.path)).is_relative_to(SAMPLES)
