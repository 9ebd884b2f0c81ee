"""A job has the same bits with a cold and a warm cache on disk, and without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from operators import disk_cache, system_matrix
from recon.pipeline.reconstruct import run
from recon.priors import engine, registry
from recon.spec.job import JobSpec, local_files
from tests.conftest import voxels


def test_a_job_has_the_same_bits_cold_warm_and_without_a_cache(
    tmp_path: Path, ct_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = JobSpec.parse(
        {
            "input": {"path": str(ct_file), "slices": [1, 3], "simulate": {"views": 20, "photons_per_ray": 1e5}},
            "acquisition": {"kind": "ct-parallel"},
            "method": {"name": "red-diff", "steps": 3, "pnp_steps": 2},
            "output": {"montage": False},
        }
    )
    monkeypatch.setattr(disk_cache, "_used", None)  # put back afterwards, as the next
    monkeypatch.setattr(system_matrix, "cache", system_matrix.cache)
    monkeypatch.setenv("RECON_CACHE_DIR", str(tmp_path / "kept"))

    def volume(name: str) -> np.ndarray:
        system_matrix.cache = system_matrix.MatrixCache()
        registry._network.cache_clear()
        run(spec, local_files(spec), tmp_path / name)
        return voxels(tmp_path / name / "volume.nii.gz")

    cold = volume("cold")
    assert {path.name.split("-")[0] for path in (tmp_path / "kept").iterdir()} == {"matrix", "network"}
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_converted", None)  # neither is called
        patch.setattr(system_matrix, "build", None)
        warm = volume("warm")
    monkeypatch.setenv("RECON_CACHE_BYTES", "0")
    without = volume("without")
    registry._network.cache_clear()
    assert np.array_equal(warm, cold) and np.array_equal(without, cold)
