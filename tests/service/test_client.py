"""The client against a whole service: an array in, an array out; waiting instead of polling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from operators.errors import ReconError
from recon.client.client import Client
from recon.spec.job import JobSpec


@pytest.mark.usefixtures("all_cores")  # as the worker: sums of another number of threads round otherwise
def test_an_array_goes_in_and_a_volume_comes_out(service: tuple[str, Path], tmp_path: Path) -> None:
    from recon.pipeline.reconstruct import run
    from recon.spec.job import local_files

    image = np.zeros((2, 24, 24), np.float32)
    image[:, 8:16, 6:14] = 0.02
    sinogram = np.stack([image.sum(axis=1)] * 12, axis=1)  # the same projection from everywhere is data enough
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 12}, "detector_mm": 1.0}
    spec = {"acquisition": acquisition, "method": "fbp"}
    with Client(service[0]) as client:
        volume = client.reconstruct(sinogram, spec)
        same = client.reconstruct(sinogram, JobSpec.parse({**spec, "input": {"path": "any", "format": "numpy"}}))
    np.save(tmp_path / "sinogram.npy", sinogram)
    offline = JobSpec.parse(
        {**spec, "input": str(tmp_path / "sinogram.npy"), "output": {"format": "numpy", "montage": False}}
    )
    run(offline, local_files(offline), tmp_path / "offline")
    assert volume.shape[0] == 2
    assert np.array_equal(volume, np.load(tmp_path / "offline" / "volume.npy")) and np.array_equal(volume, same)


def test_the_clients_errors_are_the_jobs(service: tuple[str, Path]) -> None:
    acquisition = {"kind": "ct-parallel", "angles_rad": {"count": 12}, "detector_mm": 1.0}
    with Client(service[0]) as client:
        with pytest.raises(ReconError, match="angles_rad"):
            client.reconstruct(np.zeros((5, 20), np.float32), {"acquisition": acquisition, "method": "fbp"})
        with pytest.raises(ReconError, match="method"):
            client.reconstruct(np.zeros((12, 20), np.float32), {"acquisition": acquisition, "method": "magic"})
