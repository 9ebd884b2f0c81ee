"""Start-up of the command line: seconds of fresh processes, against importing torch alone."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CT = {"kind": "ct-parallel", "angles_rad": {"count": 60}, "detector_mm": 1.0}
FBP = {"input": "scan.npy", "acquisition": CT, "method": "fbp"}
RUN = ["-m", "recon.cli.main", "run", "job.yaml", "--out", "out"]
ONE_STEP = {
    "input": "wide.npy",
    "method": {"name": "red-diff", "steps": 1, "pnp_steps": 0},
    "output": {"montage": False, "baselines": []},
}
KEPT = "RED-Diff, 256 x 256, one step: kept on disk"
"""Case whose matrix and network an earlier process has kept; in all others nothing is kept."""
CASES: dict[str, tuple[list[str], dict[str, Any], int]] = {
    "import torch": (["-c", "import torch"], {}, 0),
    "import recon": (["-c", "import recon"], {}, 0),
    "recon --help": (["-m", "recon.cli.main", "--help"], {}, 0),
    "refused: no such file": (RUN, {"input": "missing.npy"}, 2),
    "refused: wrong shape": (RUN, {"acquisition": {**CT, "angles_rad": {"count": 50}}}, 2),
    "refused: unknown method": (RUN, {"method": "magic"}, 2),
    "small FBP": (RUN, {}, 0),
    "small FBP without montage": (RUN, {"output": {"montage": False}}, 0),
    "RED-Diff, 256 x 256, one step: nothing kept": (RUN, ONE_STEP, 0),
    KEPT: (RUN, ONE_STEP, 0),
}


def seconds(arguments: list[str], folder: Path, status: int, *, kept: bool = False) -> tuple[float, float]:
    """Wall-clock and computing time of a fresh process; `kept` lets it use what others have kept on disk."""
    cache = {"RECON_CACHE_DIR": str(folder / "cache"), **({} if kept else {"RECON_CACHE_BYTES": "0"})}
    shutil.rmtree(folder / "out", ignore_errors=True)
    began, before = time.perf_counter(), os.times()
    command, variables = [sys.executable, *arguments], {**os.environ, **cache}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=variables)
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode != status:
        sys.exit(f"{' '.join(arguments)}: status {done.returncode}, expected {status}\n{done.stderr}")
    user, system = after.children_user - before.children_user, after.children_system - before.children_system
    return wall, user + system


def medians(repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall-clock and computing time of each case; they take turns, so that another load meets them alike."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "scan.npy", np.ones((2, 60, 64), np.float32))
        wide = np.ones((4, 60, 256), np.float32)
        wide[..., :16], wide[..., -16:] = 0.0, 0.0  # air beside the object
        np.save(folder / "wide.npy", wide)
        found: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
        for _ in range(repeats):
            for case, (arguments, change, status) in CASES.items():
                (folder / "job.yaml").write_text(yaml.safe_dump({**FBP, **change}))
                if case == KEPT and not found[case]:
                    seconds(arguments, folder, status, kept=True)  # which keeps it
                found[case].append(seconds(arguments, folder, status, kept=case == KEPT))
    times = {case: list(zip(*pairs, strict=True)) for case, pairs in found.items()}
    return {case: (statistics.median(wall), statistics.median(cpu)) for case, (wall, cpu) in times.items()}
